"""The populations of a view in a checkpoint: a file of their own beside those of the shards."""

from typing import Any, Final

import pyarrow as pa

from rfmstream.engine.core.populations import Populations

POPULATION_SCHEMA: Final = pa.schema([("text", pa.string()), ("role", pa.int8()), ("at_us", pa.int64())])
"""role 0: a population, in order of its number; 1: a customer whose id is too long for a key; 2: one who was erased in
every population, and when."""

_POPULATION, _LONG_CUSTOMER, ERASED = 0, 1, 2


def population_batch(populations: Populations) -> pa.RecordBatch:
    """Return populations as they are written."""
    names, long_ids, erased = populations.names[1:], populations.long_ids, populations.erased_us
    roles = [_POPULATION] * len(names) + [_LONG_CUSTOMER] * len(long_ids) + [ERASED] * len(erased)
    return pa.RecordBatch.from_arrays(
        [
            pa.array([*names, *long_ids, *erased], pa.string()),
            pa.array(roles, pa.int8()),
            pa.array([0] * (len(names) + len(long_ids)) + list(erased.values()), pa.int64()),
        ],
        schema=POPULATION_SCHEMA,
    )


def populations_of(table: pa.Table) -> Populations:
    """Return the populations that a table of POPULATION_SCHEMA tells.

    Errors  UnicodeDecodeError  a text is none
    """
    rows: list[dict[str, Any]] = table.to_pylist()
    names, long_ids = (
        [row["text"] for row in rows if row["role"] == role] for role in (_POPULATION, _LONG_CUSTOMER)
    )
    return Populations(names, long_ids, {row["text"]: row["at_us"] for row in rows if row["role"] == ERASED})
