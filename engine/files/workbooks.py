"""Workbooks (XLSX, XLS, XLSB, ODS): one sheet's cells as the text they show, so that digits survive."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from rfmstream.engine.files.asked import check_workbook
from rfmstream.engine.files.chunks import Chunk
from rfmstream.engine.files.headers import LINES_SEARCHED, clearest, named, places, stripped
from rfmstream.engine.files.input_files import InputFile
from rfmstream.schemas.errors import InputError

_ROWS_AT_ONCE: Final = 1 << 14
_DIGITS: Final = 15
"""What a spreadsheet shows of a number, and what survives in one."""

_OLE_SUFFIXES: Final = (".xls", ".xla")

Row = list[Any]


def read_workbook(
    file: InputFile, path: Path, wanted: Sequence[str], *, first_row: int, tick: Callable[[int], None]
) -> Iterator[Chunk]:
    """Yield the wanted columns of one sheet as text; dates as ISO 8601, numbers by their 15 digits.

    Rows without any cell are none. The header is found as in delimited text.

    In      path  the workbook itself, `file` being perhaps an archive that holds it
    Errors  InputError  no workbook, locked by a password, no such sheet, no header
    """
    check_workbook(path, file.name)
    sheet = _sheet(file, path)
    total, done = max(sheet.height, 1), 0
    for chunk in read_rows(file, sheet.iter_rows(), wanted, first_row=first_row):
        yield replace(chunk, dates_are_iso=True)
        done += chunk.row_count
        tick(min(file.size, file.size * done // total))


def read_rows(
    file: InputFile, cells: Iterator[Row], wanted: Sequence[str], *, first_row: int
) -> Iterator[Chunk]:
    """Yield the wanted columns of rows of cells, of which one of the first is the header.

    Errors  InputError  no header
    """
    cells = islice(cells, file.form.skip or 0, None)
    header, rows = _header(file, (row for row in cells if not _is_blank(row)), wanted)
    names = tuple(stripped(name) for name in header)
    found = places(header, wanted, file)
    yield _chunk(file, names, found, [], first_row)
    done = 0
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        yield _chunk(file, names, found, some, first_row + done)
        done += len(some)


def _sheet(file: InputFile, path: Path) -> CalamineSheet:
    try:
        book = _book(path)
        tables = [sheet for sheet in book.sheets_metadata if sheet.typ == SheetTypeEnum.WorkSheet]
        shown = [sheet.name for sheet in tables if sheet.visible == SheetVisibleEnum.Visible]
        name = file.form.sheet or next(iter(shown), None)
        if name is None or name not in [sheet.name for sheet in tables]:
            raise InputError(
                f"has no sheet {name!r}; its sheets are {', '.join(sheet.name for sheet in tables) or 'none'}",
                source=file.name,
                fix="name one of them as sheet in the [input] section of a map",
            )
        return book.get_sheet_by_name(name)
    except PasswordError as error:
        raise InputError(
            "is a workbook locked by a password", source=file.name, fix="save it without"
        ) from error
    except CalamineError as error:
        raise InputError(
            f"is a workbook that cannot be read: {error}", source=file.name, fix="save it anew, or as CSV"
        ) from error


def _book(path: Path) -> CalamineWorkbook:
    """Open a workbook by what it is: the library goes by the suffix of a path, which may say something else."""
    if path.suffix.lower() not in _OLE_SUFFIXES:
        return CalamineWorkbook.from_path(str(path))
    with path.open("rb") as file:
        return CalamineWorkbook.from_filelike(file)


def _header(
    file: InputFile, rows: Iterator[Row], wanted: Sequence[str]
) -> tuple[tuple[str, ...], Iterator[Row]]:
    """Return the names of the columns and the rows below them."""
    if file.header:
        return file.header, rows
    above = list(islice(rows, LINES_SEARCHED if file.form.skip is None else 1))
    lines = [tuple(map(_text, row)) for row in above]
    if not lines:
        raise InputError("is empty", source=file.name, fix="the first row must name the columns")
    at = 0 if named(lines[0], wanted) else clearest(lines, wanted)
    if at is None:
        cells = len(_without_end(lines[0]))
        for names in file.form.headerless:
            if len(names) == cells:
                return names, chain(above, rows)
        at = 0
    return lines[at], chain(above[at + 1 :], rows)


def _without_end(line: tuple[str, ...]) -> tuple[str, ...]:
    end = len(line)
    while end and not line[end - 1]:
        end -= 1
    return line[:end]


def _chunk(
    file: InputFile, names: tuple[str, ...], found: dict[str, int], rows: list[Row], first_row: int
) -> Chunk:
    ordinals = np.arange(first_row, first_row + len(rows), dtype=np.int64)
    columns = [_column([row[at] if at < len(row) else "" for row in rows]) for at in found.values()]
    batch = (
        pa.RecordBatch.from_arrays(columns, names=list(found))
        if columns
        else pa.RecordBatch.from_struct_array(pa.array([{}] * len(rows), pa.struct([])))
    )
    return Chunk(file.name, names, batch, ordinals)


def _column(cells: list[Any]) -> pa.Array:
    if all(type(cell) is str for cell in cells):
        return pa.array(cells, pa.string())
    return pa.array([cell if type(cell) is str else _text(cell) for cell in cells], pa.string())


def _is_blank(row: Row) -> bool:
    return not any(row) and all(cell == "" for cell in row)


def _text(cell: object) -> str:
    """Return a cell as text."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float):
        return _number(cell)
    if isinstance(cell, datetime | date | time):
        return cell.isoformat()
    if isinstance(cell, timedelta):
        minutes, seconds = divmod(int(cell.total_seconds()), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    return str(cell)


def _number(value: float) -> str:
    """Return a number by the 15 digits a spreadsheet keeps; one of more digits has been rounded, and looks it."""
    if value.is_integer() and abs(value) < 10**_DIGITS:
        return str(int(value))
    text = f"{value:.{_DIGITS}g}"
    if "e" not in text:
        return text
    return text.upper() if abs(value) >= 10**_DIGITS else format(Decimal(text), "f")
