"""The engine as a caller meets it: any Arrow in, errors that say what to do, and orders of every hostile kind."""

import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import count, islice, product
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from kernel_shards import event
from oracle import BUILT_IN, Oracle
from oracle_days import DAY_US, FIRST_US, LAST_US
from twins import Driven, assert_same, canonical_batch, plain_rows

from rfmstream import ConfigError, Engine, InputError
from rfmstream.schemas.codes import AMOUNT_MINOR_MAX
from rfmstream.schemas.orders import REJECTED_SCHEMA
from rfmstream.schemas.ruleset import load_ruleset

ORDERS = {
    "customer_id": ["ann", "bob", "ann", "", "bob"],
    "order_id": ["a1", "b1", "a2", "x1", "b1"],
    "type": ["paid", "paid", "paid", "paid", "refunded"],
    "occurred_at": [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4, 5)],
    "amount": [Decimal("600.00"), Decimal("5.00"), Decimal("700.00"), Decimal("1.00"), Decimal("6.00")],
}
TABLE = pa.table(ORDERS)
CHANGES = [("ann", "100", "a1"), ("bob", "100", "b1"), ("ann", "101", "a2")]


class Capsule:
    """Only what the Arrow PyCapsule interface asks for."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


class ArrayCapsule:
    """The interface of a single batch."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self._batch.__arrow_c_array__(requested_schema)


def duckdb_orders(table: pa.Table) -> Any:  # noqa: ANN401
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    connection.register("orders", table)
    return connection.sql("select * from orders")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda table: table,
        lambda table: table.combine_chunks().to_batches()[0],
        lambda table: pa.concat_tables([table.slice(0, 2), table.slice(2, 0), table.slice(2)]),
        pl.from_arrow,
        lambda table: table.to_pandas(),
        lambda table: table.to_pandas().set_axis([5, 4, 3, 2, 1]).assign(other=1),
        duckdb_orders,
        Capsule,
        lambda table: ArrayCapsule(table.combine_chunks().to_batches()[0]),
    ],
    ids=["table", "batch", "chunks", "polars", "pandas", "pandas odd", "duckdb", "stream", "array"],
)
def test_orders_of_any_make(wrap: Any) -> None:  # noqa: ANN401
    engine = Engine()
    result = engine.step(wrap(TABLE))
    changes = plain_rows(result.changes)
    assert [(row["customer_id"], row["to_tier"], row["order_id"]) for row in changes] == CHANGES
    rejected = plain_rows(result.rejected)
    assert [(row["row"], row["reason"]) for row in rejected] == [
        (3, "missing_customer_id"),
        (4, "refund_exceeds_order"),
    ]
    assert result.rejected.schema == REJECTED_SCHEMA
    counters = engine.counters
    assert (counters.read, counters.applied, counters.duplicates) == (5, 3, 0)
    assert counters.rejected == {"missing_customer_id": 1, "refund_exceeds_order": 1}
    assert counters.changes == {"first_order": 2, "order": 1}


def test_what_comes_out_is_read_by_others() -> None:
    engine = Engine()
    changes = engine.step(TABLE).changes
    assert pl.from_arrow(changes)["to_tier"].to_list() == ["100", "100", "101"]
    assert changes.to_pandas()["seq"].tolist() == [1, 1, 2]
    assert sorted(pl.from_arrow(engine.snapshot())["customer_id"].to_list()) == ["ann", "bob"]


@pytest.mark.parametrize("orders", [None, 5, "orders.csv", [ORDERS], ORDERS])
def test_orders_that_are_no_table_are_refused(orders: object) -> None:
    with pytest.raises(ConfigError, match="PyCapsule"):
        Engine().step(orders)


@pytest.mark.parametrize("column", ["customer_id", "order_id", "occurred_at", "amount"])
def test_a_missing_column_is_named(column: str) -> None:
    engine = Engine()
    with pytest.raises(InputError, match=column):
        engine.step(TABLE.drop_columns([column]))
    assert engine.counters.read == 0


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("customer_id", pa.array([[1]] * 5)),
        ("occurred_at", pa.array([{"at": 1}] * 5)),
        ("amount", pa.array([[1.5]] * 5)),
    ],
)
def test_a_column_of_a_type_that_cannot_be_one_is_named(column: str, values: pa.Array) -> None:
    engine = Engine()
    with pytest.raises(InputError, match=column):
        engine.step(TABLE.set_column(TABLE.schema.get_field_index(column), column, values))
    assert engine.clock is None


def test_no_rows() -> None:
    engine = Engine()
    result = engine.step(TABLE.slice(0, 0))
    assert (result.changes.num_rows, result.rejected.num_rows) == (0, 0)
    assert engine.clock is None


def test_rows_keep_their_numbers_over_steps() -> None:
    engine = Engine()
    engine.step(TABLE)
    again = plain_rows(engine.step(TABLE).rejected)
    assert [(row["row"], row["reason"]) for row in again] == [
        (8, "missing_customer_id"),
        (9, "refund_exceeds_order"),
    ]
    assert engine.counters.duplicates == 3


def test_an_empty_engine() -> None:
    engine = Engine()
    assert (engine.clock, engine.customers, engine.orders) == (None, 0, 0)
    assert engine.snapshot().num_rows == 0
    assert engine.snapshot(as_of="2026-01-01").num_rows == 0
    assert engine.counters == type(engine.counters)()


def test_time_passes_without_customers() -> None:
    engine = Engine(threads=2)
    assert engine.advance("2026-01-01T00:00:00Z").num_rows == 0
    assert engine.clock == datetime(2026, 1, 1, tzinfo=UTC)
    # What comes now is late: it is measured at the clock.
    late = {**ORDERS, "occurred_at": [datetime(2025, 1, 1, tzinfo=UTC)] * 5}
    tiers = [row["to_tier"] for row in plain_rows(engine.step(pa.table(late)).changes)]
    assert sorted(tiers) == ["000", "000", "001"]


def test_a_run_with_threads_can_be_repeated_row_for_row() -> None:
    def run() -> pa.Table:
        engine = Engine(threads=3)
        return pa.concat_tables([engine.step(TABLE).changes, engine.advance("2027-01-01T00:00:00Z")])

    assert run().equals(run())


@pytest.mark.parametrize(
    "instant",
    [
        "2026-02-02T00:00:00Z",
        "2026-02-02",
        "2026-02-02T01:00+01:00",
        datetime(2026, 2, 2),  # noqa: DTZ001 - naive is UTC
        datetime(2026, 2, 2, 5, 45, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        pd.Timestamp("2026-02-02", tz="UTC"),
        1_769_990_400_000_000,
    ],
)
def test_instants_in_every_form(instant: Any) -> None:  # noqa: ANN401
    engine = Engine()
    engine.step(TABLE)
    # bob paid on January 2nd: the 30 days end with February 1st.
    assert [row["customer_id"] for row in plain_rows(engine.advance(instant))] == ["ann", "bob"][1:]
    assert engine.clock == datetime(2026, 2, 2, tzinfo=UTC)


def test_an_instant_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="yesterday"):
        Engine().advance("yesterday")


ENDLESS = """
from kernel_shards import event
from oracle_days import FIRST_US, LAST_US
from twins import canonical_batch
from rfmstream import ConfigError, Engine
for instant_us in (LAST_US + 1, FIRST_US - 1, 2**80, 2**63 - 1, -(2**63)):
    for call in (Engine.advance, Engine.snapshot):
        engine = Engine()
        engine.step_canonical(canonical_batch([event("a", "o", 0)]))
        try:
            call(engine, instant_us)
        except ConfigError:
            continue
        raise SystemExit(f"{call.__name__} took {instant_us}")
"""


def test_an_instant_outside_the_years_is_refused() -> None:
    # In a process of its own: where the last ones are not refused there may be no end.
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path[:0] = {list(filter(None, sys.path))!r}\n{ENDLESS}",
    ]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stderr[-500:]


def test_a_snapshot_before_the_clock_is_refused() -> None:
    engine = Engine()
    engine.step(TABLE)
    with pytest.raises(ConfigError, match="before the clock"):
        engine.snapshot("2026-01-02T23:59:59Z")
    assert engine.snapshot("2026-01-03T00:00:00Z").num_rows == 2


def test_an_instant_behind_the_clock_changes_nothing() -> None:
    engine = Engine()
    engine.step(TABLE)
    before = engine.snapshot()
    assert engine.advance("1999-01-01").num_rows == 0
    assert engine.snapshot().equals(before)


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_are_one_or_more(threads: int) -> None:
    with pytest.raises(ConfigError, match="threads"):
        Engine(threads=threads)


def common_prefix(size: int) -> list[str]:
    """Ids that differ only at the end of 256 bytes."""
    return [f"{'p' * 249}{i:07d}" for i in range(size)]


def same_checksum(size: int, checksum: Callable[[bytes], int]) -> list[str]:
    """Texts of one checksum that is folded byte by byte: pieces of equal checksum, one after the other."""
    pieces: list[list[str]] = []
    state = b""
    while 2 ** len(pieces) < size:
        seen: dict[int, str] = {}
        for i in count():
            text = f"{i * 2_654_435_761 % 2**32:08x}"
            other = seen.setdefault(checksum(state + text.encode()), text)
            if other != text:
                pieces.append([other, text])
                state += text.encode()
                break
    return ["".join(choice) for choice in islice(product(*pieces), size)]


def fnv32(text: bytes) -> int:
    """Return the 32-bit FNV-1a hash."""
    value = 0x811C9DC5
    for byte in text:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def same_sum(size: int) -> list[str]:
    """Texts of one length, one sum of bytes and one polynomial hash modulo 2**64 of an even base."""
    # Whatever stands 64 places before the end is multiplied away by an even base.
    return [f"{i:010d}{9_999_999_999 - i:010d}" + "x" * 66 for i in range(size)]


HOSTILE: dict[str, Callable[[], list[str]]] = {
    "prefix": lambda: common_prefix(200_000),
    "crc32": lambda: same_checksum(4096, zlib.crc32),
    "sum": lambda: same_sum(50_000),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_ids(kind: str) -> None:
    ids = HOSTILE[kind]()
    assert len(set(ids)) == len(ids)
    n = len(ids)
    engine = Engine()
    batch = {
        "customer_id": ids,
        "order_id": ids[::-1],
        "occurred_at": pa.array(range(n), pa.timestamp("us", "UTC")),
        "amount_minor": range(n),
    }
    changes = engine.step(pa.table(batch)).changes
    assert changes["customer_id"].to_pylist() == ids
    assert changes["order_id"].to_pylist() == ids[::-1]
    assert engine.step(pa.table(batch)).changes.num_rows == 0
    assert engine.counters.duplicates == n
    snapshot = engine.snapshot()
    assert snapshot["customer_id"].to_pylist() == ids
    assert snapshot["monetary_minor"].to_pylist() == list(range(n))


def test_crafted_ids_do_collide_elsewhere() -> None:
    # The test above means something.
    assert len({zlib.crc32(text.encode()) for text in same_checksum(64, zlib.crc32)}) == 1
    assert len({sum(text.encode()) for text in same_sum(100)}) < 20


def test_ids_of_every_length_side_by_side() -> None:
    ids = [letter * size for size in range(1, 257) for letter in "ab"] + ["é" * 128, "a\0", "\0", "\0\0"]
    events = [event(name, name, at) for at, name in enumerate(ids)]
    events += [event(name, name, 10_000 + at, 1, type="refunded") for at, name in enumerate(ids)]
    driven, oracle = Driven(BUILT_IN["rfm8"]()), Oracle(BUILT_IN["rfm8"]())
    driven.step(events)
    oracle.step(events)
    assert_same(driven, oracle)


def test_event_ids_have_no_bound(tmp_path: Path) -> None:
    ids = ["e" * size + last for size in (0, 1, 254, 255, 256, 257, 70_000, 1_000_000) for last in "xy"]
    orders = [event("ann", f"o{at}", at, 100, event_id=name) for at, name in enumerate(ids)]
    refunds = [
        event("ann", "o0", 100 + at, 1, type="refunded", event_id="r" + name) for at, name in enumerate(ids)
    ]
    again = [{**each, "order_id": "other"} for each in orders]
    driven, oracle = Driven(BUILT_IN["rfm8"]()), Oracle(BUILT_IN["rfm8"]())
    for events in (orders + refunds, orders + refunds + again):
        driven.step(events)
        oracle.step(events)
        driven.restart(str(tmp_path))
    assert_same(driven, oracle)
    assert len(driven.rejected) == len(again)


@pytest.mark.parametrize("asks", [True, False])
def test_an_order_taken_back_just_before_it_would_age_out(*, asks: bool) -> None:
    """The age-out is that of the order that is left, seconds before: it is not a microsecond late."""
    engine = Engine(replace(load_ruleset("rfm8"), day_unit="duration"))
    due_us, second_us = 30 * DAY_US, 1_000_000
    engine.step_canonical(canonical_batch([event("ann", "o1", 0), event("ann", "o2", 7 * second_us)]))
    cancelled_us = due_us - 60 * second_us
    if asks:
        assert engine.next_due_us(due_us - second_us) > due_us - second_us
    else:
        assert engine.advance(cancelled_us).num_rows == 0
    engine.step_canonical(canonical_batch([event("ann", "o2", cancelled_us, 0, type="cancelled")], 2))
    (change,) = plain_rows(engine.advance(due_us + second_us))
    assert (change["reason"], change["effective_at"]) == ("recency_expired", due_us)


def test_one_customer_with_everything() -> None:
    """A guest account: 200,000 orders, every tenth refunded in part, every eleventh cancelled, some rows late."""
    n = 200_000
    minute = 60_000_000
    # Every fifth order comes up to four rows late.
    at = [(i + (3 if i % 5 == 0 else 0)) * minute for i in range(n)]
    paid = range(n)
    refunded, cancelled = range(0, n, 10), range(5, n, 11)
    engine = Engine("rfm8-annual")
    batches = [
        ([f"o{i}" for i in paid], "paid", at, [100 + i % 7 for i in paid]),
        ([f"o{i}" for i in refunded], "refunded", [n * minute + i for i in refunded], [50] * len(refunded)),
        (
            [f"o{i}" for i in cancelled],
            "cancelled",
            [(n + 1) * minute + i for i in cancelled],
            [0] * len(cancelled),
        ),
    ]
    for ids, kind, instants, amounts in batches:
        engine.step(
            pa.table(
                {
                    "customer_id": ["guest"] * len(ids),
                    "order_id": ids,
                    "type": [kind] * len(ids),
                    "occurred_at": pa.array(instants, pa.timestamp("us", "UTC")),
                    "amount_minor": amounts,
                }
            )
        )
    assert engine.counters.applied == engine.counters.read == n + len(refunded) + len(cancelled)
    gone = set(cancelled)
    left = {i: 100 + i % 7 - (50 if i % 10 == 0 else 0) for i in paid if i not in gone}
    (row,) = plain_rows(engine.snapshot())
    assert (row["frequency"], row["monetary_minor"]) == (len(left), sum(left.values()))
    assert row["first_paid_at"] == min(at[i] for i in left)
    assert row["last_paid_at"] == max(at[i] for i in left)
    # A year later the first weeks have left the window.
    as_of = 400 * DAY_US
    inside = [i for i in left if at[i] // DAY_US + 365 >= as_of // DAY_US]
    (later,) = plain_rows(engine.snapshot(as_of))
    assert (later["frequency"], later["monetary_minor"]) == (len(inside), sum(left[i] for i in inside))
    engine.advance(as_of)
    assert plain_rows(engine.snapshot()) == [later]


def test_amounts_at_the_limit_sum_exactly() -> None:
    n = 20_000  # 2 * 10**16, beyond what a float64 counts
    rows = [event("a", f"o{i}", i, AMOUNT_MINOR_MAX - i % 2) for i in range(n)]
    rows += [event("a", f"x{i}", n + i, -AMOUNT_MINOR_MAX + 3, type="adjusted") for i in range(n // 2)]
    engine = Engine()
    engine.step_canonical(canonical_batch(rows))
    (row,) = plain_rows(engine.snapshot())
    total = n * AMOUNT_MINOR_MAX - n // 2 - n // 2 * (AMOUNT_MINOR_MAX - 3)
    assert total > 2**53
    assert row["monetary_minor"] == row["lifetime_monetary_minor"] == total
    assert row["average_order_minor"] == total // n


def test_events_at_both_ends_of_time() -> None:
    events = [
        event("a", "first", FIRST_US, 5),
        event("a", "last", LAST_US, 7),
        event("b", "last", LAST_US, 7),
    ]
    for rules in (
        BUILT_IN["rfm8"](),
        BUILT_IN["rfm8-annual"](day_unit="duration", time_zone="America/New_York"),
    ):
        driven, oracle = Driven(rules), Oracle(rules)
        driven.step(events)
        oracle.step(events)
        assert_same(driven, oracle)


def test_a_year_goes_by_at_once() -> None:
    n = 30_000
    engine = Engine("rfm8-annual", threads=2)
    rows = [event(f"c{i}", "o", i * 60_000_000, 100_000) for i in range(n)]
    engine.step_canonical(canonical_batch(rows))
    passed = plain_rows(engine.advance(engine.clock_us + 400 * DAY_US))
    expected = set()
    for row in rows:
        day = row["occurred_at_us"] // DAY_US
        expected.add((row["customer_id"], (day + 31) * DAY_US, "001", "recency_expired"))
        expected.add((row["customer_id"], (day + 366) * DAY_US, "000", "window_expired"))
    # Some had lapsed before the last order came.
    lapsed = {change for change in expected if change[1] <= rows[-1]["occurred_at_us"]}
    found = {(row["customer_id"], row["effective_at"], row["to_tier"], row["reason"]) for row in passed}
    assert found == expected - lapsed
    assert len(passed) == len(found)
    assert engine.counters.changes["recency_expired"] == engine.counters.changes["window_expired"] == n
