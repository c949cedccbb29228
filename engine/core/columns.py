"""Turn what the kernels wrote into Arrow columns, without a Python object per row.

Source: docs/semantics.md 6 and 7; the schemas are in schemas/changes.py and schemas/snapshots.py.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import Slab, offsets_and_data
from rfmstream.engine.core.shard import Shard
from rfmstream.kernels.emit import order_keys, write_changes
from rfmstream.kernels.ids import SPARE_BYTES
from rfmstream.kernels.outputs import CHANGE_OUTPUTS, ChangeColumns, ChangeValidity, Output
from rfmstream.schemas.changes import CHANGE_REASONS, MODES, change_schema
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.snapshots import snapshot_schema

_NO_IDS: Final = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.uint8)


class _Repeated:
    """A column of one word again and again: all batches share its memory."""

    def __init__(self, words: pa.Array, code: int) -> None:
        self._words, self._code = words, code
        self._longest = self._make(1 << 16)

    def _make(self, rows: int) -> pa.DictionaryArray:
        return _words(self._words, np.full(rows, self._code, dtype=np.int8))

    def __call__(self, rows: int) -> pa.DictionaryArray:
        # Threads may both make a longer one; either will do.
        longest = self._longest
        if len(longest) < rows:
            self._longest = longest = self._make(rows)
        return longest.slice(0, rows)


class ColumnWriter:
    """Builds tables of tier changes and snapshots of one ruleset and mode."""

    def __init__(self, ruleset: Ruleset, mode: str) -> None:
        self.change_schema = change_schema(ruleset)
        self.snapshot_schema = snapshot_schema(ruleset)
        self._tiers = pa.array([tier.id for tier in ruleset.tiers], type=pa.string())
        self._reasons = pa.array(CHANGE_REASONS, type=pa.string())
        self._repeated_ruleset = _Repeated(pa.array([ruleset.identity], type=pa.string()), 0)
        self._repeated_mode = _Repeated(pa.array(MODES, type=pa.string()), MODES.index(mode))

    def changes(
        self,
        shard: Shard,
        changes: NDArray[Any],
        order_ids: pa.StringArray | None,
        reasons: NDArray[np.int64],
    ) -> pa.RecordBatch:
        """Build the tier changes CHANGE[n] of a shard, in order of time, and count them by reason.

        order_ids  those of its batch
        reasons    i64[reasons there are], to which the changes are added
        """
        n = changes.size
        offsets, data = _NO_IDS if order_ids is None else offsets_and_data(order_ids)
        keys = np.empty(n, dtype=np.int64)
        ascending, customer_bytes, order_bytes = order_keys(changes, offsets, keys, reasons)
        order = np.arange(n) if ascending else np.argsort(keys, kind="stable")
        ids = (customer_bytes + SPARE_BYTES, order_bytes + SPARE_BYTES)
        room = Slab.room(*output_sizes(CHANGE_OUTPUTS, n), *[_bits(n)] * len(ChangeValidity._fields))
        room += Slab.room(4 * (n + 1), 4 * (n + 1), *ids)
        slab = shard.slabs.take(room, touch_ahead=shard.touches_ahead)
        out = ChangeColumns(*(slab.take((n,), column.dtype) for column in CHANGE_OUTPUTS))
        valid = ChangeValidity(*(slab.take((_bits(n),), np.uint8) for _ in ChangeValidity._fields))
        customer_ids, named = ((slab.take((n + 1,), np.int32), slab.take((size,), np.uint8)) for size in ids)
        write_changes(
            changes, order, shard.customer_records()[1], offsets, data, out, valid, customer_ids, named
        )
        columns = self._columns(self.change_schema, out, valid) | {
            "customer_id": _strings(*customer_ids),
            "order_id": _strings(*named, valid.order_id),
            "ruleset": self._repeated_ruleset(n),
            "mode": self._repeated_mode(n),
        }
        return _batch(columns, self.change_schema)

    def snapshot(self, shard: Shard, as_of_us: int, first: int, end: int) -> pa.RecordBatch:
        """Build the snapshot rows of a shard's customers of handles [first, end)."""
        n = end - first
        out, valid = shard.measure(as_of_us, first, end)
        columns = self._columns(self.snapshot_schema, out, valid)
        columns |= {
            "customer_id": _strings(*shard.customer_ids(np.arange(first, end, dtype=np.uint32))),
            "to_tier": columns["tier"],
            "effective_at": columns["tier_since"],
            "order_id": _entry_ids(shard, out.order_entry),
            "ruleset": self._repeated_ruleset(n),
            "mode": self._repeated_mode(n),
        }
        batch = _batch(columns, self.snapshot_schema)
        return batch.filter(pa.array(~shard.hidden(first, end))) if shard.erased else batch

    def _columns(self, schema: pa.Schema, out: Any, valid: Any) -> dict[str, pa.Array]:  # noqa: ANN401
        """Return what a kernel wrote (named tuples of kernels.outputs) as columns of a schema, by name."""
        columns = {}
        for name in set(out._fields) & set(schema.names):
            values, bitmap, data_type = (
                getattr(out, name),
                getattr(valid, name, None),
                schema.field(name).type,
            )
            if pa.types.is_dictionary(data_type):
                words = self._reasons if name == "reason" else self._tiers
                columns[name] = _words(words, values, bitmap)
            else:
                columns[name] = _array(data_type, values, bitmap)
        return columns


def _bits(rows: int) -> int:
    """Return the bytes of a validity bitmap."""
    return (rows + 7) // 8


def output_sizes(outputs: Iterable[Output], rows: int) -> list[int]:
    """Return the bytes of each column that a kernel is to write."""
    return [np.dtype(column.dtype).itemsize * rows for column in outputs]


def _batch(columns: dict[str, pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _array(data_type: pa.DataType, values: NDArray[Any], valid: NDArray[np.uint8] | None = None) -> pa.Array:
    buffers = [None if valid is None else pa.py_buffer(valid), pa.py_buffer(values)]
    return pa.Array.from_buffers(data_type, values.size, buffers)


def _words(
    words: pa.Array, codes: NDArray[np.int8], valid: NDArray[np.uint8] | None = None
) -> pa.DictionaryArray:
    if valid is not None:
        # What is null means nothing, but some readers (Polars) look it up all the same.
        codes = np.maximum(codes, 0)
    return pa.DictionaryArray.from_arrays(_array(pa.int8(), codes, valid), words, safe=False)


def _strings(
    offsets: NDArray[np.int32], data: NDArray[np.uint8], valid: NDArray[np.uint8] | None = None
) -> pa.StringArray:
    validity = None if valid is None else pa.py_buffer(valid)
    return pa.StringArray.from_buffers(offsets.size - 1, pa.py_buffer(offsets), pa.py_buffer(data), validity)


def _entry_ids(shard: Shard, entries: NDArray[np.int64]) -> pa.StringArray:
    """Return the ids of entries, null for entry 0."""
    return _strings(*shard.entry_ids(entries), np.packbits(entries > 0, bitorder="little"))
