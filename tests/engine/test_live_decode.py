"""Records of every form and of none: each row counted once, with the outcome the same bytes have in a file."""

import io
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_texts import GOOD, texts

from engine.ingest import open_orders
from engine.live.decode import Decoder
from engine.live.model import Headers, LogBatch, RawRecords
from engine.live.spans import part, times_us
from schemas.codes import NEVER_US
from schemas.errors import ConfigError
from schemas.orders import CANONICAL_SCHEMA, ORDER_SCHEMA

JSON = [("content-type", b"application/json")]
LINES = [("content-type", b"application/x-ndjson")]
ARROW = [("content-type", b"application/vnd.apache.arrow.stream")]
EVENT = [("content-type", b"application/cloudevents+json; charset=UTF-8")]

Value = bytes | None


def raw(values: Sequence[Value], headers: Headers = (), times_ms: Sequence[int] | None = None) -> RawRecords:
    """Return records at offsets 10, 12, ... and a second apart."""
    n = len(values)
    return RawRecords(
        keys=[f"k{at}".encode() for at in range(n)],
        values=list(values),
        headers=[headers] * n,
        timestamps_ms=[1000 * at for at in range(n)] if times_ms is None else times_ms,
        offsets=range(10, 10 + 2 * n, 2),
        position=10 + 2 * n,
    )


def decode(values: Sequence[Value], headers: Headers = (), **options: int) -> LogBatch:
    return checked(Decoder(currency="CNY", **options).decode(raw(values, headers)))


def checked(batch: LogBatch) -> LogBatch:
    """Every row is there once, and stands where it says."""
    assert batch.orders.schema == CANONICAL_SCHEMA
    batch.orders.validate(full=True)
    ordinals = batch.orders.column("row").to_pylist()
    firsts = batch.firsts.tolist()
    assert firsts[0] == 0
    assert len(firsts) == len(batch.records.offsets) + 1
    sizes = np.diff(batch.firsts).tolist()
    record_of = {offset: at for at, offset in enumerate(batch.records.offsets)}
    assert all(row.row < sizes[record_of[row.offset]] for row in batch.refused)
    refused = [firsts[record_of[row.offset]] + row.row for row in batch.refused]
    assert refused == sorted(refused)
    assert ordinals == sorted(ordinals)
    assert sorted(ordinals + refused) == list(range(firsts[-1]))
    record_of_row = np.repeat(np.arange(len(sizes)), sizes)
    assert batch.record_of.tolist() == record_of_row[ordinals].tolist()
    assert batch.position == batch.records.position
    return batch


def outcomes(batch: LogBatch) -> list[str]:
    """Return the order id of each row, or the reason for which it is refused."""
    words = dict(
        zip(batch.orders.column("row").to_pylist(), batch.orders.column("order_id").to_pylist(), strict=True)
    )
    refused = iter(batch.refused)
    return [words.get(ordinal) or next(refused).reason for ordinal in range(batch.firsts[-1])]


def order(order_id: str, **values: object) -> dict[str, object]:
    return json.loads(GOOD) | {"order_id": order_id, "event_id": None} | values


def text(order_id: str, **values: object) -> bytes:
    return json.dumps(order(order_id, **values)).encode()


def stream(*tables: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, tables[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for table in tables:
            writer.write_table(table)
    return sink.getvalue()


def table(*order_ids: str, **values: object) -> pa.Table:
    rows = [order(order_id, **values) for order_id in order_ids]
    typed = {"occurred_at", "amount", "amount_minor"}
    schema = pa.schema([(f.name, pa.string() if f.name in typed else f.type) for f in ORDER_SCHEMA])
    found = pa.Table.from_pylist([{**row, "amount": str(row["amount"])} for row in rows], schema)
    return found.set_column(
        3, "occurred_at", found["occurred_at"].cast(pa.timestamp("us", "UTC"))
    ).set_column(4, "amount", found["amount"].cast(pa.decimal128(17, 4)))


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


@settings(max_examples=300, deadline=None)
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


@settings(max_examples=150, deadline=None)
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


# Arrow.


@pytest.mark.parametrize(
    "headers", [(), ARROW, [("content-type", b"APPLICATION/vnd.apache.arrow.stream; a=b")]]
)
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_arrow_records(headers: Headers, compression: str | None) -> None:
    one = stream(table("a", "b"), table("c"), compression=compression)
    texts_only = table("d", "e", "f").cast(pa.schema([(f.name, pa.string()) for f in ORDER_SCHEMA]))
    texts_only = texts_only.append_column("extra", pa.array([1, 2, 3])).select([*reversed(range(8)), 8])
    odd = stream(texts_only, compression=compression)
    none = stream(table("a").slice(0, 0), compression=compression)
    batch = decode([one, odd, none, stream(table("g"))], headers)
    assert outcomes(batch) == ["a", "b", "c", "d", "e", "f", "g"]
    assert batch.firsts.tolist() == [0, 3, 6, 6, 7]
    assert set(batch.orders.column("amount_minor").to_pylist()) == {1250}


def test_forms_side_by_side() -> None:
    values = [
        stream(table("a", "b")),
        text("c"),
        text("d") + b"\n" + text("e"),
        b"[%s]" % text("f"),
        stream(table("g")),
    ]
    assert outcomes(decode(values)) == list("abcdefg")


def test_arrow_rows_are_judged_one_by_one() -> None:
    bad = table("a", "b", "c").set_column(4, "amount", pa.array(["1.5", "1.555", None]))
    latin = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xe9"], pa.binary()).buffers())
    raw_text = table("d").set_column(0, "customer_id", latin)
    batch = decode([stream(bad), stream(raw_text), stream(table("e"))], ARROW)
    assert outcomes(batch) == ["a", "bad_amount", "bad_amount", "malformed", "e"]
    assert [(row.offset, row.row) for row in batch.refused] == [(10, 1), (10, 2), (12, 0)]
    shown = [json.loads(row.original or b"") for row in batch.refused]
    assert shown[0]["amount"] == "1.555"
    assert "amount" not in shown[1]
    assert shown[2]["customer_id"] == "\ufffd"


@pytest.mark.parametrize(
    "odd",
    [
        table("a").drop_columns("order_id"),
        table("a").set_column(0, "customer_id", pa.array([1.5])),
        table("a").set_column(0, "customer_id", pa.array([[1]])),
        table("a").set_column(3, "occurred_at", pa.array([1])),
        table("a").append_column("type", pa.array(["paid"])),
        pa.table({"x": [1, 2]}),
        pa.table({}),
    ],
)
def test_columns_that_cannot_be_orders_refuse_the_record(odd: pa.Table) -> None:
    value = stream(odd)
    batch = decode([stream(table("a")), value, stream(table("b"))], ARROW)
    assert outcomes(batch) == ["a", "malformed", "b"]
    assert batch.refused[0].original == value


def test_truncated_arrow_at_every_length() -> None:
    whole = stream(table("a", "b"), table("c"))
    cut = [whole[:size] for size in range(1, len(whole))]
    batch = decode([*cut, whole, whole + b"\0", whole + whole], ARROW)
    assert outcomes(batch) == [*["malformed"] * len(cut), "a", "b", "c", "malformed", "malformed"]


def test_arrow_whose_offsets_or_indices_lead_astray() -> None:
    def astray(column: pa.Array) -> bytes:
        return stream(table("a", "b").set_column(0, "customer_id", column))

    offsets = [pa.py_buffer(np.array(edges, np.int32)) for edges in ([0, 1 << 30, 2], [0, -5, 2], [1, 0, 2])]
    columns = [pa.StringArray.from_buffers(2, edges, pa.py_buffer(b"ab")) for edges in offsets]
    indices = pa.array([0, 1 << 20], pa.int32())
    columns.append(pa.DictionaryArray.from_arrays(indices, pa.array(["c"]), safe=False))
    good = pa.array(["c", "c"]).dictionary_encode()
    batch = decode([*map(astray, columns), astray(good)], ARROW)
    assert outcomes(batch) == [*["malformed"] * len(columns), "a", "b"]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_arrow_never_raises(data: st.DataObject) -> None:
    value = bytearray(stream(table("a", "b")))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    batch = decode([stream(table("x")), bytes(value), stream(table("y"))], ARROW)
    assert outcomes(batch)[0] == "x"
    assert outcomes(batch)[-1] == "y"


def test_a_record_of_too_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("payload", "arrow_records", "decode"):
        monkeypatch.setattr(f"engine.live.{module}.ROWS_MAX", 3)
    three, four = [b"1\n" * 3, b"[1,1,1]"], [b"1\n" * 4, b"[1,1,1,1]"]
    assert len(decode(three[:1], LINES).refused) == len(decode(three[1:]).refused) == 3
    assert len(decode(four[:1], LINES).refused) == len(decode(four[1:]).refused) == 1
    assert outcomes(decode([stream(table(*"abc")), stream(table(*"abcd"))])) == ["a", "b", "c", "malformed"]
    assert outcomes(decode([b"\n".join([text("a")] * 4)])) == ["malformed"]


# Some kilobytes that stand for gigabytes.


def repeated(column: pa.Array, rows: int) -> pa.Array:
    """Return a column of one value, which stands there once, as so many rows."""
    return pa.RunEndEncodedArray.from_arrays(pa.array([rows], pa.int32()), column)


def bomb(customers: pa.Array, rows: int, **options: object) -> bytes:
    columns = {"customer_id": customers} | {
        name: repeated(pa.array([word]), rows)
        for name, word in (("order_id", "o"), ("occurred_at", "2024-01-01T00:00:00Z"), ("amount", "1"))
    }
    return stream(pa.table(columns), **options)


def views(size: int, rows: int) -> pa.Array:
    """Return so many views of the same text."""
    one = pa.array(["x" * size], pa.string_view()).buffers()
    return pa.Array.from_buffers(
        pa.string_view(), rows, [None, pa.py_buffer(bytes(one[1])[:16] * rows), *one[2:]]
    )


def one_entry(text: pa.Array, rows: int, index: pa.DataType) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.nulls(rows, index).fill_null(0), text)


WORTH = [
    lambda size, rows: (repeated(pa.array(["x" * size]), rows), {}),
    lambda size, rows: (repeated(pa.array(["x" * size], pa.large_string()), rows), {}),
    lambda size, rows: (one_entry(pa.array(["x" * size]), rows, pa.int8()), {}),
    lambda size, rows: (one_entry(pa.array([b"x" * size], pa.large_binary()), rows, pa.uint32()), {}),
    lambda size, rows: (views(size, rows), {}),
    lambda size, rows: (pa.array(["x" * size] * rows), {"compression": "zstd"}),
    lambda size, rows: (pa.array(["x" * size] * rows), {"compression": "lz4"}),
]


@pytest.mark.parametrize("worth", WORTH)
def test_a_record_that_takes_more_than_there_is_room_for(
    worth: Callable[[int, int], tuple[pa.Array, dict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.live.arrow_records.HELD_BYTES_MAX", 1_600_000)
    column, options = worth(200, 4000)
    within = bomb(column, 4000, **options)
    column, options = worth(200, 6000)
    beyond = bomb(column, 6000, **options)
    assert decode([within]).orders.num_rows == 4000
    assert outcomes(decode([beyond])) == ["malformed"]
    batch = decode([stream(table("a")), beyond, stream(table("b"))])
    assert outcomes(batch) == ["a", "malformed", "b"]
    assert batch.refused[0].original == beyond


def test_rows_take_room_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.live.arrow_records.HELD_BYTES_MAX", 100 * 2000)
    assert decode([bomb(repeated(pa.array(["c"]), 1000), 1000)]).orders.num_rows == 1000
    assert outcomes(decode([bomb(repeated(pa.array(["c"]), 3000), 3000)])) == ["malformed"]


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("event_id", pa.array(np.arange(10_000))),
        ("occurred_at", pa.array(np.arange(10_000), pa.timestamp("us", "UTC"))),
        ("amount", pa.array(np.arange(10_000)).cast(pa.decimal128(21, 2))),
        ("order_id", pa.array(np.arange(10_000)).cast(pa.large_string())),
    ],
)
def test_a_dictionary_of_many_entries_takes_what_it_stands_for(
    name: str, entries: pa.Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.live.arrow_records.HELD_BYTES_MAX", 3_000_000)
    rows = 20_000
    indices = pa.array(np.arange(rows) % 10_000, mask=np.arange(rows) % 7 == 0)
    columns = {
        "customer_id": pa.array(["c"] * rows),
        "order_id": pa.array(np.arange(rows)).cast(pa.string()),
        "occurred_at": pa.array(["2024-01-01T00:00:00Z"] * rows),
        "amount": pa.array(["1"] * rows),
    } | {name: pa.DictionaryArray.from_arrays(indices, entries)}
    batch = decode([stream(pa.table(columns))])
    assert batch.firsts.tolist() == [0, rows]
    assert batch.orders.num_rows >= rows * 6 // 7


def test_records_that_are_too_many_to_be_unpacked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is decoded as it is by itself; how many at once shows nowhere."""
    one = bomb(repeated(pa.array(["c"]), 100), 100)
    big = bomb(repeated(pa.array(["c"]), 1000), 1000)
    values = [text("a"), one, one, big, b"{", stream(table("b")), big, *[one] * 20]
    alone = [outcome for value in values for outcome in outcomes(decode([value]))]
    monkeypatch.setattr("engine.live.arrow_records.HELD_BYTES_MAX", 150_000)
    found, rest, calls = [], raw(values), 0
    while rest.offsets:
        batch = checked(Decoder(currency="CNY").decode(rest))
        assert batch.records.offsets
        found += outcomes(batch)
        rest = part(rest, len(batch.records.offsets), len(rest.offsets))
        calls += 1
    assert batch.position == raw(values).position
    assert found == alone
    assert calls > 3


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
