"""Records in bulk against the same records one by one: orjson, and the attributes letter by letter."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import product
from typing import Any
from urllib.parse import unquote

import numpy as np
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
    TIERS,
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
from rfmstream.engine.files.text_rows import json_lines
from rfmstream.engine.live import encode
from rfmstream.engine.live.encode import OVERTAKEN_MAX, Encoder, Record
from rfmstream.engine.live.kafka.batch_format import HEADER
from rfmstream.engine.live.kafka.batches import Compression, record_batches
from rfmstream.engine.live.model import Forgotten, Rejection, Source
from rfmstream.schemas.changes import CHANGE_REASONS, CHANGE_SCHEMA, MODES, change_event_json_schema
from rfmstream.schemas.errors import ConfigError

INPUT = Source("orders.v1", 7)

BAND = st.integers(0, 2**15 - 1)
CHANGES = st.fixed_dictionaries(
    {
        "customer_id": IDS,
        "seq": st.integers(1, 2**63 - 1) | st.integers(1, 200),
        "effective_at": INSTANTS,
        "from_tier": TIER,
        "to_tier": TIER,
        "reason": st.sampled_from(CHANGE_REASONS),
        "order_id": st.none() | IDS,
        "r_band": BAND,
        "f_band": BAND,
        "m_band": BAND,
        "last_paid_at": st.none() | INSTANTS,
        "frequency": INT64,
        "monetary_minor": INT64,
        "next_change_at": st.none() | INSTANTS,
        "next_tier": TIER,
        "ruleset": st.just(RULESET.identity),
        "mode": st.sampled_from(MODES),
        "holdout": st.none() | st.booleans(),
        "view": st.just(RULESET.name),
        "population": st.none(),
    }
)
PARTED_CHANGES = st.builds(
    lambda row, customer, view, population: (
        row | {"customer_id": customer, "view": view, "population": population}
    ),
    CHANGES,
    st.sampled_from(["a", "b", "1:a"]) | IDS,
    st.sampled_from(["hk", "a b/%"]),
    st.none() | st.sampled_from(["", "1", "1:"]) | IDS,
)
Row = dict[str, Any]


def table_of(*chunks: list[Row]) -> pa.Table:
    return batches_of(CHANGE_SCHEMA, *chunks)


def event_id(row: Row) -> str:
    assert RULESET.identity == "rfm8[currency=GBP,time_zone=Europe/London]"
    return f"rfm8[currency=GBP,time_zone=Europe%2FLondon]/{attribute(row['customer_id'])}/{row['seq']}"


def data_of(row: Row) -> Row:
    before, after = TIERS.get(row["from_tier"]), TIERS.get(row["to_tier"])
    return {
        **{
            name: instant(row[name]) if name.endswith("_at") else row.get(name)
            for name in CHANGE_SCHEMA.names
        },
        "currency": "GBP",
        "from_tier_zh": before and before.label_zh,
        "from_tier_en": before and before.label_en,
        "to_tier_zh": after and after.label_zh,
        "to_tier_en": after and after.label_en,
        "playbook": after and after.playbook.key,
    }


def binary(row: Row) -> Record:
    return binary_record(row, "io.rfmstream.tier-changed.v1", event_id(row), data_of(row))


def structured(row: Row) -> Record:
    return structured_record(row, "io.rfmstream.tier-changed.v1", event_id(row), data_of(row))


BINARY = Encoder(RULESET, source=SOURCE)
PARTED = Encoder(RULESET, source=SOURCE, view="hk")
STRUCTURED = Encoder(RULESET, source=SOURCE, structured=True)


@settings(deadline=None)
@given(st.lists(CHANGES, max_size=6), st.lists(CHANGES, max_size=3))
def test_records_in_bulk_are_those_of_one_at_a_time(first: list[Row], second: list[Row]) -> None:
    table, rows = table_of(first, second), first + second
    assert list(BINARY.changes(table)) == [binary(row) for row in rows]
    assert list(STRUCTURED.changes(table)) == [structured(row) for row in rows]


@settings(deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=4), st.lists(st.tuples(st.integers(0, 3), INT64), max_size=20))
def test_packed_records_are_those_that_were_packed(rows: list[Row], again: list[tuple[int, int]]) -> None:
    rows += [rows[which % len(rows)] | {"frequency": number} for which, number in again]
    codecs: tuple[Compression, ...] = ("gzip", "lz4")
    for encoder, codec in product((BINARY, STRUCTURED), codecs):
        [(records, _)] = encoder.parts(table_of(rows))
        [batch] = record_batches(records, timestamp_ms=0, compression=codec)
        batch.stamp(-1, -1, -1)
        header = MemoryRecords(b"".join(batch.parts)).next_batch()
        assert header is not None
        assert [Record(each.key, each.value, list(each.headers)) for each in header] == list(records)
        assert len(rows) < 3 or header.compression_type != 0


FEW_CUSTOMERS = st.builds(
    lambda row, customer: row | {"customer_id": customer},
    CHANGES,
    st.sampled_from(["a", "b", "a" * 17, "a" * 18]),
)


@settings(deadline=None)
@given(st.lists(FEW_CUSTOMERS, max_size=12), st.integers(0, 12), st.integers(1, 9000))
def test_what_is_overtaken_goes_to_the_last_changes_only_beside_many_others(
    rows: list[Row], cut: int, bytes_max: int
) -> None:
    latest = {row["customer_id"]: i for i, row in enumerate(rows)}.values()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "BATCH_BYTES_MAX", bytes_max + HEADER.size)
        parts = list(BINARY.parts(table_of(rows[:cut], rows[cut:])))
    assert [record for changes, _ in parts for record in changes] == [binary(row) for row in rows]
    done = 0
    for changes, current in parts:
        assert changes.batch is not None
        assert len(changes) == 1 or changes.batch.size <= bytes_max
        span = range(done, done + len(changes))
        done += len(changes)
        last = [i for i in span if i in latest]
        if current is changes:
            assert len(span) - len(last) <= OVERTAKEN_MAX * len(span)
        else:
            assert len(span) - len(last) > OVERTAKEN_MAX * len(span)
            assert (current.data is changes.data, current.batch) == (True, None)
            assert list(current) == [binary(rows[i]) for i in last]


@settings(deadline=None)
@given(
    st.lists(FEW_CUSTOMERS, max_size=12),
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["a", "b", "a" * 17, "nobody"])), max_size=5),
    st.integers(1, 9000),
)
def test_a_customer_that_was_erased_and_is_not_back_gets_a_tombstone(
    rows: list[Row], erased: list[tuple[int, str]], bytes_max: int
) -> None:
    forgotten = [Forgotten(min(before, len(rows)), customer) for before, customer in sorted(erased)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "BATCH_BYTES_MAX", bytes_max + HEADER.size)
        parts = list(BINARY.parts(table_of(rows), forgotten))
    assert [record for changes, _ in parts for record in changes] == [binary(row) for row in rows]
    # What a compacted topic keeps in the end: as if each change and each erasure had been written in its turn.
    kept: dict[bytes, Record] = {}
    for at in range(len(rows) + 1):
        for one in forgotten:
            if one.before == at:
                kept[one.customer_id.encode()] = Record(one.customer_id.encode(), None, [])
        if at < len(rows):
            kept[rows[at]["customer_id"].encode()] = binary(rows[at])
    found = {record.key: record for _, current in parts for record in current}
    assert found == kept


@settings(deadline=None)
@given(
    st.lists(PARTED_CHANGES, max_size=8),
    st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from(["a", "nobody"]), st.sampled_from([None, "1"])),
        max_size=3,
    ),
)
def test_of_several_views_and_populations_each_has_a_newest_change(
    rows: list[Row], erased: list[tuple[int, str, str | None]]
) -> None:
    rows = [row | {"view": "hk"} for row in rows]
    forgotten = [
        Forgotten(min(before, len(rows)), *who) for before, *who in sorted(erased, key=lambda e: e[0])
    ]
    parts = list(PARTED.parts(table_of(rows), forgotten))
    for record, row in zip([record for changes, _ in parts for record in changes], rows, strict=True):
        assert (record.key, record.value) == (row["customer_id"].encode(), binary(row).value)
        population = "" if row["population"] is None else attribute(row["population"])
        ce_id = f"hk/{population}%2F{attribute(row['customer_id'])}/{row['seq']}"
        assert dict(record.headers)["ce_id"] == ce_id.encode()
    kept: dict[bytes, bytes | None] = {}
    for at in range(len(rows) + 1):
        for one in forgotten:
            if one.before == at:
                kept[orjson.dumps(["hk", one.population, one.customer_id])] = None
        if at < len(rows):
            row = rows[at]
            kept[orjson.dumps(["hk", row["population"], row["customer_id"]])] = binary(row).value
    found = [(record.key, record.value) for _, current in parts for record in current]
    assert dict(found) == kept
    assert len(found) == len(kept)


def row_of(customer_id: str, **others: Any) -> Row:  # noqa: ANN401 - a change's values
    at = datetime(2026, 1, 31, tzinfo=UTC)
    return {
        "customer_id": customer_id,
        "seq": 1,
        "effective_at": at,
        "from_tier": None,
        "to_tier": "100",
        "reason": "first_order",
        "order_id": "o1",
        "r_band": 1,
        "f_band": 0,
        "m_band": 0,
        "last_paid_at": at,
        "frequency": 1,
        "monetary_minor": 9990,
        "next_change_at": at,
        "next_tier": "000",
        "ruleset": RULESET.identity,
        "mode": "live",
        "view": RULESET.name,
        "population": None,
        **others,
    }


def test_lengths_of_one_byte_and_of_two_in_turn() -> None:
    rows = [row_of("x" * size) for size in (1, 63, 64, 31, 32, 256, 1, 256, 64, 63)]
    assert list(BINARY.changes(table_of(rows))) == [binary(row) for row in rows]
    assert list(STRUCTURED.changes(table_of(rows))) == [structured(row) for row in rows]


def test_a_record_as_it_is_sent() -> None:
    [record] = BINARY.changes(table_of([row_of("00042")]))
    assert record.key == b"00042"
    assert (record.value or b"").decode() == (
        '{"customer_id":"00042","seq":1,"effective_at":"2026-01-31T00:00:00.000000Z","from_tier":null,'
        '"to_tier":"100","reason":"first_order","order_id":"o1","r_band":1,"f_band":0,"m_band":0,'
        '"last_paid_at":"2026-01-31T00:00:00.000000Z","frequency":1,"monetary_minor":9990,'
        '"next_change_at":"2026-01-31T00:00:00.000000Z","next_tier":"000",'
        '"ruleset":"rfm8[currency=GBP,time_zone=Europe/London]","mode":"live","holdout":null,"view":"rfm8",'
        '"population":null,"currency":"GBP",'
        '"from_tier_zh":null,"from_tier_en":null,"to_tier_zh":"一般发展客户","to_tier_en":"Recent Low-value",'
        '"playbook":"second_order"}'
    )
    assert dict(record.headers)["ce_id"] == b"rfm8[currency=GBP,time_zone=Europe%2FLondon]/00042/1"


def test_longest_ids_full_of_escapes_find_room() -> None:
    rows = [row_of("\x01" * 256, order_id='"' * 256, seq=seq) for seq in range(1, 400)]
    assert list(BINARY.changes(table_of(rows))) == [binary(row) for row in rows]
    assert list(STRUCTURED.changes(table_of(rows))) == [structured(row) for row in rows]


@settings(deadline=None)
@given(st.lists(st.tuples(IDS, st.integers(1, 12)), unique=True, max_size=8))
def test_an_event_id_never_comes_twice(changes: list[tuple[str, int]]) -> None:
    """Nothing of a customer's id can be taken for a sequence number or a ruleset, and the id can be read back."""
    records = list(BINARY.changes(table_of([row_of(customer, seq=seq) for customer, seq in changes])))
    headers = [dict(record.headers) for record in records]
    assert len({attributes["ce_id"] for attributes in headers}) == len(changes)
    assert [unquote(attributes["ce_subject"]) for attributes in headers] == [
        customer for customer, _ in changes
    ]


ORDERS = pa.table(
    {
        "customer_id": [f"客户 {i % 5}" for i in range(40)],
        "order_id": [f'o"{i}' for i in range(40)],
        "occurred_at": [
            datetime(2026, 1 + i // 10, 1 + i % 10, 12, 30, 1, i * 1001, tzinfo=UTC) for i in range(40)
        ],
        "amount": [f"{i * 37}.50" for i in range(40)],
    }
)


def test_changes_of_an_engine_are_the_lines_of_a_file_and_fit_their_schema() -> None:
    engine = Engine(RULESET, mode="live")
    changes = pa.concat_tables([engine.step(ORDERS).changes, engine.advance("2027-01-01T00:00:00Z")])
    assert changes.num_rows == 19
    lines = b"".join(bytes(json_lines(batch)) for batch in changes.to_batches()).splitlines()
    records = list(BINARY.changes(changes))
    assert [(record.value or b"").partition(b',"currency":')[0] + b"}" for record in records] == lines
    validator = Draft202012Validator(
        change_event_json_schema(RULESET), format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    for record in records:
        validator.validate(orjson.loads(record.value or b""))


def test_threads_may_share_an_encoder() -> None:
    table = table_of([row_of(f"c{i}", seq=i + 1) for i in range(2000)])
    encoder = Encoder(RULESET, source=SOURCE)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: list(encoder.changes(table)), range(8)))
    assert all(result == results[0] for result in results)
    assert results[0] == [binary(row) for row in table.to_pylist()]


@pytest.mark.parametrize("source", ["", "a b", "café", "a\n", '"'])
def test_a_source_is_a_uri_reference(source: str) -> None:
    with pytest.raises(ConfigError, match="URI reference"):
        Encoder(RULESET, source=source)


REJECTIONS = st.builds(
    Rejection,
    reason=st.sampled_from(["malformed", "unknown_order"]),
    key=st.none() | st.binary(max_size=80),
    original=st.none() | st.binary(max_size=200),
    offset=st.integers(0, 2**63 - 1),
    row=st.integers(0, 2**31),
    log_us=INT64,
    views=st.sampled_from([(), ("hk",), ("all", "hk")]),
    detail=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
)


@given(st.lists(REJECTIONS, max_size=6))
def test_rejected_rows_say_where_they_came_from(rows: list[Rejection]) -> None:
    assert list(BINARY.rejections(rows, INPUT)) == [
        Record(
            row.key,
            row.original,
            [
                ("rfm-reason", row.reason.encode()),
                ("rfm-topic", b"orders.v1"),
                ("rfm-partition", b"7"),
                ("rfm-offset", b"%d" % row.offset),
                ("rfm-row", b"%d" % row.row),
                ("rfm-timestamp", b"%d" % row.log_us),
                *([("rfm-views", ",".join(row.views).encode())] if row.views else []),
                *([("rfm-detail", row.detail[:160].encode())] if row.detail else []),
            ],
        )
        for row in rows
    ]


@pytest.mark.parametrize(
    ("key_bytes", "value_bytes", "key_left", "value_left"),
    [
        (10, 8966, 10, 8966),
        (10, 8967, 10, 8966),
        (2500, 10**6, 2500, 6476),
        (2501, 8976, None, 8976),
        (10**6, 10**7, None, 8976),
    ],
)
def test_what_no_broker_would_take_is_cut(
    key_bytes: int, value_bytes: int, key_left: int | None, value_left: int
) -> None:
    encoder = Encoder(RULESET, source=SOURCE, rejected_bytes_max=10_000)
    key, value = b"k" * key_bytes, np.arange(value_bytes, dtype=np.int64).astype(np.uint8).tobytes()
    records = encoder.rejections([Rejection("malformed", key, value, 1, 0, 2)], INPUT)
    [record] = records
    assert record.key == (None if key_left is None else key)
    assert record.value == value[:value_left]
    headers = dict(record.headers)
    assert headers.get("rfm-key-bytes") == (b"%d" % key_bytes if key_left is None else None)
    assert headers.get("rfm-value-bytes") == (b"%d" % value_bytes if value_left < value_bytes else None)
    assert int(records.sizes[0]) <= 10_000


def test_a_record_longer_than_a_batch_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row_of("x" * size) for size in (40, 1, 1, 40, 1)]
    [(longest, _)] = BINARY.parts(table_of(rows[:1]))
    assert longest.batch is not None
    # Twice as much room would be enough for it and the next one.
    monkeypatch.setattr(encode, "BATCH_BYTES_MAX", HEADER.size + longest.batch.size - 1)
    parts = [changes for changes, _ in BINARY.parts(table_of(rows))]
    assert [len(changes) for changes in parts] == [1] * 5
    assert [record for changes in parts for record in changes] == [binary(row) for row in rows]
