"""rfm8 on Bytewax: a stateful operator over the messages of each partition.

    python peer_bytewax.py BOOTSTRAP ORDERS CHANGES PARTITIONS FOLDER

Ageing     notify_at knows the system's clock alone, and a window's event clock belongs to one key: neither lets a
           customer age when *others* order. So a key is a partition, whose newest order is the clock of all its
           customers. Only while orders come: on an idle topic nobody ages out
Delivery   at least once: offsets and state are saved together with every epoch, output is not taken back
State      in memory, saved whole to SQLite at the end of an epoch (10 s)
"""

import json
import sys
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from rfm8 import Segments, encode

BOOTSTRAP, ORDERS, CHANGES, PARTITIONS, FOLDER = sys.argv[1:]


class Partition(StatefulBatchLogic):
    """The customers of a partition."""

    def __init__(self, resumed: str | None) -> None:
        self.segments = Segments()
        if resumed:
            state = self.segments
            state.customers, seen, due, state.clock_us = json.loads(resumed)
            state.seen, state.due = set(map(tuple, seen)), list(map(tuple, due))

    def on_batch(self, values: list[KafkaSourceMessage]) -> tuple[list[tuple[bytes, bytes]], bool]:
        changes = [change for message in values for change in self.segments.apply(message.value)]
        return [(change["customer_id"].encode(), encode(change)) for change in changes], self.RETAIN

    def snapshot(self) -> str:
        # As text, because what is returned must not change any more.
        state = self.segments
        return json.dumps([state.customers, list(state.seen), state.due, state.clock_us])


flow = Dataflow("peer-bytewax")
messages = op.input("orders", flow, KafkaSource([BOOTSTRAP], [ORDERS]))
partitions = op.key_on("partition", messages, lambda message: str(message.partition))
changes = op.stateful_batch("segment", partitions, Partition)
records = op.map("record", changes, lambda each: KafkaSinkMessage(*each[1]))
SETTINGS = {"batch.size": str(512 << 10), "linger.ms": "20", "compression.type": "lz4"}
kop.output("changes", records, brokers=[BOOTSTRAP], topic=CHANGES, add_config=SETTINGS)

if __name__ == "__main__":
    folder = Path(FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    init_db_dir(folder, 1)
    recovery = RecoveryConfig(str(folder), backup_interval=timedelta(0))
    cli_main(flow, epoch_interval=timedelta(seconds=10), recovery_config=recovery)
