"""XML spreadsheets of 2003: what Magento and others call "Excel XML", and many back offices name `.xls`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final
from xml.parsers import expat

from rfmstream.engine.files.chunks import Chunk
from rfmstream.engine.files.input_files import InputFile, read_blocks
from rfmstream.engine.files.workbooks import Row, read_rows
from rfmstream.schemas.errors import InputError

NAMESPACE: Final = "urn:schemas-microsoft-com:office:spreadsheet"
_CELLS_MAX: Final = 1 << 14
"""Columns of a spreadsheet."""


def read_xml(
    file: InputFile, wanted: Sequence[str], *, first_row: int, tick: Callable[[int], None]
) -> Iterator[Chunk]:
    """Yield the wanted columns of one sheet as text: the first, or the map's `sheet`.

    The header is found as in delimited text. Cells that mean absent come as empty text, as there; dates are ISO 8601.

    Errors  InputError  no such sheet, damaged XML, or entities of its own
    """
    for chunk in read_rows(file, _rows(file, tick), wanted, first_row=first_row):
        yield replace(chunk, dates_are_iso=True)


def _rows(file: InputFile, tick: Callable[[int], None]) -> Iterator[Row]:
    sheet = _Sheet(file.form.sheet)
    # The blocks are UTF-8 whatever the document says of itself.
    parser = expat.ParserCreate("UTF-8", namespace_separator=" ")
    parser.StartElementHandler = sheet.start
    parser.EndElementHandler = sheet.end
    parser.CharacterDataHandler = sheet.text
    parser.EntityDeclHandler = sheet.refuse
    parser.buffer_text = True
    try:
        for block in read_blocks(file, tick):
            parser.Parse(block)
            yield from sheet.taken()
        parser.Parse(b"", True)  # noqa: FBT003 - it takes no keyword
    except expat.ExpatError as error:
        raise InputError(
            f"is an XML spreadsheet that cannot be read: {error}",
            source=file.name,
            fix="export the orders as CSV",
        ) from error
    yield from sheet.taken()
    if not sheet.is_found:
        raise InputError(
            f"has no sheet {file.form.sheet!r}; its sheets are {', '.join(sheet.names) or 'none'}",
            source=file.name,
            fix="name one of them as sheet in the [input] section of a map",
        )


class _Sheet:
    """Gathers the rows of one sheet; what stands in no cell, and in other sheets, is passed over."""

    def __init__(self, wanted: str | None) -> None:
        self.names: list[str] = []
        self.is_found = False
        self._wanted = wanted
        self._is_here = False
        self._rows: list[Row] = []
        self._row: Row | None = None
        self._data: list[str] | None = None

    def taken(self) -> list[Row]:
        rows, self._rows = self._rows, []
        return rows

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == f"{NAMESPACE} Worksheet":
            self.names.append(attributes.get(f"{NAMESPACE} Name", ""))
            self._is_here = not self.is_found and self._wanted in (None, self.names[-1])
            self.is_found = self.is_found or self._is_here
        elif not self._is_here:
            return
        elif name == f"{NAMESPACE} Row":
            self._row = []
        elif name == f"{NAMESPACE} Cell" and self._row is not None:
            self._begin_cell(self._row, attributes.get(f"{NAMESPACE} Index"))
        elif name == f"{NAMESPACE} Data" and self._row:
            self._data = []

    def end(self, name: str) -> None:
        if name == f"{NAMESPACE} Worksheet":
            self._is_here = False
        elif name == f"{NAMESPACE} Row" and self._row is not None:
            self._rows.append(self._row)
            self._row = None
        elif name == f"{NAMESPACE} Data" and self._data is not None and self._row:
            self._row[-1] = "".join(self._data).strip()
            self._data = None

    def text(self, data: str) -> None:
        if self._data is not None:
            self._data.append(data)

    def refuse(self, *_: object) -> None:
        raise InputError("is XML with entities of its own", fix="export the orders as CSV")

    def _begin_cell(self, row: Row, index: str | None) -> None:
        """Begin a cell, at its place where cells before it are left out."""
        place = int(index) if index is not None and index.isascii() and index.isdigit() else len(row) + 1
        if place > _CELLS_MAX:
            raise InputError(f"a row has more than {_CELLS_MAX:,} cells", fix="export the orders as CSV")
        row += [""] * (max(place, len(row) + 1) - len(row))
