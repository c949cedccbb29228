"""Shards for tests of single kernels: built by hand, looked into, filled with plain events."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oracle import Event
from twins import canonical_batch

from rfmstream import Engine
from rfmstream.engine.core.kernel_batch import kernel_batch
from rfmstream.engine.core.kernel_records import KernelRecord
from rfmstream.engine.core.rules import compile_rules
from rfmstream.engine.core.shard import Shard
from rfmstream.engine.core.threads import Threads
from rfmstream.schemas.codes import Outcome
from rfmstream.schemas.ruleset import Ruleset, load_ruleset

SEEDS = np.array([3, 5, 7, 11], dtype=np.uint64)


def shard_by(ruleset: Ruleset | str = "rfm8", **options: Any) -> Shard:  # noqa: ANN401
    """Return an empty shard of a ruleset; options as of load_ruleset."""
    own = ruleset if isinstance(ruleset, Ruleset) else load_ruleset(ruleset, **options)
    return Shard(compile_rules(own), SEEDS)


def shard_in(engine: Engine) -> Shard:
    """Return the one shard of an engine."""
    (shard,) = engine.shards
    return shard


def event(
    customer_id: str, order_id: str, at_us: int, amount_minor: int = 1, **fields: object
) -> dict[str, Any]:
    """Return a paid event, or what the fields make of it."""
    return {
        "customer_id": customer_id,
        "order_id": order_id,
        "type": "paid",
        "occurred_at_us": at_us,
        "amount_minor": amount_minor,
        "event_id": None,
        **fields,
    }


def batch_for(engine: Engine, events: Sequence[Event]) -> KernelRecord:
    """Return events as the shards of an engine fold them."""
    return kernel_batch(canonical_batch(events), engine.shards, Threads(1))


def fold_events(engine: Engine, events: Sequence[Event], **log: Any) -> list[str]:  # noqa: ANN401
    """Fold events into the one shard of an engine, without letting time pass; return what became of each.

    log  log_us i64[n] and tolerance_us, where the clock is the log's
    """
    batch = batch_for(engine, events)
    if log:
        batch.point(log_us=np.array(log["log_us"], dtype=np.int64))
        batch.row["tolerance_us"] = log["tolerance_us"]
    outcome = np.full(len(events), 255, dtype=np.uint8)
    shard_in(engine).fold(batch, outcome)
    return [Outcome(code).name.lower() for code in outcome]


def customers_of(shard: Shard) -> NDArray[Any]:
    """Return the records of the customers, by handle less one."""
    return shard.customer_records()[0][1 : shard.customers + 1]


def memory_of(shard: Shard) -> dict[str, bytes]:
    """Return everything a shard remembers, to see whether it changed."""
    return {
        "customers": shard.customer_records()[0].tobytes(),
        "entries": shard.entry_records().tobytes(),
        "state": shard.state.rows.tobytes(),
        **{name: table.pairs.tobytes() for name, table in shard._tables.items()},
    }
