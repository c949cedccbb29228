"""What the parts of the live worker hand to each other, and what a partition needs of its log.

    RawRecords --decode--> LogBatch --Partition--> Step --PartitionLog.commit--> the log

A partition's state follows from its records and its ticks alone, so a restart repeats the same history. A tick records
that, with everything before an offset applied, time passed up to an instant.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.schemas.errors import TransportError

_T = TypeVar("_T")

Headers = Sequence[tuple[str, bytes]]

JOINS: Final = "+"
"""Stands between the names of topics that are read as one."""


class Source(NamedTuple):
    """One partition of an input topic, or of several that are read as one log: what state and output belong to.

    Fields  topic  of several topics their names in order, joined by a plus, which no name has
    """

    topic: str
    partition: int

    @classmethod
    def of(cls, topics: Iterable[str], partition: int) -> Self:
        """Return what is made of the partitions of a number in some topics."""
        return cls(JOINS.join(sorted(set(topics))), partition)

    @property
    def parts(self) -> "tuple[Source, ...]":
        """The partitions that are read as one: itself, where it is of one topic."""
        return tuple(Source(topic, self.partition) for topic in self.topic.split(JOINS))

    @property
    def is_merged(self) -> bool:
        """Whether several topics are read as one."""
        return JOINS in self.topic

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class RawRecords(NamedTuple):
    """Records of one partition as they were fetched, in order of their offsets.

    Sequences of any kind: those of engine.live.spans, and memoryviews of i64, hold no object for a record.

    Fields  keys, values  bytes, or None as the log allows
            headers       of each record
            timestamps_ms the log's time of each record, ms since 1970 UTC
            offsets       of each record; there may be gaps
            position      the offset to read next
    """

    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers]
    timestamps_ms: Sequence[int]
    offsets: Sequence[int]
    position: int


class Rejection(NamedTuple):
    """A row that changed nothing.

    Fields  reason    a word of schemas.orders.REJECTION_REASONS
            views     the names of the views that rejected it, where there are several
            key       of its record
            original  the record's bytes; of a record of many rows, the row's own
            offset    of its record
            row       0-based place of the row in its record
            log_us    the record's time, µs
            detail    what stands there, where a reason alone does not tell
    """

    reason: str
    key: bytes | None
    original: bytes | None
    offset: int
    row: int
    log_us: int
    detail: str | None = None
    views: tuple[str, ...] = ()


@dataclass(frozen=True)
class LogBatch:
    """The rows of consecutive records of one partition.

    Fields  records    what the rows were read from
            orders     schemas.orders.CANONICAL_SCHEMA; `row` is the ordinal of a row among all rows of the records
            record_of  i64[orders.num_rows], the ordinal of the record each came in
            refused    rows that are no orders, in order of their offsets
            firsts     i64[records + 1], the ordinal of each record's first row, and how many rows there are
            position   the offset to read next
            texts      of each row, where the rows of a record are not to be found in its bytes without more; empty:
                       the record's bytes. A row may then give several orders
            left_out   objects that a map leaves out by its [[exclude]] sections
            reading    the currency and the time zone by which they were read
            others     the same records, read by others
    """

    records: RawRecords
    orders: pa.RecordBatch
    record_of: NDArray[np.int64]
    refused: list[Rejection]
    firsts: NDArray[np.int64]
    position: int
    texts: Sequence[bytes] | None = None
    left_out: int = 0
    reading: tuple[str, str] = ("", "")
    others: tuple["LogBatch", ...] = ()

    def read_by(self, reading: tuple[str, str]) -> "LogBatch":
        """Return the rows as they are read by a currency and a time zone."""
        if not self.others:
            return self
        return next(batch for batch in (self, *self.others) if batch.reading == reading)


class Runs(Protocol):
    """Calls a function on the event loop or in another thread, so that it keeps nobody waiting."""

    async def __call__(self, call: Callable[[], _T], *, small: bool = False) -> _T:
        """Return what it returns.

        small  it takes a few milliseconds at most: to be woken in another thread, and to wake this one again, can
               take longer
        """
        ...


class Tick(NamedTuple):
    """Time was let pass up to `clock_us` with everything before offset `position` applied.

    Fields  ruleset  the law (engine.live.law: ruleset, clock, tolerance) from then on, where it begins or changes, else
                     None. A partition's first tick names the law and passes no time
            until    no time passes: records of offsets [position, until) whose time lies further ahead of `clock_us`
                     than the tolerance count as of `clock_us`, which was the wall clock when they were first read
            topic_id of the input topic, where a history begins in one
            current  the topic of the newest changes that an application writes, where its history begins
            joining  no time passes: how far views that join have told, by name; with `ruleset`, how they have joined.
                     As `engine.live.joining.Begun.noted`
    """

    position: int
    clock_us: int
    ruleset: str | None = None
    until: int | None = None
    topic_id: str | None = None
    current: str | None = None
    joining: Mapping[str, Mapping[str, Any]] | None = None

    def noted(self) -> dict[str, Any]:
        """Return what is written down of it."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class Forgotten(NamedTuple):
    """A customer that was erased.

    Fields  before       how many tier changes of the step come before the erasure, its own among them
            customer_id  as in the changes
            population   the customer's; None: the view has none
    """

    before: int
    customer_id: str
    population: str | None = None


@dataclass(frozen=True)
class Told:
    """What a view tells in a step.

    Fields  view, and as in `Step`
    """

    view: str
    changes: pa.Table
    signals: pa.Table | None = None
    forgotten: Sequence[Forgotten] = ()


@dataclass(frozen=True)
class Step:
    """What goes into one transaction.

    Fields  changes     tier changes, schemas.changes
            signals     schemas.signals; None: the ruleset asks for none, or there are none
            rejections  rows that changed nothing
            position    the input offset to commit
            tick        the tick that brought the changes, if one did
            forgotten   customers that were erased, in order
            view        the view whose these are; "": there is but one
            further     what other views tell
            ordered     of several topics: the order in which records before this offset are read is written down, too
    """

    changes: pa.Table
    rejections: Sequence[Rejection]
    position: int
    tick: Tick | None = None
    signals: pa.Table | None = None
    forgotten: Sequence[Forgotten] = ()
    view: str = ""
    further: Sequence[Told] = ()
    ordered: int = 0

    @property
    def told(self) -> list[Told]:
        """What each view tells."""
        return [Told(self.view, self.changes, self.signals, self.forgotten), *self.further]


class Committed(NamedTuple):
    """What the log holds of a partition's progress.

    Fields  position  the committed offset; None if there is none
            token     the text that was committed with it
    """

    position: int | None
    token: str


class Bounds(NamedTuple):
    """The first offset a partition still holds, and the one after its last."""

    begin: int
    end: int


class FencedError(TransportError):
    """Another owner of the partition has taken over: stop, emit nothing."""


class PartitionLog(Protocol):
    """A partition's input progress and its output, written in transactions that only one owner can make.

    Every method raises  FencedError     where another owner took over
                         TransportError  where the log did not answer; whether a commit happened is then unknown
    """

    async def open(self) -> Committed:
        """Take the partition over: fence earlier owners, end what they left open, and return what is committed.

        May be called again after an error.
        """
        ...

    async def bounds(self) -> Bounds:
        """Return the offsets the input partition holds; to be asked after `ticks`."""
        ...

    @property
    def mark(self) -> int:
        """The place in the log behind the last tick that was read or committed here; see `ticks`."""
        ...

    async def ticks(self, mark: int = 0) -> list[Tick]:
        """Return the committed ticks of the partition from a mark on, oldest first; 0: all."""
        ...

    def place(self, offset: int) -> tuple[Source, int]:
        """Return where a record of a step that was committed last, or is to be next, is in its topic."""
        ...

    async def commit(self, step: Step, token: str) -> None:
        """Write all of a step and its position, or nothing."""
        ...

    async def close(self) -> None:
        """Close; never raises."""
        ...
