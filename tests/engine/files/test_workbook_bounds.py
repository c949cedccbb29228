"""Workbooks of a few kilobytes that stand for gigabytes, or that say wrong of themselves: one line, and no memory."""

import struct
import sys
import zipfile
from pathlib import Path

import pytest
import xlsxwriter
from click.testing import CliRunner, Result

from rfmstream.engine.cli.app import cli
from rfmstream.engine.files import sheets

HEADER = (b"customer_id", b"order_id", b"occurred_at", b"amount")
ORDER = (b"a", b"1", b"2026-01-01", b"5")
SPREADSHEET = b"application/vnd.oasis.opendocument.spreadsheet"
SPACES = "urn:oasis:names:tc:opendocument:xmlns"


def replayed(path: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["replay", str(path), *options], prog_name="rfmstream")


def refused(path: Path, words: str, *options: str) -> None:
    assert path.stat().st_size < 1 << 20
    result = replayed(path, *options)
    assert result.exit_code == 3, result.output
    [line] = result.stderr.splitlines()
    assert words in line


def cell(text: bytes, repeated: bytes = b"1") -> bytes:
    return (
        b'<table:table-cell office:value-type="string" table:number-columns-repeated="%b"><text:p>%b</text:p>'
        b"</table:table-cell>" % (repeated, text)
    )


def row(*cells: bytes, repeated: bytes = b"1") -> bytes:
    return b'<table:table-row table:number-rows-repeated="%b">%b</table:table-row>' % (
        repeated,
        b"".join(cells),
    )


EMPTY = b"<table:table-cell table:number-columns-repeated='16380'/>"


def ods(path: Path, *rows: bytes) -> Path:
    spaces = "".join(f' xmlns:{name}="{SPACES}:{name}:1.0"' for name in ("office", "table", "text"))
    content = (
        f'<office:document-content{spaces}><office:body><office:spreadsheet><table:table table:name="s">'.encode()
        + b"".join((row(*map(cell, HEADER)), *rows))
        + b"</table:table></office:spreadsheet></office:body></office:document-content>"
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", SPREADSHEET, zipfile.ZIP_STORED)
        archive.writestr("META-INF/manifest.xml", b"<manifest:manifest/>")
        archive.writestr("content.xml", content)
    return path


def test_empty_rows_to_the_end_of_a_table_ask_for_nothing(tmp_path: Path) -> None:
    end = row(EMPTY, repeated=b"1048574")
    result = replayed(ods(tmp_path / "in.ods", row(*map(cell, ORDER)), end), "--memory", "1M")
    assert "1 rows read = 1 applied" in result.output


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        # A row that is repeated, one long before another, and cells that are.
        ((row(cell(b"x", b"16384"), repeated=b"1048575"),), "spans 1,048,576 rows and 16,384 columns"),
        (
            (row(*map(cell, ORDER)), row(EMPTY, repeated=b"1000000"), row(EMPTY, cell(b"x"))),
            "spans 1,000,003 rows and 16,381 columns",
        ),
        ((row(b"<table:table-cell table:number-columns-repeated='9'><text:p>x</text:p></table:table-cell>",
              repeated=b"9000000"),), "spans 9,000,001 rows and 9 columns"),
    ],
)  # fmt: skip
def test_repeated_rows_and_cells_of_an_open_document(
    tmp_path: Path, rows: tuple[bytes, ...], words: str
) -> None:
    refused(ods(tmp_path / "in.ods", *rows), words, "--memory", "1G")


def test_a_long_text_in_many_cells_ends_at_the_bound(tmp_path: Path) -> None:
    # 20,000 rows of four cells are little; a text of 100 KB in each is not.
    path = ods(tmp_path / "in.ods", row(cell(b"x" * 100_000, b"4"), repeated=b"20000"))
    refused(
        path, "asks for more than 256.0 MiB of memory when it is opened as a workbook", "--memory", "256M"
    )


def record(kind: int, content: bytes) -> bytes:
    """Return a record of XLSB: its kind and its length in groups of seven bits."""
    head = bytes([kind]) if kind < 128 else bytes([kind & 127 | 128, kind >> 7])
    return head + bytes([len(content)]) + content


def wide(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode("utf-16-le")


def xlsb(path: Path, cells: list[tuple[int, int, str]]) -> Path:
    sheet = record(0x81, b"") + record(0x94, struct.pack("<4I", 0, 1, 0, 1)) + record(0x91, b"")
    for at, column, text in cells:
        sheet += record(0, struct.pack("<I", at) + bytes(13))
        sheet += record(6, struct.pack("<II", column, 0) + wide(text))
    sheet += record(0x92, b"")
    book = record(0x8F, b"") + record(0x9C, struct.pack("<II", 0, 1) + wide("r1") + wide("s"))
    relations = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Id="r1" Target="worksheets/sheet1.bin" Type="worksheet"/></Relationships>'
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.bin", book + record(0x90, b"") + record(0x9D, b""))
        archive.writestr("xl/_rels/workbook.bin.rels", relations)
        archive.writestr("xl/worksheets/sheet1.bin", sheet)
    return path


def test_a_binary_workbook_whose_cells_lie_far_apart(tmp_path: Path) -> None:
    table = [
        (at, place, text.decode())
        for at, line in enumerate((HEADER, ORDER))
        for place, text in enumerate(line)
    ]
    assert "1 rows read = 1 applied" in replayed(xlsb(tmp_path / "good.xlsb", table)).output
    far = xlsb(tmp_path / "far.xlsb", [*table, (1_048_575, 16_383, "x")])
    refused(far, "asks for more than 1.0 GiB of memory when it is opened as a workbook", "--memory", "1G")


def lying(path: Path, out: Path, member: str, size: int) -> Path:
    """Return an archive that says of a member that it has another size, in both places."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    true = struct.pack("<III", info.CRC, info.compress_size, info.file_size)
    assert content.count(true) == 2
    content[:] = content.replace(true, struct.pack("<III", info.CRC, info.compress_size, size))
    out.write_bytes(content)
    return out


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """Return a workbook with a long empty end."""
    plain, padded = tmp_path / "plain.xlsx", tmp_path / "padded.xlsx"
    with xlsxwriter.Workbook(str(plain)) as made:
        sheet = made.add_worksheet("s")
        for at, line in enumerate((HEADER, ORDER)):
            sheet.write_row(at, 0, [text.decode() for text in line])
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(padded, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            end = b" " * (100 << 20) if name == "xl/worksheets/sheet1.xml" else b""
            target.writestr(name, source.read(name) + end)
    return padded


@pytest.mark.parametrize("size", [1000, 0, 200 << 20])
def test_an_archive_that_says_wrong_of_a_size(book: Path, size: int) -> None:
    path = lying(book, book.with_name("lying.xlsx"), "xl/worksheets/sheet1.xml", size)
    refused(
        path,
        f"says of xl/worksheets/sheet1.xml in it that it has {size:,} bytes, and it has",
        "--memory",
        "1G",
    )


def test_an_archive_that_says_little_is_refused_at_the_bound(book: Path) -> None:
    path = lying(book, book.with_name("lying.xlsx"), "xl/worksheets/sheet1.xml", 1000)
    refused(path, "of memory when it is unpacked, and 64.0 MiB are the most it may", "--memory", "64M")


def test_a_reader_that_cannot_be_started_is_an_error_of_the_workbook(
    book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets.sys, "executable", sys.executable + "-absent")
    refused(book, "cannot be read: No such file or directory")


def test_a_panic_of_the_library_is_an_error_of_the_workbook(tmp_path: Path) -> None:
    # A sheet of which a record ends before its cell does.
    path = xlsb(tmp_path / "in.xlsb", [(0, 0, "customer_id")])
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    sheet = members["xl/worksheets/sheet1.bin"]
    cut = (
        record(0x81, b"")
        + record(0x94, struct.pack("<4I", 0, 1, 0, 1))
        + record(0x91, b"")
        + record(0, b"\0")
    )
    assert sheet[:4] == cut[:4]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "xl/worksheets/sheet1.bin": cut}.items():
            archive.writestr(name, content)
    refused(path, "is a workbook that cannot be read")
