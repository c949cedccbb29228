"""rfm8 on Pathway: a stateful reducer over the orders of each partition.

    python peer_pathway.py BOOTSTRAP ORDERS CHANGES PARTITIONS FOLDER

Ageing     temporal behaviours wait for one clock of the whole topic, which runs ahead of a partition that is read
           later; so a group is a partition, whose newest order is the clock of all its customers. Only while orders
           come: on an idle topic nobody ages out
Delivery   at least once at best (exactly once is in the paid edition); here without persistence, so that a restart
           begins anew
State      in memory
"""

import sys

import pathway as pw
from rfm8 import Segments, encode

BOOTSTRAP, ORDERS, CHANGES, PARTITIONS, FOLDER = sys.argv[1:]


State = tuple[pw.PyObjectWrapper, tuple]


@pw.reducers.stateful_many
def segment(state: State | None, rows: list[tuple[list, int]]) -> State:
    """Apply the new orders of a partition; the state is the customers and what the orders brought."""
    segments = state[0].value if state else Segments()
    changes = []
    # The rows of a minibatch come in no order.
    for (_offset, value), _ in sorted(rows, key=lambda row: row[0][0]):
        changes += segments.apply(value)
    records = tuple((change["seq"], change["customer_id"].encode(), encode(change)) for change in changes)
    return pw.wrap_py_object(segments), records


messages = pw.io.kafka.read(
    {"bootstrap.servers": BOOTSTRAP, "group.id": "peer-pathway", "auto.offset.reset": "earliest"},
    topic=ORDERS,
    format="raw",
    with_metadata=True,
    autocommit_duration_ms=100,
)
orders = messages.select(
    partition=pw.this["_metadata"]["partition"].as_int(),
    offset=pw.this["_metadata"]["offset"].as_int(),
    value=pw.this.data,
)
batches = orders.groupby(pw.this.partition).reduce(state=segment(pw.this.offset, pw.this.value)).to_stream()
made = batches.select(
    changes=pw.apply_with_type(lambda state: state[1], list[tuple[int, bytes, bytes]], pw.this.state)
)
changes = made.flatten(pw.this.changes).select(
    seq=pw.this.changes[0], key=pw.this.changes[1], value=pw.this.changes[2]
)
pw.io.kafka.write(
    changes,
    {
        "bootstrap.servers": BOOTSTRAP,
        "batch.size": str(512 << 10),
        "linger.ms": "20",
        "compression.type": "lz4",
    },
    CHANGES,
    format="raw",
    key=changes.key,
    value=changes.value,
    headers=[changes.seq],
    # The rows of a minibatch would leave in no order either.
    sort_by=[changes.seq],
)

if __name__ == "__main__":
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
