"""The header of a table as it is found: below title lines, divided by another character, or not there at all."""

import csv
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rfmstream.engine.files.encodings import ENCODINGS, THREE_BYTES, guess_encoding
from rfmstream.engine.files.input_files import InputFile
from rfmstream.schemas.errors import InputError

RECORD_BYTES_MAX: Final = 16 << 20
"""A quoted cell that does not end within this many bytes is a stray quote, which damages its line only."""

LINES_SEARCHED: Final = 64
_BYTES_SEARCHED: Final = 1 << 20
_CELLS_ALIKE: Final = 3
_DELIMITERS: Final = (",", ";", "\t", "|")
_SEP_LINE: Final = re.compile(rb'"?sep=([\t!#-/:-@\[-`{-~])"?[;,]*\r?\n?', re.IGNORECASE)
_LABELS: Final = {"gbk": "GBK", "big5": "Big5", "shift_jis": "Shift-JIS", "euc_kr": "EUC-KR"}
_FIX: Final = "the first line must name the columns"


@dataclass(frozen=True)
class Layout:
    """Where a delimited text begins.

    Fields  names      of the columns, as they stand in the file
            delimiter  a character or "whitespace"
            start      the place of the first row in what was searched
    """

    names: tuple[str, ...]
    delimiter: str
    start: int


def find_layout(file: InputFile, text: bytes, wanted: Sequence[str], *, final: bool) -> Layout | None:
    """Return the layout of a delimited text; None: more bytes are needed.

    The first line is the header, unless it names at most one of several wanted columns, and one of the lines below it,
    or the first line divided by another of `, ; tab |`, names more of them than any other.

    Errors  InputError  no header, or it is longer than 16 MiB
    """
    start, delimiter = _beginning(file, text)
    if file.header:
        return Layout(file.header, delimiter, start)
    while text[start : start + 1] in (b"\r", b"\n"):
        start += 1
    end = _end_of_first(file, text, start, delimiter, final=final)
    if end is None:
        return None
    line = text[start:end]
    first = _cells(line, delimiter)
    as_it_stands = None if first is None else Layout(first, delimiter, end + 1)
    if first is not None and is_header(first, wanted):
        _check_names(file, line, delimiter, wanted)
        return as_it_stands
    if not final and len(text) - start < _BYTES_SEARCHED:
        return None
    found = _clear_header(file, text, start, delimiter, wanted)
    is_named = first is not None and named(first, wanted) > 0
    if found is None and not is_named:
        found = _without_header(file, first, delimiter, start)
    if found is not None:
        return found
    _check_names(file, line, delimiter, wanted)
    if not is_named:
        _check_encoding(file, line)
    if as_it_stands is None:
        raise InputError(
            "its first line cannot be read", source=file.name, fix=f"{_FIX}, and lines end with a line feed"
        )
    return as_it_stands


def _end_of_first(file: InputFile, text: bytes, start: int, delimiter: str, *, final: bool) -> int | None:
    """Return where the line that begins at `start` ends; None: more bytes are needed.

    Errors  InputError  it is empty, or longer than 16 MiB
    """
    end = _end(text, start, delimiter)
    if end < 0 and len(text) - start > RECORD_BYTES_MAX:
        raise InputError(
            "its first line does not end", source=file.name, fix="a quote in it must have another one"
        )
    if end < 0 and not final:
        return None
    end = len(text) if end < 0 else end
    if end == start:
        raise InputError("is empty", source=file.name, fix=_FIX)
    return end


def _beginning(file: InputFile, text: bytes) -> tuple[int, str]:
    """Return where the lines begin of which one is the header, and the delimiter that Excel or the map names."""
    start, delimiter = 0, file.delimiter
    if (told := _SEP_LINE.match(text)) and len(told[0]) < len(text):
        start = told.end()
        delimiter = file.form.delimiter or told[1].decode()
    for _ in range(file.form.skip or 0):
        start = text.find(b"\n", start) + 1 or len(text)
    return start, delimiter


def named(cells: Sequence[str], wanted: Sequence[str]) -> int:
    """Return how many of the wanted columns a line names."""
    names = {stripped(cell) for cell in cells}
    return len(names & {stripped(name) for name in wanted})


def is_header(cells: Sequence[str], wanted: Sequence[str]) -> bool:
    """Return whether the first line is the header for sure: a title may name one column, as in `Date,2024-01-01`."""
    return named(cells, wanted) >= min(2, len({stripped(name) for name in wanted}))


def stripped(name: str) -> str:
    """Return a column's name without the blanks around it, and in the one form of Unicode that compares."""
    return unicodedata.normalize("NFC", name.strip().strip("\ufeff").strip())


def clearest(lines: Sequence[tuple[str, ...]], wanted: Sequence[str]) -> int | None:
    """Return which line names the columns clearly: more than one of them, or all, and more than any other line."""
    counts = [named(cells, wanted) for cells in lines]
    most = max(counts, default=0)
    if most < min(2, len(set(wanted))) or most == 0 or counts.count(most) > 1:
        return None
    return counts.index(most)


def places(names: Sequence[str], wanted: Sequence[str], file: InputFile) -> dict[str, int]:
    """Return where each wanted column that is there stands: under its very name, else but for blanks around it.

    Errors  InputError  several columns go by the name
    """
    found = {}
    for name in wanted:
        at = [place for place, other in enumerate(names) if other == name]
        at = at or [place for place, other in enumerate(names) if stripped(other) == stripped(name)]
        if len(at) > 1:
            raise InputError(f"there are {len(at)} columns {name}", source=file.name, fix="keep one of them")
        if at:
            found[name] = at[0]
    return found


def _end(text: bytes, start: int, delimiter: str) -> int:
    """Return where the line ends, -1 if it does not: a quoted name may hold a line end."""
    # An even number of quotes closes them all.
    end, quotes = start - 1, 0
    while True:
        begin, end = end + 1, text.find(b"\n", end + 1)
        quotes += text.count(b'"', begin, end)
        if end < 0 or delimiter == "whitespace" or quotes % 2 == 0:
            return end


def _cells(line: bytes, delimiter: str, encoding: str = "utf-8") -> tuple[str, ...] | None:
    """Return the cells of a line, None if it cannot be divided."""
    text = line.decode(encoding, errors="replace").removesuffix("\r")
    if delimiter == "whitespace":
        return tuple(text.split())
    try:
        return tuple(next(csv.reader([text], delimiter=delimiter), ()))
    except csv.Error:
        return None


def _clear_header(
    file: InputFile, text: bytes, start: int, delimiter: str, wanted: Sequence[str]
) -> Layout | None:
    delimiters = [delimiter]
    if file.form.delimiter is None and delimiter in _DELIMITERS:
        delimiters += [other for other in _DELIMITERS if other != delimiter]
    lines = list(_lines(text, start))[: 1 if file.form.skip is not None else LINES_SEARCHED]
    for other in delimiters:
        divided = [_cells(text[begin:end], other) or () for begin, end in lines]
        at = clearest(divided, wanted)
        if at is not None:
            begin, end = lines[at]
            _check_names(file, text[begin:end], other, wanted)
            return Layout(divided[at], other, end + 1)
    return None


def _lines(text: bytes, start: int) -> Iterator[tuple[int, int]]:
    limit = min(len(text), start + _BYTES_SEARCHED)
    while start < limit:
        end = text.find(b"\n", start)
        end = len(text) if end < 0 else end
        yield start, end
        start = end + 1


def _without_header(
    file: InputFile, first: tuple[str, ...] | None, delimiter: str, start: int
) -> Layout | None:
    for names in file.form.headerless:
        if first is not None and len(first) == len(names):
            return Layout(names, delimiter, start)
    return None


def _check_names(file: InputFile, header: bytes, delimiter: str, wanted: Sequence[str]) -> None:
    """Refuse a header that is no UTF-8 if it names more of the wanted columns in another encoding, with its name."""
    if not is_utf8_by_default(file) or _is_utf8(header):
        return
    counts = {
        name: named(_cells(header, delimiter, codec) or (), wanted) for name, codec in ENCODINGS.items()
    }
    best = max(counts, key=lambda name: counts[name])
    if counts[best] > named(_cells(header, delimiter) or (), wanted):
        raise _not_utf8(file, "its header is no UTF-8 text and reads", best)


def _check_encoding(file: InputFile, header: bytes) -> None:
    """Refuse a header that is no UTF-8 and names no column, with what it may be written in."""
    if is_utf8_by_default(file) and not _is_utf8(header):
        raise _not_utf8(file, "its header is no UTF-8 text and reads", guess_encoding(header))


def check_cells(file: InputFile, cells: Sequence[bytes]) -> None:
    """Refuse a file whose first texts beyond ASCII are none of them UTF-8, if it is likely what they are written in.

    Otherwise each is the fault of its row.
    """
    beyond = [cell for cell in dict.fromkeys(cells) if not cell.isascii()]
    read = [cell.decode() for cell in beyond if _is_utf8(cell)]
    # A pair of bytes of another encoding may happen to be a letter in UTF-8, but three are no accident.
    if len(beyond) < _CELLS_ALIKE * (1 + len(read)) or any(max(text) >= THREE_BYTES for text in read):
        return
    if guess := guess_encoding(b"\n".join(beyond)):
        raise _not_utf8(file, "its texts are no UTF-8 and read", guess)


def is_utf8_by_default(file: InputFile) -> bool:
    """Return whether a text is read as UTF-8."""
    return file.form.encoding.lower().replace("_", "-") in ("utf-8", "utf8")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_utf8(file: InputFile, problem: str, guess: str | None) -> InputError:
    words = f"{problem} as {_LABELS.get(guess, guess)}" if guess else problem.partition(" and ")[0]
    return InputError(
        words,
        source=file.name,
        fix=f'set encoding = "{guess or "..."}" in the [input] section of a map',
    )
