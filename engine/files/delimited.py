"""Delimited text files: every column as text, so that digits survive; a damaged line is a row of its own."""

import csv
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from rfmstream.engine.events.text import text_buffers
from rfmstream.engine.files.chunks import Chunk
from rfmstream.engine.files.input_files import InputFile, read_blocks
from rfmstream.kernels.delimited import BLANKS, RECORD_OK, copy_cells, find_cells
from rfmstream.schemas.errors import InputError

_ROWS_MAX: Final = 1 << 16
_RECORD_BYTES_MAX: Final = 16 << 20
"""A quoted cell that does not end within this many bytes is a stray quote, which damages its line only."""

ABSENT_WORDS: Final = ("NULL", "null", "\\N", "None", "NaN", "nan", "N/A", "#N/A")
"""Whole cells of text files that stand for no value.  Source  docs/semantics.md section 1"""


def read_delimited(
    file: InputFile,
    wanted: Sequence[str],
    *,
    first_row: int,
    tick: Callable[[int], None],
    absent: Sequence[str] = ABSENT_WORDS,
) -> Iterator[Chunk]:
    """Yield the wanted columns of a delimited file as text, without the white space around cells.

    In      absent  whole cells that stand for no value: they come as empty text
    Damaged rows  another number of cells than the header, text after a closing quote, a quote never closed
    Errors  InputError  no header, or it or a line is longer than 16 MiB
    """
    scanner: _Scanner | None = None
    pending = b""
    for block in (*read_blocks(file, tick), None):
        final = block is None
        pending += block or b""
        if scanner is None:
            header, pending = _header(file, pending, final=final)
            if header is None:
                continue
            scanner = _Scanner(file, header, wanted, first_row, absent)
            yield scanner.no_rows()
        pending = yield from scanner.scan(pending, final=final)


def _header(file: InputFile, pending: bytes, *, final: bool) -> tuple[tuple[str, ...] | None, bytes]:
    """Return the column names and what follows them; None: more bytes are needed."""
    if file.header:
        return file.header, pending
    pending = pending.lstrip(b"\r\n")
    # The header must be whole, and a quoted name may hold a line end: an even number of quotes closes them
    # all.
    end, quotes = -1, 0
    while True:
        start, end = end + 1, pending.find(b"\n", end + 1)
        quotes += pending.count(b'"', start, end)
        if end < 0 or file.delimiter == "whitespace" or quotes % 2 == 0:
            break
    if end < 0:
        if len(pending) > _RECORD_BYTES_MAX:
            raise InputError(
                "its first line does not end", source=file.path, fix="a quote in it must have another one"
            )
        if not final:
            return None, pending
        end = len(pending)
    if end == 0:
        raise InputError("is empty", source=file.path, fix="the first line must name the columns")
    line = pending[:end].decode(errors="replace").removesuffix("\r")
    try:
        cells = (
            line.split()
            if file.delimiter == "whitespace"
            else next(csv.reader([line], delimiter=file.delimiter))
        )
    except csv.Error as error:
        raise InputError(
            f"its first line cannot be read: {error}",
            source=file.path,
            fix="the first line must name the columns, and lines end with a line feed",
        ) from error
    return tuple(name.strip() for name in cells), pending[end + 1 :]


class _Scanner:
    """Splits blocks into chunks; keeps the ordinal of the next row and the space the kernel writes to."""

    def __init__(
        self,
        file: InputFile,
        header: tuple[str, ...],
        wanted: Sequence[str],
        first_row: int,
        absent: Sequence[str],
    ) -> None:
        self._file = file
        self._absent = text_buffers(pa.array(absent, pa.string()))[:2]
        self._absent_bytes_max = max((len(word.encode()) for word in absent), default=-1)
        self._header = header
        self._wanted = [name for name in wanted if name in header]
        for name in self._wanted:
            if header.count(name) > 1:
                raise InputError(
                    f"there are {header.count(name)} columns {name}", source=file.path, fix="keep one of them"
                )
        self._slots = np.array(
            [self._wanted.index(name) if name in self._wanted else -1 for name in header], np.int64
        )
        self._delimiter = BLANKS if file.delimiter == "whitespace" else ord(file.delimiter)
        self._next_row = first_row
        count = max(len(self._wanted), 1)
        self._starts = np.empty((count, _ROWS_MAX), np.int64)
        self._ends = np.empty((count, _ROWS_MAX), np.int64)
        self._doubled = np.empty((count, _ROWS_MAX), np.bool_)
        self._record_starts = np.empty(_ROWS_MAX, np.int64)
        self._record_ends = np.empty(_ROWS_MAX, np.int64)
        self._state = np.empty(_ROWS_MAX, np.uint8)

    def no_rows(self) -> Chunk:
        """Return a chunk that says which columns there are."""
        return self._chunk(np.zeros(0, np.uint8), 0)

    def scan(self, pending: bytes, *, final: bool) -> Generator[Chunk, None, bytes]:
        """Yield chunks of the whole records in `pending`; return the bytes left over."""
        data = np.frombuffer(pending, np.uint8) if pending else np.zeros(0, np.uint8)
        at = 0
        while at < len(data):
            count, after = self._find(data, at, _ROWS_MAX, final=final)
            if count == 0 and after == at and len(data) - at > _RECORD_BYTES_MAX:
                count, after = self._find(data, at, 1, final=True)
                if after >= len(data):
                    raise InputError(
                        "a line is longer than 16 MiB", source=self._file.path, row=self._next_row
                    )
            if count:
                yield self._chunk(data, count)
            if after == at or count < _ROWS_MAX:
                at = after
                break
            at = after
        return pending[at:]

    def _find(self, data: np.ndarray[Any, Any], at: int, rows_max: int, *, final: bool) -> tuple[int, int]:
        count, after = find_cells(
            data,
            at,
            len(data),
            final,
            self._delimiter,
            self._slots,
            self._starts,
            self._ends,
            self._doubled,
            self._record_starts,
            self._record_ends,
            self._state[:rows_max],
        )
        return int(count), int(after)

    def _chunk(self, data: np.ndarray[Any, Any], count: int) -> Chunk:
        good = np.flatnonzero(self._state[:count] == RECORD_OK)
        ordinals = np.arange(self._next_row, self._next_row + count, dtype=np.int64)
        self._next_row += count
        columns = [self._column(data, slot, good) for slot in range(len(self._wanted))]
        batch = (
            pa.RecordBatch.from_arrays(columns, names=self._wanted)
            if columns
            else pa.RecordBatch.from_struct_array(pa.array([{}] * len(good), pa.struct([])))
        )
        if len(good) == count:
            return Chunk(self._file.name, self._header, batch, ordinals)
        damaged = np.flatnonzero(self._state[:count] != RECORD_OK)
        raw = tuple(
            data[self._record_starts[at] : self._record_ends[at]].tobytes().decode(errors="replace")
            for at in damaged
        )
        return Chunk(self._file.name, self._header, batch, ordinals[good], ordinals[damaged], raw)

    def _column(self, data: np.ndarray[Any, Any], slot: int, good: np.ndarray[Any, Any]) -> pa.Array:
        starts, ends = self._starts[slot], self._ends[slot]
        offsets = np.empty(len(good) + 1, np.int32)
        out = np.empty(int((ends[good] - starts[good]).sum()), np.uint8)
        copy_cells(
            *(data, good, starts, ends, self._doubled[slot], self._absent, self._absent_bytes_max),
            *(offsets, out),
        )
        return pa.Array.from_buffers(pa.string(), len(good), [None, pa.py_buffer(offsets), pa.py_buffer(out)])
