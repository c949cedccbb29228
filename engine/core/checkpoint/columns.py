"""The columns of a checkpoint's files, and what stands for those that an older program did not write."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from rfmstream.engine.core.buffers import offsets_and_data
from rfmstream.engine.core.shard import Shard
from rfmstream.kernels import layout
from rfmstream.kernels.layout import CUSTOMER, ENTRY, EXTRA
from rfmstream.schemas.errors import StateError

FIX_DAMAGE: Final = "restore it from a copy, or start without it"
WITHOUT_ID: Final = (layout.REFUND, layout.ORIGINAL, layout.ERASURE, layout.GONE)
"""Kinds of entries that remember something of an order by its handle."""

# What is written of each record; the rest (ids, slots of tables and timers) is written as ids or built anew.
_CUSTOMER_FIELDS: Final = tuple(
    name for name in CUSTOMER.names or () if name not in ("key0", "key1", "key_size", "armed")
)
_ENTRY_FIELDS: Final = tuple(name for name in ENTRY.names or () if name not in ("id_start", "id_size"))
_DEFAULTS: Final = dict.fromkeys(EXTRA.names or (), 0)
"""What a column says where an older program wrote none. A field added to a record gets its default here."""


def _schema(dtype: np.dtype[Any], fields: Iterable[str], id_name: str) -> pa.Schema:
    return pa.schema(
        [
            (id_name, pa.string()),
            *((name, pa.from_numpy_dtype(dtype[name])) for name in fields),
        ]
    )


_CUSTOMER_SCHEMA: Final = _schema(CUSTOMER, _CUSTOMER_FIELDS, "customer_id")
_EXTRA_SCHEMA: Final = pa.schema(
    [*_CUSTOMER_SCHEMA, *((name, pa.from_numpy_dtype(EXTRA[name])) for name in _DEFAULTS)]
)
ENTRY_SCHEMA: Final = _schema(ENTRY, _ENTRY_FIELDS, "id")


def customer_schema(shard: Shard) -> pa.Schema:
    """Return the columns of customers that a shard has something to say in."""
    return _EXTRA_SCHEMA if shard.has_extras else _CUSTOMER_SCHEMA


def missing_columns(found: pa.Schema, schema: pa.Schema, path: Path) -> list[pa.Field]:
    """Return the columns that a file has not and an older program did not write.

    Raises  StateError where the file has others
    """
    unknown = [name for name in found.names if name not in schema.names]
    if unknown:
        raise StateError(
            f"the checkpoint has a column {unknown[0]}, which this program does not know",
            path=path,
            fix="use the version of rfmstream that wrote it, or a newer one",
        )
    missing = [field for field in schema if field.name not in found.names]
    kept = [field for field in schema if field.name in found.names]
    if list(found) != kept or any(field.name not in _DEFAULTS for field in missing):
        raise StateError("the checkpoint has other columns", path=path, fix=FIX_DAMAGE)
    return missing


def completed(batch: pa.RecordBatch, missing: list[pa.Field]) -> pa.RecordBatch:
    """Return a batch with the columns an older program did not write, at their defaults."""
    for field in missing:
        values = np.full(batch.num_rows, _DEFAULTS[field.name])
        batch = batch.append_column(field, pa.array(values, field.type))
    return batch


def id_bytes_of(batch: pa.RecordBatch) -> int:
    """Return how many bytes the ids of a batch, its first column, take."""
    offsets, _ = offsets_and_data(batch.column(0))
    return int(offsets[-1]) - int(offsets[0])
