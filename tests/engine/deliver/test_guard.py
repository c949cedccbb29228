from fractions import Fraction

import pytest
from deliver_events import change

from rfmstream.engine.deliver.filters import Filter
from rfmstream.engine.deliver.guard import HOUR_MS, CustomerSketch, Guard

T = 1_795_824_000_000


def test_a_trickle_passes_and_a_flood_does_not() -> None:
    guard = Guard(Fraction(5, 100), customers=1000)
    for minute in range(6 * 60):
        if minute % 2:
            guard.see(T + minute * 60_000)
    assert guard.tripped_at_ms is None
    assert guard.count == 30
    for _ in range(20):
        guard.see(T + 6 * HOUR_MS)
    assert guard.tripped_at_ms is None
    guard.see(T + 6 * HOUR_MS)
    assert guard.tripped_at_ms == T + 6 * HOUR_MS


def test_a_release_lets_through_what_was_written_before_it_and_counts_anew() -> None:
    guard = Guard(Fraction(5, 100), customers=1000)
    guard.see(T, 900)
    assert guard.tripped_at_ms == T
    guard.release(T + 60_000)
    assert guard.tripped_at_ms is None
    guard.see(T + 30_000, 900)
    assert guard.tripped_at_ms is None
    guard.see(T + 70_000, 51)
    assert guard.tripped_at_ms == T + 70_000


def test_the_number_of_customers_may_come_later() -> None:
    guard = Guard(Fraction(1, 2), at_least=10)
    guard.see(T, 11)
    assert guard.tripped_at_ms is not None
    other = Guard(Fraction(1, 2), at_least=10, customers=22)
    other.see(T, 11)
    assert other.tripped_at_ms is None


@pytest.mark.parametrize("count", [0, 1, 100, 10_000, 200_000])
def test_customers_are_counted_give_or_take_a_little(count: int) -> None:
    sketch, other = CustomerSketch(), CustomerSketch()
    for number in range(count):
        (sketch if number % 3 else other).add(f"customer-{number}".encode())
        sketch.add(f"customer-{number // 2}".encode())
    sketch.merge(other)
    assert abs(sketch.count() - count) <= 0.06 * count


def test_a_filter_names_what_it_keeps() -> None:
    assert Filter().refusal(change()) is None
    assert Filter().refusal(change(mode="replay")) == "mode"
    assert Filter(modes=("live", "replay")).refusal(change(mode="replay")) is None
    assert Filter().refusal(change(holdout=True)) == "holdout"
    assert Filter(events=("signal",)).refusal(change()) == "event"
    assert Filter(tiers=("011", "000")).refusal(change()) is None
    assert Filter(tiers=("000",)).refusal(change()) == "tier"
    assert Filter(tiers=("none",)).refusal(change(to_tier=None)) is None
    assert Filter(from_tiers=("011",)).refusal(change()) == "from_tier"
    assert Filter(reasons=("order",)).refusal(change()) == "reason"
    assert Filter(playbooks=("wake",)).refusal(change()) is None
    assert Filter(views=("v",)).refusal(change(view="w")) == "view"
    assert Filter(populations=("none",)).refusal(change(population=None)) is None
    assert Filter(kinds=("warning",)).refusal(change()) is None
