"""Batches of changes and snapshots: valid Arrow of the declared schema, with nulls where there is nothing."""

import pyarrow as pa
import pytest
from kernel_shards import event
from oracle_days import DAY_US
from twins import canonical_batch, plain_rows

from rfmstream import Engine
from rfmstream.schemas.changes import change_schema
from rfmstream.schemas.ruleset import list_rulesets, load_ruleset
from rfmstream.schemas.snapshots import snapshot_schema


def history(size: int) -> pa.RecordBatch:
    """Return orders whose customers have ids of every length, with credits that make nobody a customer."""
    rows = [
        event(f"{i % 97}-".ljust(i % 97 * 2 + 3, "é")[:128], f"o{i}" * (i % 60 + 1), i * DAY_US, i)
        for i in range(size)
    ]
    return canonical_batch([*rows, event("credit only", "x", size * DAY_US, -5, type="adjusted")])


@pytest.mark.parametrize("name", list_rulesets())
@pytest.mark.parametrize("threads", [1, 3])
def test_batches_are_valid_and_of_their_schema(name: str, threads: int) -> None:
    engine = Engine(name, threads=threads, mode="live")
    changes = engine.step_canonical(history(300)).changes
    passed = engine.advance(2000 * DAY_US)
    snapshot = engine.snapshot(3000 * DAY_US)
    for batch in (changes, passed, snapshot, Engine(name).snapshot(), Engine(name).advance(0)):
        batch.validate(full=True)
    ruleset = load_ruleset(name)
    assert changes.schema == passed.schema == change_schema(ruleset)
    assert snapshot.schema == snapshot_schema(ruleset)
    assert changes.num_rows > 100
    assert passed.num_rows > 10
    assert snapshot.num_rows == 98
    assert set(changes["mode"].to_pylist()) == {"live"}
    assert set(snapshot["ruleset"].to_pylist()) == {name}


def test_changes_come_in_order_of_time_and_time_comes_first() -> None:
    engine = Engine()
    rows = [event("a", "o1", 0), event("b", "o1", DAY_US), event("c", "o1", 31 * DAY_US)]
    changes = plain_rows(engine.step_canonical(canonical_batch(rows)).changes)
    assert [(row["customer_id"], row["reason"]) for row in changes] == [
        ("a", "first_order"),
        ("b", "first_order"),
        ("a", "recency_expired"),  # at the very instant at which c pays
        ("c", "first_order"),
    ]
    assert [row["order_id"] for row in changes] == ["o1", "o1", None, "o1"]


def test_nulls_of_a_customer_without_a_tier() -> None:
    engine = Engine()
    engine.step_canonical(canonical_batch([event("a", "x", 5, -7, type="adjusted")]))
    (row,) = plain_rows(engine.snapshot())
    told = {name: value for name, value in row.items() if value is not None}
    assert told == {
        "customer_id": "a",
        "r_band": 0,
        "f_band": 0,
        "m_band": 0,
        "frequency": 0,
        "monetary_minor": -7,
        "lifetime_orders": 0,
        "lifetime_monetary_minor": -7,
        "ruleset": "rfm8",
        "mode": "replay",
        "view": "rfm8",
    }


def test_nulls_of_a_customer_who_lost_the_tier() -> None:
    engine = Engine()
    rows = [event("a", "o1", 0), event("a", "o1", 9, 0, type="cancelled")]
    changes = plain_rows(engine.step_canonical(canonical_batch(rows)).changes)
    assert (changes[1]["to_tier"], changes[1]["last_paid_at"], changes[1]["next_change_at"]) == (
        None,
        None,
        None,
    )
    (row,) = plain_rows(engine.snapshot())
    assert (row["tier"], row["tier_since"], row["seq"], row["from_tier"]) == (None, 9, 2, "100")
    assert (row["first_paid_at"], row["recency_days"], row["average_order_minor"]) == (None, None, None)
    assert (row["order_id"], row["reason"]) == ("o1", "cancellation")


def test_a_slice_of_a_batch_is_read_where_it_begins() -> None:
    whole = history(200)
    one, two = Engine(), Engine()
    expected = plain_rows(one.step_canonical(whole).changes)
    parts = [whole.slice(at, 17) for at in range(0, whole.num_rows, 17)]
    found = [row for part in parts for row in plain_rows(two.step_canonical(part).changes)]
    assert found == expected
    assert one.snapshot().equals(two.snapshot())
