"""Arrow data whose buffers are not what its columns need: refused by name, from a file and from a caller's table."""

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from rfmstream import Engine, InputError
from rfmstream.engine.cli.app import cli
from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.model import RawRecords

ROWS = 25
UNPACKED = struct.pack("<q", -1)
"""Stands before a buffer that is not compressed, in place of how many bytes it becomes."""


def orders() -> pa.Table:
    return pa.table(
        {
            "customer_id": [f"c{at}" for at in range(ROWS)],
            "order_id": [f"o{at}" for at in range(ROWS)],
            # Too various to become less when they are packed: a frame around them makes them more.
            "occurred_at": pa.array(
                np.random.default_rng(4).integers(0, 1 << 57, ROWS), pa.timestamp("us", "UTC")
            ),
            "amount_minor": pa.array(np.full(ROWS, 100), pa.int64()),
            "event_id": [None if at % 3 else f"e{at}" for at in range(ROWS)],
        }
    )


@pytest.mark.parametrize("kind", ["file", "stream"])
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_packed_values_that_are_taken_for_unpacked_ones(tmp_path: Path, kind: str, codec: str) -> None:
    path = tmp_path / "orders.arrow"
    table = orders()
    new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with new(str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as out:
        out.write_table(table)
    good = CliRunner().invoke(cli, ["replay", str(path)])
    assert f"{ROWS} rows read = {ROWS} applied" in good.output
    content = path.read_bytes()
    packed = struct.pack("<q", 8 * ROWS)
    assert content.count(packed) >= 2
    path.write_bytes(content.replace(packed, UNPACKED, 1))
    result = CliRunner().invoke(cli, ["replay", str(path)], prog_name="rfmstream")
    assert result.exit_code == 3
    [line] = result.stderr.splitlines()
    assert "column occurred_at is damaged" in line
    assert "are no whole number of values of 8" in line


COLUMNS = ("customer_id", "order_id", "occurred_at", "amount", "event_id")


@pytest.fixture(params=["customer_id", "occurred_at", "amount", "note"])
def months(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    """Return a stream with a column of intervals of months, and the column's name."""
    column = request.param
    table = orders().rename_columns(COLUMNS)
    intervals = pa.array([(1, 2, 3)] * ROWS, pa.month_day_nano_interval())
    table = table.drop_columns([column] if column in COLUMNS else []).append_column(column, intervals)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    content = sink.getvalue().to_pybytes()
    # The unit of the last column stands somewhere in the schema.
    for at in [place for place, byte in enumerate(content[:1500]) if byte == 2]:
        changed = content[:at] + b"\0" + content[at + 1 :]
        if last_type(changed) == "month_interval":
            return column, changed
    raise AssertionError("no unit was found")


def test_intervals_which_pyarrow_cannot_show_in_a_file(months: tuple[str, bytes], tmp_path: Path) -> None:
    column, content = months
    path = tmp_path / "orders.arrows"
    path.write_bytes(content)
    result = CliRunner().invoke(cli, ["replay", str(path)], prog_name="rfmstream")
    if column == "note":  # which is not asked for
        assert f"{ROWS} rows read = {ROWS} applied" in result.output
    else:
        assert result.exit_code == 3
        [line] = result.stderr.splitlines()
        assert f"column {column} is month_interval, which cannot be read" in line


def test_intervals_which_pyarrow_cannot_show_in_a_record(months: tuple[str, bytes]) -> None:
    column, content = months
    good = b'{"customer_id":"c","order_id":"o","occurred_at":"2026-01-01T00:00:00Z","amount":"1.00"}'
    records = RawRecords([b"c"] * 2, [content, good], [[]] * 2, [1000] * 2, range(2), 2)
    batch = Decoder(currency="CNY").decode(records)
    assert batch.orders.num_rows == (ROWS + 1 if column == "note" else 1)
    assert [refused.reason for refused in batch.refused] == ([] if column == "note" else ["malformed"])


def test_intervals_which_pyarrow_cannot_show_in_a_table(months: tuple[str, bytes]) -> None:
    column, content = months
    with (
        pa.ipc.open_stream(content) as reader,
        pytest.raises(InputError, match=f"column {column} is month_interval"),
    ):
        Engine("rfm8").step(reader.read_all())


def last_type(content: bytes) -> str | None:
    try:
        schema = pa.ipc.open_stream(content).schema
        return str(schema.field(len(schema) - 1).type)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return None


def test_a_table_of_such_a_column_is_refused_by_the_engine() -> None:
    odd = pa.Array.from_buffers(pa.int64(), ROWS, [None, pa.py_buffer(bytes(8 * ROWS + 3))])
    table = orders().set_column(3, "amount_minor", odd)
    with pytest.raises(InputError, match="column amount_minor is damaged: 203 bytes"):
        Engine("rfm8").step(table)


def test_a_slice_of_a_column_is_whole() -> None:
    engine = Engine("rfm8")
    engine.step(orders().slice(3, 7))
    assert engine.snapshot().num_rows == 7


@pytest.mark.parametrize("name", ["customer_id", "event_id"])
def test_what_follows_the_last_view_is_nobodys(name: str) -> None:
    table = orders()
    views = table[name].combine_chunks().cast(pa.string_view())
    valid, places, *texts = views.buffers()
    longer = pa.py_buffer(places.to_pybytes()[: 16 * ROWS] + b"abc")
    table = table.set_column(
        table.column_names.index(name),
        name,
        pa.Array.from_buffers(views.type, ROWS, [valid, longer, *texts], views.null_count),
    )
    engine = Engine("rfm8")
    engine.step(table)
    assert engine.counters.applied == ROWS
    assert engine.snapshot()["customer_id"].to_pylist() == orders()["customer_id"].to_pylist()


@pytest.mark.parametrize("kind", ["file", "stream"])
@pytest.mark.parametrize(
    ("names", "rows", "words"),
    [
        (
            ("customer_id", "order_id", "occurred_at", "amount"),
            1 << 40,
            "a batch says it has 1,099,511,627,776 rows",
        ),
        (("other",), (1 << 31) - 1, "customer_id"),
    ],
)
def test_rows_that_take_no_bytes_are_not_counted_one_by_one(
    tmp_path: Path, kind: str, names: tuple[str, ...], rows: int, words: str
) -> None:
    column = pa.RunEndEncodedArray.from_arrays(pa.array([rows], pa.int64()), pa.array(["1"]))
    batch = pa.RecordBatch.from_arrays([column] * len(names), list(names))
    path = tmp_path / "orders.arrow"
    writing = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with writing(path, batch.schema, options=pa.ipc.IpcWriteOptions(allow_64bit=True)) as writer:
        writer.write_batch(batch)
    result = CliRunner().invoke(cli, ["replay", str(path)])
    assert result.exit_code == 3
    assert words in result.output
