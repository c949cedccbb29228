"""Rejected rows of several views: each told once for a reason, with the views that rejected it.

Source  docs/semantics.md section 10
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rfmstream.engine.events.normalise import NO_REJECTED
from rfmstream.schemas.orders import REJECTED_SCHEMA, REJECTION_REASONS

VIEWS_SEPARATOR: Final = ","


class Rejections:
    """Gathers what views reject of some rows.

    Fields  names  of the views, in order
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._parts: list[tuple[pa.RecordBatch, NDArray[np.bool_]]] = []

    def add(self, rejected: pa.RecordBatch, by: NDArray[np.bool_]) -> None:
        """Take rows of REJECTED_SCHEMA and bool[rows, views]: which views reject them."""
        kept = by.any(axis=1)
        if kept.any():
            self._parts.append((rejected.select(REJECTED_SCHEMA.names).filter(pa.array(kept)), by[kept]))

    def add_of(self, view: int, rejected: pa.RecordBatch) -> None:
        """Take rows that one view rejects, by its place."""
        by = np.zeros((rejected.num_rows, len(self.names)), dtype=np.bool_)
        by[:, view] = True
        self.add(rejected, by)

    def merged(self) -> tuple[pa.RecordBatch, NDArray[np.bool_]]:
        """Return the rows, those that views reject for one reason made one, in order of row, and who rejects them."""
        if not self._parts:
            return NO_REJECTED, np.zeros((0, len(self.names)), dtype=np.bool_)
        whole = pa.concat_batches([part for part, _ in self._parts])
        by = np.concatenate([by for _, by in self._parts])
        if len(self._parts) > 1:
            whole, by = _once(whole, by, [part.num_rows for part, _ in self._parts])
        order = np.lexsort((_precedence(whole.column("reason")), whole.column("row").to_numpy()))
        return whole.take(pa.array(order)), by[order]

    def taken(self) -> tuple[pa.RecordBatch, NDArray[np.bool_]]:
        """Return what `merged` does, and forget it."""
        made = self.merged()
        self._parts = []
        return made

    def table(self) -> pa.Table:
        """Return the rows with the column `views`: the names of those that reject them."""
        whole, by = self.merged()
        return pa.Table.from_batches([with_views(whole, by, self.names)])


def _precedence(reasons: pa.StringArray) -> NDArray[np.int64]:
    places: NDArray[np.int64] = pc.index_in(reasons, value_set=pa.array(REJECTION_REASONS)).to_numpy()
    return places


def with_views(rejected: pa.RecordBatch, by: NDArray[np.bool_], names: Sequence[str]) -> pa.RecordBatch:
    """Return rejected rows with the column `views`."""
    kinds, place = np.unique(by, axis=0, return_inverse=True)
    texts = [
        VIEWS_SEPARATOR.join(name for name, is_one in zip(names, kind, strict=True) if is_one)
        for kind in kinds.tolist()
    ]
    views = pa.array(texts, pa.string()).take(pa.array(place.ravel()))
    return pa.RecordBatch.from_arrays([*rejected.columns, views], schema=views_schema())


def views_schema() -> pa.Schema:
    """Return REJECTED_SCHEMA with the column `views`."""
    unit = {
        "unit": "names",
        "description": "The views that rejected the row for this reason, with commas between.",
    }
    return REJECTED_SCHEMA.append(pa.field("views", pa.string(), nullable=False, metadata=unit))


def _once(
    whole: pa.RecordBatch, by: NDArray[np.bool_], sizes: Sequence[int]
) -> tuple[pa.RecordBatch, NDArray[np.bool_]]:
    """Make one of the rows of several parts that tell the same of one event."""
    rows, reasons = whole.column("row").to_pylist(), whole.column("reason").to_pylist()
    part = np.repeat(np.arange(len(sizes)), sizes).tolist()
    # A row may give several events, which one view rejects for one reason: they stay apart.
    seen: dict[tuple[int, int, str], int] = {}
    first: dict[tuple[int, str, int], int] = {}
    kept = []
    for at, (of, row, reason) in enumerate(zip(part, rows, reasons, strict=True)):
        nth = seen[of, row, reason] = seen.get((of, row, reason), -1) + 1
        place = first.setdefault((row, reason, nth), at)
        if place == at:
            kept.append(at)
        else:
            by[place] |= by[at]
    return whole.take(pa.array(kept, pa.int64())), by[kept]


def once_an_event(
    rejected: pa.RecordBatch, by: Sequence[NDArray[np.bool_]] = ()
) -> tuple[pa.RecordBatch, list[NDArray[np.bool_]]]:
    """Make one of the rows that tell of parts of one event: of the same row, reason and type.

    In      by  bool[rows, views] each: which views reject them, in any part
    """
    keys = zip(*(rejected.column(name).to_pylist() for name in ("row", "reason", "type")), strict=True)
    first: dict[tuple[object, ...], int] = {}
    of = np.array([first.setdefault(key, at) for at, key in enumerate(keys)], dtype=np.int64)
    kept = np.flatnonzero(of == np.arange(of.size))
    together = []
    for told in by:
        whole = told.copy()
        np.logical_or.at(whole, of, told)
        together.append(whole[kept])
    return rejected.take(pa.array(kept)), together
