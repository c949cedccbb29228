"""The wheel against a dict: what is due comes up at its instant, whatever moved and however time passes."""

from collections.abc import Callable
from dataclasses import replace

import numba
import numpy as np
import pytest
from kernel_shards import customers_of, event, fold_events, shard_in
from oracle_days import DAY_US, FIRST_US, LAST_US

from rfmstream import Engine
from rfmstream.kernels import memory
from rfmstream.kernels.layout import CHANGE, DONE, GROW, OUTPUT_FULL, SLOT_BITS, WHEEL_ORIGIN_US
from rfmstream.kernels.wheel import advance, arm, key_of
from rfmstream.schemas.codes import FOREVER_US
from rfmstream.schemas.ruleset import load_ruleset

RECENT_US = 30 * DAY_US
SLOT_US = 1 << SLOT_BITS
YEAR_US = 365 * DAY_US


@numba.njit
def _arm(states, handles):
    for handle in handles:
        arm(states[0], memory.customers_of(states[0])[handle], handle)


class Calendar:
    """Customers of one order each and the deadlines they must keep, written down twice."""

    def __init__(self, size: int, start_us: int) -> None:
        # By durations a deadline is any instant: thirty days after the newest order.
        ruleset = load_ruleset("rfm8").without_signals()
        self.engine = Engine(replace(ruleset, day_unit="duration"))
        self.shard = shard_in(self.engine)
        fold_events(self.engine, [event(f"c{i}", "o", start_us) for i in range(size)])
        self.shard.take_changes()
        self.recent, self.lapsed = (
            next(code for code, tier in enumerate(ruleset.tiers) if tier.id == name)
            for name in ("100", "000")
        )
        self.due = dict.fromkeys(range(1, size + 1), start_us + RECENT_US)
        self.now_us = start_us

    def move(self, handles: list[int], deadlines_us: list[int]) -> None:
        """Give customers other deadlines, as another order would; the lapsed ones come back."""
        customers = customers_of(self.shard)
        for handle, deadline_us in zip(handles, deadlines_us, strict=True):
            record = customers[handle - 1]
            record["last_paid_us"] = deadline_us - RECENT_US
            record["deadline_us"] = deadline_us
            record["tier"] = self.recent
            self.due[handle] = deadline_us
        self.shard._make_room_for(0, 0, 0, 0)
        for at in range(0, len(handles), 256):
            self.shard._make_room_for(0, 0, 0, 0)
            _arm(self.shard.state.rows, np.array(handles[at : at + 256]))

    def advance(self, now_us: int, *, output: int = 1 << 12) -> None:
        """Let time pass with room for so many changes, and compare what comes up with what is due."""
        expected = {handle: at for handle, at in self.due.items() if at <= now_us}
        found: list[tuple[int, int]] = []
        changes = np.zeros(output, dtype=CHANGE)
        self.shard.state.point(changes=changes)
        status = GROW
        while status != DONE:
            status = advance(self.shard.state.rows, self.shard.rules.rows, now_us, self.shard._rows)
            count = int(self.shard.state.row.n_changes)
            assert (count == output) or status != OUTPUT_FULL
            found += zip(
                changes["customer"][:count].tolist(), changes["effective_us"][:count].tolist(), strict=True
            )
            self.shard.state.row.n_changes = 0
            if status == GROW:
                self.shard._make_room_for(0, 0, 0, 0)
        assert len(found) == len(expected)
        assert dict(found) == expected
        assert (customers_of(self.shard)["deadline_us"] > now_us).all()
        for handle in expected:
            del self.due[handle]
        self.now_us = max(self.now_us, now_us)
        assert self.shard.clock_us == self.now_us


STEPS: dict[str, Callable[[np.random.Generator], int]] = {
    "a microsecond": lambda rng: int(rng.integers(0, 3)),
    "a slot": lambda rng: SLOT_US + int(rng.integers(-2, 3)),
    "hours": lambda rng: int(rng.integers(0, DAY_US)),
    "weeks": lambda rng: int(rng.integers(0, 30 * DAY_US)),
    "a year": lambda rng: YEAR_US + int(rng.integers(0, DAY_US)),
    "thousands of years": lambda rng: int(rng.integers(1000, 2000)) * YEAR_US,
}
"""How far time passes at a go."""


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("output", [1, 7, 1 << 12])
def test_what_is_due_comes_up(step: str, output: int) -> None:
    rng = np.random.default_rng([len(step), output])
    calendar = Calendar(300, 1_700_000_000_000_000)
    for _ in range(12 if "thousands" not in step else 4):
        now_us = min(calendar.now_us + STEPS[step](rng), LAST_US)
        reach = max(1, now_us - calendar.now_us)
        handles = rng.permutation(300)[:150].tolist()
        ahead = np.where(
            rng.random(150) < 0.5, rng.integers(1, 2 * reach + 2, 150), rng.integers(1, 40 * DAY_US, 150)
        )
        moved = [min(calendar.now_us + int(by), LAST_US) for by in ahead]
        moving = [(handle + 1, at) for handle, at in zip(handles, moved, strict=True) if at > calendar.now_us]
        if moving:
            calendar.move(*map(list, zip(*moving, strict=True)))
        calendar.advance(now_us, output=output)
    calendar.advance(LAST_US)
    assert not calendar.due


def test_deadlines_on_the_edges_of_slots_and_buckets() -> None:
    calendar = Calendar(200, 0)
    bucket_us = SLOT_US << 9
    first = (calendar.now_us // bucket_us + 1) * bucket_us
    edges = [first + k * unit + by for unit in (SLOT_US, bucket_us) for k in range(10) for by in (-1, 0, 1)]
    edges = [edge for edge in edges if edge > 0]
    calendar.move(list(range(1, len(edges) + 1)), edges)
    for edge in sorted(set(edges)):
        calendar.advance(edge - 1)
        calendar.advance(edge)


def test_a_deadline_moved_often_comes_up_once() -> None:
    calendar = Calendar(3, 0)
    rng = np.random.default_rng(8)
    for _ in range(500):
        calendar.move([1, 2, 3], rng.integers(1, 100 * DAY_US, 3).tolist())
    calendar.advance(100 * DAY_US)
    assert not calendar.due


@pytest.mark.parametrize("is_open", [True, False])
def test_a_deadline_moved_to_an_earlier_instant_of_its_slot(*, is_open: bool) -> None:
    calendar = Calendar(1, 0)
    start = int(key_of(np.int64(10 * DAY_US))) * SLOT_US + WHEEL_ORIGIN_US
    if is_open:
        calendar.advance(start)
    calendar.move([1], [start + SLOT_US - 1])
    calendar.move([1], [start + SLOT_US // 2])
    calendar.advance(start + SLOT_US // 2)
    assert not calendar.due


def test_many_due_at_one_instant() -> None:
    calendar = Calendar(20_000, 0)
    calendar.advance(RECENT_US - 1)
    calendar.advance(RECENT_US, output=999)
    assert not calendar.due


def test_many_deadlines_each_in_a_bucket_of_its_own() -> None:
    calendar = Calendar(5_000, 0)
    calendar.move(list(range(1, 5_001)), [DAY_US * day for day in range(1, 5_001)])
    calendar.advance(1000 * DAY_US)
    calendar.advance(5_000 * DAY_US)
    assert not calendar.due
    # Every chunk was given back: time costs nothing that stays.
    assert calendar.shard.memory()["timers"] == 1 * 256


def test_the_clock_never_goes_back() -> None:
    calendar = Calendar(2, 1000 * DAY_US)
    calendar.advance(1010 * DAY_US)
    calendar.advance(0)
    calendar.advance(1030 * DAY_US)
    assert not calendar.due


def test_the_first_and_the_last_instant() -> None:
    calendar = Calendar(2, FIRST_US)
    calendar.move([2], [LAST_US])
    calendar.advance(LAST_US - 1)
    calendar.advance(LAST_US)
    assert not calendar.due


def test_what_never_comes_is_not_filed() -> None:
    calendar = Calendar(1, LAST_US - DAY_US)
    assert customers_of(calendar.shard)["deadline_us"].tolist() == [FOREVER_US]
    assert calendar.shard.memory()["timers"] == 256


def test_keys_rise_with_time_and_end_with_the_last_year() -> None:
    rows = np.array([FIRST_US, FIRST_US + SLOT_US, 0, LAST_US, FOREVER_US // 2])
    keys = [int(key_of(np.int64(at))) for at in rows]
    assert keys == sorted(keys)
    assert keys[0] > 0  # 0 means that nothing is filed
    assert keys[1] == keys[0] + 1
