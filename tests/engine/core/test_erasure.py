"""An erased customer leaves nothing but its id, its count of changes and the instant, in memory and in files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from oracle import BUILT_IN, Event, Oracle, place
from oracle_days import DAY_US
from twins import Driven, assert_same, canonical_batch, in_order, plain_rows, ruleset_of

from rfmstream import Engine
from rfmstream.engine.core.shard import Shard
from rfmstream.kernels import layout

RULES = BUILT_IN["rfm8-annual"]()
LONG = "a customer whose id is longer than sixteen bytes, number "


def event(customer: str, order: str, day: int, amount: int = 100, **fields: object) -> Event:
    return {
        "customer_id": customer,
        "order_id": order,
        "type": "paid",
        "occurred_at_us": day * DAY_US,
        "amount_minor": amount,
        "event_id": None,
    } | fields


def erased(customer: str, day: int) -> Event:
    return event(customer, "", day, 0, type="erased")


def history(customers: int) -> list[Event]:
    """Orders, refunds of both kinds, adjustments and events with ids of their own, told apart by their ids."""
    events = []
    for n in range(customers):
        name = f"{LONG}{n}" if n % 2 else f"c{n}"
        events += [
            event(name, f"order-{n}-1", 1, 90_000),
            event(name, f"order-{n}-2", 2, 90_000, event_id=f"event-{n}"),
            event(name, f"order-{n}-1", 3, 100, type="refunded"),
            event(name, f"order-{n}-1", 4, 500, type="refunded_total", event_id=f"refund-{n}"),
            event(name, f"credit-{n}", 5, -7, type="adjusted"),
            event(name, f"order-{n}-2", 6, 0, type="cancelled"),
        ]
    return sorted(events, key=lambda event: event["occurred_at_us"])


def holds(directory: Path, text: bytes) -> bool:
    return any(text in path.read_bytes() for path in directory.iterdir())


@pytest.mark.parametrize("threads", [1, 2])
def test_nothing_of_an_erased_customer_is_in_a_later_checkpoint(tmp_path: Path, threads: int) -> None:
    engine = Engine(ruleset_of(RULES), threads=threads)
    engine.step_canonical(canonical_batch(history(40)))
    engine.checkpoint(tmp_path / "before")
    assert all(
        holds(tmp_path / "before", f"{word}-7".encode()) for word in ("order", "event", "refund", "credit")
    )
    engine.step_canonical(canonical_batch([erased(f"{LONG}7", 9), erased("c8", 9)], 240))
    engine.checkpoint(tmp_path / "after")
    for n in (7, 8):
        for id_ in (f"order-{n}-1", f"order-{n}-2", f"event-{n}", f"refund-{n}", f"credit-{n}"):
            assert not holds(tmp_path / "after", id_.encode()), id_
    assert holds(tmp_path / "after", b"order-9-2")
    assert (engine.customers, engine.orders) == (38, 76)
    for shard in engine.shards:
        used = shard._arenas["id_data"].array[: int(shard.state.row.id_bytes)].tobytes()
        assert b"order-7-1" not in used
        assert b"event-8" not in used


def test_the_entries_are_blanked_and_their_places_stay() -> None:
    engine = Engine(ruleset_of(RULES))
    engine.step_canonical(canonical_batch(history(3)))
    before = engine.shards[0].entry_records().copy()
    engine.step_canonical(canonical_batch([erased("c0", 9)], 18))
    after = engine.shards[0].entry_records()
    own = before["customer"] == 1
    assert own.sum() > 6
    assert set(after["marks"][: own.size][own]) == {layout.GONE}
    for name in ("at_us", "amount_minor", "customer", "previous", "next"):
        assert not after[name][: own.size][own].any()
    assert (after[: own.size][~own] == before[~own]).all()
    assert after[-1]["marks"] == layout.ERASURE


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_checkpoint_has_no_place_of_what_was_erased(tmp_path: Path, share: float) -> None:
    rules = ruleset_of(RULES)
    count = 300
    gone = [n for n in range(count) if n % 10 < 10 * share]
    engine = Engine(rules, threads=2)
    engine.step_canonical(canonical_batch(history(count)))
    engine.step_canonical(canonical_batch([erased(name_of(n), 9) for n in gone], 6 * count))
    back = [event(name_of(n), f"back-{n}", 10 + n % 3, 200_000) for n in gone[::3]]
    refunds = [event(name_of(n), f"back-{n}", 14, 5, type="refunded") for n in gone[::3]]
    later = [row for n in range(count) for row in history(count)[n::count][:1]]
    engine.step_canonical(canonical_batch(back + refunds, 7 * count))
    engine.checkpoint(tmp_path / "state")
    again = Engine.restore(tmp_path / "state", ruleset=rules)
    for shard in again.shards:
        assert (shard.entry_records()["marks"][1:] & layout.KIND_MASK != layout.GONE).all()
        assert shard.customers - shard.erased == shard.customers - len(hidden_ids(shard))
    assert sum(shard.customers for shard in again.shards) == count
    assert (
        sum(shard.entry_records().size - 1 for shard in again.shards)
        <= (7 - 6 * share) * count + len(back) * 3
    )
    assert (again.customers, again.orders) == (engine.customers, engine.orders)
    # Both go on alike, whatever comes.
    for engine_ in (engine, again):
        engine_.step_canonical(canonical_batch(later, 9 * count))
    ends = []
    for engine_ in (engine, again):
        changes = in_order(plain_rows(engine_.advance(900 * DAY_US)))
        ends.append((changes, plain_rows(engine_.snapshot().sort_by("customer_id")), engine_.counters))
    assert ends[0] == ends[1]


def name_of(n: int) -> str:
    return f"{LONG}{n}" if n % 2 else f"c{n}"


def hidden_ids(shard: Shard) -> list[int]:
    return np.flatnonzero(shard.hidden(np.arange(1, shard.customers + 1, dtype=np.uint32))).tolist()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_engine_equals_oracle_over_restarts(tmp_path: Path, threads: int, size: int) -> None:
    events = history(60)
    events += [erased(f"c{n}", 5) for n in range(0, 60, 4)]
    events += [erased(f"{LONG}{n}", 7 + n // 20) for n in range(1, 60, 2)]
    events += [event(f"c{n}", f"order-{n}-1", 8 + n % 5, 10_000 * n) for n in range(60)]
    events += [erased("unknown", 11), erased("c0", 11), event("unknown", "x", 12), event("c0", "x", 12)]
    events.sort(key=place)
    oracle, driven = Oracle(RULES), Driven(RULES, threads=threads)
    oracle.step(events)
    for at, start in enumerate(range(0, len(events), size)):
        driven.step(events[start : start + size])
        if at % 40 == 3:
            driven.restart(str(tmp_path))
    assert_same(driven, oracle)
    driven.restart(str(tmp_path))
    assert driven.engine.customers == len(oracle.snapshot())
    oracle.advance(500 * DAY_US)
    driven.advance(500 * DAY_US)
    assert_same(driven, oracle)


def test_what_comes_later_is_as_if_the_customer_had_never_been_but_for_seq() -> None:
    before, erasure = history(6), [erased(f"c{n}", 8) for n in (0, 2, 4)]
    later = [
        event(f"c{n}", f"order-{n}-{k}", 9 + k, 40_000, type=kind)
        for n in range(0, 6, 2)
        for k, kind in enumerate(["paid", "paid", "refunded", "paid"])
    ]
    whole, anew = Engine(ruleset_of(RULES)), Engine(ruleset_of(RULES))
    whole.step_canonical(canonical_batch(before + erasure))
    anew.step_canonical(
        canonical_batch([row for row in before if row["customer_id"].startswith(LONG)] + erasure)
    )
    ends = []
    for engine in (whole, anew):
        changes = plain_rows(engine.step_canonical(canonical_batch(later)).changes)
        changes = in_order(changes + plain_rows(engine.advance(600 * DAY_US)))
        rows = [*changes, *plain_rows(engine.snapshot().sort_by("customer_id"))]
        first = {row["customer_id"]: row["seq"] for row in reversed(changes)}
        ends.append([row | {"seq": row["seq"] - first[row["customer_id"]]} for row in rows])
        assert first["c0"] == (5 if engine is whole else 1)
    assert ends[0] == ends[1]


def test_a_change_of_ruleset_leaves_the_erased_alone() -> None:
    engine = Engine(ruleset_of(RULES))
    engine.step_canonical(canonical_batch([*history(4), erased("c0", 9), erased("nobody", 9)]))
    changes = engine.resegment(ruleset_of(BUILT_IN["scores4"]()))
    assert set(changes["customer_id"].to_pylist()) == {"c2", f"{LONG}1", f"{LONG}3"}
    assert engine.snapshot().num_rows == engine.customers == 3


def test_as_a_table_an_erasure_needs_neither_order_nor_amount() -> None:
    engine = Engine("rfm8")
    engine.step(
        pa.table({"customer_id": ["a"], "order_id": ["o"], "occurred_at": ["2024-01-01"], "amount": ["1"]})
    )
    result = engine.step(pa.table({"customer_id": ["a"], "type": ["erased"], "occurred_at": ["2024-01-02"]}))
    assert [(row["reason"], row["order_id"], row["to_tier"]) for row in plain_rows(result.changes)] == [
        ("erased", None, None)
    ]
    named = pa.table(
        {
            "customer_id": ["a", "a", "a"],
            "order_id": ["o", None, None],
            "occurred_at": ["2024-01-01", "2024-01-03", "2024-01-04"],
            "amount_minor": pa.array([100, 100, None], pa.int64()),
            "type": ["paid", "paid", "erased"],
        }
    )
    refused = plain_rows(engine.step(named).rejected)
    assert [row["reason"] for row in refused] == ["erased_customer", "missing_order_id"]
