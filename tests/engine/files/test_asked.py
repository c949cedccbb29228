"""Inputs that ask for more memory than there is are refused before they are unpacked, by a bound that can be raised."""

import resource
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from openpyxl import Workbook

from rfmstream.engine.cli.app import cli
from rfmstream.engine.files.memory import bound_bytes, parse_size

HEADER = ("customer_id", "order_id", "occurred_at", "amount")


def replayed(path: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["replay", str(path), *options], prog_name="rfmstream")


def refused(path: Path, words: str, *options: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = replayed(path, *options)
    assert result.exit_code == 3, result.output
    [line] = result.stderr.splitlines()
    assert words in line
    assert "raise --memory" in line
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


@pytest.fixture
def book(tmp_path: Path) -> Path:
    made = Workbook()
    made.active.append(HEADER)
    made.active.append(("a", "1", "2026-01-01", "5"))
    path = tmp_path / "orders.xlsx"
    made.save(path)
    return path


def rewritten(book: Path, out: Path, change: tuple[bytes, bytes]) -> Path:
    """Return a workbook whose sheet has other XML."""
    with zipfile.ZipFile(book) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "xl/worksheets/sheet1.xml":
                assert change[0] in content
                content = content.replace(*change)
            target.writestr(name, content)
    return out


def test_a_workbook_of_a_few_cells_that_span_all_there_can_be(book: Path) -> None:
    assert replayed(book).exit_code == 0
    far = b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>'
    wide = rewritten(book, book.with_name("wide.xlsx"), (b"</sheetData>", far))
    assert wide.stat().st_size < 10_000
    refused(wide, "spans 1,048,576 rows and 16,384 columns")


def test_a_workbook_that_is_far_more_when_it_is_unpacked(book: Path) -> None:
    bomb = rewritten(
        book, book.with_name("bomb.xlsx"), (b"</sheetData>", b" " * (200 << 20) + b"</sheetData>")
    )
    assert bomb.stat().st_size < 1 << 20
    refused(bomb, "asks for 600.0 MiB of memory when it is unpacked", "--memory", "500M")
    assert replayed(bomb, "--memory", "1G").exit_code == 0


@pytest.mark.parametrize("kind", ["file", "stream"])
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_an_arrow_batch_that_is_far_more_when_it_is_unpacked(tmp_path: Path, kind: str, codec: str) -> None:
    rows = 200
    table = pa.table(
        {
            **{name: pa.array([str(n) for n in range(rows)]) for name in HEADER[:2]},
            "occurred_at": ["2026-01-01"] * rows,
            "amount": ["1"] * rows,
            "note": pa.array([" " * (1 << 20)] * rows),
        }
    )
    path = tmp_path / "orders.arrow"
    new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with new(str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as out:
        out.write_table(table)
        out.write_table(table)
    assert path.stat().st_size < 2 << 20
    refused(path, "asks for 200.0 MiB of memory in one batch", "--memory", "150M")
    assert replayed(path, "--memory", "250M").exit_code == 0


@pytest.mark.parametrize("packing", ["gzip", "zstd", "zip"])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".xlsx"])
def test_what_has_to_be_unpacked_to_be_read(tmp_path: Path, packing: str, suffix: str) -> None:
    plain = tmp_path / f"orders{suffix}"
    content = {".parquet": b"PAR1", ".arrow": b"ARROW1\0\0", ".xlsx": b"PK\x03\x04"}[suffix] + bytes(
        100 << 20
    )
    if packing == "zip":
        path = tmp_path / "orders.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(plain.name, content)
    else:
        path = plain.with_name(f"{plain.name}.{'gz' if packing == 'gzip' else 'zst'}")
        with pa.CompressedOutputStream(str(path), packing) as out:
            out.write(content)
    assert path.stat().st_size < 1 << 20
    refused(path, "of memory when it is unpacked, and 50.0 MiB are the most it may", "--memory", "50M")


def test_what_is_not_compressed_is_not_looked_at(tmp_path: Path) -> None:
    table = pa.table({name: np.full(5, "2026-01-01") for name in HEADER})
    for suffix, new in ((".arrow", pa.ipc.new_file), (".arrows", pa.ipc.new_stream)):
        path = tmp_path / f"orders{suffix}"
        with new(str(path), table.schema) as out:
            out.write_table(table)
        assert replayed(path, "--memory", "1").exit_code == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("8G", 8 << 30), ("500M", 500 << 20), ("1.5k", 1536), ("2 GiB", 2 << 30), ("3tb", 3 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "0", "much", "1P", "1e9"])
def test_what_is_no_size_is_a_usage_error(text: str, tmp_path: Path) -> None:
    result = replayed(tmp_path, "--memory", text)
    assert result.exit_code == 2
    assert "is no size; write for example 8G" in result.output


def test_the_bound_is_half_of_what_there_is() -> None:
    assert (1 << 28) <= bound_bytes() < 1 << 50
