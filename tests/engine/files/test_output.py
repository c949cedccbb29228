import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from rfmstream.engine.files.output import (
    OutputFile,
    check_output,
    check_outputs,
    write_table,
)
from rfmstream.engine.files.parquet_sink import GROUP_ROWS
from rfmstream.engine.replay.generate import generate
from rfmstream.schemas.errors import ConfigError, TransportError

SUFFIXES = (".parquet", ".arrow", ".csv", ".jsonl")
TABLE = pa.table(
    {
        "customer_id": ["00042", "b"],
        "tier": pa.array(["111", None]).dictionary_encode(),
        "amount": [2**63 - 1, -(2**63)],
        "at": pa.array([0, 1], pa.timestamp("us", "UTC")),
    }
)


def read(path: Path) -> list[dict[str, object]]:
    match path.suffix:
        case ".parquet":
            return pq.read_table(path).to_pylist()
        case ".arrow":
            return pa.ipc.open_file(path).read_all().to_pylist()
        case ".csv":
            types = {
                **{name: pa.string() for name in ("customer_id", "tier")},
                "at": TABLE.schema.field("at").type,
            }
            options = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True)
            return pyarrow.csv.read_csv(path, convert_options=options).to_pylist()
        case _:
            return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_says_the_same(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    write_table(path, TABLE)
    rows = read(path)
    if suffix == ".jsonl":
        assert [row.pop("at") for row in rows] == [
            "1970-01-01T00:00:00.000000Z",
            "1970-01-01T00:00:00.000001Z",
        ]
        assert rows == TABLE.drop_columns("at").to_pylist()
    else:
        assert rows == TABLE.to_pylist()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_without_rows_is_a_whole_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    write_table(path, TABLE.slice(2))
    assert read(path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_breaks_off_leaves_the_old_file(tmp_path: Path, suffix: str, error: type[BaseException]) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_text("old")

    def break_off() -> None:
        with OutputFile(path, TABLE.schema) as out:
            out.write(TABLE.to_batches()[0])
            raise error

    with pytest.raises(error):
        break_off()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_there_before_it_is_published(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with OutputFile(path, TABLE.schema) as out:
        out.write(TABLE.to_batches()[0])
        out.finish()
        assert not path.exists()
        out.publish()
        assert path.exists()
    assert out.rows == 2


def test_parquet_has_whole_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    batch = pa.record_batch({"n": pa.array(range(10_000))})
    count = GROUP_ROWS // 10_000 + 2
    with OutputFile(path, batch.schema) as out:
        for _ in range(count):
            out.write(batch)
        out.publish()
    metadata = pq.ParquetFile(path).metadata
    assert metadata.num_rows == 10_000 * count
    assert metadata.num_row_groups == 2


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("old")
    link.symlink_to(target)
    write_table(link, TABLE)
    assert link.is_symlink()
    assert target.read_text().startswith("customer_id,")


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe.csv", tmp_path / "link.csv"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(ConfigError, match="is a device or a pipe"):
            check_outputs([path], [])
        with pytest.raises(ConfigError, match="is a device or a pipe"):
            write_table(path, TABLE)
        with pytest.raises(ConfigError, match="is a device or a pipe"):
            generate(customers=1, orders=1, seed=1, out=path)
    assert pipe.is_fifo()
    assert {path.name for path in tmp_path.iterdir()} == {"pipe.csv", "link.csv"}


def test_links_in_a_circle_are_replaced(tmp_path: Path) -> None:
    link = tmp_path / "link.csv"
    link.symlink_to(link)
    check_outputs([link], [])
    write_table(link, TABLE)
    assert link.read_text().startswith("customer_id,")


def test_an_unknown_suffix_names_the_known_ones() -> None:
    for name in ("out.xls", "out", "out.csv.gz"):
        with pytest.raises(ConfigError, match=r"use one of \.parquet \.arrow \.csv \.jsonl"):
            check_output(Path(name))


def test_a_folder_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        with pytest.raises(ConfigError, match="cannot be written: No such file or directory"):
            OutputFile(tmp_path / "none" / f"out{suffix}", TABLE.schema).open()


def test_a_folder_in_the_place_of_the_file_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(ConfigError, match="cannot be written: Is a directory"):
        OutputFile(tmp_path / "out.csv", TABLE.schema).open()
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_name_that_is_too_long_is_told_at_once(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        with pytest.raises(ConfigError, match="cannot be written: File name too long"):
            OutputFile(tmp_path / f"{'x' * 300}{suffix}", TABLE.schema).__enter__()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk here")
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def fill() -> None:
        with (
            OutputFile(tmp_path / "out.csv", TABLE.schema) as out,
            Path("/dev/full").open("wb", buffering=0) as full,
        ):
            monkeypatch.setattr(out._sink, "_file", full)
            for _ in range(1000):
                out.write(TABLE.to_batches()[0])

    with pytest.raises(TransportError, match="No space left on device"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_outputs_may_not_overwrite(tmp_path: Path) -> None:
    source, same, folder = tmp_path / "in.csv", tmp_path / "same.csv", tmp_path / "in"
    source.write_text("x")
    os.link(source, same)
    folder.mkdir()
    check_outputs([tmp_path / "a.csv", tmp_path / "b.csv"], [source, folder])
    for outputs, words in (
        ([source], "would overwrite an input"),
        ([same], "would overwrite an input"),
        ([tmp_path / "a.csv", tmp_path / "in" / ".." / "a.csv"], "named for two outputs"),
        ([folder / "a.csv"], "would be read as orders next time"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_outputs(outputs, [source, folder])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400])
def test_a_file_stays_open_to_those_it_was_open_to(tmp_path: Path, suffix: str, mode: int) -> None:
    path = tmp_path / f"out{suffix}"
    path.touch()
    path.chmod(mode)
    with OutputFile(path, TABLE.schema) as out:
        [part] = tmp_path.glob(".out*")
        assert part.stat().st_mode & 0o777 == mode | 0o200
        out.write(TABLE.to_batches()[0])
        out.publish()
    assert path.stat().st_mode & 0o777 == mode | 0o200
    assert len(read(path)) == 2


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_table(tmp_path / "out.csv", TABLE)
    finally:
        os.umask(before)
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o640


def test_a_link_laid_under_the_temporary_name_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfmstream.engine.files.output.secrets.token_hex", lambda _: "known")
    (tmp_path / "theirs").write_text("kept")
    (tmp_path / ".out.csv.known.part").symlink_to(tmp_path / "theirs")
    with pytest.raises(ConfigError, match="cannot be written: File exists"):
        write_table(tmp_path / "out.csv", TABLE)
    assert (tmp_path / "theirs").read_text() == "kept"
