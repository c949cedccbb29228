"""Signals, by hand: each sentence of docs/semantics.md 9, and the published vectors of section 11."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from kernel_shards import event
from oracle_days import DAY_US
from real_orders import cdnow
from twins import canonical_batch, plain_rows

from rfmstream import Engine
from rfmstream.engine.core.columns import _fnv1a32
from rfmstream.kernels.emit import hold_out
from rfmstream.schemas.ruleset import Milestones, Ruleset, load_ruleset
from rfmstream.schemas.signals import SIGNAL_SCHEMA

HOUR_US = DAY_US // 24


def rules(
    base: str = "rfm8",
    *,
    warn: dict[str, tuple[int, ...]] | None = None,
    dwell: dict[str, tuple[int, ...]] | None = None,
    milestones: Milestones | None = None,
    **options: Any,
) -> Ruleset:
    own = load_ruleset(base, **options.pop("load", {})).without_signals()
    tiers = tuple(
        replace(tier, warn_days=(warn or {}).get(tier.id, ()), dwell_days=(dwell or {}).get(tier.id, ()))
        for tier in own.tiers
    )
    return replace(own, tiers=tiers, milestones=milestones or Milestones(), **options)


def told(table: Any) -> list[tuple[Any, ...]]:
    """Return (kind, instant in days, its number, order) of each signal."""
    return [
        (
            row["kind"],
            row["effective_at"] / DAY_US,
            next(row[name] for name in ("days", "count", "amount_minor") if row[name] is not None),
            row["order_id"],
        )
        for row in plain_rows(table)
    ]


def after(engine: Engine, events: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return told(engine.step_canonical(canonical_batch(events)).signals)


def later(engine: Engine, day: float) -> list[tuple[Any, ...]]:
    engine.advance(int(day * DAY_US))
    return told(engine.signals)


def test_warnings_come_at_local_midnights_before_the_change() -> None:
    engine = Engine(rules(warn={"100": (3, 14)}))
    assert after(engine, [event("a", "o1", DAY_US // 2, 1_000)]) == []
    # Within 30 days of day 0 until the end of day 30: the change is at the start of day 31.
    assert later(engine, 16.9) == []
    assert later(engine, 30.5) == [("warning", 17.0, 14, None), ("warning", 28.0, 3, None)]
    row = plain_rows(engine.signals)[1]
    assert (row["at"], row["next_tier"], row["tier"], row["seq"]) == (31 * DAY_US, "000", "100", 1)
    assert (row["stay_orders"], row["stay_minor"]) == (1, 0)
    assert later(engine, 40) == []


def test_a_new_order_moves_the_change_and_so_the_warnings() -> None:
    engine = Engine(rules(warn={"100": (14,)}))
    after(engine, [event("a", "o1", 0, 1_000)])
    assert later(engine, 20) == [("warning", 17.0, 14, None)]
    after(engine, [event("a", "o2", 20 * DAY_US, 1_000)])
    assert later(engine, 36) == []
    assert later(engine, 37) == [("warning", 37.0, 14, None)]


def test_an_event_that_brings_the_change_near_warns_at_once_and_only_by_the_nearest() -> None:
    engine = Engine(rules(warn={"100": (3, 14, 29)}))
    # The older order comes late, when the warnings before its day 31 are no longer of matter.
    assert after(engine, [event("a", "o2", 25 * DAY_US, 1_000), event("a", "o1", 0, 1_000)]) == []
    # Without the newer one the change is on that day after all: five days from the cancellation.
    cancelled = event("a", "o2", 26 * DAY_US, 0, type="cancelled")
    assert after(engine, [cancelled]) == [("warning", 26.0, 14, "o2")]
    assert later(engine, 30) == [("warning", 28.0, 3, None)]


def test_the_same_change_is_not_warned_of_twice_by_as_many_days_or_more() -> None:
    engine = Engine(rules(warn={"100": (14,)}))
    after(engine, [event("a", "o1", 0, 1_000)])
    assert later(engine, 18) == [("warning", 17.0, 14, None)]
    rows = [event("a", "o2", 18 * DAY_US, 1_000), event("a", "o2", 19 * DAY_US, 0, type="cancelled")]
    assert after(engine, rows) == []  # the change is that of day 31 again
    assert later(engine, 31) == []


def test_what_it_takes_to_stay() -> None:
    engine = Engine(rules("rfm8-annual", warn={"111": (7,)}))
    # Two of the three orders leave the window before the customer stops being recent.
    days = (0, 1, 340)
    result = engine.step_canonical(
        canonical_batch([event("a", f"o{day}", day * DAY_US, 60_000) for day in days])
    )
    assert told(result.signals) == []
    (signal,) = plain_rows_after(engine, 366)
    assert (signal["at"], signal["next_tier"]) == (366 * DAY_US, "101")
    assert (signal["stay_orders"], signal["stay_minor"]) == (1, 0)
    # A cut of three, and one order is left at the end of the next day.
    assert plain_rows_after(engine, 367) == []


def test_what_it_takes_where_amount_is_missing() -> None:
    engine = Engine(rules("rfm8-annual", warn={"111": (7,)}))
    rows = [event("a", "big", 0, 100_000)]
    rows += [event("a", f"o{day}", day * DAY_US, 100) for day in range(300, 365, 5)]
    # The warnings that the next order each time makes void are not given: recency lasts longer than seven days.
    (signal,) = plain_rows(engine.step_canonical(canonical_batch(rows)).signals)
    assert (signal["at"], signal["next_tier"]) == (366 * DAY_US, "110")
    assert signal["effective_at"] == 359 * DAY_US
    # Twelve orders of 1.00 had been placed by then, and stay in the window.
    assert (signal["stay_orders"], signal["stay_minor"]) == (1, 100_000 - 1_200)


def test_no_number_of_orders_keeps_a_first_order_the_first() -> None:
    engine = Engine(rules("types7", warn={"new": (7,)}))
    after(engine, [event("a", "o1", 0, 100)])
    (signal,) = plain_rows_after(engine, 40)
    assert (signal["tier"], signal["stay_orders"], signal["stay_minor"]) == ("new", None, None)


def plain_rows_after(engine: Engine, day: int) -> list[dict[str, Any]]:
    engine.advance(day * DAY_US)
    return plain_rows(engine.signals)


def test_durations_count_hours() -> None:
    engine = Engine(rules(warn={"100": (2,)}, dwell={"100": (10,)}, day_unit="duration"))
    after(engine, [event("a", "o1", 5 * HOUR_US, 1_000)])
    assert later(engine, 31) == [("dwell", 10 + 5 / 24, 10, None), ("warning", 28 + 5 / 24, 2, None)]


def test_a_warning_across_daylight_saving_is_at_local_midnight() -> None:
    zone = "Europe/Berlin"
    engine = Engine(rules(warn={"100": (3,)}, load={"time_zone": zone}, base="rfm8"))
    at_us = int(datetime(2024, 2, 29, 12, tzinfo=UTC).timestamp()) * 1_000_000
    after(engine, [event("a", "o1", at_us, 1_000)])
    engine.advance("2024-05-01")
    (row,) = plain_rows(engine.signals)
    # Thirty days after 29 February is 30 March; the change is on Sunday 31 March at 00:00 +01:00.
    assert row["at"] == int(datetime(2024, 3, 30, 23, tzinfo=UTC).timestamp()) * 1_000_000
    assert row["effective_at"] == int(datetime(2024, 3, 27, 23, tzinfo=UTC).timestamp()) * 1_000_000


def test_dwells_come_once_for_each_number_of_days_while_the_tier_lasts() -> None:
    engine = Engine(rules(dwell={"000": (90, 180)}))
    after(engine, [event("a", "o1", 0, 1_000)])
    # In 000 since day 31; more than 90 days since then from the start of day 122.
    assert later(engine, 122) == [("dwell", 122.0, 90, None)]
    assert later(engine, 211) == []
    assert later(engine, 1000) == [("dwell", 212.0, 180, None)]
    after(engine, [event("a", "o2", 1000 * DAY_US, 1_000)])
    assert later(engine, 1200) == [("dwell", 1122.0, 90, None)]


def test_milestones_are_reached_once_whatever_is_taken_back() -> None:
    engine = Engine(rules(milestones=Milestones(orders=(1, 2), spend_minor=(1_000, 2_000))))
    assert after(engine, [event("a", "o1", 0, 2_500)]) == [
        ("orders", 0.0, 1, "o1"),
        ("spend", 0.0, 1_000, "o1"),
        ("spend", 0.0, 2_000, "o1"),
    ]
    rows = [
        event("a", "o1", DAY_US, 2_000, type="refunded"),
        event("a", "o2", 2 * DAY_US, 3_000),
        event("a", "o2", 3 * DAY_US, 0, type="cancelled"),
        event("a", "o3", 4 * DAY_US, 3_000),
    ]
    assert after(engine, rows) == [("orders", 2.0, 2, "o2")]


def test_a_credit_can_reach_a_spend_milestone() -> None:
    engine = Engine(rules(milestones=Milestones(spend_minor=(1_000,))))
    assert after(engine, [event("a", "credit", 0, 1_000, type="adjusted")]) == [
        ("spend", 0.0, 1_000, "credit")
    ]
    (row,) = plain_rows(engine.signals)
    assert (row["tier"], row["seq"]) == (None, 0)


def test_a_single_order_gives_its_highest_cut_every_time() -> None:
    engine = Engine(rules(milestones=Milestones(single_order_minor=(500, 900))))
    rows = [event("a", "o1", 0, 499), event("a", "o2", 1, 500), event("a", "o3", 2, 5_000)]
    rows += [event("a", "o4", 3, 900), event("a", "credit", 4, 900, type="adjusted")]
    assert [(row[2], row[3]) for row in after(engine, rows)] == [(500, "o2"), (900, "o3"), (900, "o4")]


def test_at_one_instant_milestones_come_before_the_warning() -> None:
    ruleset = rules(warn={"100": (31,)}, milestones=Milestones((1,), (1,), (1,)))
    assert [row[0] for row in after(Engine(ruleset), [event("a", "o1", 0, 5)])] == [
        "orders",
        "spend",
        "single_order",
        "warning",
    ]


def test_another_ruleset_tells_nothing_of_what_has_passed() -> None:
    engine = Engine(rules())
    after(engine, [event("a", f"o{n}", n * DAY_US, 1_000) for n in (1, 2)])
    asked = rules(
        dwell={"000": (90, 180)}, warn={"000": (1,)}, milestones=Milestones((2, 3), (1_000, 2_500), ())
    )
    engine.advance(130 * DAY_US)  # in 000 since day 33
    engine.resegment(asked)
    assert told(engine.signals) == []
    assert later(engine, 220) == [("dwell", 214.0, 180, None)]
    assert after(engine, [event("a", "o9", 221 * DAY_US, 1_000)]) == [
        ("orders", 221.0, 3, "o9"),
        ("spend", 221.0, 2_500, "o9"),
    ]


def test_looking_ahead_gives_no_signal_and_the_next_change_stays_that_of_the_tier() -> None:
    ruleset = rules("rfm8-annual", warn={"100": (14, 3), "000": (5,)}, dwell={"100": (2, 9)})
    asked, plain = Engine(ruleset), Engine("rfm8-annual")
    rows = [event(f"c{n % 7}", f"o{n}", n * DAY_US, 30_000) for n in range(60)]
    for engine in (asked, plain):
        engine.step_canonical(canonical_batch(rows))
    for day in (60, 75, 95, 400, 600):
        left, right = (plain_rows(engine.snapshot(day * DAY_US)) for engine in (asked, plain))
        assert left == right
    assert asked.counters.signals == {"dwell": asked.counters.signals["dwell"]} | asked.counters.signals


def test_the_schema_and_the_signals_of_a_call() -> None:
    engine = Engine(rules(milestones=Milestones(orders=(1,))), threads=3, mode="live")
    result = engine.step_canonical(canonical_batch([event(f"c{n}" * 9, "o", n, 7) for n in range(500)]))
    assert result.signals.schema == SIGNAL_SCHEMA
    result.signals.validate(full=True)
    assert result.signals.num_rows == engine.counters.signals["orders"] == 500
    assert engine.signals.equals(result.signals)
    assert set(result.signals["mode"].to_pylist()) == {"live"}
    engine.advance(DAY_US)
    assert engine.signals.num_rows == 0


def test_more_signals_than_the_output_first_has_room_for() -> None:
    cuts = tuple(range(1, 101))
    engine = Engine(rules(milestones=Milestones(spend_minor=cuts)))
    signals = after(engine, [event(f"c{n}", "o", n, 100) for n in range(300)])
    assert len(signals) == 300 * 100
    assert [row[2] for row in signals[:100]] == list(cuts)


def test_the_bytes_a_customer_more() -> None:
    engine = Engine(rules(milestones=Milestones(orders=(1,))))
    after(engine, [event(f"c{n}", "o", n, 100) for n in range(1000)])
    assert engine.memory["extras"] == 1001 * 32
    assert "extras" not in Engine(rules()).memory


def test_milestones_of_cdnow() -> None:
    engine = Engine(rules(milestones=Milestones(orders=(1, 2, 4, 10))), threads=2)
    signals = engine.step_canonical(canonical_batch(cdnow())).signals
    counts = np.unique(np.asarray(signals["count"]), return_counts=True)
    assert dict(zip(*(part.tolist() for part in counts), strict=True)) == {
        1: 23_570,
        2: 11_662,
        4: 5_366,
        10: 1_154,
    }


@pytest.mark.parametrize(
    ("seed", "customer_id", "bucket"),
    [("seed", "a", 505), ("seed", "b", 2696), ("foo", "ab", 2575), ("foo", "def", 2019)],
)
def test_the_published_vectors_of_the_holdout(seed: str, customer_id: str, bucket: int) -> None:
    data = np.frombuffer(customer_id.encode(), dtype=np.uint8)
    offsets = np.array([0, data.size], dtype=np.int32)
    seeds = np.array([_fnv1a32(seed.encode())], dtype=np.uint64)
    held = []
    for parts in (bucket, bucket + 1, -1):
        out = np.empty(1, dtype=np.int8)
        hold_out(offsets, data, np.zeros(1, dtype=np.int8), np.array([parts], dtype=np.int64), seeds, out)
        held.append(int(out[0]))
    assert held == [0, 1, -1]


def test_signals_say_who_is_held_out() -> None:
    base = rules(milestones=Milestones(orders=(1,)))
    playbook = replace(base.tiers[0].playbook, key="seed", holdout_parts=600)
    held = replace(base, tiers=tuple(replace(tier, playbook=playbook) for tier in base.tiers))
    rows = [event("a", "o", 0, 5), event("b", "o", 1, 5), event("c", "x", 2, 5, type="adjusted")]
    for ruleset, expected in ((held, [True, False]), (base, [None, None])):
        signals = Engine(ruleset).step_canonical(canonical_batch(rows)).signals
        assert signals["holdout"].to_pylist() == expected
