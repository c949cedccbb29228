"""Delimited text files: every column as text, so that digits survive; a damaged line is a row of its own."""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from rfmstream.engine.events.text import text_buffers
from rfmstream.engine.files.cell_text import ABSENT_WORDS
from rfmstream.engine.files.chunks import Chunk
from rfmstream.engine.files.headers import (
    RECORD_BYTES_MAX,
    Layout,
    check_cells,
    find_layout,
    is_utf8_by_default,
    places,
    stripped,
)
from rfmstream.engine.files.input_files import InputFile, read_blocks
from rfmstream.kernels.delimited import BLANKS, RECORD_OK, copy_cells, find_cells
from rfmstream.schemas.errors import InputError

_ROWS_MAX: Final = 1 << 16


def read_delimited(
    file: InputFile, wanted: Sequence[str], *, first_row: int, tick: Callable[[int], None]
) -> Iterator[Chunk]:
    """Yield the wanted columns of a delimited file as text, without the white space around cells.

    ABSENT_WORDS come as empty text; where a map has a list of its own, `SourceRows` judges by that instead.

    Damaged rows  another number of cells than the header, text after a closing quote, a quote never closed
    Errors  InputError  no header, or it or a line is longer than 16 MiB
    """
    scanner: _Scanner | None = None
    pending = b""
    for block in _blocks(file, tick):
        final = block is None
        pending += block or b""
        if scanner is None:
            layout = find_layout(file, pending, wanted, final=final)
            if layout is None:
                continue
            pending = pending[layout.start :]
            absent = ABSENT_WORDS if file.form.absent is None else ()
            scanner = _Scanner(file, layout, wanted, first_row, absent)
            yield scanner.no_rows()
        pending = yield from scanner.scan(pending, final=final)


def _blocks(file: InputFile, tick: Callable[[int], None]) -> Iterator[bytes | None]:
    """Yield the blocks of a file whose lines end with a line feed, then None.

    A file without any, whose lines end with a carriage return alone as an old Mac wrote them, is read, too.
    """
    old = False
    for at, block in enumerate(read_blocks(file, tick)):
        if at == 0:
            old = b"\n" not in block and b"\r" in block[:-1]
        yield block.replace(b"\r", b"\n") if old else block
    yield None


class _Scanner:
    """Splits blocks into chunks; keeps the ordinal of the next row and the space the kernel writes to."""

    def __init__(
        self, file: InputFile, layout: Layout, wanted: Sequence[str], first_row: int, absent: Sequence[str]
    ) -> None:
        self._file = file
        self._absent = text_buffers(pa.array(absent, pa.string()))[:2]
        self._absent_bytes_max = max((len(word.encode()) for word in absent), default=-1)
        self._header = tuple(stripped(name) for name in layout.names)
        found = places(layout.names, wanted, file)
        self._wanted = list(found)
        taken = list(dict.fromkeys(found.values()))
        self._slots = np.full(len(layout.names), -1, np.int64)
        self._slots[taken] = np.arange(len(taken))
        # Two wanted names may be one column, with blanks around it and without.
        self._slot_of_wanted = [int(self._slots[place]) for place in found.values()]
        self._delimiter = BLANKS if layout.delimiter == "whitespace" else ord(layout.delimiter)
        self._is_unsure = is_utf8_by_default(file)
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
            if count == 0 and after == at and len(data) - at > RECORD_BYTES_MAX:
                count, after = self._find(data, at, 1, final=True)
                if after >= len(data):
                    raise InputError(
                        "a line is longer than 16 MiB", source=self._file.name, row=self._next_row
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
        columns = [self._column(data, slot, good) for slot in self._slot_of_wanted]
        if self._is_unsure and count:
            self._is_unsure = False
            self._check_texts(columns)
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

    def _check_texts(self, columns: Sequence[pa.Array]) -> None:
        """Look at the first rows whether their texts are UTF-8 at all."""
        cells: list[bytes] = []
        for column in columns:
            _, _, data = column.buffers()
            if data is not None and len(data) and np.frombuffer(data, np.uint8).max() > 127:
                cells += pa.Array.from_buffers(pa.binary(), len(column), column.buffers()).to_pylist()
        if cells:
            check_cells(self._file, cells)

    def _column(self, data: np.ndarray[Any, Any], slot: int, good: np.ndarray[Any, Any]) -> pa.Array:
        starts, ends = self._starts[slot], self._ends[slot]
        offsets = np.empty(len(good) + 1, np.int32)
        out = np.empty(int((ends[good] - starts[good]).sum()), np.uint8)
        copy_cells(
            *(data, good, starts, ends, self._doubled[slot], self._absent, self._absent_bytes_max),
            *(offsets, out),
        )
        return pa.Array.from_buffers(pa.string(), len(good), [None, pa.py_buffer(offsets), pa.py_buffer(out)])
