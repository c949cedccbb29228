"""Tables of an HTML page: what many shops and back offices hand out under the name of a workbook."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Final

from rfmstream.engine.files.chunks import Chunk
from rfmstream.engine.files.encodings import decoder_of
from rfmstream.engine.files.input_files import InputFile, read_blocks
from rfmstream.engine.files.workbooks import Row, read_rows
from rfmstream.schemas.errors import InputError

_CHARSET: Final = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_-]{1,40})", re.IGNORECASE)
_HEAD_BYTES: Final = 4096
_SPAN_MAX: Final = 1000
"""Columns that one cell may stand in: what HTML itself allows."""

_CELLS_MAX: Final = 1 << 14
"""Columns of a spreadsheet."""

_PROGRAMS: Final = ("script", "style")
"""Elements whose text nobody sees."""

_TAG_BYTES_MAX: Final = 16 << 20


def read_html(
    file: InputFile, wanted: Sequence[str], *, first_row: int, tick: Callable[[int], None], head: bytes = b""
) -> Iterator[Chunk]:
    """Yield the wanted columns of the tables of a page as text; their rows follow each other as if they were one.

    The header is found as in delimited text. A cell that spans rows stands in the first of them, and is blank below.

    In      head  the first bytes, which may name the encoding; the map's word counts more
    Errors  InputError  no table
    """
    told = _CHARSET.search(head[:_HEAD_BYTES])
    if told and file.encoding == "utf-8":
        file = replace(file, encoding=_known(told[1].decode()))
    rows = ([" ".join(text.split()) for text in row] for row in _rows(file, tick))
    yield from read_rows(file, rows, wanted, first_row=first_row)


def _known(encoding: str) -> str:
    try:
        decoder_of(encoding)
    except LookupError:
        return "utf-8"
    return encoding


def _rows(file: InputFile, tick: Callable[[int], None]) -> Iterator[Row]:
    parser = _Parser()
    pending = b""
    for block in read_blocks(file, tick):
        # A block may end within a character: the next one begins with it.
        whole, lead, rest = (pending + block).rpartition(b"<")
        pending = lead + rest
        if len(pending) > _TAG_BYTES_MAX:
            raise InputError("a cell is longer than 16 MiB", source=file.name, fix="export the orders as CSV")
        parser.feed(whole.decode("utf-8", "replace"))
        yield from parser.taken()
    parser.feed(pending.decode("utf-8", "replace"))
    parser.close()
    parser.end_row()
    yield from parser.taken()
    if not parser.has_table:
        raise InputError("is an HTML page without a table", source=file.name, fix="export the orders as CSV")


class _Parser(HTMLParser):
    """Gathers rows; end tags of cells and rows may be left out, as HTML allows."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.has_table = False
        self._rows: list[Row] = []
        self._row: Row | None = None
        self._text: list[str] | None = None
        self._is_program = False
        self._span = self._height = 1
        self._below: dict[int, int] = {}
        """How many rows more a cell of a row above stands in, by column."""
        self._begun: dict[int, int] = {}
        """The same of the cells of this row."""

    def taken(self) -> list[Row]:
        rows, self._rows = self._rows, []
        return rows

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.has_table = True
        elif tag == "tr":
            self.end_row()
            self._row = []
        elif tag in ("td", "th"):
            self._end_cell()
            given = dict(attrs)
            self._text, self._span, self._height = [], _spanned(given, "colspan"), _spanned(given, "rowspan")
        elif tag in _PROGRAMS:
            self._is_program = True
        elif tag == "br" and self._text is not None:
            self._text.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._end_cell()
        elif tag in ("tr", "table"):
            self.end_row()
        elif tag in _PROGRAMS:
            self._is_program = False
        if tag == "table":
            self._below.clear()

    def handle_data(self, data: str) -> None:
        if self._text is not None and not self._is_program:
            self._text.append(data)

    def end_row(self) -> None:
        self._end_cell()
        if self._row is not None:
            self._rows.append(self._row)
            left = {column: rows - 1 for column, rows in self._below.items() if rows > 1}
            self._below, self._begun = left | self._begun, {}
        self._row = None

    def _end_cell(self) -> None:
        if self._text is not None:
            self._row = [] if self._row is None else self._row
            while len(self._row) in self._below:
                self._row.append("")
            if self._height > 1:
                columns = range(len(self._row), len(self._row) + self._span)
                self._begun |= dict.fromkeys(columns, self._height - 1)
            self._row += ["".join(self._text), *[""] * (self._span - 1)]
            if len(self._row) > _CELLS_MAX:
                raise InputError(f"a row has more than {_CELLS_MAX:,} cells", fix="export the orders as CSV")
        self._text = None


def _spanned(attributes: dict[str, str | None], name: str) -> int:
    """Return how many columns or rows a cell stands in."""
    span = attributes.get(name) or ""
    return min(int(span), _SPAN_MAX) if span.isascii() and span.isdigit() else 1
