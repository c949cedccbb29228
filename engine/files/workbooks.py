"""Workbooks (XLSX, XLS, XLSB, ODS): one sheet's cells as the text they show, so that digits survive."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.files.cell_text import ABSENT_WORDS
from rfmstream.engine.files.chunks import Chunk
from rfmstream.engine.files.headers import LINES_SEARCHED, clearest, is_header, named, places, stripped
from rfmstream.engine.files.input_files import InputFile
from rfmstream.engine.files.sheets import Row, Sheet, open_sheet
from rfmstream.engine.files.workbook_size import check_workbook
from rfmstream.schemas.errors import InputError

__all__ = ["Row", "read_rows", "read_workbook"]

_ROWS_AT_ONCE: Final = 1 << 14
_ABSENT: Final = pa.array(ABSENT_WORDS)


def read_workbook(
    file: InputFile, path: Path, wanted: Sequence[str], *, first_row: int, tick: Callable[[int], None]
) -> Iterator[Chunk]:
    """Yield the wanted columns of one sheet as text; dates as ISO 8601, numbers by their 15 digits.

    Rows without any cell are none. The header is found as in delimited text.

    In      path  the workbook itself, `file` being perhaps an archive that holds it
    Errors  InputError  no workbook, locked by a password, no such sheet, no header
    """
    check_workbook(path, file.name)
    with open_sheet(path, file.form.sheet, file.name) as sheet:
        total, done = max(sheet.height, 1), 0
        if sheet.others and not sheet.height:
            raise _other_sheet(file, sheet)
        for at, chunk in enumerate(read_rows(file, sheet.rows(), wanted, first_row=first_row)):
            if at == 0 and sheet.others and not named(chunk.names, wanted):
                raise _other_sheet(file, sheet)
            is_told = at or file.form.sheet is not None
            yield replace(chunk, dates_are_iso=True, sheets_unread=() if is_told else sheet.others)
            done += chunk.row_count
            tick(min(file.size, file.size * done // total))


def _other_sheet(file: InputFile, sheet: Sheet) -> InputError:
    """Build (not raise) the error of a sheet, such as a cover, that has none of the columns."""
    return InputError(
        f"its sheet {sheet.name!r} has none of the columns; its other sheets are {', '.join(sheet.others)}",
        source=file.name,
        fix="name one of them as sheet in the [input] section of a map",
    )


def read_rows(
    file: InputFile, cells: Iterator[Row], wanted: Sequence[str], *, first_row: int
) -> Iterator[Chunk]:
    """Yield the wanted columns of rows of cells, of which one of the first is the header.

    White space around a cell is no part of it, and a cell that means absent comes as empty text, as in delimited text.

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


def _header(
    file: InputFile, rows: Iterator[Row], wanted: Sequence[str]
) -> tuple[tuple[str, ...], Iterator[Row]]:
    """Return the names of the columns and the rows below them."""
    if file.header:
        return file.header, rows
    above = list(islice(rows, LINES_SEARCHED if file.form.skip is None else 1))
    lines = [tuple(row) for row in above]
    if not lines:
        raise InputError("is empty", source=file.name, fix="the first row must name the columns")
    at = 0 if is_header(lines[0], wanted) else clearest(lines, wanted)
    if at is None and not named(lines[0], wanted):
        cells = len(_without_end(lines[0]))
        for names in file.form.headerless:
            if len(names) == cells:
                return names, chain(above, rows)
    at = at or 0
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
    columns = [
        pa.array([row[at] if at < len(row) else "" for row in rows], pa.string()) for at in found.values()
    ]
    columns = [_plain(column, is_judged=file.form.absent is not None) for column in columns]
    batch = (
        pa.RecordBatch.from_arrays(columns, names=list(found))
        if columns
        else pa.RecordBatch.from_struct_array(pa.array([{}] * len(rows), pa.struct([])))
    )
    return Chunk(file.name, names, batch, ordinals)


def _plain(column: pa.Array, *, is_judged: bool) -> pa.Array:
    """Return cells without white space around them; empty where they mean absent, unless that is judged elsewhere."""
    column = pc.utf8_trim_whitespace(column)
    absent = pc.is_in(column, value_set=_ABSENT)
    return column if is_judged or not pc.any(absent).as_py() else pc.if_else(absent, "", column)


def _is_blank(row: Row) -> bool:
    return not any(row)
