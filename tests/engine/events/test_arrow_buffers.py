"""Arrow data whose buffers are not what its columns need: refused by name, from a file and from a caller's table."""

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from rfmstream import Engine, InputError
from rfmstream.engine.cli.app import cli

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


def test_a_table_of_such_a_column_is_refused_by_the_engine() -> None:
    odd = pa.Array.from_buffers(pa.int64(), ROWS, [None, pa.py_buffer(bytes(8 * ROWS + 3))])
    table = orders().set_column(3, "amount_minor", odd)
    with pytest.raises(InputError, match="column amount_minor is damaged: 203 bytes"):
        Engine("rfm8").step(table)


def test_a_slice_of_a_column_is_whole() -> None:
    engine = Engine("rfm8")
    engine.step(orders().slice(3, 7))
    assert engine.snapshot().num_rows == 7
