"""rfm8 on plain Faust: an agent, Tables with changelogs, a timer for those who stay away.

    python peer_faust.py BOOTSTRAP ORDERS CHANGES PARTITIONS FOLDER

Ageing     a timer looks at who is due by the clock of each partition: its newest order
Delivery   at least once: processing_guarantee="exactly_once" fails in 0.15 (KeyError when sending to a topic that is
           not subscribed), so a crash may repeat changes
State      in memory, written to changelog topics for every order
"""

import heapq
import sys
from collections import defaultdict

import faust
from rfm8 import due_us, expire, new_customer, pay, to_minor, to_us

BOOTSTRAP, ORDERS, CHANGES, PARTITIONS, FOLDER = sys.argv[1:]

app = faust.App(
    "peer-faust",
    broker=f"kafka://{BOOTSTRAP}",
    datadir=FOLDER,
    topic_partitions=int(PARTITIONS),
    consumer_auto_offset_reset="earliest",
    web_enabled=False,
    producer_max_batch_size=512 << 10,
    producer_linger=0.02,
    producer_compression_type="lz4",
)


class Order(faust.Record, serializer="json"):
    customer_id: str
    order_id: str
    type: str
    occurred_at: str
    amount: str


orders = app.topic(ORDERS, key_type=bytes, value_type=Order)
changes = app.topic(CHANGES, key_type=bytes, value_serializer="json")
# The timer writes to this one outside of the stream, so that Kafka's partitioner must choose the changelog's partition.
customers = app.Table("customers", key_type=bytes, default=new_customer, use_partitioner=True)
# An id a key, not a set a customer: a value goes to the changelog whole whenever it changes.
seen = app.Table("seen", key_type=bytes, value_type=bytes)

clock_us = defaultdict(int)
due = defaultdict(list)


@app.agent(orders)
async def segment(stream: faust.Stream) -> None:
    async for event in stream.events():
        order, key, partition = event.value, event.key, event.message.partition
        if order.type != "paid":
            continue
        at_us = to_us(order.occurred_at)
        clock_us[partition] = max(clock_us[partition], at_us)
        order_key = key + b"/" + order.order_id.encode()
        if order_key in seen:
            continue
        seen[order_key] = b"1"
        customer = customers[key]
        made = pay(order.customer_id, customer, at_us, to_minor(order.amount))
        customers[key] = customer
        heapq.heappush(due[partition], (due_us(at_us), key))
        for change in made:
            await changes.send(key=key, value=change)


@app.timer(interval=0.2)
async def age_out() -> None:
    for partition, heap in due.items():
        while heap and heap[0][0] <= clock_us[partition]:
            at_us, key = heapq.heappop(heap)
            customer = customers[key]
            # An entry of an order that was not the customer's last is left behind.
            if customer["due"] == at_us:
                made = expire(key.decode(), customer, at_us)
                customers[key] = customer
                for change in made:
                    await changes.send(key=key, value=change)


@customers.on_recover
async def arm() -> None:
    for key, customer in customers.items():
        if customer["due"] is not None:
            partition = app.producer.key_partition(ORDERS, key).partition
            heapq.heappush(due[partition], (customer["due"], key))


if __name__ == "__main__":
    sys.argv[1:] = ["worker", "--loglevel", "warn"]
    app.main()
