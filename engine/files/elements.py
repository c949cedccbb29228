"""Rows of which each element of a list is one, with what its row and the lists around it say beside it."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.files.evaluate import SourceRows
from rfmstream.schemas.mapping import EACH, Event


class ElementRows(SourceRows):
    """The elements of a list of some rows, as expressions see them.

    Fields  parents  i64[n]  the place of each element's row among those rows
    """

    def __init__(self, base: SourceRows, event: Event) -> None:
        depth = event.each.count(EACH)
        deepest = next(name for name in event.columns() if name.count(EACH) == depth)
        self._base = base
        # For each depth of lists, which element around it every element lies in.
        self._around: list[np.ndarray[Any, Any]] = []
        lists: Any = base.column(deepest)
        for _ in range(depth):
            lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
            self._around.append(np.repeat(np.arange(len(lengths)), lengths))
            lists = lists.flatten()
        self._at = np.arange(len(lists))
        self._set_parents()

    def take(self, mask: np.ndarray[Any, Any]) -> "ElementRows":
        """Return the elements where the mask is true."""
        taken = object.__new__(ElementRows)
        taken._base, taken._around, taken._at = self._base, self._around, self._at[mask]
        taken._set_parents()
        return taken

    def column(self, name: str, *, optional: bool = False) -> pa.Array | None:
        """Return a column, plain; None where it is not there and optional.

        Errors  InputError  the input has no such column
        """
        if name not in self._columns:
            found = self._base.column(name, optional=optional)
            if found is None:
                return None
            depth = name.count(EACH)
            for _ in range(depth):
                found = found.flatten()
            self._columns[name] = found.take(pa.array(self._places(depth)))
        return self._columns[name]

    def shown(self) -> pa.Array:
        """Return the row of each element as the text of a JSON object."""
        parents, place = np.unique(self.parents, return_inverse=True)
        mask = np.zeros(self._base.count, np.bool_)
        mask[parents] = True
        return self._base.take(mask).shown().take(pa.array(place))

    def _places(self, depth: int) -> np.ndarray[Any, Any]:
        """Return which element of the lists at a depth each of these lies in; of depth 0, which row."""
        at = self._at
        for around in reversed(self._around[depth:]):
            at = around[at]
        return at

    def _set_parents(self) -> None:
        base = self._base
        self.parents = self._places(0)
        super().__init__(
            *(base.batch, base.rows[self.parents], base.source, base.names),
            rows_before=base.rows_before,
            absent=base.absent,
            dates_are_iso=base.dates_are_iso,
        )
