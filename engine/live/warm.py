"""Have every kernel compiled before the group counts on this worker: later a partition would stand still for it."""

import json
import logging
import tempfile
import time
from typing import Final

import numpy as np
import pyarrow as pa

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.lookup import rows_of
from rfmstream.engine.live.decoders import decoder_for
from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.law import Clock
from rfmstream.engine.live.model import RawRecords
from rfmstream.engine.live.options import Decodes
from rfmstream.engine.live.orders_out import packed
from rfmstream.engine.live.partition import Partition
from rfmstream.engine.live.plain import is_parted
from rfmstream.engine.live.state import State
from rfmstream.kernels._jit import is_compiled
from rfmstream.kernels.encode_batches import fill_batch
from rfmstream.kernels.fold import fold
from rfmstream.schemas.plan import Plan, plan_of
from rfmstream.schemas.ruleset import Ruleset

_ORDER: Final = (
    b'{"customer_id":"c","order_id":"o","occurred_at":"2026-01-01T00:00:00Z","amount_minor":1,"event_id":"e"}'
)
_AT_MS: Final = 1_767_225_600_000
_BATCH_BYTES: Final = 1 << 16
_YEAR_US: Final = 366 * 86_400_000_000

_log = logging.getLogger(__name__)


def warm_up(plan: Ruleset | Plan, clock: Clock, decoder: Decodes | None = None) -> None:
    """Take one order the whole way, from a record to its tier changes, a snapshot, a lookup, and a checkpoint and back.

    In      plan     its views, or a ruleset
            decoder  None: that of plain orders

    Takes half a second where the kernels are in the cache on the disk, and up to a minute the first time.
    """
    started = time.monotonic()
    if not is_compiled(fold):
        _log.info("the first start on this machine compiles the kernels, which takes up to a minute")
    plan = plan_of([plan]) if isinstance(plan, Ruleset) else plan
    ruleset = plan.views[0].ruleset
    state = State.begin(plan)
    state.use_mode("live")
    partition = Partition(state, clock=clock, tolerance_us=0, position=0)
    values = [_ORDER, b"{", packed(pa.RecordBatch.from_pylist([json.loads(_ORDER)]), "arrow")]
    n = len(values)
    records = RawRecords([b"c"] * n, values, [[]] * n, [_AT_MS] * n, range(n), n)
    if decoder is not None:
        decoder.decode(RawRecords([None], [b"{}"], [[]], [_AT_MS], range(1), 1))
    steps = list(partition.apply(decoder_for(plan).decode(records)))
    steps += partition.pass_time(partition.clock_us + _YEAR_US)
    view = plan.views[0].name if is_parted(plan) else None
    encoder = Encoder(ruleset, source="/rfmstream/warm-up", view=view)
    for step in steps:
        for some in encoder.parts(step.changes):
            for changes in some:
                if changes.batch is not None:
                    changes.lz4_block()
                    changes.deflated()
                    # What a step that is larger than a batch takes.
                    fill_batch(
                        changes.data, changes.starts, changes.sizes, 0, np.empty(_BATCH_BYTES, np.uint8)
                    )
        for signals in () if step.signals is None else encoder.signals(step.signals):
            signals.lz4_block()
            signals.deflated()
    partition.engine.snapshot()
    for shard in partition.engine.shards:
        if shard.forgets:
            shard.forget()
    rows_of(partition.engine, ["c"])
    with tempfile.TemporaryDirectory(prefix="rfmstream-warm-up-") as folder:
        partition.engine.frozen().checkpoint(f"{folder}/state")
        Engine.restore(f"{folder}/state", ruleset=ruleset)
    _log.debug("kernels are ready", extra={"seconds": round(time.monotonic() - started, 3)})
