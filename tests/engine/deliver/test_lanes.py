"""The lanes, in simulated time."""

import heapq
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace

import pytest
from deliver_events import PLACE, item

from rfmstream.engine.deliver.backoff import Backoff
from rfmstream.engine.deliver.lanes import Batch, Lanes, Pace
from rfmstream.engine.deliver.model import Delivered, Item, Parked, Refused, RowError, TryAgain
from rfmstream.engine.deliver.progress import decode_finished
from rfmstream.engine.deliver.rates import Rate


def lanes_with(items: list[Item], pace: Pace, *, seed: int = 0) -> Lanes:
    lanes = Lanes(pace, seed=seed)
    lanes.begin(PLACE, 0)
    for one in items:
        lanes.note(PLACE, one.event.offset)
        lanes.offer(one)
    return lanes


def settle(lanes: Lanes) -> None:
    lanes.settled(lanes.unsettled())


def customers(batch: Batch) -> list[str]:
    return [one.lane for one in batch.items]


def test_a_customers_events_leave_one_after_another_and_others_go_on() -> None:
    lanes = lanes_with([item("a", 1, offset=0), item("a", 2, offset=1), item("b", 1, offset=2)], Pace())
    first, other = lanes.take(0)
    assert customers(first) == ["a"]
    assert customers(other) == ["b"]
    assert lanes.take(0) == []
    lanes.answer(other, Delivered(), 0)
    assert lanes.commits()[PLACE].offset == 0
    lanes.answer(first, TryAgain("HTTP 500"), 0)
    assert lanes.take(0) == []
    due = lanes.due_s(0)
    assert due is not None
    assert due > 0
    [again] = lanes.take(due)
    assert again is first
    lanes.answer(again, Delivered(), due)
    [second] = lanes.take(due)
    assert second.items[0].event.data["seq"] == 2
    lanes.answer(second, Delivered(), due)
    assert lanes.is_idle
    assert lanes.commits()[PLACE].offset == 3


def test_a_poison_row_stands_alone_in_the_end() -> None:
    items = [item(f"c{number}", offset=number) for number in range(500)]
    lanes = lanes_with(items, Pace(batch=500, concurrency=1))
    rejected, delivered, requests = [], set(), 0
    while batches := lanes.take(0.0):
        for batch in batches:
            requests += 1
            bad = "c137" in customers(batch)
            verdict = Refused(400, b"no such thing") if bad else Delivered()
            if not bad:
                delivered |= set(customers(batch))
            for rejection in lanes.answer(batch, verdict, 0.0):
                rejected.append(rejection)
                assert lanes.commits()[PLACE].offset <= 137
                lanes.finish(rejection.item)
        settle(lanes)
    assert [(one.item.lane, one.status, one.text) for one in rejected] == [("c137", 400, b"no such thing")]
    assert len(delivered) == 499
    assert requests <= 20
    assert lanes.commits()[PLACE].offset == 500


def test_rows_that_an_answer_names_are_rejected_and_the_others_are_there() -> None:
    lanes = lanes_with([item(f"c{number}", offset=number) for number in range(3)], Pace(batch=3))
    [batch] = lanes.take(0)
    [rejection] = lanes.answer(batch, Delivered([RowError(1, "bad email"), RowError(9, "?")]), 0)
    assert rejection.item.lane == "c1"
    assert (lanes.counts["sent"], lanes.counts["rejected"]) == (2, 1)


def test_nothing_leaves_before_retry_after_has_passed() -> None:
    lanes = lanes_with([item(f"c{number}", offset=number) for number in range(40)], Pace(concurrency=4))
    first, *others = lanes.take(100.0)
    lanes.answer(first, TryAgain("HTTP 429", 7.0), 100.0)
    for other in others:
        lanes.answer(other, Delivered(), 100.5)
    due = lanes.due_s(101.0)
    assert due is not None
    assert due >= 107.0
    assert lanes.take(106.999) == []
    assert lanes.take(107.0)


def test_410_parks_and_unpark_sends_the_same_again() -> None:
    lanes = lanes_with([item("a", offset=0), item("b", offset=1)], Pace(concurrency=1))
    [batch] = lanes.take(0)
    assert lanes.answer(batch, Parked("it answered 410 Gone"), 0) == []
    assert lanes.take(1e9) == []
    assert lanes.due_s(1e9) is None
    assert lanes.commits()[PLACE].offset == 0
    lanes.unpark()
    assert lanes.take(1e9) == [batch]


def test_a_destination_that_is_down_is_asked_by_one_request_at_a_time() -> None:
    backoff = Backoff(1.0, 60.0)
    lanes = lanes_with(
        [item(f"c{number}", offset=number) for number in range(100)], Pace(concurrency=20, backoff=backoff)
    )
    now, asked = 0.0, 0
    for batch in lanes.take(now):
        lanes.answer(batch, TryAgain("refused"), now)
    while now < 86_400:
        due = lanes.due_s(now)
        assert due is not None
        now = max(due, now)
        batches = lanes.take(now)
        assert len(batches) <= 1
        for batch in batches:
            asked += 1
            lanes.answer(batch, TryAgain("refused"), now)
    assert 86_400 / 60 <= asked <= 86_400 / 30 + 20
    # It is back: everything arrives.
    while not lanes.is_idle:
        due = lanes.due_s(now)
        assert due is not None
        now = max(now, due)
        for batch in lanes.take(now):
            lanes.answer(batch, Delivered(), now)
        settle(lanes)
    assert lanes.counts["sent"] == 100


def test_of_what_waits_only_the_newest_leaves_if_asked() -> None:
    items = [item("a", seq, offset=seq - 1) for seq in range(1, 6)]
    lanes = lanes_with(items[:1], Pace(coalesce=True))
    [batch] = lanes.take(0)
    for one in items[1:]:
        lanes.note(PLACE, one.event.offset)
        lanes.offer(one)
    other = replace(item("a", 1, offset=5), coalesce=("signal", None, None, "warning"))
    lanes.note(PLACE, 5)
    lanes.offer(other)
    assert lanes.counts["coalesced"] == 3
    lanes.answer(batch, Delivered(), 0)
    [batch] = lanes.take(0)
    assert batch.items == [items[4]]
    lanes.answer(batch, Delivered(), 0)
    [batch] = lanes.take(0)
    assert batch.items == [other]
    lanes.answer(batch, Delivered(), 0)
    assert lanes.commits()[PLACE].offset == 6


def test_a_batch_holds_no_more_bytes_than_it_may_and_a_longer_row_goes_alone() -> None:
    items = [item(f"c{number}", offset=number) for number in range(10)]
    items[4].bytes = 10_000
    lanes = lanes_with(items, Pace(batch=100, batch_bytes=3 * (items[0].bytes + 1), concurrency=100))
    sizes = [len(batch.items) for batch in lanes.take(0)]
    assert sizes == [3, 1, 1, 3, 2]


def test_no_more_is_away_than_may_be_repeated_until_it_is_committed() -> None:
    lanes = lanes_with([item(f"c{number}", offset=number) for number in range(100)], Pace(in_flight=10))
    batches = lanes.take(0)
    assert len(batches) == 10
    for batch in batches:
        lanes.answer(batch, Delivered(), 0)
    assert lanes.take(0) == []
    counts = lanes.unsettled()
    lanes.settled(counts)
    assert len(lanes.take(0)) == 10


def test_a_partition_that_is_given_up_leaves_nothing_behind() -> None:
    lanes = lanes_with([item(f"c{number % 3}", number, offset=number) for number in range(9)], Pace())
    first, second, third = lanes.take(0)
    lanes.answer(second, TryAgain("HTTP 500"), 0)
    lanes.answer(third, Parked("gone"), 0)
    lanes.unpark()
    lanes.drop([PLACE])
    lanes.begin(PLACE, 0)
    lanes.answer(first, Delivered(), 0)
    assert lanes.take(1e6) == []
    assert lanes.is_idle
    assert lanes.commits()[PLACE].offset == 0
    assert not lanes.unsettled().total()


@dataclass
class World:
    """A log of 400 events, a destination that fails at random, and what both remember when a process dies."""

    seed: int
    chance: random.Random
    pace: Pace
    log: list[Item]
    poison: set[int]
    committed: int = 0
    finished: set[int] = field(default_factory=set)
    now: float = 0.0
    received: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    rejected: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, seed: int) -> "World":
        chance = random.Random(seed)
        seqs: Counter[str] = Counter()
        log = []
        for offset in range(400):
            customer = f"c{chance.randrange(30)}"
            seqs[customer] += 1
            log.append(item(customer, seqs[customer], offset=offset))
        pace = Pace(batch=chance.choice([1, 7, 50]), concurrency=4, in_flight=60, backoff=Backoff(0.1, 5))
        return cls(seed, chance, pace, log, {chance.randrange(400) for _ in range(5)})

    def start(self) -> Lanes:
        lanes = Lanes(self.pace, seed=self.seed)
        lanes.begin(PLACE, self.committed)
        for one in self.log[self.committed :]:
            lanes.note(PLACE, one.event.offset)
            if one.event.offset in self.finished:
                lanes.done(PLACE, one.event.offset)
            else:
                lanes.offer(replace(one))
        return lanes

    def live(self, lanes: Lanes, steps: int) -> None:
        flying: list[tuple[float, int, Batch]] = []
        for step in range(steps):
            for number, batch in enumerate(lanes.take(self.now)):
                heapq.heappush(flying, (self.now + self.chance.random(), step * 1000 + number, batch))
            if flying:
                self.now, _, batch = heapq.heappop(flying)
                self.arrive(lanes, batch)
                continue
            due = lanes.due_s(self.now)
            if due is None:
                return
            self.now = max(self.now, due)

    def arrive(self, lanes: Lanes, batch: Batch) -> None:
        if self.chance.random() < 0.3:
            lanes.answer(batch, TryAgain("HTTP 500"), self.now)
        elif {one.event.offset for one in batch.items} & self.poison:
            for rejection in lanes.answer(batch, Refused(400), self.now):
                self.rejected.add(rejection.item.event.offset)
                lanes.finish(rejection.item)
        else:
            for one in batch.items:
                self.received[one.lane].append(one.event.data["seq"])
            lanes.answer(batch, Delivered(), self.now)
        if self.chance.random() < 0.3:
            commit = lanes.commits()[PLACE]
            self.committed, self.finished = commit.offset, decode_finished(commit.metadata, commit.offset)
            lanes.settled(lanes.unsettled())


@pytest.mark.parametrize("seed", range(20))
def test_all_arrives_in_order_from_a_destination_that_fails_at_random(seed: int) -> None:
    """Requests take their time, fail, are split; poison rows are in between; the process dies and starts again."""
    world = World.of(seed)
    for _ in range(5):
        world.live(world.start(), world.chance.randrange(20, 200))
    lanes = world.start()
    world.live(lanes, 10**9)
    assert lanes.is_idle
    assert world.rejected == world.poison
    expected = defaultdict(list)
    for one in world.log:
        if one.event.offset not in world.poison:
            expected[one.lane].append(one.event.data["seq"])
    assert {lane: sorted(set(seen)) for lane, seen in world.received.items()} == expected
    for seen in world.received.values():
        firsts = list(dict.fromkeys(seen))
        assert firsts == sorted(firsts)
    repeated = sum(len(seen) - len(set(seen)) for seen in world.received.values())
    assert repeated <= 5 * world.pace.in_flight


def test_a_midnight_of_100_000_changes_passes_klaviyos_windows_without_a_429() -> None:
    """Klaviyo counts 350 requests a second and 3,500 a minute, in windows of its own."""
    lanes = lanes_with(
        [item(f"c{number}", offset=number) for number in range(100_000)],
        Pace(rates=(Rate(350, 1.0), Rate(3500, 60.0)), concurrency=64),
    )
    chance = random.Random(3)
    phase = chance.random() * 60
    seen: Counter[tuple[str, int]] = Counter()
    refusals = 0
    now = 0.0
    flying: list[tuple[float, float, int, Batch]] = []
    turn = 0
    while not lanes.is_idle:
        for batch in lanes.take(now):
            turn += 1
            arrives = now + 0.005 + chance.random() * 0.05
            heapq.heappush(flying, (arrives + 0.005 + chance.random() * 0.05, arrives, turn, batch))
        due = lanes.due_s(now)
        if flying and (due is None or flying[0][0] <= due):
            now, arrived, _, batch = heapq.heappop(flying)
            windows = ("s", int(arrived + phase)), ("m", int((arrived + phase) // 60))
            seen.update(windows)
            if seen[windows[0]] > 350 or seen[windows[1]] > 3500:
                refusals += 1
                lanes.answer(batch, TryAgain("HTTP 429", 1.0), now)
            else:
                lanes.answer(batch, Delivered(), now)
                settle(lanes)
        else:
            assert due is not None
            now = max(now, due)
    assert refusals == 0
    assert lanes.counts["sent"] == 100_000
    assert now <= 29 * 60
