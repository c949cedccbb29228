"""Turn what the kernels wrote into Arrow columns, without a Python object per row.

Source: docs/semantics.md 6, 7, 9 and 11; the schemas are in schemas/changes.py, snapshots.py and signals.py.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import Slab, offsets_and_data
from rfmstream.engine.core.measured import Measured
from rfmstream.engine.core.populations import Ids, Populations
from rfmstream.engine.core.shard import Shard
from rfmstream.kernels.emit import hold_out, order_keys, signal_keys, write_changes, write_signals
from rfmstream.kernels.ids import SPARE_BYTES
from rfmstream.kernels.outputs import (
    CHANGE_OUTPUTS,
    SIGNAL_OUTPUTS,
    ChangeColumns,
    ChangeValidity,
    Output,
    SignalColumns,
    SignalValidity,
    SnapshotColumns,
    SnapshotValidity,
)
from rfmstream.schemas.changes import CHANGE_REASONS, MODES, change_schema
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.signals import SIGNAL_KINDS, signal_schema
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


class Absent:
    """A column of nulls: all batches share its memory."""

    def __init__(self, data_type: pa.DataType) -> None:
        self._longest = pa.nulls(1 << 16, data_type)

    def __call__(self, rows: int) -> pa.Array:
        """Return a column of so many rows."""
        longest = self._longest
        if len(longest) < rows:
            self._longest = longest = pa.nulls(rows, longest.type)
        return longest.slice(0, rows)


class _Column(NamedTuple):
    """How a column of a schema is made of what a kernel writes.

    Fields  at, valid_at  its place among the kernel's outputs, and that of its validity; None: it is never null
            words         its dictionary; None: it has none
    """

    name: str
    at: int
    valid_at: int | None
    data_type: pa.DataType
    words: pa.Array | None


class ColumnWriter:
    """Builds tables of tier changes, signals and snapshots of one ruleset, mode and view."""

    def __init__(
        self, ruleset: Ruleset, mode: str, *, view: str | None = None, populations: Populations | None = None
    ) -> None:
        self.change_schema = change_schema(ruleset)
        self.snapshot_schema = snapshot_schema(ruleset)
        self.signal_schema = signal_schema(ruleset)
        self._tiers = pa.array([tier.id for tier in ruleset.tiers], type=pa.string())
        self._words = {
            "reason": pa.array(CHANGE_REASONS, type=pa.string()),
            "kind": pa.array(SIGNAL_KINDS, type=pa.string()),
        }
        parts = [tier.playbook.holdout_parts for tier in ruleset.tiers]
        self._holds_out = any(part is not None for part in parts)
        self._holdout_parts = np.array([-1 if part is None else part for part in parts], dtype=np.int64)
        self._holdout_seeds = np.array(
            [_fnv1a32(tier.playbook.key.encode()) for tier in ruleset.tiers], dtype=np.uint64
        )
        self._populations = populations
        self._no_population = Absent(pa.string())
        self._no_holdout = Absent(pa.bool_())
        self._repeated_view = _Repeated(pa.array([view or ruleset.name], type=pa.string()), 0)
        self._repeated_ruleset = _Repeated(pa.array([ruleset.identity], type=pa.string()), 0)
        self._repeated_mode = _Repeated(pa.array(MODES, type=pa.string()), MODES.index(mode))
        self._said_of_all = {"ruleset": ruleset.identity, "mode": mode, "view": view or ruleset.name}
        self._of_changes = self._planned(self.change_schema, ChangeColumns, ChangeValidity)
        self._of_signals = self._planned(self.signal_schema, SignalColumns, SignalValidity)
        self._of_snapshots = self._planned(self.snapshot_schema, SnapshotColumns, SnapshotValidity)
        tiers = [tier.id for tier in ruleset.tiers]
        self._plain_words: dict[str, Sequence[str]] = {
            "tier": tiers,
            "from_tier": tiers,
            "next_tier": tiers,
            "reason": CHANGE_REASONS,
        }

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
        made = _Laid(_CHANGE_KINDS, ChangeColumns, ChangeValidity)
        made.write(shard, changes, order_ids, (order_keys, reasons), write_changes)
        population, customer_ids = self._parted(made.customer_ids)
        columns = _columns(self._of_changes, made.out, made.valid) | {
            "customer_id": _strings(*customer_ids),
            "order_id": _strings(*made.order_ids, made.valid.order_id),
            "ruleset": self._repeated_ruleset(changes.size),
            "mode": self._repeated_mode(changes.size),
            "holdout": self._holdout(customer_ids, made.out.to_tier),
            "view": self._repeated_view(changes.size),
            "population": population,
        }
        return _batch(columns, self.change_schema)

    def signals(
        self,
        shard: Shard,
        signals: NDArray[Any],
        order_ids: pa.StringArray | None,
        kinds: NDArray[np.int64],
    ) -> pa.RecordBatch:
        """Build the signals SIGNAL[n] of a shard, in order of time, and count them by kind, as `changes` does."""
        n = signals.size
        made = _Laid(_SIGNAL_KINDS, SignalColumns, SignalValidity)
        made.write(shard, signals, order_ids, (signal_keys, kinds), write_signals)
        population, customer_ids = self._parted(made.customer_ids)
        columns = _columns(self._of_signals, made.out, made.valid) | {
            "customer_id": _strings(*customer_ids),
            "order_id": _strings(*made.order_ids, made.valid.order_id),
            "view": self._repeated_view(n),
            "population": population,
            "ruleset": self._repeated_ruleset(n),
            "mode": self._repeated_mode(n),
            "holdout": self._holdout(customer_ids, made.out.tier),
        }
        return _batch(columns, self.signal_schema)

    def snapshot(self, shard: Shard, as_of_us: int, handles: NDArray[np.uint32]) -> pa.RecordBatch:
        """Build the snapshot rows of a shard's customers of some handles."""
        measured = shard.measure(as_of_us, handles)
        population, customer_ids = self._parted(shard.customer_ids(handles))
        batch = self.measured(
            measured,
            customer_ids=_strings(*customer_ids),
            order_ids=entry_ids(shard, measured.out.order_entry),
            population=population,
        )
        return batch.filter(pa.array(~shard.hidden(handles))) if shard.erased else batch

    def measured(
        self,
        measured: Measured,
        *,
        customer_ids: pa.StringArray,
        order_ids: pa.StringArray,
        population: pa.StringArray | None = None,
    ) -> pa.RecordBatch:
        """Build the snapshot rows of customers that were measured.

        order_ids  of their newest changes; population  None: there are none
        """
        n = measured.rows
        columns = _columns(self._of_snapshots, *measured.trim())
        columns |= {
            "customer_id": customer_ids,
            "to_tier": columns["tier"],
            "effective_at": columns["tier_since"],
            "order_id": order_ids,
            "ruleset": self._repeated_ruleset(n),
            "mode": self._repeated_mode(n),
            "view": self._repeated_view(n),
            "population": self._no_population(n) if population is None else population,
        }
        return _batch(columns, self.snapshot_schema)

    def plain(
        self,
        measured: Measured,
        *,
        customer_ids: list[str],
        order_ids: list[str | None],
        population: list[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Build the rows of `measured` as Python's dicts, with instants in µs since 1970 UTC.

        Of a few rows it costs a tenth of what Arrow columns do; and an instant may lie in a year that no datetime has.
        """
        out, valid = measured.trim()
        columns: dict[str, list[Any]] = {}
        for name, values in zip(out._fields, out, strict=True):
            columns[name] = values.tolist()
        for name, bits in zip(valid._fields, valid, strict=True):
            column, bitmap = columns[name], bits.tolist()
            for row in range(measured.rows):
                if not bitmap[row >> 3] >> (row & 7) & 1:
                    column[row] = None
        for name, words in self._plain_words.items():
            columns[name] = [None if code is None else words[code] for code in columns[name]]
        n = measured.rows
        columns |= {
            "customer_id": customer_ids,
            "to_tier": columns["tier"],
            "effective_at": columns["tier_since"],
            "order_id": order_ids,
            "population": [None] * n if population is None else population,
            **{name: [word] * n for name, word in self._said_of_all.items()},
        }
        names = self.snapshot_schema.names
        return [dict(zip(names, row, strict=True)) for row in zip(*map(columns.get, names), strict=True)]

    def _parted(self, keys: Ids) -> tuple[pa.StringArray, Ids]:
        """Return the populations and the ids of customers, whose keys in the engine these are."""
        if self._populations is None:
            return self._no_population(keys[0].size - 1), keys
        return self._populations.split(keys)

    def _holdout(self, ids: tuple[NDArray[np.int32], NDArray[np.uint8]], tiers: NDArray[np.int8]) -> pa.Array:
        """Tell of each row whether its customer is held out, docs/semantics.md 11; null: its playbook does not say."""
        if not self._holds_out:
            return self._no_holdout(tiers.size)
        held = np.empty(tiers.size, dtype=np.int8)
        hold_out(*ids, tiers, self._holdout_parts, self._holdout_seeds, held)
        return pa.array(held == 1, mask=held < 0)

    def _planned(self, schema: pa.Schema, outputs: Any, validity: Any) -> list[_Column]:  # noqa: ANN401
        """Return how columns of a schema are made of what a kernel writes, named tuples of kernels.outputs."""
        places = {name: at for at, name in enumerate(validity._fields)}
        return [
            _Column(
                name,
                at,
                places.get(name),
                schema.field(name).type,
                self._words.get(name, self._tiers)
                if pa.types.is_dictionary(schema.field(name).type)
                else None,
            )
            for at, name in enumerate(outputs._fields)
            if name in schema.names
        ]


def _columns(
    planned: list[_Column], out: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.uint8]]
) -> dict[str, pa.Array]:
    """Return what a kernel wrote as columns, by name."""
    columns = {}
    for name, at, valid_at, data_type, words in planned:
        bitmap = None if valid_at is None else valid[valid_at]
        columns[name] = (
            _array(data_type, out[at], bitmap) if words is None else _words(words, out[at], bitmap)
        )
    return columns


class _Kinds:
    """The columns that a kernel writes, by dtype: those of one are cut from a slab together."""

    def __init__(self, outputs: Iterable[Output]) -> None:
        places: dict[str, list[int]] = {}
        for place, output in enumerate(outputs):
            places.setdefault(output.dtype, []).append(place)
        self._counts = [(np.dtype(dtype), len(of_dtype)) for dtype, of_dtype in places.items()]
        self._order = np.argsort([place for of_dtype in places.values() for place in of_dtype]).tolist()

    def room(self, rows: int) -> int:
        """Return the bytes they take in a slab."""
        return sum(count * Slab.room(dtype.itemsize * rows) for dtype, count in self._counts)

    def take(self, slab: Slab, rows: int) -> list[NDArray[Any]]:
        """Cut them off, in the order of the outputs."""
        arrays = [array for dtype, count in self._counts for array in slab.take(count, rows, dtype)]
        return [arrays[at] for at in self._order]


_CHANGE_KINDS: Final = _Kinds(CHANGE_OUTPUTS)
_SIGNAL_KINDS: Final = _Kinds(SIGNAL_OUTPUTS)


class _Laid:
    """The memory of the columns of a batch, cut from one block, and what a kernel writes there.

    Fields  out, valid  named tuples of kernels.outputs
            customer_ids, order_ids  offsets i32[n + 1] and bytes u8
    """

    def __init__(self, kinds: "_Kinds", columns: Any, validity: Any) -> None:  # noqa: ANN401
        self._kinds = kinds
        self.out, self.valid = columns, validity

    def write(
        self,
        shard: Shard,
        records: NDArray[Any],
        batch_ids: pa.StringArray | None,
        counting: tuple[Callable[..., Any], NDArray[np.int64]],
        write: Callable[..., None],
    ) -> None:
        """Write the records of a shard in order of time.

        batch_ids  order ids of its batch
        counting   the kernel that makes sort keys, and where it counts what the records tell
        """
        n = records.size
        batch_offsets, data = _NO_IDS if batch_ids is None else offsets_and_data(batch_ids)
        keys = np.empty(n, dtype=np.int64)
        make_keys, counts = counting
        ascending, customer_bytes, order_bytes = make_keys(records, batch_offsets, keys, counts)
        order = np.arange(n) if ascending else np.argsort(keys, kind="stable")
        ids = (customer_bytes + SPARE_BYTES, order_bytes + SPARE_BYTES)
        bitmaps = len(self.valid._fields)
        room = self._kinds.room(n) + bitmaps * Slab.room(_bits(n)) + 2 * Slab.room(4 * (n + 1))
        slab = shard.slabs.take(room + Slab.room(*ids), touch_ahead=shard.touches_ahead)
        self.out = self.out(*self._kinds.take(slab, n))
        self.valid = self.valid(*slab.take(bitmaps, _bits(n), np.uint8))
        offsets_of = slab.take(2, n + 1, np.int32)
        self.customer_ids, self.order_ids = (
            (offsets, slab.take(1, size, np.uint8)[0]) for offsets, size in zip(offsets_of, ids, strict=True)
        )
        key_data = shard.customer_records()[1]
        columns = self.out, self.valid, self.customer_ids, self.order_ids
        write(records, order, key_data, batch_offsets, data, *columns)


def _fnv1a32(data: bytes) -> int:
    value = 0x811C9DC5
    for byte in data:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def _bits(rows: int) -> int:
    """Return the bytes of a validity bitmap."""
    return (rows + 7) // 8


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


def entry_ids(shard: Shard, entries: NDArray[np.int64]) -> pa.StringArray:
    """Return the ids of entries, null for entry 0."""
    return _strings(*shard.entry_ids(entries), np.packbits(entries > 0, bitorder="little"))
