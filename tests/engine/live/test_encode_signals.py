"""Signals as records in bulk against the same records one by one."""

from datetime import UTC, datetime
from itertools import product
from types import SimpleNamespace
from typing import Any

import orjson
import pyarrow as pa
import pytest
from aiokafka.record import MemoryRecords
from event_texts import (
    IDS,
    INSTANTS,
    INT64,
    RULESET,
    SOURCE,
    TIER,
    attribute,
    batches_of,
    binary_record,
    instant,
    structured_record,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from rfmstream import Engine
from rfmstream.engine.deliver.records import read_event
from rfmstream.engine.live.encode import Encoder, Record
from rfmstream.engine.live.kafka.batches import Compression, record_batches
from rfmstream.schemas.changes import MODES
from rfmstream.schemas.signals import SIGNAL_KINDS, SIGNAL_SCHEMA, signal_json_schema

Row = dict[str, Any]
SIGNALS = st.fixed_dictionaries(
    {
        "customer_id": IDS,
        "kind": st.sampled_from(SIGNAL_KINDS),
        "effective_at": INSTANTS,
        "tier": TIER,
        "seq": st.integers(0, 2**63 - 1),
        "days": st.none() | INT64,
        "count": st.none() | INT64,
        "amount_minor": st.none() | INT64,
        "at": st.none() | INSTANTS,
        "next_tier": TIER,
        "stay_orders": st.none() | INT64,
        "stay_minor": st.none() | INT64,
        "order_id": st.none() | IDS,
        "view": st.just("rfm8"),
        "population": st.none() | IDS,
        "ruleset": st.just(RULESET.identity),
        "mode": st.sampled_from(MODES),
        "holdout": st.none() | st.booleans(),
    }
)
BINARY = Encoder(RULESET, source=SOURCE)
STRUCTURED = Encoder(RULESET, source=SOURCE, structured=True)


def table_of(*chunks: list[Row]) -> pa.Table:
    return batches_of(SIGNAL_SCHEMA, *chunks)


def event_id(row: Row) -> str:
    def text(name: str) -> str:
        return "" if row[name] is None else str(row[name])

    numbers = "/".join(text(name) for name in ("days", "count", "amount_minor"))
    ids = "%2F".join(attribute(text(name)) for name in ("population", "customer_id", "order_id"))
    return f"{row['view']}/{row['kind']}/{instant(row['effective_at'])}/{numbers}/{ids}"


def data_of(row: Row) -> Row:
    times = ("effective_at", "at")
    return {name: instant(row[name]) if name in times else row[name] for name in SIGNAL_SCHEMA.names}


def binary(row: Row) -> Record:
    return binary_record(row, "io.rfmstream.signal.v1", event_id(row), data_of(row))


def structured(row: Row) -> Record:
    return structured_record(row, "io.rfmstream.signal.v1", event_id(row), data_of(row))


def records_of(encoder: Encoder, table: pa.Table) -> list[Record]:
    return [record for records in encoder.signals(table) for record in records]


@settings(deadline=None)
@given(st.lists(SIGNALS, max_size=6), st.lists(SIGNALS, max_size=3))
def test_records_in_bulk_are_those_of_one_at_a_time(first: list[Row], second: list[Row]) -> None:
    table, rows = table_of(first, second), first + second
    assert records_of(BINARY, table) == [binary(row) for row in rows]
    assert records_of(STRUCTURED, table) == [structured(row) for row in rows]


@settings(deadline=None)
@given(st.lists(SIGNALS, min_size=1, max_size=4), st.lists(st.tuples(st.integers(0, 3), INT64), max_size=20))
def test_packed_records_are_those_that_were_packed(rows: list[Row], again: list[tuple[int, int]]) -> None:
    rows += [rows[which % len(rows)] | {"days": number} for which, number in again]
    codecs: tuple[Compression, ...] = ("gzip", "lz4")
    for encoder, codec in product((BINARY, STRUCTURED), codecs):
        [records] = encoder.signals(table_of(rows))
        [batch] = record_batches(records, timestamp_ms=0, compression=codec)
        batch.stamp(-1, -1, -1)
        header = MemoryRecords(b"".join(batch.parts)).next_batch()
        assert header is not None
        assert [Record(each.key, each.value, list(each.headers)) for each in header] == list(records)


def told() -> pa.Table:
    """Return signals of every kind but spend and single_order, which the built-in does not ask for."""
    orders = pa.table(
        {
            "customer_id": ["a", 'b"%/', "a", "a", "a"],
            "order_id": ["1", "2", "3", "4", "5/x"],
            "occurred_at": [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4, 5)],
            "amount": ["1000", "2000", "3000", "4000", "4000"],
        }
    )
    engine = Engine(RULESET, mode="live")
    first = engine.step(orders).signals
    engine.advance("2027-12-01T00:00:00Z")
    return pa.concat_tables([first, engine.signals])


def test_what_an_engine_tells_fits_the_schema_and_has_an_id_of_its_own() -> None:
    table = told()
    assert set(table["kind"].to_pylist()) == {"orders", "warning", "dwell"}
    records = records_of(BINARY, table)
    assert len(records) == table.num_rows
    assert len({dict(record.headers)["ce_id"] for record in records}) == len(records)
    validator = Draft202012Validator(signal_json_schema(RULESET))
    for record in records:
        validator.validate(orjson.loads(record.value or b""))
    wrong = orjson.loads(records[0].value or b"") | {"tier": "vip"}
    assert not validator.is_valid(wrong)


@pytest.mark.parametrize("encoder", [BINARY, STRUCTURED])
def test_deliveries_read_what_is_sent(encoder: Encoder) -> None:
    table = told()
    for number, (record, row) in enumerate(zip(records_of(encoder, table), table.to_pylist(), strict=True)):
        sent = SimpleNamespace(
            topic="rfm.signals.v1", partition=0, offset=number, timestamp=0, **record._asdict()
        )
        event = read_event("signal", sent)
        assert (event.id, event.source, event.type) == (event_id(row), SOURCE, "io.rfmstream.signal.v1")
        assert (event.subject, event.time) == (attribute(row["customer_id"]), instant(row["effective_at"]))
        assert event.data == data_of(row)


@pytest.mark.parametrize("slash", ["/", "%", "%2F", "/orders/"])
def test_ids_that_hold_the_separators_are_told_apart(slash: str) -> None:
    row: dict[str, Any] = dict.fromkeys(SIGNAL_SCHEMA.names)
    row |= {"kind": "single_order", "effective_at": datetime(2026, 1, 1, tzinfo=UTC), "seq": 1, "view": "v"}
    row |= {"amount_minor": 5, "ruleset": "v", "mode": "live"}
    ways = [(f"a{slash}b", "c"), ("a", f"b{slash}c"), (f"a{slash}b{slash}c", None), ("a", None)]
    rows = [row | {"customer_id": customer, "order_id": order} for customer, order in ways]
    records = records_of(BINARY, table_of(rows))
    assert len({dict(record.headers)["ce_id"] for record in records}) == len(ways)
