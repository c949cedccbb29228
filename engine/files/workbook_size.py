"""What a workbook becomes when it is opened: known before, from what its archive holds, whatever that says of itself.

XLSX and ODS are looked at, as a few bytes of them can name a million rows. What asks for much in another way
(XLSB, XLS, one long text in many cells) ends at the bound of the process that reads it.

Source  ECMA-376; OpenDocument 1.2, part 1, 9.1 (repeated rows and cells)
"""

import re
import zipfile
import zlib
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Final

from rfmstream.engine.files.memory import check_asked
from rfmstream.schemas.errors import InputError

_BLOCK_BYTES: Final = 4 << 20
_CELL_BYTES: Final = 32
"""What the reader of workbooks takes for a cell, in a rectangle around all that are not empty."""
_XML_RATIO: Final = 3
_UNPACKED: Final = " when it is unpacked"
_OVERLAP: Final = 64

_SHEETS: Final = re.compile(r"xl/worksheets/[^/]+\.xml")
_CELL: Final = re.compile(rb"""\br\s*=\s*["']([A-Za-z]{1,3})0*([0-9]{1,7})["']""")

_CONTENT: Final = "content.xml"
_TOKEN: Final = re.compile(
    rb"<table:(?P<kind>table-row|table-cell|covered-table-cell|table)(?=[\s/>])(?P<attributes>[^>]*)>"
    rb"|<text:p"
)
_ROWS: Final = re.compile(rb"""number-rows-repeated\s*=\s*["']([0-9]{1,12})""")
_COLUMNS: Final = re.compile(rb"""number-columns-repeated\s*=\s*["']([0-9]{1,12})""")
_VALUE: Final = b"value-type"


def check_workbook(path: Path, name: str | Path) -> None:
    """Refuse a workbook that is a ZIP archive and that asks for more memory than it may.

    What is in the archive is unpacked here to its end, in small pieces.

    Errors  InputError
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            check_asked(_XML_RATIO * sum(member.file_size for member in members), _UNPACKED, name)
            size = 0
            for member in members:
                blocks = _counted(archive, member, name, size)
                if _SHEETS.fullmatch(member.filename):
                    rows, columns = _extent(blocks)
                    _check_cells(rows, columns, member.filename, name)
                elif member.filename == _CONTENT:
                    for rows, columns in _tables(blocks):
                        _check_cells(rows, columns, "a table", name)
                for _ in blocks:
                    pass
                size += member.file_size
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError):
        return  # the reader finds the words


def _check_cells(rows: int, columns: int, what: str, name: str | Path) -> None:
    check_asked(rows * columns * _CELL_BYTES, f": {what} spans {rows:,} rows and {columns:,} columns", name)


def _counted(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str | Path, before: int
) -> Iterator[bytes]:
    """Yield what a member is when it is unpacked; refuse more than may be, and more or less than the archive says."""
    whole = copy(member)
    # To its end: Python's reader stops where the archive says, the reader of workbooks does not.
    whole.file_size = 1 << 62
    whole.CRC = None  # type: ignore[assignment]
    size = 0
    with archive.open(whole) as file:
        while block := file.read(_BLOCK_BYTES):
            size += len(block)
            check_asked(_XML_RATIO * (before + size), _UNPACKED, name)
            yield block
    if size != member.file_size:
        raise InputError(
            f"says of {member.filename} in it that it has {member.file_size:,} bytes, and it has {size:,}",
            source=name,
            fix="save it anew",
        )


def _extent(blocks: Iterator[bytes]) -> tuple[int, int]:
    """Return how many rows and columns the cells of a sheet of XLSX span."""
    rows: set[int] = set()
    columns: set[bytes] = set()
    tail = b""
    for block in blocks:
        found = set(_CELL.findall(tail + block))
        tail = block[-_OVERLAP:]
        columns |= {letters for letters, _ in found}
        numbers = {int(digits) for _, digits in found}
        if numbers:
            rows |= {min(numbers), max(numbers)}
    if not rows:
        return 0, 0
    places = [_column(letters) for letters in columns]
    return max(rows) - min(rows) + 1, max(places) - min(places) + 1


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters.upper():
        number = 26 * number + letter - ord("A") + 1
    return number


def _tables(blocks: Iterator[bytes]) -> Iterator[tuple[int, int]]:
    """Yield how many rows and columns each table of ODS spans, up to the last cells that are not empty."""
    rows = columns = row = cell = 0
    for kind, attributes in _tokens(blocks):
        if kind == b"table":
            yield rows, columns
            rows = columns = row = cell = 0
        elif kind == b"table-row":
            row, cell = row + _repeats(_ROWS, attributes), 0
        elif kind:
            cell += _repeats(_COLUMNS, attributes)
        # An empty cell spans nothing, unless one that is not follows.
        if not kind or _VALUE in attributes:
            rows, columns = row, max(columns, cell)
    yield rows, columns


def _tokens(blocks: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kinds of tables, rows and cells with their attributes; an empty kind for a text."""
    tail = b""
    for block in blocks:
        text = tail + block
        # What may go on in the next block waits for it: a tag is never longer than a block.
        end = max(text.rfind(b"<"), 0) if len(text) <= 2 * _BLOCK_BYTES else len(text)
        for match in _TOKEN.finditer(text, 0, end):
            yield match["kind"] or b"", match["attributes"] or b""
        tail = text[end:]
    for match in _TOKEN.finditer(tail):
        yield match["kind"] or b"", match["attributes"] or b""


def _repeats(pattern: re.Pattern[bytes], attributes: bytes) -> int:
    found = pattern.search(attributes)
    return int(found[1]) if found else 1
