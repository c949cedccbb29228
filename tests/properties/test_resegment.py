"""Under other rules, a state is as if these had held all along: Engine.resegment."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import Rules
from oracle_days import DAY_US, LAST_US
from strategies import Case, cases, rules
from twins import Driven, in_order, plain_rows, ruleset_of

from rfmstream import Engine
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.ruleset import load_ruleset

PAST = ("seq", "from_tier", "tier_since", "effective_at", "reason", "order_id")
"""What a snapshot tells of the newest change, which another history may have brought."""


def without(rows: list[dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


@given(cases(), rules(), st.data())
def test_as_if_the_rules_had_held_all_along(case: Case, other: Rules, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(case.events)))
    driven, expected = Driven(case.rules), Driven(other)
    driven.step(case.events[:at])
    expected.step(case.events[:at])
    before = {row["customer_id"]: (row["seq"] or 0, row["tier"]) for row in driven.snapshot()}
    made = plain_rows(driven.engine.resegment(ruleset_of(other)))
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
    for one in (driven, expected):
        one.step(case.events[at:])
        one.advance(min((one.clock_us or 0) + 400 * DAY_US, LAST_US))
    assert without(in_order(driven.changes), ("seq",)) == without(in_order(expected.changes), ("seq",))
    assert without(driven.snapshot(), PAST) == without(expected.snapshot(), PAST)


@given(cases(), rules())
def test_there_and_back(case: Case, other: Rules) -> None:
    driven, expected = Driven(case.rules), Driven(case.rules)
    driven.step(case.events)
    expected.step(case.events)
    for ruleset in (ruleset_of(other), ruleset_of(case.rules)):
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
