"""Under other rules, a state is as if these had held all along: Engine.resegment."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from oracle import Event, Oracle, Rules
from oracle_days import DAY_US, LAST_US
from strategies import Case, cases, rules
from twins import Driven, in_order, plain_rows, rejected_rows, ruleset_of

from rfmstream import Engine
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.ruleset import load_ruleset

PAST = ("seq", "from_tier", "tier_since", "effective_at", "reason", "order_id")
"""What a snapshot tells of the newest change, which another history may have brought."""


def without(rows: list[dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


def keeping(rules_: Rules) -> Rules:
    """Return rules that forget no order: those by which history can be told anew."""
    return replace(rules_, forget_days=None)


@given(cases(), rules(), st.data())
def test_as_if_the_rules_had_held_all_along(case: Case, other: Rules, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(case.events)))
    # Of forgotten orders nothing but their sums is left, which is all that other rules need to know of them.
    driven, expected, oracle = Driven(case.rules), Driven(keeping(other)), Oracle(case.rules)
    oracle.step(case.events[:at])
    driven.step(case.events[:at])
    expected.step(applied(case.events[:at], oracle.outcomes))
    assume(is_all_applied(expected))
    if at and data.draw(st.booleans()):
        with TemporaryDirectory() as folder:
            driven.restart(folder)
    before = {row["customer_id"]: (row["seq"] or 0, row["tier"]) for row in driven.snapshot()}
    try:
        made = plain_rows(driven.engine.resegment(ruleset_of(other)))
    except ConfigError as error:
        assert error.key == "window_days"  # noqa: PT017 - either it does or it does not
        assert is_beyond(oracle, other)
        return
    assert not is_beyond(oracle, other)
    oracle.take_over(other)
    now = driven.snapshot()
    assert without(now, PAST) == without(expected.snapshot(), PAST)

    known = {tier.id for tier in ruleset_of(other).tiers}
    moved = {row["customer_id"] for row in now if row["tier"] != before[row["customer_id"]][1]}
    assert sorted(row["customer_id"] for row in made) == sorted(moved)
    for row in made:
        seq, tier = before[row["customer_id"]]
        assert (row["seq"], row["reason"], row["order_id"]) == (seq + 1, "rules_changed", None)
        assert row["from_tier"] == (tier if tier in known else None)
        assert row["effective_at"] == driven.clock_us
        assert row["ruleset"] == other.identity

    driven.changes, expected.changes = [], []
    outcomes = oracle.step(case.events[at:])
    for one, events in ((driven, case.events[at:]), (expected, applied(case.events[at:], outcomes))):
        one.step(events)
        one.advance(min((one.clock_us or 0) + 400 * DAY_US, LAST_US))
    assert sorted(driven.rejected) == rejected_rows(oracle)
    assume(is_all_applied(expected))
    assert without(in_order(driven.changes), ("seq",)) == without(in_order(expected.changes), ("seq",))
    assert without(driven.snapshot(), PAST) == without(expected.snapshot(), PAST)


def applied(events: list[Event], outcomes: list[str]) -> list[Event]:
    return [event for event, outcome in zip(events, outcomes, strict=True) if outcome == "applied"]


def is_all_applied(driven: Driven) -> bool:
    """Tell whether no id came again: that of a forgotten order may, and that of another may not."""
    return bool(driven.counters["applied"] == driven.counters["read"])


def is_beyond(oracle: Oracle, other: Rules) -> bool:
    """Tell whether other rules count back to a date from before which orders are forgotten."""
    if other.window_days is None or oracle.clock_us is None:
        return False
    known_us = oracle.rules.known_from_us(oracle.clock_us)
    begins_us = replace(other, forget_days=other.window_days).known_from_us(oracle.clock_us)
    assert begins_us is not None
    return known_us is not None and begins_us < known_us


@given(cases(), rules())
def test_there_and_back(case: Case, other: Rules) -> None:
    # A window that counts back to forgotten orders is refused: see above.
    rules_, other = keeping(case.rules), keeping(other)
    driven, expected = Driven(rules_), Driven(rules_)
    driven.step(case.events)
    expected.step(case.events)
    for ruleset in (ruleset_of(other), ruleset_of(rules_)):
        driven.engine.resegment(ruleset)
    assert without(driven.snapshot(), PAST) == without(expected.snapshot(), PAST)


def test_orders_that_never_left_leave_by_rules_that_let_them() -> None:
    days = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=10 * number) for number in range(6)]
    orders = pa.table(
        {
            "customer_id": ["c"] * 6,
            "order_id": list("abcdef"),
            "occurred_at": days,
            "amount_minor": [30_000] * 6,
        }
    )
    engine, expected = Engine("rfm8"), Engine("rfm8-annual")
    for one in (engine, expected):
        one.step(orders)
    assert engine.resegment(expected.ruleset).num_rows == 0
    later = [plain_rows(one.advance("2025-12-31T00:00:00Z")) for one in (engine, expected)]
    assert later[0] == later[1]
    assert [row["frequency"] for row in later[0]] == [6, 3, 2]


def test_another_currency_is_refused() -> None:
    engine = Engine(load_ruleset("rfm8", currency="CNY"))
    with pytest.raises(ConfigError, match="counts in EUR"):
        engine.resegment(load_ruleset("rfm8", currency="EUR"))
