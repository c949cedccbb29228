"""What other programs read of our outputs: nulls in columns of words included."""

import io
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from kernel_shards import event
from live_world import START_US
from oracle_days import DAY_US
from twins import canonical_batch

from rfmstream import Engine
from rfmstream.engine.files.output import write_table


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    """Return tier changes and a snapshot with nulls: of no tier before, of none after, of no next one."""
    engine = Engine("rfm8")
    paid = [event(f"c{n}", f"o{n}", START_US + n * DAY_US, 50_000) for n in range(9)]
    cancelled = event("c1", "o1", START_US + 10 * DAY_US, 0) | {"type": "cancelled"}
    changes = [engine.step_canonical(canonical_batch([*paid, cancelled])).changes]
    changes.append(engine.advance(START_US + 400 * DAY_US))
    found = {"changes": pa.concat_tables(changes), "snapshot": engine.snapshot()}
    assert all(found["changes"][name].null_count for name in ("from_tier", "to_tier", "next_tier"))
    assert found["snapshot"]["tier"].null_count
    return found


@pytest.mark.parametrize("name", ["changes", "snapshot"])
def test_words_that_are_null_are_read_by_all(tables: dict[str, pa.Table], name: str, tmp_path: Path) -> None:
    table = tables[name]
    words = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    expected = {column: table[column].cast(pa.string()).to_pylist() for column in words}
    path = tmp_path / "out.arrow"
    write_table(path, table)
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    for frame in (
        pl.read_ipc(path),
        pl.scan_ipc(path).collect(),
        pl.read_ipc_stream(io.BytesIO(stream.getvalue())),
    ):
        assert {column: frame[column].cast(pl.String).to_list() for column in words} == expected
    frame = table.to_pandas()
    connection = duckdb.connect()
    connection.register("told", table)
    for column in words:
        shown = frame[column].astype(object)
        assert shown.where(shown.notna(), None).tolist() == expected[column]
        assert connection.sql(f"select {column}::varchar from told").fetchall() == [  # noqa: S608
            (value,) for value in expected[column]
        ]
