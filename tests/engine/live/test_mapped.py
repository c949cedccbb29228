"""Records that a map reads: webhooks, envelopes, batches, and what is no order."""

import base64
import json
from pathlib import Path

import pytest
from decoded import raw

from rfmstream.engine.files.mapping import list_maps, load_map
from rfmstream.engine.live.decoders import check_keys, decoder_of
from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.mapped import MappedDecoder, check_map, fingerprint
from rfmstream.engine.live.model import Headers, LogBatch, Source
from rfmstream.engine.live.originals import Originals
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.orders import CANONICAL_SCHEMA
from rfmstream.schemas.ruleset import load_ruleset

PAID, REFUNDED, CANCELLED, ADJUSTED, TOTAL = range(5)
TABLE = """
name = "table"
[[event]]
customer_id = "customer"
order_id = "id"
occurred_at = { column = "paid_at", format = ["iso", "unix_ms"] }
amount = "total"
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.toml"
    path.write_text(TABLE)
    return path


def decode(
    name: object, values: list[object], headers: Headers = (), currency: str = "USD", **options: object
) -> LogBatch:
    encoded = [json.dumps(value).encode() if isinstance(value, dict | list) else value for value in values]
    batch = MappedDecoder(load_map(name), currency=currency, **options).decode(raw(encoded, headers))
    batch.orders.validate(full=True)
    assert batch.orders.select(CANONICAL_SCHEMA.names).schema == CANONICAL_SCHEMA
    rows = batch.orders.column("row").to_pylist()
    assert rows == sorted(rows)
    assert all(int(batch.firsts[record]) <= row for record, row in zip(batch.record_of, rows, strict=True))
    assert batch.position == batch.records.position
    return batch


def events(batch: LogBatch) -> list[tuple]:
    """Return (record, customer, order, type, minor units) of each event."""
    return [
        (int(record), row["customer_id"], row["order_id"], row["type"], row["amount_minor"])
        for record, row in zip(batch.record_of, batch.orders.to_pylist(), strict=True)
    ]


def refused(batch: LogBatch) -> list[tuple]:
    """Return (offset, row, reason, detail) of each refused row."""
    return [(row.offset, row.row, row.reason, row.detail) for row in batch.refused]


def row(number: int = 1, **more: object) -> dict:
    return {
        "id": number,
        "customer": f"c{number}",
        "paid_at": "2024-05-01T10:00:00Z",
        "total": "5.00",
        **more,
    }


def test_a_shopify_order_gives_all_its_events_at_its_own_offset() -> None:
    transactions = [
        {"id": 1, "kind": "refund", "status": "success", "amount": "3.00"},
        {"id": 2, "kind": "refund", "status": "success", "amount": "2.00"},
    ]
    order = {
        "id": 45,
        "email": "b@example.com",
        "customer": {"id": 207},
        "financial_status": "partially_refunded",
        "created_at": "2024-01-10T11:00:00-05:00",
        "currency": "USD",
        "total_price": "10.00",
        "total_outstanding": "0.00",
        "cancelled_at": None,
        "test": False,
        "refunds": [{"created_at": "2024-02-01T00:00:00Z", "transactions": transactions}],
    }
    alone = {"id": 5, "order_id": 45, "created_at": "2024-03-10T11:00:00Z", "transactions": transactions[:1]}
    whole = {**order, "id": 46, "financial_status": "paid", "refunds": []}
    batch = decode("shopify-api-orders", [order, alone, whole])
    assert events(batch) == [
        (0, "207", "45", PAID, 1000),
        (0, "207", "45", REFUNDED, 300),
        (0, "207", "45", REFUNDED, 200),
        (2, "207", "46", PAID, 1000),
    ]
    assert refused(batch) == [(12, 0, "missing_customer_id", None)]
    assert batch.firsts.tolist() == [0, 1, 2, 3]


def test_segment_and_stripe_and_woocommerce() -> None:
    track = {
        "type": "track",
        "event": "Order Completed",
        "userId": "u1",
        "timestamp": "2024-05-01T10:00:00.000Z",
        "properties": {"order_id": "1", "total": 5.25, "currency": "USD"},
    }
    segment = decode("segment-orders", [track, {"type": "identify", "userId": "u1"}])
    assert (events(segment), segment.refused, segment.left_out) == ([(0, "u1", "1", PAID, 525)], [], 1)
    charge = {"id": "ch", "customer": "cus", "amount": 500, "currency": "usd", "captured": True}
    hook = {"id": "evt", "type": "charge.succeeded", "created": 1_709_287_200, "data": {"object": charge}}
    refund = {**hook, "type": "charge.refunded", "data": {"object": {**charge, "amount_refunded": 200}}}
    assert events(decode("stripe-events", [hook, refund])) == [
        (0, "cus", "ch", PAID, 500),
        (1, "cus", "ch", TOTAL, 200),
    ]
    order = {
        "id": 7,
        "status": "completed",
        "currency": "USD",
        "customer_id": 0,
        "total": "5.00",
        "billing": {"email": "A@example.com"},
        "date_paid_gmt": "2024-03-22T16:28:08",
        "refunds": [{"id": 1, "total": "-2.00"}],
    }
    assert events(decode("woocommerce-rest", [order])) == [
        (0, "a@example.com", "7", PAID, 500),
        (0, "a@example.com", "7", REFUNDED, 200),
    ]


def test_debezium_and_connect_envelopes(table: Path) -> None:
    change = {"before": None, "after": row(), "source": {"table": "orders"}, "op": "c", "ts_ms": 1}
    deleted = {"before": row(), "after": None, "source": {"table": "orders"}, "op": "d", "ts_ms": 1}
    values = [
        change,
        {"schema": {"type": "struct"}, "payload": {**change, "op": "r"}},
        {**change, "op": "u", "after": row(total="5.00", note="x")},
        deleted,
        {"schema": None, "payload": deleted},
        None,
        {"schema": {"type": "struct"}, "payload": None},
        {"schema": {"type": "string"}, "payload": row(2)},
        row(3),
    ]
    batch = decode(table, values)
    assert [event[:3] for event in events(batch)] == [
        (0, "c1", "1"),
        (1, "c1", "1"),
        (2, "c1", "1"),
        (7, "c2", "2"),
        (8, "c3", "3"),
    ]
    assert batch.refused == []
    assert batch.firsts.tolist() == [0, 1, 2, 3, 3, 3, 3, 3, 4, 5]


def test_a_schema_says_what_numbers_and_bytes_mean(table: Path) -> None:
    fields = [
        {"field": "id", "type": "int64"},
        {"field": "total", "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal"},
        {"field": "paid_at", "type": "int64", "name": "io.debezium.time.MicroTimestamp"},
    ]
    fields[1]["parameters"] = {"scale": "2", "connect.decimal.precision": "10"}
    after = {"field": "after", "type": "struct", "fields": fields}
    schema = {"type": "struct", "fields": [after, {"field": "op", "type": "string"}]}
    total = base64.b64encode((-12345 & 0xFFFFFF).to_bytes(3, "big")).decode()

    def framed(total: object, paid_at: object) -> dict:
        return {
            "schema": schema,
            "payload": {"op": "c", "after": {**row(), "total": total, "paid_at": paid_at}},
        }

    plus = base64.b64encode((12345).to_bytes(2, "big")).decode()
    batch = decode(table, [framed(plus, 1_714_557_600_123_456), framed("?", "x"), framed(total, 0)])
    assert batch.orders["amount_minor"].to_pylist() == [12345]
    assert str(batch.orders["occurred_at"][0].as_py())[:26] == "2024-05-01 10:00:00.123456"
    assert [word for _, _, word, _ in refused(batch)] == ["bad_time", "negative_amount"]


def test_cloud_events_batches_and_arrays(table: Path) -> None:
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/shop",
        "type": "order",
        "time": "2024-01-01T00:00:00Z",
    }
    plain = {**event, "data": row()}
    packed = {**event, "data_base64": base64.b64encode(json.dumps(row(2)).encode()).decode()}
    several = {**event, "data": [row(3), row(4)]}
    lines = b"\n".join(json.dumps(row(number)).encode() for number in (8, 9)) + b"\n"
    values = [plain, packed, several, [plain, packed], [row(5), 7, row(6)], {"orders": [row(7)]}, lines]
    for headers in (
        [],
        [("content-type", b"application/cloudevents+json; charset=UTF-8")],
        [("content-type", b"application/cloudevents-batch+json")],
    ):
        batch = decode(table, values, headers)
        assert [(record, order) for record, _, order, _, _ in events(batch)] == [
            *((0, "1"), (1, "2"), (2, "3"), (2, "4"), (3, "1"), (3, "2"), (4, "5"), (4, "6")),
            *((5, "7"), (6, "8"), (6, "9")),
        ]
        assert refused(batch) == [(18, 1, "malformed", "is JSON, but no object")]
        assert batch.firsts.tolist() == [0, 1, 2, 4, 6, 9, 10, 12]


def test_what_is_no_order_is_told_for_what_it_is(table: Path) -> None:
    deep = b'{"a":' * 200 + b"1" + b"}" * 200
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order"}
    framed = b"\0\0\0\0\x11" + b"\x02\x04\x06"
    values = [
        *(
            b"",
            b"{",
            b"7",
            deep,
            framed,
            b"\0\0\0\0\x11" + json.dumps(row()).encode(),
            b"Obj\x01abc",
            b"\x1f\x8b\x08",
        ),
        *(
            b"<order/>",
            {**event, "data_base64": "*"},
            {**event, "data_base64": "e30x"},
            {**event, "data": None},
        ),
        {"id": {"x": 1}, "customer": "c", "paid_at": "2024-05-01", "total": 1},
        b'{"id": "\\ud800", "customer": "c", "paid_at": "2024-05-01", "total": 1}',
        b"\xff\xff\xff\xff\x08\0\0\0",
    ]
    batch = decode(table, values)
    assert [event[1:3] for event in events(batch)] == [("c1", "1")]
    assert [(word, detail) for _, _, word, detail in refused(batch)] == [
        ("malformed", "is empty"),
        ("malformed", "is no JSON"),
        ("malformed", "is JSON, but no object"),
        ("malformed", "is JSON that nests too deep"),
        ("malformed", "is framed with schema 17 of a registry, and no JSON: set schema_registry"),
        ("malformed", "is a whole Avro file, and no JSON"),
        ("malformed", "is packed by gzip, and no JSON"),
        ("malformed", "is XML or HTML, and no JSON"),
        ("malformed", "data_base64 of a CloudEvent is no base64"),
        ("malformed", "data_base64 of a CloudEvent is no JSON"),
        ("malformed", "a CloudEvent without data"),
        ("malformed", "has an object or a list where the map reads a value"),
        ("malformed", None),
        ("malformed", "is an Arrow stream, and the map reads JSON"),
    ]
    in_header = decode(table, [b"\x02\x04"], [("__value_schema_id", b"\x01" + bytes(16))])
    assert "has its schema's id in a header" in str(in_header.refused[0].detail)
    short = decode(table, [row()], record_bytes_max=20)
    assert short.refused[0].detail == "is longer than 20 bytes"


def test_a_path_into_a_list_costs_its_own_record(tmp_path: Path) -> None:
    path = tmp_path / "lists.toml"
    path.write_text(TABLE.replace('"total"', '"payments.amount"'))
    good = {**row(), "payments": {"amount": 5}}
    batch = decode(path, [good, {**row(2), "payments": [{"amount": 5}]}, good])
    assert [record for record, *_ in events(batch)] == [0, 2]
    assert refused(batch) == [
        (12, 0, "malformed", "the path 'payments.amount' reaches into a list, 'payments'")
    ]
    # Alone in its batch it costs no more.
    alone = decode(path, [{**row(2), "payments": [{"amount": 5}]}])
    assert [reason for _, _, reason, _ in refused(alone)] == ["malformed"]
    assert events(alone) == []


def test_a_record_of_which_any_list_may_be_the_records_is_refused_alone(table: Path) -> None:
    batch = decode(table, [row(1), {"web": [row(2)], "pos": [row(3)]}, row(4)])
    assert [record for record, *_ in events(batch)] == [0, 2]
    assert [refusal[2:] for refusal in refused(batch)] == [
        ("malformed", "holds several lists of records: web, pos")
    ]


def test_the_original_of_a_rejected_row_is_read_again_by_the_map(table: Path) -> None:
    bad = [row(1, total="-1"), row(2, paid_at="never")]
    batch = decode(table, [bad[0], [bad[0], row(5), bad[1]]])
    assert [refusal.reason for refusal in batch.refused] == ["negative_amount", "negative_amount", "bad_time"]
    assert json.loads(batch.refused[0].original or b"") == bad[0]
    again = decode(table, [refusal.original for refusal in batch.refused])
    assert [refusal.reason for refusal in again.refused] == ["negative_amount", "negative_amount", "bad_time"]
    # And of one that the state rejects later on.
    originals = Originals(batch)
    assert originals.of(0, 0) == batch.records.values[0]
    assert json.loads(originals.of(1, 1) or b"")["id"] == "5"


def test_the_detail_stands_in_a_header(table: Path) -> None:
    batch = decode(table, [b"\0\0\0\0\x11\x02", row(1, total="x")])
    encoder = Encoder(load_ruleset("rfm8"), source="/x")
    data = encoder.rejections(batch.refused, Source("orders", 0)).data.tobytes()
    assert data.count(b"rfm-detail") == 1
    assert b"is framed with schema 17 of a registry" in data


def test_numbers_keep_their_digits_and_absent_words_count(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    toml = TABLE.replace('"customer"', '{ first_of = ["customer", "mail"] }')
    path.write_text(toml.replace("[[event]]", '[input]\nabsent = ["0"]\nrecords = "data"\n[[event]]'))
    body = (
        b'{"data": {"id": 12345678901234567890123, "customer": 0, "mail": "a@b", "paid_at": "2024-05-01", '
        b'"total": 0.10}}'
    )
    batch = decode(path, [body, {"other": 1}])
    assert events(batch) == [(0, "a@b", "12345678901234567890123", PAID, 10)]
    assert refused(batch)[0][3] == "has no list of records at 'data'; its keys are other"


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[lines]\n" + TABLE, "lines: sums lines of whole files"),
        ('[input]\nformat = "csv"\n' + TABLE, "input.format: reads csv"),
        ('[input]\ndelimiter = ";"\n' + TABLE, "input.delimiter: is for files"),
        ('[input]\nfill_down = ["id"]\n' + TABLE, "input.fill_down: is for files"),
        ("[input]\nskip = 1\n" + TABLE, "input.skip: is for files"),
        (TABLE.replace('"id"', '{ concat = [{ row_number = true }, "id"] }'), "row_number: counts the rows"),
    ],
)
def test_maps_for_files_are_refused_by_name(tmp_path: Path, toml: str, words: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text('name = "table"\n' + toml.replace('name = "table"\n', ""))
    with pytest.raises(ConfigError, match=words):
        MappedDecoder(load_map(path), currency="USD")


def test_the_shipped_maps_of_json_are_for_records_and_no_other() -> None:
    fit = []
    for name in list_maps():
        try:
            check_map(load_map(name))
        except ConfigError:
            continue
        fit.append(name)
    assert fit == [
        *("magento-orders", "segment-orders", "shopify-api-orders", "shopline-orders", "square-payments"),
        *("stripe-events", "woocommerce-rest", "youzan-trades"),
    ]
    assert len({fingerprint(load_map(name)) for name in fit}) == len(fit)


def test_keys_that_are_not_the_customers_are_warned_of_once(
    table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    decoder = MappedDecoder(load_map(table), currency="USD")
    values = [json.dumps(row()).encode()] * 3
    own = raw(values)._replace(keys=[b"c1"] * 3)
    decoder.decode(raw(values))
    decoder.checks_keys = True
    decoder.decode(own)
    assert caplog.records == []
    for keys in ([b"c1", None, b"c1"], [b"k"] * 3):
        decoder.decode(own._replace(keys=keys))
    [warning] = caplog.records
    assert "a record's key is not its customer's id" in warning.message


def test_what_views_look_at_comes_from_the_object_or_a_header(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(TABLE + '\n[attributes]\nstore = "shop.code"\n')
    values = [row(1, shop={"code": "hk"}), row(2), [row(3, shop={"code": "tw"}), row(4)], b"{"]
    batch = decode(path, values, [("ce_store", b"web"), ("channel", b"app")], attributes=("store", "channel"))
    assert batch.orders.select(["order_id", "attribute.store", "attribute.channel"]).to_pylist() == [
        {"order_id": "1", "attribute.store": "hk", "attribute.channel": "app"},
        {"order_id": "2", "attribute.store": "web", "attribute.channel": "app"},
        {"order_id": "3", "attribute.store": "tw", "attribute.channel": "app"},
        {"order_id": "4", "attribute.store": "web", "attribute.channel": "app"},
    ]
    nothing = decode(path, [b"{"], attributes=("store",))
    assert nothing.orders.schema.names[-1] == "attribute.store"


def test_a_recipe_makes_the_decoder_of_a_map_with_what_views_look_at(table: Path) -> None:
    recipe = {
        "currency": "USD",
        "record_bytes_max": 1000,
        "map": str(table),
        "schema_registry": "http://r:8081",
    }
    decoder = decoder_of({**recipe, "readings": [["USD", "UTC", ["store"]]]})
    assert isinstance(decoder, MappedDecoder)
    assert decoder.blocks
    assert decoder.decode(raw([json.dumps(row(store="hk")).encode()])).orders[
        "attribute.store"
    ].to_pylist() == ["hk"]
    both = decoder_of({**recipe, "readings": [["USD", "UTC", []], ["EUR", "Asia/Tokyo", ["store"]]]})
    check_keys(both)
    assert both.blocks
    [other] = both.decode(raw([json.dumps(row()).encode()])).others
    assert other.reading == ("EUR", "Asia/Tokyo")
