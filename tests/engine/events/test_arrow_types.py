"""Every Arrow type in every column by every route: its rows are read, or the column is refused by name.

Routes  a Parquet file, an Arrow file and an Arrow stream as the command line reads them; Engine.step; a live record
"""

import datetime as dt
import decimal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfmstream import Engine, InputError
from rfmstream.engine.events.normalise import CONTRACT_COLUMNS
from rfmstream.engine.files.source import open_orders
from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.model import RawRecords

ROWS: Final = 3
GOOD: Final[dict[str, pa.Array]] = {
    "customer_id": pa.array(["a", "b", "a"]),
    "order_id": pa.array(["1", "2", "3"]),
    "type": pa.array(["paid", "paid", None]),
    "occurred_at": pa.array(["2026-01-01", "2026-01-02", "2026-01-03"]),
    "amount": pa.array(["1.00", "2.00", "3.00"]),
    "currency": pa.array(["CNY", None, "CNY"]),
    "event_id": pa.array(["x", "y", None]),
    "amount_minor": pa.array([100, 200, 300]),
}


def of(kind: pa.DataType, *values: object) -> pa.Array:
    return pa.array(list(values), kind)


def dictionary(values: pa.Array, index: pa.DataType, *, ordered: bool = False) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0, 1, None], index), values, ordered=ordered)


def runs(values: pa.Array, end: pa.DataType) -> pa.Array:
    return pa.RunEndEncodedArray.from_arrays(pa.array([1, 3], end), values)


def unions() -> dict[str, pa.Array]:
    tags, children = pa.array([0, 1, 0], pa.int8()), [pa.array(["a", "b", "c"]), pa.array([1, 2, 3])]
    return {
        "sparse_union": pa.UnionArray.from_sparse(tags, children),
        "dense_union": pa.UnionArray.from_dense(tags, pa.array([0, 0, 1], pa.int32()), children),
    }


@cache
def arrays() -> dict[str, pa.Array]:
    """Return three rows of every type, some of them null, by its name."""
    texts = ("ann", None, "2026-01-01")
    numbers = (1, None, 3)
    day, moment = dt.date(2026, 1, 1), dt.datetime(2026, 1, 1, 12)  # noqa: DTZ001 - naive by intent
    found = [
        of(pa.null(), None, None, None),
        pa.array([True, None, False]),
        *(of(kind, *numbers) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())),
        *(of(kind, *numbers) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())),
        *(pa.array(numbers, kind) for kind in (pa.float32(), pa.float64())),
        pa.array([1.5, None, 2.5], pa.float64()).cast(pa.float16()),
        *(
            of(kind, decimal.Decimal("1.25"), None, decimal.Decimal(3))
            for kind in (pa.decimal32(5, 2), pa.decimal64(10, 2), pa.decimal128(20, 2), pa.decimal256(40, 2))
        ),
        *(
            of(kind, decimal.Decimal(1), None, decimal.Decimal(3))
            for kind in (
                pa.decimal32(5),
                pa.decimal64(10),
                pa.decimal128(20),
                pa.decimal256(40),
                pa.decimal128(5, -0),
            )
        ),
        of(pa.decimal128(5, -2), decimal.Decimal(100), None, decimal.Decimal(300)),
        *(of(kind, *texts) for kind in (pa.string(), pa.large_string(), pa.string_view())),
        *(
            of(kind, *(None if text is None else text.encode() for text in texts))
            for kind in (pa.binary(), pa.large_binary(), pa.binary_view())
        ),
        of(pa.binary(), b"\xff", None, b"ok"),
        of(pa.binary(4), b"abcd", None, b"efgh"),
        of(pa.date32(), day, None, day),
        of(pa.date64(), day, None, day),
        *(of(pa.time32(unit), 1, None, 2) for unit in ("s", "ms")),
        *(of(pa.time64(unit), 1, None, 2) for unit in ("us", "ns")),
        *(of(pa.timestamp(unit), moment, None, moment) for unit in ("s", "ms", "us", "ns")),
        *(of(pa.timestamp(unit, "Asia/Shanghai"), moment, None, moment) for unit in ("s", "ms", "us", "ns")),
        of(pa.timestamp("us", "+05:30"), moment, None, moment),
        of(pa.timestamp("us", "No/Such_Zone"), 1, None, 2),
        *(of(pa.duration(unit), 1, None, 2) for unit in ("s", "ms", "us", "ns")),
        of(pa.month_day_nano_interval(), (1, 2, 3), None, (4, 5, 6)),
        *(of(kind, ["a"], None, []) for kind in (pa.list_(pa.string()), pa.large_list(pa.string()))),
        *(of(kind, ["a"], None, []) for kind in (pa.list_view(pa.string()), pa.large_list_view(pa.string()))),
        of(pa.list_(pa.int8(), 2), [1, 2], None, [3, 4]),
        of(pa.struct([("value", pa.string())]), {"value": "a"}, None, {"value": "b"}),
        of(pa.struct([]), {}, None, {}),
        of(pa.map_(pa.string(), pa.int8()), [("a", 1)], None, []),
        *(
            dictionary(pa.array(["ann", "bob"]).cast(kind), index, ordered=is_ordered)
            for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary())
            for index, is_ordered in (
                (pa.int8(), False),
                (pa.uint8(), True),
                (pa.uint32(), False),
                (pa.int64(), True),
            )
        ),
        dictionary(pa.array([1, 2]), pa.int32()),
        dictionary(pa.array([1.5, 2.5]), pa.int32()),
        dictionary(pa.array([moment, moment], pa.timestamp("us", "UTC")), pa.int32()),
        dictionary(pa.array(["ann", None]), pa.int32()),
        dictionary(pa.array([["a"], ["b"]]), pa.int32()),
        *(
            runs(values, end)
            for end in (pa.int16(), pa.int32(), pa.int64())
            for values in (
                pa.array(["ann", None]),
                pa.array(["ann", None], pa.large_string()),
                pa.array(["ann", None], pa.string_view()),
                pa.array([1, None]),
                pa.array([1.5, None]),
                pa.array([moment, None], pa.timestamp("us")),
                pa.array([["a"], None]),
                dictionary(pa.array(["ann", "bob"]), pa.int8()).slice(1),
            )
        ),
        pa.ExtensionArray.from_storage(
            pa.uuid(), of(pa.binary(16), UUID(int=1).bytes, None, UUID(int=3).bytes)
        ),
        pa.ExtensionArray.from_storage(pa.json_(), of(pa.string(), '"a"', None, "{}")),
        pa.ExtensionArray.from_storage(pa.bool8(), of(pa.int8(), 1, None, 0)),
        pa.ExtensionArray.from_storage(pa.opaque(pa.string(), "x", "y"), of(pa.string(), *texts)),
        pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.int8(), [2]), of(pa.list_(pa.int8(), 2), [1, 2], None, [3, 4])
        ),
    ]
    named = {f"{array.type} {number}": array for number, array in enumerate(found)} | unions()
    assert all(len(array) == ROWS for array in named.values())
    return named


def tables(column: str) -> Iterator[tuple[str, pa.Table]]:
    """Yield a table with each type in one column; the amounts not both at once."""
    for name, array in arrays().items():
        kept = {key: good for key, good in GOOD.items() if key == column or key != "amount_minor"}
        if column == "amount_minor":
            del kept["amount"]
        yield name, pa.table({**kept, column: array})


def by_file(path: Path) -> int:
    return sum(
        orders.num_rows + rejected.num_rows for orders, rejected in open_orders([path], currency="CNY")
    )


def by_parquet(table: pa.Table, folder: Path) -> int | None:
    path = folder / "t.parquet"
    try:
        pq.write_table(table, path)
    except (pa.ArrowException, OSError):
        return None  # there is no such file
    return by_file(path)


def by_arrow_file(table: pa.Table, folder: Path) -> int | None:
    with pa.ipc.new_file(str(folder / "t.arrow"), table.schema) as out:
        out.write_table(table)
    return by_file(folder / "t.arrow")


def by_arrow_stream(table: pa.Table, folder: Path) -> int | None:
    with pa.ipc.new_stream(str(folder / "t.arrows"), table.schema) as out:
        out.write_table(table)
    return by_file(folder / "t.arrows")


def by_step(table: pa.Table, _: Path) -> int | None:
    engine = Engine("rfm8")
    engine.step(table)
    return engine.counters.read


DECODER: Final = Decoder(currency="CNY")


def by_record(table: pa.Table, _: Path) -> int | None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    batch = DECODER.decode(RawRecords([None], [sink.getvalue().to_pybytes()], [()], [0], [0], 1))
    refused = {rejection.reason for rejection in batch.refused if rejection.row == 0}
    whole = batch.orders.num_rows + len(batch.refused)
    # A record that cannot be read is one row.
    return ROWS if whole == 1 and refused == {"malformed"} else whole


ROUTES: Final[list[Callable[[pa.Table, Path], int | None]]] = [
    by_parquet,
    by_arrow_file,
    by_arrow_stream,
    by_step,
    by_record,
]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("column", CONTRACT_COLUMNS)
def test_every_type_is_read_or_refused_by_name(
    column: str, route: Callable[[pa.Table, Path], int | None], tmp_path: Path
) -> None:
    wrong, count = [], 0
    for name, table in tables(column):
        try:
            found = route(table, tmp_path)
        except InputError as error:
            if column not in str(error):
                wrong.append(f"{name}: refused without its column: {error}")
        except BaseException as error:  # noqa: BLE001 - any is a finding
            wrong.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
        else:
            if found not in (None, ROWS):
                wrong.append(f"{name}: {found} rows of {ROWS}")
        count += 1
    assert wrong == []
    assert count == len(arrays()) > 80


def test_types_that_say_the_same_are_the_same_rows() -> None:
    """What is read is what stands there: the same texts of another type bring the same orders."""
    texts = ("ann", "bob", "2026-01-01")
    plain = Engine("rfm8")
    expected = plain.step(pa.table({**GOOD, "customer_id": pa.array(texts)})).changes
    kinds = [pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()]
    wrapped = [pa.array(texts, kind) for kind in kinds]
    codes = pa.array([0, 1, 2], pa.uint16())
    wrapped += [
        pa.DictionaryArray.from_arrays(codes, pa.array(texts, kind)) for kind in (pa.string(), *kinds)
    ]
    ends = pa.array([1, 2, 3], pa.int16())
    wrapped += [
        pa.RunEndEncodedArray.from_arrays(ends, pa.array(texts, kind)) for kind in (pa.string(), *kinds)
    ]
    for column in wrapped:
        table = pa.table({**GOOD, "customer_id": column})
        assert Engine("rfm8").step(table).changes.equals(expected), column.type
