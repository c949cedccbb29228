"""What the server loads from which worker processes are forked: everything, its kernels compiled."""

import tempfile
import time

import numpy as np
from kafka_workers import RULESET, real_history

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.kafka.batches import record_batches
from rfmstream.engine.live.law import Law
from rfmstream.engine.live.model import RawRecords, Source
from rfmstream.engine.live.orders_out import OrderEncoder
from rfmstream.engine.live.partition import Partition
from rfmstream.engine.live.store import Store

_orders = OrderEncoder("USD", lambda keys: np.zeros(len(keys), np.int64))
_sent = list(_orders.records(real_history()[0].slice(0, 300)))
_raw = RawRecords(
    keys=[record.key for record in _sent],
    values=[record.value for record in _sent],
    headers=[record.headers for record in _sent],
    timestamps_ms=[record.timestamp_ms or 0 for record in _sent],
    offsets=range(len(_sent)),
    position=len(_sent),
)
_batch = Decoder(currency="USD").decode(_raw)
with tempfile.TemporaryDirectory() as _folder:
    _store, _source = Store(_folder, app_id="warm-up"), Source("orders", 0)
    for _clock in ("log", "event"):
        _partition = Partition(Engine(RULESET), clock=_clock, tolerance_us=0, position=0)
        _steps = [*_partition.apply(_batch), *_partition.pass_time(time.time_ns() // 1000)]
        _store.save(_source, _partition.engine.frozen(), len(_sent), str(Law.of(RULESET, _clock, 0)))
        _loaded = _store.load(_source, None, RULESET)
        assert _loaded is not None
        _loaded.engine.snapshot()
        for _changes, _current in (
            part for step in _steps for part in Encoder(RULESET, source="/").parts(step.changes)
        ):
            list(record_batches(_changes, timestamp_ms=0, compression="lz4"))
