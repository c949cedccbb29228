"""Records of every form and of none: each row counted once, with the outcome the same bytes have in a file."""

import base64
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from decoded import EVENT, JSON, LINES, Value, checked, decode, order, outcomes, raw, stream, table, text
from hypothesis import given, settings
from hypothesis import strategies as st
from json_texts import GOOD, texts
from schedules import some

from rfmstream.engine.files.source import open_orders
from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.model import Headers
from rfmstream.engine.live.spans import times_us
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError

# One record, one row: the same as a line of a file.


def in_a_file(line: bytes) -> tuple[list[dict], list[dict]]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "o.jsonl"
        path.write_bytes(line + b"\n")
        batches = list(open_orders([path], currency="CNY"))
    return (
        [order for good, _ in batches for order in good.to_pylist()],
        [row for _, bad in batches for row in bad.to_pylist()],
    )


@settings(max_examples=some(300), deadline=None)
@given(
    line=texts().filter(lambda line: b"\n" not in line and line.strip()[:1] not in (b"", b"[")),
    headers=st.sampled_from([(), JSON, LINES]),
)
def test_a_record_is_what_the_line_is_in_a_file(line: bytes, headers: Headers) -> None:
    # A byte order mark is looked for at the start of a file, not of a line.
    orders, rejected = in_a_file(b"\n" + line)
    batch = decode([line], headers)
    assert batch.orders.to_pylist() == orders
    assert [row.reason for row in batch.refused] == [row["reason"] for row in rejected]
    assert [row.original for row in batch.refused] == [line] * len(rejected)


@settings(max_examples=some(150), deadline=None)
@given(
    values=st.lists(st.one_of(st.none(), texts()), max_size=12),
    split=st.integers(0, 12),
    sniffed=st.booleans(),
)
def test_records_do_not_touch_each_other(values: list[Value], split: int, *, sniffed: bool) -> None:
    headers = () if sniffed else LINES
    whole = decode(values, headers)
    alone = [decode([value], headers) for value in values]
    assert outcomes(whole) == [word for batch in alone for word in outcomes(batch)]
    assert whole.orders.drop_columns("row").to_pylist() == [
        row for batch in alone for row in batch.orders.drop_columns("row").to_pylist()
    ]
    parts = [decode(values[:split], headers), decode(values[split:], headers)]
    assert outcomes(whole) == outcomes(parts[0]) + outcomes(parts[1])


def test_every_row_level_reason() -> None:
    rows = {
        "malformed": text("x" * 257),
        "missing_customer_id": text("a", customer_id=""),
        "missing_order_id": text("", amount="x"),
        "bad_time": text("a", occurred_at="2024-02-30", amount="x"),
        "bad_amount": text("a", amount=0.1 + 0.2),
        "negative_amount": text("a", amount=-1, currency="USD"),
        "currency_mismatch": text("a", currency="USD", type="gift"),
        "unknown_type": text("a", type="gift"),
    }
    batch = decode(list(rows.values()))
    assert outcomes(batch) == list(rows)
    assert [row.original for row in batch.refused] == list(rows.values())
    assert [row.key for row in batch.refused] == [f"k{at}".encode() for at in range(len(rows))]
    assert [row.offset for row in batch.refused] == list(batch.records.offsets)
    assert [row.log_us for row in batch.refused] == [1_000_000 * at for at in range(len(rows))]


def test_numbers_keep_their_digits() -> None:
    ids = b'{"customer_id": 123456789012345678901234567890, "order_id": 1.0, "occurred_at": "2024-01-01", "amount": %s}'
    batch = decode(
        [ids % amount for amount in (b"0.10", b"0.30000000000000004", b"1e999", b"1e-999", b"1000e-3")]
    )
    assert batch.orders.column("amount_minor").to_pylist() == [10, 100]
    assert batch.orders.column("customer_id").to_pylist() == ["123456789012345678901234567890"] * 2
    assert batch.orders.column("order_id").to_pylist() == ["1.0", "1.0"]
    assert outcomes(batch) == ["1.0", "bad_amount", "bad_amount", "bad_amount", "1.0"]
    assert outcomes(decode([b'{"note": 1e999, ' + GOOD[1:]])) == ["o1"]


@pytest.mark.parametrize(
    "poison",
    [
        None,
        b"",
        b" \n",
        b"\xff\xfe",
        b"\xff\xff\xff\xff",
        b"{",
        b"null",
        b"17",
        b'"text"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xef\xbb\xbf" + GOOD,
        GOOD.replace(b"c1", b"c\xff"),
        GOOD + b"\x00",
        GOOD * 2,
        GOOD[:-1] + b', "n": ' + b"[" * 100 + b"]" * 100 + b"}",
        b"x" * 5_000,
        b"[" + GOOD + b",]",
        b"[" + GOOD + b"]]",
        b"[" + GOOD + b"\n" + GOOD + b"]",
        b"\n".join([b"[", GOOD, b", 1"]),
        b"not json\nnor this",
    ],
)
@pytest.mark.parametrize("headers", [(), JSON])
def test_poison_is_one_row_and_harms_no_other(poison: Value, headers: Headers) -> None:
    batch = decode([GOOD, poison, text("o2")], headers, record_bytes_max=4_000_000)
    assert outcomes(batch) == ["o1", "malformed", "o2"]
    (row,) = batch.refused
    assert (row.original, row.key, row.offset, row.row, row.log_us) == (poison, b"k1", 12, 0, 1_000_000)


def test_nesting_has_one_limit_wherever_it_is_asked() -> None:
    def nested(depth: int) -> bytes:
        return GOOD[:-1] + b', "n": ' + b"[" * depth + b"]" * depth + b"}"

    def deeper(calls: int) -> list[str]:
        return deeper(calls - 1) if calls else outcomes(decode([nested(99), nested(100), nested(5_000)]))

    assert outcomes(decode([nested(99), nested(100), nested(5_000)])) == ["o1", "malformed", "malformed"]
    assert deeper(400) == ["o1", "malformed", "malformed"]


def test_a_record_that_is_too_long() -> None:
    batch = decode([GOOD, GOOD[:-1] + b" " * 10_000 + b"}"], record_bytes_max=len(GOOD))
    assert outcomes(batch) == ["o1", "malformed"]
    assert len(batch.refused[0].original or b"") == len(GOOD) + 10_000


# Many rows in a record.


@pytest.mark.parametrize(
    "headers",
    [
        (),
        LINES,
        [("ce_id", b"1"), ("Content-Type", b"Application/NDJSON; charset=utf-8")],
        [("content-type", b"application/jsonl")],
        [("content-type", b"text/x-jsonlines")],
        [("content-type", None)],
        [("content-type", b"\xff")],
    ],
)
@pytest.mark.parametrize("first", [b"", text("a", customer_id='\u00e9"')])
def test_json_lines(headers: Headers, first: bytes) -> None:
    lines = [
        text("o1"),
        b"",
        b"  ",
        text("o2", amount="x"),
        b"[1]",
        text("o3", note={"a": [1]}),
        b'{"a',
        text("o4"),
    ]
    batch = decode([b"\r\n".join([first, *lines] if first else lines), GOOD], headers)
    start = [json.loads(first)["order_id"]] if first else []
    assert outcomes(batch) == [*start, "o1", "bad_amount", "malformed", "o3", "malformed", "o4", "o1"]
    refused = [line.rstrip(b"\r") for line in (row.original or b"" for row in batch.refused)]
    assert refused == [lines[3], lines[4], lines[6]]
    assert [row.row for row in batch.refused] == [at + len(start) for at in (1, 2, 4)]


def test_lines_whose_first_is_damaged() -> None:
    value = b"{damaged}\n" + text("o2") + b"\n"
    assert outcomes(decode([value])) == outcomes(decode([value], LINES)) == ["malformed", "o2"]
    assert outcomes(decode([value], JSON)) == ["malformed"]


def test_one_order_on_many_lines() -> None:
    value = b"\n\n" + json.dumps(order("o1"), indent=1).encode() + b"\n"
    strange = b'{"x": {}\n, ' + GOOD[1:] + b"\n"
    assert outcomes(decode([value, strange])) == outcomes(decode([value, strange], JSON)) == ["o1", "o1"]
    assert set(outcomes(decode([value], LINES))) == {"malformed"}


@pytest.mark.parametrize("headers", [(), JSON])
def test_an_array(headers: Headers) -> None:
    items = [
        text("o1"),
        b"17",
        text("o2", amount=1.005),
        b'{"a": [{}]}',
        b'"]"',
        text("o3", customer_id="a,]\\"),
    ]
    batch = decode([b" [ " + b" ,\n".join(items) + b" ]\n", b"[]", b"[ \n ]", text("o4")], headers)
    assert outcomes(batch) == [
        "o1",
        "malformed",
        "bad_amount",
        "missing_customer_id",
        "malformed",
        "o3",
        "o4",
    ]
    assert [row.original for row in batch.refused] == [items[at] for at in (1, 2, 3, 4)]
    assert batch.firsts.tolist() == [0, 6, 6, 6, 7]


def test_cloud_events() -> None:
    binary = [("ce_specversion", b"1.0"), ("ce_id", b"7"), *JSON]
    assert outcomes(decode([GOOD], binary)) == ["o1"]
    structured = [
        b'{"specversion": "1.0", "id": "7", "data" : %s, "x": 1}' % data
        for data in (
            GOOD,
            b"[%s, 1, %s]" % (text("o2"), text("o3", amount=0.1 + 0.2)),
            b"17",
            b"[]",
            text("o4", type="x"),
        )
    ]
    batch = decode([*structured, b'{"id": "7"}', GOOD, b"[]", b"{"], EVENT)
    words = ["o1", "o2", "malformed", "bad_amount", "malformed", "unknown_type", *["malformed"] * 4]
    assert outcomes(batch) == words
    originals = [row.original for row in batch.refused]
    assert originals[:4] == [b"1", text("o3", amount=0.1 + 0.2), structured[2], structured[4]]


BATCH = [("content-type", b"application/cloudevents-batch+json")]


@pytest.mark.parametrize("headers", [[], JSON, EVENT, BATCH])
def test_cloud_events_without_a_header_and_in_batches(headers: Headers) -> None:
    head = b'"specversion": "1.0", "id": "7", "source": "/shop", "type": "order"'
    packed = base64.b64encode(GOOD)
    one = b'{%s, "data": %s}' % (head, GOOD)
    values = [
        one,
        b'{%s, "data_base64": "%s"}' % (head, packed),
        b"[%s, %s, %s]" % (one, text("o2"), one.replace(GOOD, text("o3"))),
        b'{%s, "data": [%s, %s]}' % (head, text("o4"), text("o5")),
        b'{%s, "data_base64": "*"}' % head,
        b'{%s, "data": null}' % head,
        # An order of its own is no envelope, whatever else it holds.
        text("o6", specversion="1", id="1", source="s", data="x"),
    ]
    if headers == EVENT:
        values = [value for at, value in enumerate(values) if at not in (2, 6)]
    batch = decode(values, headers)
    words = ["o1", "o1", "o1", "o2", "o3", "o4", "o5", "malformed", "malformed", "o6"]
    if headers == EVENT:
        words = ["o1", "o1", "o4", "o5", "malformed", "malformed"]
    assert outcomes(batch) == words
    refused = values[-2:] if headers == EVENT else values[-3:-1]
    assert [row.original for row in batch.refused] == refused


def test_what_only_a_map_can_read_is_named() -> None:
    batch = decode([b"\0\0\0\0\x11\x02\x04", b"Obj\x01", b"{", None, text("o1", amount="x")])
    assert [(row.reason, row.detail) for row in batch.refused] == [
        ("malformed", "is framed with schema 17 of a registry, and no JSON: read such records by a map"),
        ("malformed", "is a whole Avro file, and no JSON: read such records by a map"),
        ("malformed", None),
        ("malformed", None),
        ("bad_amount", None),
    ]


def test_forms_side_by_side() -> None:
    values = [
        stream(table("a", "b")),
        text("c"),
        text("d") + b"\n" + text("e"),
        b"[%s]" % text("f"),
        stream(table("g")),
    ]
    assert outcomes(decode(values)) == list("abcdefg")


def test_a_record_of_too_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("payload", "arrow_records", "decode"):
        monkeypatch.setattr(f"rfmstream.engine.live.{module}.ROWS_MAX", 3)
    three, four = [b"1\n" * 3, b"[1,1,1]"], [b"1\n" * 4, b"[1,1,1,1]"]
    assert len(decode(three[:1], LINES).refused) == len(decode(three[1:]).refused) == 3
    assert len(decode(four[:1], LINES).refused) == len(decode(four[1:]).refused) == 1
    assert outcomes(decode([stream(table(*"abc")), stream(table(*"abcd"))])) == ["a", "b", "c", "malformed"]
    assert outcomes(decode([b"\n".join([text("a")] * 4)])) == ["malformed"]


# What goes with the rows.


def test_times_are_those_of_the_records_or_none() -> None:
    times_ms = [-1, 5, -1, 7, 3, 2**62, -(2**63), 253_402_300_800_000, 253_402_300_799_999]
    expected = [NEVER_US, 5000, NEVER_US, 7000, 3000, *[NEVER_US] * 3, 253_402_300_799_999_000]
    for array in (times_ms, memoryview(np.array(times_ms))):
        records = raw([b"{"] * len(times_ms), times_ms=array)
        assert times_us(records).tolist() == expected
        batch = checked(Decoder(currency="CNY").decode(records))
        assert [row.log_us for row in batch.refused] == expected


def test_nothing_gives_nothing() -> None:
    batch = decode([])
    assert (batch.orders.num_rows, batch.refused, batch.firsts.tolist()) == (0, [], [0])


def test_the_currency_is_the_rulesets() -> None:
    yen = Decoder(currency="JPY").decode(raw([text("a", currency="JPY", amount=5), text("b", currency=None)]))
    assert outcomes(checked(yen)) == ["a", "bad_amount"]
    assert yen.orders.column("amount_minor").to_pylist() == [5]
    with pytest.raises(ConfigError):
        Decoder(currency="XXY")
