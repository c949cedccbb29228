"""R, F, M, the tier and the next change of one customer, by hand."""

from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pytest
from kernel_shards import customers_of, event, fold_events, shard_in
from numpy.typing import NDArray
from oracle_days import DAY_US

from rfmstream import Engine
from rfmstream.engine.core.kernel_records import KernelRecord
from rfmstream.engine.core.rules import compile_rules
from rfmstream.kernels import memory
from rfmstream.kernels.layout import CUSTOMER
from rfmstream.kernels.measure import (
    STEPS_BOUND,
    cell_of,
    count_band,
    expire_window,
    measure_recency,
    next_change,
)
from rfmstream.schemas.codes import FOREVER_US, NEVER_US, NO_TIER
from rfmstream.schemas.ruleset import load_ruleset

SCORES4 = load_ruleset("scores4")


@numba.njit
def _measure_recency(rulesets, last_paid_us, now_us, out):
    for i in range(now_us.size):
        out[i, 0], out[i, 1], out[i, 2] = measure_recency(rulesets[0], last_paid_us, now_us[i])


@numba.njit
def _count_bands(cuts, values, out):
    for i in range(values.size):
        out[i] = count_band(cuts, values[i])


@numba.njit
def _next_change(states, rulesets, customers, now_us, steps_max):
    rules, customer = rulesets[0], customers[0]
    r_band, r_stop_us, _ = measure_recency(rules, customer.last_paid_us, now_us)
    f_band = count_band(memory.frequency_cuts_of(rules), np.int64(customer.frequency))
    m_band = count_band(memory.monetary_cuts_of(rules), customer.monetary_minor)
    cell = cell_of(rules, customer, r_band, f_band, m_band)
    return next_change(states[0], rules, customer, cell, r_band, r_stop_us, steps_max, FOREVER_US)


@numba.njit
def _expire(states, rulesets, handle, now_us):
    expire_window(states[0], rulesets[0], memory.customers_of(states[0])[handle], now_us)


def recency_of(rules: KernelRecord, last_paid_us: int, now_us: list[int]) -> list[tuple[int, int, int]]:
    """Return (band, when it falls next, when it fell last) at each instant."""
    out = np.empty((len(now_us), 3), dtype=np.int64)
    _measure_recency(rules.rows, np.int64(last_paid_us), np.array(now_us), out)
    return [tuple(row) for row in out.tolist()]


def recency_bands(rules: KernelRecord, last_paid_us: int, now_us: list[int]) -> list[int]:
    return [band for band, _, _ in recency_of(rules, last_paid_us, now_us)]


def count_bands(cuts: list[int], values: list[int]) -> list[int]:
    out = np.empty(len(values), dtype=np.int64)
    _count_bands(np.array(cuts, dtype=np.int64), np.array(values), out)
    return out.tolist()


def next_of(
    engine: Engine, customer: NDArray[Any], now_us: int, steps_max: int = FOREVER_US
) -> tuple[int, str | None]:
    shard = shard_in(engine)
    at_us, code = _next_change(shard.state.rows, shard.rules.rows, customer, now_us, steps_max)
    return at_us, None if code == NO_TIER else engine.ruleset.tiers[code].id


def test_recency_band_by_durations() -> None:
    rules = compile_rules(replace(SCORES4, day_unit="duration"))
    cuts = [days * DAY_US for days in (30, 60, 90, 120)]
    now_us = [0, cuts[0] - 1, *(instant for cut in cuts for instant in (cut, cut + 1)), FOREVER_US - 1]
    assert recency_bands(rules, 0, now_us) == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0, 0]


def test_recency_band_by_calendar_days() -> None:
    rules = compile_rules(SCORES4)
    noon = DAY_US // 2
    stops = [(days + 1) * DAY_US for days in (30, 60, 90, 120)]
    assert recency_bands(rules, noon, [noon, stops[0] - 1, *stops]) == [4, 4, 3, 2, 1, 0]


def test_when_the_recency_band_falls_and_fell() -> None:
    stops = [(days + 1) * DAY_US for days in (30, 60, 90, 120)]
    rules = compile_rules(SCORES4)
    assert recency_of(rules, DAY_US // 2, [stops[0] - 1, stops[0], stops[2] + 1, stops[3]]) == [
        (4, stops[0], NEVER_US),
        (3, stops[1], stops[0]),
        (1, stops[3], stops[2]),
        (0, FOREVER_US, stops[3]),
    ]


def test_recency_band_of_a_customer_without_orders_and_of_no_cuts() -> None:
    assert recency_bands(compile_rules(SCORES4), NEVER_US, [0, NEVER_US + 1]) == [0, 0]
    assert recency_bands(compile_rules(replace(SCORES4, recency_cuts_days=())), 0, [0]) == [0]


def test_count_band_counts_cuts_not_above() -> None:
    values = [-(2**63), 1, 2, 3, 4, 5, 6, 2**63 - 1]
    assert count_bands([2, 3, 4, 5], values) == [0, 0, 1, 2, 3, 4, 4, 4]
    assert count_bands([], [0, 5]) == [0, 0]
    assert count_bands([-50, 0, 10**12], [-51, -50, -1, 0, 10**12 - 1, 10**12]) == [0, 1, 1, 2, 2, 3]


def test_window_exits_are_counted_once_and_in_order() -> None:
    engine = Engine(load_ruleset("rfm8-annual"))
    fold_events(engine, [event("a", f"o{day}", day * DAY_US, 10**day) for day in (3, 1, 0, 2)])
    shard = shard_in(engine)
    customer = customers_of(shard)[0]
    for day, frequency, monetary in (
        (365, 4, 1111),
        (366, 3, 1110),
        (366, 3, 1110),
        (368, 1, 1000),
        (999, 0, 0),
    ):
        _expire(shard.state.rows, shard.rules.rows, 1, day * DAY_US)
        assert (customer["frequency"], customer["monetary_minor"]) == (frequency, monetary)
    assert (customer["lifetime_orders"], customer["lifetime_monetary_minor"]) == (4, 1111)


def test_next_change_of_a_customer_without_a_tier() -> None:
    customer = np.zeros(1, dtype=CUSTOMER)
    customer["tier"] = NO_TIER
    assert next_of(Engine(), customer, 0) == (FOREVER_US, None)


def test_next_change_by_recency_and_by_the_window() -> None:
    engine = Engine(load_ruleset("rfm8-annual"))
    # Bought three times for 1,000.00 in all: 111, then lapsing 011, then one after the other the orders leave.
    fold_events(engine, [event("a", f"o{day}", day * DAY_US, 40_000) for day in (0, 10, 20)])
    customer = customers_of(shard_in(engine))[:1].copy()
    assert next_of(engine, customer, 20 * DAY_US) == (51 * DAY_US, "011")
    customer["tier"] = next(code for code, tier in enumerate(engine.ruleset.tiers) if tier.id == "011")
    assert next_of(engine, customer, 51 * DAY_US) == (366 * DAY_US, "000")


def test_search_for_a_deadline_is_bounded() -> None:
    engine = Engine(load_ruleset("rfm8-annual"))
    n = 10 * STEPS_BOUND
    fold_events(engine, [event("guest", f"o{i}", i, 10**9) for i in range(n)])
    customer = customers_of(shard_in(engine))[:1]
    # All leave at one midnight, long after the customer has lapsed.
    assert next_of(engine, customer, n) == (31 * DAY_US, "011")
    rules = replace(load_ruleset("rfm8-annual"), day_unit="duration", recency_cuts_days=(10_000,))
    engine = Engine(rules)
    fold_events(engine, [event("guest", f"o{i}", i, 10**9) for i in range(n)])
    customer = customers_of(shard_in(engine))[:1]
    year = 365 * DAY_US
    # The tier falls when the third newest leaves; a bounded search stops on the way and promises no more.
    assert next_of(engine, customer, n) == (year + n - 3, "101")
    assert next_of(engine, customer, n, STEPS_BOUND) == (year + STEPS_BOUND, "111")
    assert customer["deadline_us"][0] == year + n - 3 or customer["deadline_us"][0] <= year + STEPS_BOUND


@pytest.mark.parametrize("amount", [-200_000, 200_000])
def test_adjustments_that_leave_move_m_either_way(amount: int) -> None:
    engine = Engine(load_ruleset("rfm8-annual"))
    fold_events(engine, [event("a", "credit", 0, amount, type="adjusted"), event("a", "o", 400, 150_000)])
    (change,) = shard_in(engine).take_changes()
    tiers = [tier.id for tier in engine.ruleset.tiers]
    assert tiers[change["to_tier"]] == ("100" if amount < 0 else "101")
    customer = customers_of(shard_in(engine))[:1].copy()
    customer["tier"] = tiers.index("000" if amount < 0 else "001")
    # Both leave at the same midnight: together they come to nothing.
    expected = (FOREVER_US, None) if amount < 0 else (366 * DAY_US, "000")
    assert next_of(engine, customer, 40 * DAY_US) == expected
