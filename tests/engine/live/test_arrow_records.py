"""Records that are Arrow streams: their rows are judged one by one, and none takes more than there is room for."""

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from decoded import ARROW, checked, decode, outcomes, raw, stream, table, text
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import some

from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.model import Headers
from rfmstream.engine.live.spans import cut_out
from rfmstream.schemas.orders import ORDER_SCHEMA


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


def test_arrow_that_says_another_number_of_nulls_than_it_has() -> None:
    def saying(nulls: int, column: pa.Array) -> bytes:
        wrong = pa.Array.from_buffers(column.type, len(column), column.buffers(), null_count=nulls)
        return stream(table("a", "b").drop_columns("event_id").append_column("event_id", wrong))

    column = pa.array(["e", None])
    batch = decode([saying(2, column), saying(1, column)], ARROW)
    assert outcomes(batch) == ["malformed", "a", "b"]


@settings(max_examples=some(200), deadline=None)
@given(data=st.data())
def test_damaged_arrow_never_raises(data: st.DataObject) -> None:
    value = bytearray(stream(table("a", "b")))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    batch = decode([stream(table("x")), bytes(value), stream(table("y"))], ARROW)
    assert outcomes(batch)[0] == "x"
    assert outcomes(batch)[-1] == "y"


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
    monkeypatch.setattr("rfmstream.engine.live.arrow_records.HELD_BYTES_MAX", 1_600_000)
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
    monkeypatch.setattr("rfmstream.engine.live.arrow_records.HELD_BYTES_MAX", 100 * 2000)
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
    monkeypatch.setattr("rfmstream.engine.live.arrow_records.HELD_BYTES_MAX", 3_000_000)
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
    monkeypatch.setattr("rfmstream.engine.live.arrow_records.HELD_BYTES_MAX", 150_000)
    found, rest, calls = [], raw(values), 0
    while rest.offsets:
        batch = checked(Decoder(currency="CNY").decode(rest))
        assert batch.records.offsets
        found += outcomes(batch)
        rest = cut_out(rest, len(batch.records.offsets), len(rest.offsets))
        calls += 1
    assert batch.position == raw(values).position
    assert found == alone
    assert calls > 3
