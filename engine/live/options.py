"""How a partition is run, and what decodes its records."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rfmstream.engine.live.law import Clock
from rfmstream.engine.live.model import LogBatch, RawRecords
from rfmstream.engine.live.partition import STEP_CHANGES
from rfmstream.engine.live.saver import ERASE_WITHIN_US

if TYPE_CHECKING:
    from rfmstream.engine.live.view_history import ViewHistory


class Decodes(Protocol):
    """Turns records into rows; `engine.live.decode.Decoder`, or by a map `engine.live.mapped.MappedDecoder`."""

    @property
    def blocks(self) -> bool:
        """Whether it may wait for others: then it is not to be called on the event loop."""
        ...

    def decode(self, records: RawRecords) -> LogBatch:
        """Return the rows of records, or of as many of the first as can be decoded together."""
        ...


@dataclass(frozen=True)
class RunnerOptions:
    """How to run a partition.

    Fields  clock                 log: the records' time, ticks when all is read; event: the newest event, mode=replay
            tolerance_us          clock log: how far beyond the clock an event may be dated
            checkpoint_interval_s how often the state is written
            erase_within_us       so long after a customer was erased no checkpoint holds its orders
            resegment             names of views whose state of another ruleset goes on by theirs, True: all; else it is
                                  refused
            accept_gap            do without records, ticks or an offset that are gone; else they are missed
            until_end             stop at the offset that was the end at the start, see `Runner.finished`
            as_of_us              with until_end: where time ends
            retries               how often a call of the log is tried again before TransportError leaves here
            backoff_s             wait before the first of them; it doubles up to backoff_max_s
            feed_bytes_max        values that are longer together are decoded and applied in parts: a fetch that is
                                  compressed may hold a thousand times its size
            step_changes          tier changes from which on a step ends where it can
            topic_id              of the input topic as it is now; None: the brokers do not tell
            input_map             the fingerprint of the map that reads the records, if one does
            current_topic         where the newest changes go, written down where a history begins
            history               files that views which join a running state begin with; None: with the topic
    """

    clock: Clock = "log"
    tolerance_us: int = 300_000_000
    checkpoint_interval_s: float = 60.0
    erase_within_us: int = ERASE_WITHIN_US
    resegment: bool | Collection[str] = False
    accept_gap: bool = False
    until_end: bool = False
    as_of_us: int | None = None
    retries: int = 60
    backoff_s: float = 0.1
    backoff_max_s: float = 5.0
    feed_bytes_max: int = 1 << 28
    step_changes: int = STEP_CHANGES
    topic_id: str | None = None
    input_map: str | None = None
    current_topic: str | None = None
    history: "ViewHistory | None" = None
