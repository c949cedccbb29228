"""rfm8 on Quix Streams: a stateful apply, and session windows for those who stay away.

    python peer_quixstreams.py BOOTSTRAP ORDERS CHANGES PARTITIONS FOLDER

Ageing     there is no timer; a session of a customer's days closes once the partition's newest order lies two gaps
           after its last one, and its end comes down the stream as a message. Only while orders come: on an idle
           topic nobody ages out
Delivery   exactly once (transactions)
State      RocksDB, written to changelog topics
"""

import sys
from datetime import timedelta

from quixstreams import Application, State
from quixstreams.dataframe.windows import Count
from rfm8 import DAY_US, RECENT_DAYS, Change, expire, new_customer, pay, to_minor, to_us

BOOTSTRAP, ORDERS, CHANGES, PARTITIONS, FOLDER = sys.argv[1:]
DAY_MS = DAY_US // 1000
RECENT = timedelta(days=RECENT_DAYS + 1)

app = Application(
    broker_address=BOOTSTRAP,
    consumer_group="peer-quixstreams",
    state_dir=FOLDER,
    auto_offset_reset="earliest",
    processing_guarantee="exactly-once",
    commit_interval=1.0,
    producer_extra_config={"batch.size": 512 << 10, "linger.ms": 20, "compression.type": "lz4"},
    auto_create_topics=True,
    loglevel="WARNING",
)


def segment(message: dict, key: bytes, _timestamp: int, _headers: object, state: State) -> list[Change]:
    """Apply an order, or the end of a session, to its customer."""
    customer_id = key.decode()
    if "end" in message:
        customer = state.get("customer")
        last_day_us = (message["end"] - 1) * 1000
        changes = expire(customer_id, customer, last_day_us + RECENT // timedelta(microseconds=1))
    else:
        if state.exists(message["order_id"]):
            return []
        state.set(message["order_id"], 1)
        customer = state.get("customer") or new_customer()
        changes = pay(customer_id, customer, to_us(message["occurred_at"]), to_minor(message["amount"]))
    state.set("customer", customer)
    return changes


messages = app.dataframe(app.topic(ORDERS, value_deserializer="json", key_deserializer="bytes"))
sessions = (
    messages.set_timestamp(lambda _value, _key, timestamp, _headers: timestamp // DAY_MS * DAY_MS)
    # Two gaps must have passed by the midnight at which the customer is no longer recent.
    .session_window(RECENT / 2 - timedelta(milliseconds=1))
    .agg(orders=Count())
    .final(closing_strategy="partition")
)
orders = messages.filter(lambda message: message["type"] == "paid")
changes = orders.concat(sessions).apply(segment, expand=True, stateful=True, metadata=True)
changes.to_topic(app.topic(CHANGES, value_serializer="json", key_serializer="bytes"))

if __name__ == "__main__":
    app.run()
