"""Tables of an HTML page: what many shops and back offices hand out under the name of a workbook."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Final

from rfmstream.engine.files.chunks import Chunk
from rfmstream.engine.files.delimited import ABSENT_WORDS
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

_TAG_BYTES_MAX: Final = 16 << 20


def read_html(
    file: InputFile, wanted: Sequence[str], *, first_row: int, tick: Callable[[int], None], head: bytes = b""
) -> Iterator[Chunk]:
    """Yield the wanted columns of the tables of a page as text; their rows follow each other as if they were one.

    The header is found as in delimited text. Cells that mean absent come as empty text, as there.

    In      head  the first bytes, which may name the encoding; the map's word counts more
    Errors  InputError  no table
    """
    told = _CHARSET.search(head[:_HEAD_BYTES])
    if told and file.encoding == "utf-8":
        file = replace(file, encoding=_known(told[1].decode()))
    absent = frozenset(ABSENT_WORDS if file.form.absent is None else ())
    rows = ([_cell(text, absent) for text in row] for row in _rows(file, tick))
    yield from read_rows(file, rows, wanted, first_row=first_row)


def _known(encoding: str) -> str:
    try:
        decoder_of(encoding)
    except LookupError:
        return "utf-8"
    return encoding


def _cell(text: str, absent: frozenset[str]) -> str:
    plain = " ".join(text.split())
    return "" if plain in absent else plain


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
        self._span = 1

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
            span = dict(attrs).get("colspan") or ""
            self._text, self._span = [], min(int(span), _SPAN_MAX) if span.isascii() and span.isdigit() else 1
        elif tag == "br" and self._text is not None:
            self._text.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._end_cell()
        elif tag in ("tr", "table"):
            self.end_row()

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def end_row(self) -> None:
        self._end_cell()
        if self._row is not None:
            self._rows.append(self._row)
        self._row = None

    def _end_cell(self) -> None:
        if self._text is not None:
            self._row = [] if self._row is None else self._row
            self._row += ["".join(self._text), *[""] * (self._span - 1)]
            if len(self._row) > _CELLS_MAX:
                raise InputError(f"a row has more than {_CELLS_MAX:,} cells", fix="export the orders as CSV")
        self._text = None
