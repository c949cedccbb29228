"""The process that opens a workbook (`engine.files.sheets`): its memory has a bound, and its end is not its caller's.

    python -m rfmstream.engine.files.sheet_process PATH SHEET BYTES

A library in another language reads workbooks. Whatever one makes of it, a few bytes that stand for terabytes, or that
it did not expect, happens here. Standard output gets frames: how many bytes, then those, which are one of

    {"height": N, "name": NAME, "others": [NAME, ...]}   the sheet is open; the others are shown, too
    [[text, ...], ...]     its rows, without the empty cells at their ends
    {"fault": KIND, ...}   it cannot be read, and that is all
    None                   all rows are told
"""

import marshal
import resource
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from rfmstream.engine.files.cell_text import text_of

FRAME: Final = struct.Struct("<Q")

_CELLS_AT_ONCE: Final = 1 << 17
_OWN_BYTES: Final = 1 << 27
"""What this process needs besides the workbook: rows on their way."""
_OLE_SUFFIXES: Final = (".xls", ".xla")


def main(path: str, sheet: str, bytes_max: str) -> None:
    """Write the frames of a sheet; without a name, of the first that is not hidden."""
    _bound(int(bytes_max))
    out = sys.stdout.buffer
    try:
        book = _book(Path(path))
        found = _sheet(book, sheet or None)
        if isinstance(found, dict):
            _write(out, found)
            return
        others = [name for name in _shown(book) if name != found.name]
        _write(out, {"height": found.height, "name": found.name, "others": others})
        if found.height:
            _write_rows(out, found)
        _write(out, None)
    except PasswordError:
        _write(out, {"fault": "locked"})
    except MemoryError:
        _write(out, {"fault": "memory"})
    except (CalamineError, OSError, ValueError) as error:
        _write(out, {"fault": "unreadable", "words": str(error)})
    except BaseException as error:  # a panic of the library is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        kind = "memory" if "capacity overflow" in str(error) else "unreadable"
        _write(out, {"fault": kind, "words": str(error)})


def _bound(bytes_max: int) -> None:
    """Let this process have so much more memory than it has, and leave no core behind; where the system knows how."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + bytes_max + _OWN_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _sheet(book: CalamineWorkbook, name: str | None) -> CalamineSheet | dict[str, Any]:
    """Return the sheet, or the fault that it is not there."""
    name = name or next(iter(_shown(book)), None)
    names = [sheet.name for sheet in book.sheets_metadata if sheet.typ == SheetTypeEnum.WorkSheet]
    if name is None or name not in names:
        return {"fault": "no sheet", "name": name, "names": names}
    return book.get_sheet_by_name(name)


def _shown(book: CalamineWorkbook) -> list[str]:
    """Return the names of the tables that are not hidden."""
    tables = (sheet for sheet in book.sheets_metadata if sheet.typ == SheetTypeEnum.WorkSheet)
    return [sheet.name for sheet in tables if sheet.visible == SheetVisibleEnum.Visible]


def _book(path: Path) -> CalamineWorkbook:
    """Open a workbook by what it is: the library goes by the suffix of a path, which may say something else."""
    if path.suffix.lower() not in _OLE_SUFFIXES:
        return CalamineWorkbook.from_path(str(path))
    with path.open("rb") as file:
        return CalamineWorkbook.from_filelike(file)


def _write_rows(out: BinaryIO, sheet: CalamineSheet) -> None:
    rows: list[list[str]] = []
    cells = 0
    for row in sheet.iter_rows():
        texts = [cell if type(cell) is str else text_of(cell) for cell in row]
        while texts and not texts[-1]:
            texts.pop()
        rows.append(texts)
        cells += 1 + len(texts)
        if cells >= _CELLS_AT_ONCE:
            _write(out, rows)
            rows, cells = [], 0
    _write(out, rows)


def _write(out: BinaryIO, frame: Any) -> None:  # noqa: ANN401 - what marshal takes
    content = marshal.dumps(frame)
    out.write(FRAME.pack(len(content)))
    out.write(content)
    out.flush()


if __name__ == "__main__":
    with suppress(BrokenPipeError, KeyboardInterrupt):
        main(*sys.argv[1:])
