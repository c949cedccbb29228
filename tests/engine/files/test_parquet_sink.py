"""Row groups that are encoded side by side are one file, the same as pyarrow's own."""

import threading
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfmstream.engine.files import parquet_sink
from rfmstream.engine.files.output import OutputFile
from rfmstream.engine.files.parquet_footer import read_struct, write_struct
from rfmstream.engine.files.parquet_sink import ParquetSink, _options
from rfmstream.schemas.errors import TransportError

ROWS, GROUP_ROWS = 1_000, 128
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False, metadata={"unit": "id"}),
        pa.field("at", pa.timestamp("us", "UTC")),
        pa.field("tier", pa.dictionary(pa.int8(), pa.string())),
        pa.field("n", pa.int64()),
        pa.field("next_change_at", pa.timestamp("us", "UTC")),
        pa.field("held", pa.bool_()),
    ],
    metadata={"ruleset": "rfm8"},
)


def table(rows: int = ROWS) -> pa.Table:
    numbers = range(rows)
    tiers = pa.array([["111", None, "000"][n % 3] for n in numbers]).dictionary_encode()
    columns = [
        pa.array([f"客户-{n * 7919 % rows}" for n in numbers]),
        pa.array([n * 10**6 for n in numbers], SCHEMA.field("at").type),
        tiers.cast(SCHEMA.field("tier").type),
        pa.array([None if n % 5 == 0 else 2**62 - n for n in numbers]),
        pa.array([None if n % 2 else n // 50 for n in numbers], SCHEMA.field("next_change_at").type),
        pa.array([None if n % 7 == 0 else n % 2 == 0 for n in numbers]),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_sink, "GROUP_ROWS", GROUP_ROWS)


def write(path: Path, rows: pa.Table, batch_rows: int, encoders: int) -> None:
    sink = ParquetSink(path, rows.schema)
    sink._encoders = encoders
    for batch in rows.to_batches(max_chunksize=batch_rows):
        sink.write(batch)
    sink.close()


@pytest.mark.parametrize("rows", [1, GROUP_ROWS, GROUP_ROWS + 1, ROWS])
def test_a_file_is_what_pyarrow_writes_by_itself(tmp_path: Path, rows: int) -> None:
    ours, theirs = tmp_path / "ours.parquet", tmp_path / "theirs.parquet"
    write(ours, table(rows), rows, encoders=2)
    pq.write_table(table(rows), theirs, row_group_size=GROUP_ROWS, **_options(SCHEMA))
    assert ours.read_bytes() == theirs.read_bytes()
    assert pq.read_table(ours).equals(table(rows), check_metadata=True)


def test_bytes_do_not_depend_on_the_number_of_encoders(tmp_path: Path) -> None:
    paths = [tmp_path / f"{encoders}.parquet" for encoders in (1, 2, 4)]
    for path, encoders in zip(paths, (1, 2, 4), strict=True):
        write(path, table(), 100, encoders)
    assert len({path.read_bytes() for path in paths}) == 1


def test_other_readers_read_it(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    write(path, table(), 300, encoders=3)
    ids = table()["id"].to_pylist()
    assert pl.read_parquet(path)["id"].to_list() == ids
    found = duckdb.read_parquet(str(path)).filter("n IS NOT NULL").order('"at"').fetchall()
    assert [row[0] for row in found] == [ids[n] for n in range(ROWS) if n % 5]
    with pq.ParquetFile(path) as file:
        assert file.num_row_groups == -(-ROWS // GROUP_ROWS)
        assert file.read_row_group(3).equals(table().slice(3 * GROUP_ROWS, GROUP_ROWS))


def test_any_footer_is_written_as_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "rich.parquet"
    rich = pa.table(
        {"x": [[1.5, None], None, []], "word": ["a", "b", "a"], "day": pa.array([1, 2, 3], pa.date32())}
    )
    pq.write_table(
        rich,
        path,
        write_page_index=True,
        sorting_columns=[pq.SortingColumn(2)],
        store_decimal_as_integer=True,
        compression="GZIP",
    )
    data = path.read_bytes()
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") : -8]
    assert write_struct(read_struct(footer)) == footer


def encoders_there() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("encode")]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_breaks_off_ends_its_threads_and_leaves_no_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def break_off() -> None:
        with OutputFile(tmp_path / "out.parquet", SCHEMA) as out:
            for batch in table().to_batches(max_chunksize=100):
                out.write(batch)
            assert encoders_there()
            raise error

    with pytest.raises(error):
        break_off()
    assert not encoders_there()
    assert list(tmp_path.iterdir()) == []


def test_a_row_group_that_cannot_be_encoded_is_told(tmp_path: Path) -> None:
    wrong = table().drop_columns("held").to_batches(max_chunksize=100)

    def fill() -> None:
        with OutputFile(tmp_path / "out.parquet", SCHEMA) as out:
            for batch in wrong:
                out.write(batch)
            out.publish()

    with pytest.raises(pa.ArrowInvalid, match="Schema at index 0 was different"):
        fill()
    assert not encoders_there()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk here")
def test_a_full_disk_ends_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill() -> None:
        with (
            OutputFile(tmp_path / "out.parquet", SCHEMA) as out,
            Path("/dev/full").open("wb", buffering=0) as full,
        ):
            monkeypatch.setattr(out._sink, "_file", full)
            for batch in table().to_batches(max_chunksize=100):
                out.write(batch)

    with pytest.raises(TransportError, match="No space left on device"):
        fill()
    assert not encoders_there()
    assert list(tmp_path.iterdir()) == []
