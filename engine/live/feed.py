"""The newest committed tier changes of this worker, in the order of their commits, for whoever follows them.

What has been committed is kept as the tables it came in, up to a bound, and turned into JSON only where somebody reads
it. An offset is the worker's start and a count, as 18f3a2c4d10-1042: the one of a change is where it stands, and who
goes on from it gets those after it. A restart begins a new count, since what came before is in the topic, not here.
"""

import asyncio
import re
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import chain, islice
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.live.encode import Encoder
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.plan import View
from rfmstream.schemas.ruleset import Ruleset

ROWS_MAX: Final = 100_000
BYTES_MAX: Final = 64 << 20
LINES_MAX: Final = 256
"""So many changes are turned into JSON at once: that takes some milliseconds."""

_OFFSET: Final = re.compile(r"([0-9a-f]{1,16})-([0-9]{1,18})")
_CACHED_MAX: Final = 64


class LostError(Exception):
    """What is asked for is not kept any more, or was another start's."""


class Line(NamedTuple):
    """A change as JSON, as the topic of the changes has it, and its offset."""

    offset: str
    value: bytes


class Feed:
    """Keeps the newest committed changes.

    In      views  whose changes come, where there are others than the one of all orders
            rows_max, bytes_max  how many are kept, and how much memory they may take
    Fields  end  how many changes there have been since the worker's start
    """

    def __init__(
        self,
        ruleset: Ruleset,
        *,
        views: Sequence[View] = (),
        rows_max: int = ROWS_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        self.began_us = time.time_ns() // 1000
        # In µs, so that two feeds of one start have offsets of their own.
        self.epoch = f"{self.began_us:x}"
        self.end = 0
        self._rows_max = rows_max
        self._bytes_max = bytes_max
        self._tables: deque[pa.Table] = deque()
        self._begins: deque[int] = deque()
        self._sizes: deque[int] = deque()
        self._views: deque[str] = deque()
        self._bytes = 0
        self._encoder = Encoder(ruleset, source="/rfmstream/feed")
        self._encoders = {view.name: Encoder(view.ruleset, source="/rfmstream/feed") for view in views}
        self._waiters: list[asyncio.Future[None]] = []
        self._encoded: dict[int, Sequence[Line]] = {}

    @property
    def begin(self) -> int:
        """The place of the oldest change that is kept."""
        return self._begins[0] if self._begins else self.end

    def offset(self, place: int) -> str:
        """Return a place as whoever follows writes it."""
        return f"{self.epoch}-{place}"

    def add(self, changes: pa.Table) -> None:
        """Take changes in that were committed; on the worker's loop. Costs microseconds, however many there are."""
        if not changes.num_rows:
            return
        self._tables.append(changes)
        self._begins.append(self.end)
        self._sizes.append(changes.nbytes)
        self._views.append(_view_of(changes))
        self._bytes += self._sizes[-1]
        self.end += changes.num_rows
        # A step is kept whole or not at all, and the newest one always.
        while len(self._tables) > 1 and (
            self.end - self.begin > self._rows_max or self._bytes > self._bytes_max
        ):
            self._tables.popleft()
            self._begins.popleft()
            self._bytes -= self._sizes.popleft()
            self._views.popleft()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def place_of(self, text: str) -> int:
        """Return the place behind an offset that was handed out: `oldest`, `newest`, or as `offset` writes it.

        Errors  ConfigError  no offset
                LostError    not kept any more, or another start's
        """
        if text == "oldest":
            return self.begin
        if text == "newest":
            return self.end
        found = _OFFSET.fullmatch(text)
        if found is None:
            raise ConfigError(
                f"{text[:80]!r} is no offset",
                key="from",
                fix="write oldest, newest, or one that a change had",
            )
        place = int(found[2])
        if found[1] != self.epoch or not self.begin <= place <= self.end:
            raise LostError
        return place

    async def wait(self, place: int) -> None:
        """Wait until there is a change behind a place."""
        if self.end > place:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def lines(self, place: int) -> Sequence[Line]:
        """Return some changes from a place on, at most LINES_MAX.

        Errors  LostError  they are not kept any more
        """
        if place < self.begin:
            raise LostError
        if place >= self.end:
            return []
        # Everybody who follows asks for the same places, one after another.
        found = self._encoded.get(place)
        if found is None:
            table = self.rows(place, LINES_MAX)
            found = await asyncio.to_thread(self.encoded, table, place)
            if len(self._encoded) >= _CACHED_MAX:
                self._encoded.clear()
            self._encoded[place] = found
        return found

    def rows(self, place: int, count: int) -> pa.Table:
        """Return at most `count` changes from a place on, those of one commit."""
        at = bisect_right(self._begins, place) - 1
        return self._tables[at].slice(place - self._begins[at], count)

    def since(self, place: int, view: str | None = None) -> list[pa.Table]:
        """Return what is kept from a place on, oldest first, the changes of a commit each; of a view, None: of all."""
        first = max(bisect_right(self._begins, place) - 1, 0)
        kept = islice(zip(self._begins, self._tables, self._views, strict=True), first, None)
        return [
            table if begin >= place else table.slice(place - begin)
            for begin, table, name in kept
            if view in (None, name)
        ]

    async def of_customer(
        self, id_: str, view: str | None = None, population: str | None = None
    ) -> Sequence[Line]:
        """Return what is kept of one customer, oldest first; of a view and a population, None: of all."""
        kept = [
            (begin, table)
            for begin, table, name in zip(self._begins, self._tables, self._views, strict=True)
            if view in (None, name)
        ]
        return await asyncio.to_thread(self._of_customer, kept, id_, population)

    def _of_customer(
        self, kept: Sequence[tuple[int, pa.Table]], id_: str, population: str | None
    ) -> Sequence[Line]:
        found: list[Line] = []
        for begin, table in kept:
            is_it = pc.equal(table["customer_id"], id_)
            if population is not None:
                is_it = pc.and_(is_it, pc.equal(table["population"], population))
            rows = pc.indices_nonzero(is_it).to_pylist()
            found += [self.encoded(table.slice(row, 1), begin + row)[0] for row in rows]
        return found

    def encoded(self, table: pa.Table, place: int) -> Sequence[Line]:
        """Return changes of one view that are kept here, from a place on, as their topic has them."""
        encoder = self._encoders.get(_view_of(table), self._encoder)
        records = chain.from_iterable(records for records, _ in encoder.parts(table))
        return [Line(self.offset(at), record.value or b"") for at, record in enumerate(records, place + 1)]


def _view_of(table: pa.Table) -> str:
    """Return whose changes these are: the tables of a commit are one view's each."""
    view: str = table["view"][0].as_py() if table.num_rows else ""
    return view
