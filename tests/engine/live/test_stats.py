"""What is counted of tier changes, against a count of their rows one by one."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from rfmstream import Engine
from rfmstream.engine.live.stats import count_changes

START = datetime(2025, 1, 1, tzinfo=UTC)


def changes() -> pa.Table:
    """Return changes of several batches: from and to no tier, by orders, time and erasures."""
    engine = Engine("rfm8-annual", mode="live")
    numbers = range(200)
    orders = {
        "customer_id": [f"c{number % 37}" for number in numbers],
        "order_id": [f"o{number}" for number in numbers],
        "occurred_at": [START + timedelta(days=number) for number in numbers],
        "amount": [f"{number * 13}.50" for number in numbers],
        "type": ["erased" if number % 11 == 10 else "paid" for number in numbers],
    }
    told = [engine.step(pa.table(orders)).changes, engine.advance(START + timedelta(days=900))]
    return pa.concat_tables(told)


@pytest.mark.parametrize("cut", [slice(0, None), slice(3, 50), slice(0, 0)])
def test_changes_are_counted_by_reason_and_tier_and_move_customers(cut: slice) -> None:
    table = changes()[cut]
    rows = table.to_pylist()
    counts: Counter[tuple[str, str]] = Counter({("order", ""): 5})
    tiers: Counter[str] = Counter()
    count_changes(table, counts, tiers)
    expected = Counter((row["reason"], row["to_tier"] or "") for row in rows)
    assert counts == expected + Counter({("order", ""): 5})
    moved = Counter(row["to_tier"] for row in rows)
    moved.subtract(row["from_tier"] for row in rows)
    del moved[None]
    assert {tier: count for tier, count in tiers.items() if count} == {t: n for t, n in moved.items() if n}
    if cut == slice(0, None):
        assert {row["reason"] for row in rows} >= {"first_order", "order", "recency_expired", "erased"}
        assert {row["to_tier"] for row in rows} > {None}
