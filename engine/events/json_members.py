"""Attributes of JSON orders: the texts of members that a plan of views names.

An attribute is a text; a number is its digits as they came, a flag `true` or `false`. What is null, empty, an object or
a list is no value.

Source  docs/semantics.md 10; docs/views.md
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.kernels.json_members import SPARE_BYTES, find_members
from rfmstream.kernels.json_text import NESTED, NULL
from rfmstream.kernels.record_batches import LINE_BYTES, gather


class Members:
    """Reads the members of some names out of plain JSON objects; keeps nothing between calls."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        texts = [name.encode() for name in names]
        self._texts = np.frombuffer(b"".join(texts) + bytes(SPARE_BYTES), np.uint8)
        self._edges = np.cumsum([0, *map(len, texts)])

    def scanned(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> list[pa.StringArray]:
        """Return, by name, the texts of rows that the scanner of orders has accepted; see `OrderScanner.scan`."""
        count = len(self.names), rows.size
        spans, kinds = np.empty((*count, 2), np.int64), np.empty(count, np.uint8)
        find_members(data, starts, ends, rows, self._texts, self._edges, spans, kinds)
        return [_texts(data, span, kind) for span, kind in zip(spans, kinds, strict=True)]

    def parsed(self, record: dict[str, Any] | None) -> list[str | None]:
        """Return, by name, the texts of an object that `json_rows.parse_object` has made; None: it is none."""
        return [None if record is None else attribute_text(record.get(name)) for name in self.names]


def attribute_text(value: Any) -> str | None:  # noqa: ANN401 - JSON, its numbers as texts
    """Return a value as the text of an attribute; None: it is no value."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str) or value == "":
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return None
    return value


def _texts(data: NDArray[np.uint8], spans: NDArray[np.int64], kinds: NDArray[np.uint8]) -> pa.StringArray:
    sizes = spans[:, 1].copy()
    sizes[(kinds == NULL) | (kinds == NESTED)] = 0
    offsets = np.zeros(sizes.size + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    out = np.empty(int(offsets[-1]) + LINE_BYTES, np.uint8)
    gather(data, np.ascontiguousarray(spans[:, 0]), sizes, out, 0)
    valid = sizes > 0
    return pa.StringArray.from_buffers(
        sizes.size,
        pa.py_buffer(offsets.astype(np.int32)),
        pa.py_buffer(out[: int(offsets[-1])]),
        None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little")),
    )
