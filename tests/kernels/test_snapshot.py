"""A snapshot measures copies: hand-made customers, and nothing changed by looking."""

from dataclasses import replace

import numpy as np
import pytest
from kernel_shards import event, fold_events, memory_of, shard_in
from oracle_days import DAY_US

from rfmstream import Engine
from rfmstream.kernels.layout import NEXT_TIER
from rfmstream.schemas.codes import FOREVER_US, NEVER_US, NO_TIER, ChangeReason
from rfmstream.schemas.ruleset import load_ruleset


def measured(engine: Engine, as_of_us: int) -> list[dict[str, object]]:
    """Return each customer's columns by name, with its bands together, and its tiers and reason as text."""
    shard = shard_in(engine)
    out = shard.measure(as_of_us, np.arange(1, shard.customers + 1, dtype=np.uint32)).out

    def tier(code: int) -> str | None:
        return None if code == NO_TIER else engine.ruleset.tiers[code].id

    rows = [dict(zip(out._fields, row, strict=True)) for row in zip(*out, strict=True)]
    for row in rows:
        row["bands"] = tuple(row.pop(name) for name in ("r_band", "f_band", "m_band"))
        row["tiers"] = tuple(tier(row.pop(name)) for name in ("tier", "from_tier", "next_tier"))
        row["reason"] = ChangeReason(row["reason"]).name.lower()
    return rows


def test_a_customer_now_and_later() -> None:
    engine = Engine("rfm8-annual")
    fold_events(engine, [event("a", f"o{day}", day * DAY_US, 40_001) for day in (0, 10, 20)])
    (now,) = measured(engine, 20 * DAY_US)
    assert now == {
        "last_paid_at": 20 * DAY_US,
        "tier_since": 20 * DAY_US,
        "first_paid_at": 0,
        "next_change_at": 51 * DAY_US,
        "monetary_minor": 120_003,
        "lifetime_monetary_minor": 120_003,
        "average_order_minor": 40_001,
        "frequency": 3,
        "lifetime_orders": 3,
        "seq": 2,
        "recency_days": 0,
        "order_entry": 3,
        "bands": (1, 1, 1),
        "tiers": ("111", "100", "011"),
        "reason": "order",
    }
    (lapsed,) = measured(engine, 51 * DAY_US)
    assert lapsed["tiers"] == ("011", "111", "000")
    assert (lapsed["tier_since"], lapsed["next_change_at"]) == (51 * DAY_US, 366 * DAY_US)
    assert (lapsed["recency_days"], lapsed["reason"], lapsed["order_entry"]) == (31, "recency_expired", 0)
    (gone,) = measured(engine, 1000 * DAY_US)
    assert gone["tiers"] == ("000", "011", None)
    assert (gone["frequency"], gone["monetary_minor"], gone["lifetime_monetary_minor"]) == (0, 0, 120_003)
    assert (gone["next_change_at"], gone["seq"], gone["reason"]) == (FOREVER_US, 4, "window_expired")


def test_looking_changes_nothing() -> None:
    engine = Engine("scores4")
    fold_events(engine, [event(f"c{i % 50}", f"o{i}", i * DAY_US // 3, 10_000 * i) for i in range(500)])
    before = memory_of(shard_in(engine))
    far = measured(engine, 10_000 * DAY_US)
    assert memory_of(shard_in(engine)) == before
    assert measured(engine, 10_000 * DAY_US) == far


@pytest.mark.parametrize("ruleset", ["rfm8-annual", "scores4", "types7"])
def test_a_noted_next_tier_is_the_one_a_search_finds(ruleset: str) -> None:
    engine = Engine(load_ruleset(ruleset).without_signals())
    rows = [
        event(
            f"c{i * i % 97}",
            f"o{i}",
            i * DAY_US // 3,
            5_000 * (i % 41) - 60_000 * (i % 7 == 0),
            type="adjusted" if i % 7 == 0 else "paid",
        )
        for i in range(3000)
    ]
    fold_events(engine, rows)
    customers = shard_in(engine).customer_records()[0]
    noted = np.count_nonzero(customers["marks"] & NEXT_TIER)
    assert noted > 20
    days = (1000, 1001, 1030, 1100, 1400)
    before = [measured(engine, day * DAY_US) for day in days]
    customers["marks"] &= 0xFF ^ NEXT_TIER
    assert [measured(engine, day * DAY_US) for day in days] == before


def test_a_customer_without_orders() -> None:
    engine = Engine()
    fold_events(engine, [event("a", "credit", 5, -70, type="adjusted")])
    (row,) = measured(engine, 10)
    assert (row["last_paid_at"], row["first_paid_at"], row["tier_since"]) == (
        NEVER_US,
        FOREVER_US,
        NEVER_US,
    )
    assert (row["monetary_minor"], row["average_order_minor"], row["recency_days"], row["seq"]) == (
        -70,
        0,
        0,
        0,
    )
    assert row["tiers"] == (None, None, None)


@pytest.mark.parametrize(("total", "average"), [(-1, -1), (-4, -2), (-5, -3), (5, 2), (0, 0)])
def test_an_average_is_rounded_down(total: int, average: int) -> None:
    engine = Engine()
    rows = [event("a", "o1", 0, 0), event("a", "o2", 0, 0), event("a", "x", 0, total, type="adjusted")]
    fold_events(engine, rows)
    assert measured(engine, 0)[0]["average_order_minor"] == average


@pytest.mark.parametrize(("unit", "days"), [("calendar_day", [0, 1, 1, 2]), ("duration", [0, 0, 1, 1])])
def test_recency_in_the_unit_of_the_ruleset(unit: str, days: list[int]) -> None:
    engine = Engine(replace(load_ruleset("rfm8"), day_unit=unit))
    noon = DAY_US // 2
    fold_events(engine, [event("a", "o", noon)])
    instants = [noon, DAY_US, noon + DAY_US, 2 * DAY_US]
    assert [measured(engine, at)[0]["recency_days"] for at in instants] == days


def test_a_part_of_the_customers() -> None:
    engine = Engine()
    fold_events(engine, [event(f"c{i}", "o", 0, i) for i in range(100)])
    shard = shard_in(engine)
    out, valid = shard.measure(0, np.arange(40, 43, dtype=np.uint32)).trim()
    assert out.monetary_minor.tolist() == [39, 40, 41]
    assert {column.size for column in out} == {3}
    assert {bitmap.size for bitmap in valid} == {1}
    assert {column.size for column in shard.measure(0, np.arange(1, 1, dtype=np.uint32)).out} == {0}
