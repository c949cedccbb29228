"""Leave out of a checkpoint what an erasure has blanked: places of entries, and records of customers given up.

Handles are places, so those behind a place that is left out move up, and whatever names them is rewritten. Nothing
else changes: the order of handles stays, and no result depends on more than that.

Source: docs/semantics.md 3 (`erased`); kernels.erase (what is blanked), kernels.verify (what names what).
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.core.shard import Shard
from rfmstream.kernels import layout

_NAMES_ENTRIES: Final = ("head", "tail", "change_entry")
"""Fields of a customer."""


class Compacted:
    """The records of a shard as a checkpoint has them; where nobody was erased, as they are."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._customers = shard.customer_records()[0][: shard.customers + 1]
        self._entries = shard.entry_records()
        self._kept_customers: NDArray[np.bool_] | None = None
        self._kept_entries: NDArray[np.bool_] | None = None
        if shard.erased:
            # Hidden and without a count: given up, see `kernels.erase`.
            is_hidden = shard.hidden(np.arange(self._customers.size, dtype=np.uint32))
            self._kept_customers = kept = ~(is_hidden & (self._customers["seq"] == 0))
            self._customer_of = np.cumsum(kept, dtype=np.uint32) - np.uint32(1)
            self._kept_entries = kept = (self._entries["marks"] & layout.KIND_MASK) != layout.GONE
            self._entry_of = np.cumsum(kept, dtype=np.uint32) - np.uint32(1)

    def customers(self, rows: int) -> Iterator[tuple[NDArray[np.int64], list[NDArray[Any]]]]:
        """Yield, up to so many at a time, handles of customers, and their records of each kind as they are written."""
        for handles in _handles(self._customers.size, self._kept_customers, rows):
            records = _taken(self._customers, handles)
            if self._kept_customers is not None:
                records = records.copy()
                for name in _NAMES_ENTRIES:
                    records[name] = self._entry_of[records[name]]
            extras = [_taken(self._shard.extra_records(), handles)] if self._shard.has_extras else []
            yield handles, [records, *extras]

    def entries(self, rows: int) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield, up to so many at a time, handles of entries, and the entries as they are written."""
        for handles in _handles(self._entries.size, self._kept_entries, rows):
            entries = _taken(self._entries, handles)
            if self._kept_entries is not None:
                entries = entries.copy()
                entries["customer"] = self._customer_of[entries["customer"]]
                entries["previous"] = self._entry_of[entries["previous"]]
                # What a note has there is no handle.
                kinds = entries["marks"] & layout.KIND_MASK
                listed = np.flatnonzero((kinds == layout.ORDER) | (kinds == layout.ADJUSTMENT))
                entries["next"][listed] = self._entry_of[entries["next"][listed]]
            yield handles, entries


def _handles(count: int, kept: NDArray[np.bool_] | None, rows: int) -> Iterator[NDArray[np.int64]]:
    """Yield the handles [1, count) that are kept, up to so many at a time."""
    for first in range(1, count, rows):
        end = min(first + rows, count)
        if kept is None:
            yield np.arange(first, end)
        elif kept[first:end].any():
            yield first + np.flatnonzero(kept[first:end])


def _taken(records: NDArray[Any], handles: NDArray[np.int64]) -> NDArray[Any]:
    """Return the records of ascending handles; without copying them where they lie side by side."""
    first, end = int(handles[0]), int(handles[-1]) + 1
    return records[first:end] if end - first == handles.size else records[handles]
