"""Blank cells that take the value above, as exports write them that state a customer or an order once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.files.chunks import Chunk

_BLANK: Final = r"^[\s\x{00a0}\x{3000}]*$"


class FillDown:
    """Fills the blank cells of some columns of one file; keeps the last value of each from chunk to chunk."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._last: dict[str, bytes | None] = dict.fromkeys(columns)

    def filled(self, chunk: Chunk) -> Chunk:
        """Return the chunk with nothing blank in those columns but what stands above their first value."""
        if chunk.batch.num_rows == 0:
            return chunk
        arrays = dict(zip(chunk.batch.schema.names, chunk.batch.columns, strict=True))
        for name, above in self._last.items():
            if name in arrays and pa.types.is_string(arrays[name].type):
                arrays[name], self._last[name] = _filled(arrays[name], above)
        return replace(chunk, batch=pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays)))


def _filled(text: pa.Array, above: bytes | None) -> tuple[pa.Array, bytes | None]:
    # As bytes: what is no UTF-8 is the fault of its row, and is not looked at here.
    raw = pa.Array.from_buffers(pa.binary(), len(text), text.buffers(), offset=text.offset)
    blank = pc.match_substring_regex(text, _BLANK)
    held = pa.concat_arrays([pa.array([above], pa.binary()), pc.if_else(blank, None, raw)])
    whole = pc.fill_null_forward(held)
    rows = whole[1:]
    filled = pa.Array.from_buffers(pa.string(), len(rows), rows.buffers(), offset=rows.offset)
    return filled, whole[-1].as_py()
