"""Signals are those of the oracle: docs/semantics.md 9, on histories made to differ, and however they are cut."""

import random
import tempfile
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import Row
from oracle_days import DAY_US
from oracle_signals import SignalOracle, SignalRules
from strategies import Case, later_instants, signal_cases, splits
from twins import Driven, assert_same, by_customer

from rfmstream.schemas.signals import SIGNAL_KINDS


def assert_same_signals(driven: Driven, oracle: SignalOracle) -> None:
    assert by_customer(driven.signals) == by_customer(oracle.signals)
    assert_same(driven, oracle)
    assert sum(driven.engine.counters.signals.values()) == len(driven.signals)
    assert_in_order(driven.signals)


def assert_in_order(signals: list[Row]) -> None:
    """Hold that those of a customer at one instant and of one cause come in the order of their kinds."""
    for rows in by_customer(signals).values():
        for left, right in pairwise(rows):
            assert left["effective_at"] <= right["effective_at"]
            if all(left[name] == right[name] for name in ("effective_at", "order_id", "seq")):
                assert left["order_id"] is not None or left != right
                if left["order_id"] is None:
                    assert SIGNAL_KINDS.index(left["kind"]) <= SIGNAL_KINDS.index(right["kind"])


@given(signal_cases())
def test_in_order_of_arrival(case: Case) -> None:
    oracle, driven = SignalOracle(case.rules), Driven(case.rules)
    oracle.step(case.events)
    driven.step(case.events)
    assert_same_signals(driven, oracle)


@given(signal_cases(max_size=40), st.data())
def test_in_order_of_time_and_afterwards(case: Case, data: st.DataObject) -> None:
    case = case.sorted()
    oracle, driven = SignalOracle(case.rules), Driven(case.rules)
    for part in (oracle, driven):
        part.step(case.events)
    for _ in range(3):
        later = max(data.draw(later_instants(case.rules, case.events)), oracle.clock_us or 0)
        oracle.advance(later)
        driven.advance(later)
    assert_same_signals(driven, oracle)


@given(signal_cases(), st.data())
def test_however_they_are_cut_and_stopped(case: Case, data: st.DataObject) -> None:
    case = case.sorted()
    oracle = SignalOracle(case.rules)
    oracle.step(case.events)
    driven = Driven(case.rules, threads=data.draw(st.sampled_from([1, 3])))
    with tempfile.TemporaryDirectory() as folder:
        for part in data.draw(splits(len(case.events))):
            driven.step(case.events[part])
            if data.draw(st.booleans()):
                driven.restart(folder)
    if oracle.clock_us is not None:
        later = max(data.draw(later_instants(case.rules, case.events)), oracle.clock_us)
        oracle.advance(later)
        driven.advance(later)
    assert_same_signals(driven, oracle)


@given(signal_cases(max_size=10), st.data())
def test_time_passes_between_events(case: Case, data: st.DataObject) -> None:
    oracle, driven = SignalOracle(case.rules), Driven(case.rules)
    for event in case.events:
        if data.draw(st.booleans()):
            now_us = data.draw(later_instants(case.rules, case.events[:1]))
            oracle.advance(now_us)
            driven.advance(now_us)
        oracle.step([event])
        driven.step([event])
    assert_same_signals(driven, oracle)


@pytest.mark.parametrize("day_unit", ["calendar_day", "duration"])
@pytest.mark.parametrize("cut", [0, 30, 60])
def test_of_customers_with_many_orders(cut: int, day_unit: str) -> None:
    """Far more than a search looks at, in bursts, so that F and M rise over and fall under their cuts again."""
    drawn = random.Random(f"{cut} {day_unit}")  # noqa: S311 - a history, not a secret
    rules = SignalRules(
        lambda r, f, m, _first: f"{r}{f}{m}",
        recency_cuts_days=(6,),
        frequency_cuts=(cut + 1,),
        monetary_cuts_minor=(100 * cut + 1,),
        window_days=9,
        day_unit=day_unit,
        time_zone="America/New_York",
        warn_days={f"{bits:03b}": (1, 3) for bits in range(8)},
    )
    events = []
    at_us = 1_700_000_000_000_000
    for n in range(450):
        at_us += int(drawn.expovariate(1) * DAY_US / (40 if n // 75 % 2 else 6))
        paid = {"customer_id": drawn.choice("ab"), "order_id": f"o{n}", "event_id": None, "type": "paid"}
        events.append({**paid, "occurred_at_us": at_us, "amount_minor": drawn.randint(50, 150)})
        if drawn.random() < 0.05:
            events.append({**events[-1], "type": "refunded", "occurred_at_us": at_us + 1})
    oracle, driven = SignalOracle(rules), Driven(rules)
    for part in (oracle, driven):
        part.step(events)
        part.advance(at_us + 30 * DAY_US)
    assert sum(signal["kind"] == "warning" for signal in oracle.signals) > 5
    assert_same_signals(driven, oracle)
