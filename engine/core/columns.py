"""Turn what the kernels wrote into Arrow columns, without a Python object per row.

Source: docs/semantics.md 6 and 7; the schemas are in schemas/changes.py and schemas/snapshots.py.
"""

from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import Slab, offsets_and_data
from rfmstream.engine.core.shard import Shard
from rfmstream.kernels.emit import order_keys, write_changes
from rfmstream.kernels.ids import SPARE_BYTES
from rfmstream.schemas.changes import CHANGE_REASONS, MODES, change_schema
from rfmstream.schemas.codes import FOREVER_US, NEVER_US, ChangeReason
from rfmstream.schemas.columns import TIMESTAMP
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
        bits = (n + 7) // 8
        size = Slab.room(6 * 8 * n, 3 * 2 * n, 4 * n, 6 * bits, 4 * (n + 1), 4 * (n + 1), *ids)
        slab = shard.slabs.take(size, touch_ahead=shard.touches_ahead)
        words, numbers, codes = (
            slab.take((6, n), np.int64),
            slab.take((3, n), np.int16),
            slab.take((4, n), np.int8),
        )
        valid = slab.take((6, bits), np.uint8)
        customer_ids, named = ((slab.take((n + 1,), np.int32), slab.take((size,), np.uint8)) for size in ids)
        write_changes(
            changes,
            order,
            shard.customer_records()[1],
            offsets,
            data,
            words,
            numbers,
            codes,
            valid,
            customer_ids,
            named,
        )
        columns = {
            "customer_id": _strings(*customer_ids),
            "seq": pa.array(words[0]),
            "effective_at": _instants(words[1]),
            "from_tier": _words(self._tiers, codes[0], valid[0]),
            "to_tier": _words(self._tiers, codes[1], valid[1]),
            "reason": _words(self._reasons, codes[3]),
            "order_id": _strings(*named, valid[3]),
            "r_band": pa.array(numbers[0]),
            "f_band": pa.array(numbers[1]),
            "m_band": pa.array(numbers[2]),
            "last_paid_at": _instants(words[2], valid[4]),
            "frequency": pa.array(words[3]),
            "monetary_minor": pa.array(words[4]),
            "next_change_at": _instants(words[5], valid[5]),
            "next_tier": _words(self._tiers, codes[2], valid[2]),
            "ruleset": self._repeated_ruleset(n),
            "mode": self._repeated_mode(n),
        }
        return _batch(columns, self.change_schema)

    def snapshot(self, shard: Shard, as_of_us: int, first: int, end: int) -> pa.RecordBatch:
        """Build the snapshot rows of a shard's customers of handles [first, end)."""
        n = end - first
        words, numbers, codes = shard.measure(as_of_us, first, end)
        last_paid, tier_since, first_paid, next_change, monetary, lifetime, average, frequency, *rest = words
        orders, seq, recency_days, change_entry = rest
        # Who came back after an erasure with an adjustment alone has had no change that may be told.
        told = (seq > 0) & (codes[3] != ChangeReason.ERASED)
        paid, changed = _bits(last_paid != NEVER_US), _bits(told)
        tiered = _bits(codes[0] >= 0)
        columns = {
            "customer_id": _strings(*shard.customer_ids(np.arange(first, end, dtype=np.uint32))),
            "tier": _words(self._tiers, codes[0], tiered),
            "tier_since": _instants(tier_since, changed),
            "seq": _numbers(seq, _bits(seq > 0)),
            "from_tier": _words(self._tiers, codes[1], _bits(codes[1] >= 0)),
            "to_tier": _words(self._tiers, codes[0], tiered),
            "reason": _words(self._reasons, codes[3], changed),
            "order_id": _entry_ids(shard, change_entry),
            "effective_at": _instants(tier_since, changed),
            "r_band": pa.array(numbers[0]),
            "f_band": pa.array(numbers[1]),
            "m_band": pa.array(numbers[2]),
            "last_paid_at": _instants(last_paid, paid),
            "recency_days": _numbers(recency_days, paid),
            "frequency": pa.array(frequency),
            "monetary_minor": pa.array(monetary),
            "first_paid_at": _instants(first_paid, paid),
            "lifetime_orders": pa.array(orders),
            "lifetime_monetary_minor": pa.array(lifetime),
            "average_order_minor": _numbers(average, paid),
            "next_change_at": _instants(next_change, _bits(next_change != FOREVER_US)),
            "next_tier": _words(self._tiers, codes[2], _bits(codes[2] >= 0)),
            "ruleset": self._repeated_ruleset(n),
            "mode": self._repeated_mode(n),
        }
        batch = _batch(columns, self.snapshot_schema)
        return batch.filter(pa.array(~shard.hidden(first, end))) if shard.erased else batch


def _batch(columns: dict[str, pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _bits(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a mask as Arrow validity bits."""
    return np.packbits(mask, bitorder="little")


def _array(data_type: pa.DataType, values: NDArray[Any], valid: NDArray[np.uint8] | None = None) -> pa.Array:
    buffers = [None if valid is None else pa.py_buffer(valid), pa.py_buffer(values)]
    return pa.Array.from_buffers(data_type, values.size, buffers)


def _numbers(values: NDArray[np.int64], valid: NDArray[np.uint8]) -> pa.Array:
    return _array(pa.int64(), values, valid)


def _instants(values_us: NDArray[np.int64], valid: NDArray[np.uint8] | None = None) -> pa.Array:
    return _array(TIMESTAMP, values_us, valid)


def _words(
    words: pa.Array, codes: NDArray[np.int8], valid: NDArray[np.uint8] | None = None
) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(_array(pa.int8(), codes, valid), words, safe=False)


def _strings(
    offsets: NDArray[np.int32], data: NDArray[np.uint8], valid: NDArray[np.uint8] | None = None
) -> pa.StringArray:
    validity = None if valid is None else pa.py_buffer(valid)
    return pa.StringArray.from_buffers(offsets.size - 1, pa.py_buffer(offsets), pa.py_buffer(data), validity)


def _entry_ids(shard: Shard, entries: NDArray[np.int64]) -> pa.StringArray:
    """Return the ids of entries, null for entry 0."""
    return _strings(*shard.entry_ids(entries), _bits(entries > 0))
