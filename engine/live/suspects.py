"""Which records of a partition are left out because they ended a worker, and which are read on trial first.

A note beside the checkpoints says that a worker has the partition. One that is stopped in order, or gives the partition
up, takes it back; so where it is found, that worker died. Then what comes next is read on trial
(engine.live.trials) up to where it may have been, and what ends a process is left out: `malformed`. Their offsets stay
noted, as a history that is repeated has to leave them out again.
"""

import logging
from collections.abc import Collection
from dataclasses import replace
from typing import Final, Protocol

from rfmstream.engine.live.model import LogBatch, RawRecords, Source
from rfmstream.engine.live.options import Decodes
from rfmstream.engine.live.store import Store
from rfmstream.engine.live.stored import Note

TRIED_MAX: Final = 1 << 19
"""Offsets from the committed one on that are read on trial: no worker has more of a partition in its hands."""

_BLANK: Final = b"\0"
"""What is decoded in the place of a record that is left out: it is no order in any form."""

_log = logging.getLogger(__name__)


class Tries(Protocol):
    """Reads records on trial; `engine.live.trials.Trials`."""

    def poison(self, records: RawRecords) -> list[int]:
        """Return the offsets of records that end whoever reads them."""
        ...


class Suspects:
    """Those of one partition.

    In      trials  None: nothing is read on trial, and nothing noted
    """

    def __init__(self, source: Source, store: Store, trials: Tries | None) -> None:
        self._source = source
        self._store = store
        self._trials = trials
        self._poison: set[int] = set()
        self._until = 0
        self._is_ours = False

    def begin(self, offset: int, committed: int, end: int) -> None:
        """Take note that a worker has the partition, and look whether the one before it died.

        In      offset     where records are read from
                committed  the offset that is committed
                end        of the log
        """
        if self._trials is None:
            return
        before = self._store.noted(self._source)
        self._poison = {at for at in before.poison if at >= offset}
        is_suspect = before.is_running and not self._is_ours
        self._until = min(end, committed + TRIED_MAX) if is_suspect else 0
        self.take()

    def take(self) -> None:
        """Take note that a worker has the partition."""
        self._note(is_running=True)

    def leave(self) -> None:
        """Take note that no worker has it: the one that had it was stopped in order, or gave it up."""
        self._note(is_running=False)

    def are_in(self, records: RawRecords) -> bool:
        """Tell whether records are to be read on trial, which takes seconds."""
        return len(records.offsets) > 0 and records.offsets[0] < self._until

    def decode(self, decoder: Decodes, records: RawRecords) -> LogBatch:
        """Return the rows of records; those that are poison are rows that are refused."""
        if self._trials is not None and self.are_in(records):
            self._try(self._trials, records)
        if not self._poison:
            return decoder.decode(records)
        originals = {
            int(offset): records.values[at]
            for at, offset in enumerate(records.offsets)
            if offset in self._poison
        }
        if not originals:
            return decoder.decode(records)
        batch = decoder.decode(_without(records, originals))
        refused = [
            rejection._replace(original=originals[rejection.offset])
            if rejection.offset in originals
            else rejection
            for rejection in batch.refused
        ]
        return replace(batch, refused=refused)

    def _try(self, trials: Tries, records: RawRecords) -> None:
        known = {at for at in self._poison if at in set(records.offsets)}
        found = set(trials.poison(_without(records, known) if known else records))
        if found - self._poison:
            for offset in sorted(found - self._poison):
                _log.error(
                    "a record ended the worker and is left out",
                    extra={"partition": str(self._source), "offset": offset},
                )
            self._poison |= found
            self.take()

    def _note(self, *, is_running: bool) -> None:
        if self._trials is not None:
            self._is_ours = is_running
            self._store.note(self._source, Note(is_running, tuple(sorted(self._poison))))


def _without(records: RawRecords, poison: Collection[int]) -> RawRecords:
    """Return records of which some hold nothing but a blank: their bytes are looked at by nobody."""
    is_poison = [offset in poison for offset in records.offsets]
    return records._replace(
        values=[_BLANK if bad else value for value, bad in zip(records.values, is_poison, strict=True)],
        headers=[() if bad else each for each, bad in zip(records.headers, is_poison, strict=True)],
    )
