"""Blank cells that take the value above, as exports write them that state a customer or an order once."""

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.files.chunks import Chunk
from rfmstream.engine.files.input_files import InputFile
from rfmstream.engine.files.line_damage import guessed_cells

_BLANK: Final = r"^[\s\x{00a0}\x{3000}]*$"
_UNKNOWN: Final = b""
"""What blank cells take below a damaged row that states something there: nothing, for nobody knows what it was."""


class FillDown:
    """Fills the blank cells of some columns of one file; keeps the last value of each from chunk to chunk."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self._last: dict[str, bytes | None] = dict.fromkeys(file.form.fill_down)

    def filled(self, chunk: Chunk) -> Chunk:
        """Return the chunk with nothing blank in those columns but what stands above their first value."""
        arrays = dict(zip(chunk.batch.schema.names, chunk.batch.columns, strict=True))
        order = np.argsort(np.concatenate([chunk.rows, chunk.damaged_rows]), kind="stable")
        damaged = guessed_cells(chunk, self._file) if len(chunk.damaged_rows) else []
        for name, above in self._last.items():
            if name in arrays and pa.types.is_string(arrays[name].type):
                breaks = [_UNKNOWN if cells.get(name) else None for cells in damaged]
                arrays[name], self._last[name] = _filled(arrays[name], above, breaks, order)
        return replace(chunk, batch=pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays)))


def _filled(
    text: pa.Array, above: bytes | None, breaks: list[bytes | None], order: np.ndarray[Any, Any]
) -> tuple[pa.Array, bytes | None]:
    """Return the filled cells, and the last value.

    In      breaks  what the damaged rows put there;  order  in which both stand in the file
    """
    # As bytes: what is no UTF-8 is the fault of its row, and is not looked at here.
    raw = pa.Array.from_buffers(pa.binary(), len(text), text.buffers(), offset=text.offset)
    blank = pc.match_substring_regex(text, _BLANK)
    stated = pa.concat_arrays([pc.if_else(blank, None, raw), pa.array(breaks, pa.binary())])
    whole = pc.fill_null_forward(
        pa.concat_arrays([pa.array([above], pa.binary()), stated.take(pa.array(order))])
    )
    rows = whole[1:].take(pa.array(np.flatnonzero(order < len(text))))
    filled = pa.Array.from_buffers(pa.string(), len(rows), rows.buffers(), offset=rows.offset)
    return filled, whole[-1].as_py()
