"""Some customers' rows of a snapshot, found by id."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rfmstream.engine.core.buffers import offsets_and_data
from rfmstream.engine.core.engine import Engine
from rfmstream.kernels.lookup import find_customers
from rfmstream.schemas.errors import ConfigError


def rows_of(
    engine: Engine, ids: Sequence[str], as_of_us: int | None = None, *, population: str | None = None
) -> pa.Table:
    """Return what `engine.snapshot` says of some customers, one row each of those there are, without changing anything.

    In      as_of_us  µs since 1970 UTC, not before the clock; None: the clock
            population  of a view that has some: only there; None: in every one, which looks at all of them
    Errors  ConfigError  as_of_us lies before the clock
    """
    clock_us = engine.clock_us
    as_of_us = clock_us if as_of_us is None else as_of_us
    if as_of_us < clock_us:
        raise ConfigError("lies before the clock", key="as_of", fix="ask for the clock or later")
    # An id of no customer may be of any length; one of none is nobody's.
    wanted = [id_ for id_ in dict.fromkeys(ids) if id_]
    schema = engine.snapshot_schema
    if not wanted:
        return schema.empty_table()
    keys = _keys(engine, pa.array(wanted, pa.string()), population)
    offset, data = offsets_and_data(keys)
    batches = []
    for shard in engine.shards:
        handles = np.zeros(len(keys), np.int64)
        find_customers(shard.state.rows, offset, data, handles)
        there = handles[handles > 0].astype(np.uint32)
        if there.size:
            batches.append(engine.snapshot_rows(shard, as_of_us, there))
    return pa.Table.from_batches(batches, schema=schema)


def _keys(engine: Engine, ids: pa.StringArray, population: str | None) -> pa.StringArray:
    """Return what customers are known by in an engine: of a view with populations, one key for each."""
    populations = engine.populations
    if populations is None:
        return ids
    number = None if population is None else populations.number(population)
    numbers = (
        np.arange(len(populations.names))
        if population is None
        else np.array([] if number is None else [number])
    )
    whole = pa.concat_arrays([ids] * numbers.size) if numbers.size else ids.slice(0, 0)
    return populations.keys(np.repeat(numbers.astype(np.int64), len(ids)), whole)
