"""Some customers' rows of a snapshot, found by id."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rfmstream.engine.core.buffers import offsets_and_data
from rfmstream.engine.core.engine import Engine
from rfmstream.kernels.lookup import find_customers
from rfmstream.schemas.errors import ConfigError


def rows_of(engine: Engine, ids: Sequence[str], as_of_us: int | None = None) -> pa.Table:
    """Return what `engine.snapshot` says of some customers, one row each of those there are, without changing anything.

    In      as_of_us  µs since 1970 UTC, not before the clock; None: the clock
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
    offset, data = offsets_and_data(pa.array(wanted, pa.string()))
    batches = []
    for shard in engine.shards:
        handles = np.zeros(len(wanted), np.int64)
        find_customers(shard.state.rows, offset, data, handles)
        there = handles[handles > 0].astype(np.uint32)
        if there.size:
            batches.append(engine.snapshot_rows(shard, as_of_us, there))
    return pa.Table.from_batches(batches, schema=schema)
