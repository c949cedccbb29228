"""The sending of one destination as a state machine: what may leave now, and what an answer means for the rest.

It knows no clock, no socket and no broker: every call is told the time, and whoever runs it sends the batches that
`take` gives and reports what came of each. So a midnight of 100,000 changes is tested in simulated time.

    offer(item)                    an event waits in the lane of its customer
    take(now)      -> batches      to be sent now; their lanes are busy until they are finished
    answer(batch, verdict, now)    -> rows to be told of as rejected; the caller finishes each when it has done so
    due_s(now)     -> instant      when `take` may give something without anything else happening

Holds   Of a lane at most one item is on its way: a customer's events arrive in order, whatever is split or retried.
        A retry keeps its batch and its lanes; other lanes go on.
"""

import heapq
import random
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from rfmstream.engine.deliver.backoff import Backoff
from rfmstream.engine.deliver.model import (
    Delivered,
    Item,
    Parked,
    Place,
    Refused,
    TryAgain,
    Verdict,
)
from rfmstream.engine.deliver.progress import Progress
from rfmstream.engine.deliver.rates import Rate, Rates

DOWN_AFTER: Final = 10
"""Failures on end after which a destination counts as down: one request at a time asks whether it is back."""


@dataclass(frozen=True)
class Pace:
    """How fast a destination takes what.

    Fields  rates        requests in fixed windows
            batch        events of a request at most
            batch_bytes  bytes of their rows at most, separators counted; a single longer one goes alone
            concurrency  requests at a time
            in_flight    events that have left and whose end is not committed at most: what a crash may repeat
            coalesce     of what waits only a customer's newest leaves
    """

    rates: Sequence[Rate] = ()
    batch: int = 1
    batch_bytes: int = 1 << 20
    concurrency: int = 16
    in_flight: int = 1000
    coalesce: bool = False
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(slots=True)
class Batch:
    """Items that travel in one request."""

    items: list[Item]
    tries: int = 0


class Rejection(NamedTuple):
    """A row that the destination refused."""

    item: Item
    status: int
    text: bytes


class Commit(NamedTuple):
    """What can be committed of a partition."""

    offset: int
    metadata: str


class Lanes:
    """The state of one destination's delivery."""

    def __init__(self, pace: Pace, *, seed: int = 0) -> None:
        self.pace = pace
        self.counts: Counter[str] = Counter()
        self.parked: str | None = None
        self.parked_at_s = 0.0
        self.held: str | None = None
        self.trouble: str | None = None
        self._progress: dict[Place, Progress] = {}
        self._lanes: dict[str, deque[Item]] = {}
        self._ready: deque[str] = deque()
        self._parts: deque[Batch] = deque()
        self._retries: list[tuple[float, int, Batch]] = []
        self._turn = 0
        self._rates = Rates(pace.rates)
        self._chance = random.Random(seed)  # noqa: S311 - jitter
        self._flying: dict[int, Batch] = {}
        self._away = 0
        self._unsettled: Counter[Place] = Counter()
        self._unsettled_all = 0
        self._failures = 0
        self._paused_until_s = 0.0

    # What is read

    def begin(self, place: Place, position: int) -> None:
        """Take a partition over, from a position on."""
        self._progress[place] = Progress(position)

    def drop(self, places: Iterable[Place]) -> None:
        """Give partitions up: what waits of them is forgotten, what is on its way finishes for nobody."""
        gone = set(places)
        for place in gone:
            self._progress.pop(place, None)
            self._unsettled_all -= self._unsettled.pop(place, 0)
        for waiting in self._lanes.values():
            for item in waiting:
                item.is_dropped = item.is_dropped or item.event.place in gone
        for batch in [*self._flying.values(), *self._left()]:
            for item in batch.items:
                item.is_dropped = item.is_dropped or item.event.place in gone

    def note(self, place: Place, offset: int) -> None:
        """Take note of a record that is read."""
        if place in self._progress:
            self._progress[place].begin(offset)

    def skip(self, place: Place, position: int) -> None:
        """Take note that there is nothing more to do up to a position."""
        if place in self._progress:
            self._progress[place].skip(position)

    def done(self, place: Place, offset: int) -> None:
        """Take note that a record needs nothing more."""
        if place in self._progress:
            self._progress[place].finish(offset)

    def offer(self, item: Item) -> None:
        """Let an item, whose record was noted, wait for its turn."""
        waiting = self._lanes.get(item.lane)
        if waiting is None:
            self._lanes[item.lane] = deque((item,))
            self._ready.append(item.lane)
            return
        if self.pace.coalesce and item.coalesce is not None:
            for older in waiting:
                if older.coalesce == item.coalesce:
                    waiting.remove(older)
                    if not older.is_dropped:
                        self.counts["coalesced"] += 1
                        self.done(older.event.place, older.event.offset)
                    break
        waiting.append(item)

    # What leaves

    def take(self, now_s: float) -> list[Batch]:
        """Return the batches to be sent now."""
        batches: list[Batch] = []
        while self._may_send(now_s):
            batch = self._next_batch(now_s)
            if batch is None:
                break
            self._flying[id(batch)] = batch
            self._rates.take()
            batch.tries += 1
            batches.append(batch)
        return batches

    def due_s(self, now_s: float) -> float | None:
        """Return when `take` may give something although nothing else happens; None: there is no such instant."""
        if self.parked or self.held or self.requests >= self._requests_max:
            return None
        candidates = [self._retries[0][0]] if self._retries else []
        if self._parts or (self._ready and self._room > 0):
            candidates.append(now_s)
        free_s = self._rates.free_at_s(now_s)
        if not candidates or free_s is None:
            return None
        return max(min(candidates), free_s, self._paused_until_s)

    def answer(self, batch: Batch, verdict: Verdict, now_s: float) -> list[Rejection]:
        """Take in what came of a batch; return the rows that are rejected, which the caller has to `finish`."""
        del self._flying[id(batch)]
        self._rates.answered(now_s)
        if isinstance(verdict, Delivered):
            return self._delivered(batch, verdict)
        if isinstance(verdict, Refused):
            return self._refused(batch, verdict)
        if isinstance(verdict, Parked):
            self.parked, self.parked_at_s = verdict.reason, now_s
            batch.tries -= 1
            self._parts.appendleft(batch)
            return []
        self._try_again(batch, verdict, now_s)
        return []

    def broke_off(self, batch: Batch, now_s: float) -> None:
        """Take a batch back whose request was cancelled."""
        del self._flying[id(batch)]
        self._rates.answered(now_s)
        self._parts.appendleft(batch)

    def finish(self, item: Item) -> None:
        """Take note that an item has arrived or is told of as rejected: its lane goes on."""
        self._away -= 1
        place = item.event.place
        if not item.is_dropped and place in self._progress:
            self._unsettled[place] += 1
            self._unsettled_all += 1
            self._progress[place].finish(item.event.offset)
        waiting = self._lanes.get(item.lane)
        if waiting:
            self._ready.append(item.lane)
        else:
            self._lanes.pop(item.lane, None)

    def unpark(self) -> None:
        """Try the destination again."""
        self.parked = None

    # What is committed

    def commits(self) -> dict[Place, Commit]:
        """Return what can be committed of each partition."""
        return {
            place: Commit(progress.lowest, progress.metadata()) for place, progress in self._progress.items()
        }

    def unsettled(self) -> Counter[Place]:
        """Return how many events of each partition have arrived since what was committed."""
        return Counter(self._unsettled)

    def settled(self, counts: Counter[Place]) -> None:
        """Take note that so many of them are committed now."""
        for place, count in counts.items():
            # A partition that was given up meanwhile is settled by whoever has it now.
            done = min(count, self._unsettled[place])
            self._unsettled[place] -= done
            self._unsettled_all -= done

    # What is shown

    @property
    def unfinished(self) -> int:
        """Records that were read and are not finished, and those finished behind them."""
        return sum(map(len, self._progress.values()))

    @property
    def requests(self) -> int:
        """Requests without an answer."""
        return len(self._flying)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, travels or is to be told."""
        return not (self._lanes or self._parts or self._retries or self._flying)

    @property
    def failures(self) -> int:
        """Failures on end."""
        return self._failures

    def is_down(self) -> bool:
        """Tell whether the destination has failed so often on end that it is asked one request at a time."""
        return self._failures >= DOWN_AFTER

    def waiting(self) -> Iterator[Item]:
        """Yield what has not arrived, in no order."""
        for batch in [*self._flying.values(), *self._left()]:
            yield from batch.items
        for lane in self._lanes.values():
            yield from lane

    # Inside

    def _left(self) -> Iterator[Batch]:
        yield from self._parts
        for _, _, batch in self._retries:
            yield batch

    @property
    def _requests_max(self) -> int:
        return 1 if self.is_down() else self.pace.concurrency

    @property
    def _room(self) -> int:
        """Events that may still leave before more of the arrived ones are committed."""
        return self.pace.in_flight - self._away - self._unsettled_all

    def _may_send(self, now_s: float) -> bool:
        return (
            self.parked is None
            and self.held is None
            and self.requests < self._requests_max
            and self._paused_until_s <= now_s
            and self._rates.free_at_s(now_s) == now_s
        )

    def _next_batch(self, now_s: float) -> Batch | None:
        while True:
            if self._parts:
                batch = self._parts.popleft()
            elif self._retries and self._retries[0][0] <= now_s:
                batch = heapq.heappop(self._retries)[2]
            else:
                break
            for item in [item for item in batch.items if item.is_dropped]:
                batch.items.remove(item)
                self.finish(item)
            if batch.items:
                return batch
        items = self._gather()
        return Batch(items) if items else None

    def _gather(self) -> list[Item]:
        """Take the first item of as many ready lanes as fit into a batch."""
        items: list[Item] = []
        count_max = min(self.pace.batch, self._room)
        bytes_left = self.pace.batch_bytes
        while self._ready and len(items) < count_max:
            waiting = self._lanes[self._ready[0]]
            while waiting and waiting[0].is_dropped:
                waiting.popleft()
            if not waiting:
                del self._lanes[self._ready.popleft()]
                continue
            size = waiting[0].bytes + 1
            if size > bytes_left and items:
                break
            bytes_left -= size
            items.append(waiting.popleft())
            self._ready.popleft()
        self._away += len(items)
        return items

    def _delivered(self, batch: Batch, verdict: Delivered) -> list[Rejection]:
        self._failures = 0
        self.trouble = None
        texts = {error.row: error.text for error in verdict.errors if 0 <= error.row < len(batch.items)}
        rejections = [Rejection(batch.items[row], 200, text.encode()) for row, text in sorted(texts.items())]
        for row, item in enumerate(batch.items):
            if row not in texts:
                self.counts["sent"] += 1
                self.finish(item)
        self.counts["rejected"] += len(rejections)
        return rejections

    def _refused(self, batch: Batch, verdict: Refused) -> list[Rejection]:
        self._failures = 0
        self.trouble = None
        if len(batch.items) == 1:
            self.counts["rejected"] += 1
            return [Rejection(batch.items[0], verdict.status, verdict.text)]
        # No two items of a batch share a lane, so the halves need no order.
        half = len(batch.items) // 2
        self.counts["split"] += 1
        self._parts.extendleft((Batch(batch.items[half:]), Batch(batch.items[:half])))
        return []

    def _try_again(self, batch: Batch, verdict: TryAgain, now_s: float) -> None:
        self.counts["retried"] += 1
        self.trouble = verdict.reason
        self._failures += 1
        wait_s = self.pace.backoff.wait_s(batch.tries, self._chance)
        if verdict.after_s is not None:
            # It speaks for the whole destination. A little jitter on top keeps many senders from coming back at once.
            wait_s = verdict.after_s + min(0.01 + verdict.after_s / 100, 1.0) * self._chance.random()
            self._paused_until_s = max(self._paused_until_s, now_s + verdict.after_s)
        elif self.is_down():
            pause_s = self.pace.backoff.wait_s(self._failures - DOWN_AFTER + 1, self._chance)
            self._paused_until_s = max(self._paused_until_s, now_s + pause_s)
            wait_s = min(wait_s, pause_s)
        self._turn += 1
        heapq.heappush(self._retries, (now_s + wait_s, self._turn, batch))
