"""The orders every peer is given, as records, and the tier changes it must make of them.

A history is cut in two: the first orders warm a peer up, the rest is timed. Some orders are sent twice. At the end one
order of a customer of its own closes each partition, 25 hours after the last order: event time reaches the same instant
in all of them, so that everybody who ages out until then has aged out, in every peer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Final, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from aiokafka.partitioner import murmur2

from rfmstream import Engine
from rfmstream.engine.replay.generate import LOAD_SCHEMA, generate_batches

RESENT_SHARE: Final = 0.005
RESENT_ROWS_LATER: Final = 100
CLOSING_AFTER: Final = timedelta(hours=25)
RULESET: Final = "rfm8"
CHANGE_COLUMNS: Final = ("customer_id", "seq", "effective_at", "from_tier", "to_tier", "reason")


class Record(NamedTuple):
    key: bytes
    value: bytes
    timestamp_ms: int


class Change(NamedTuple):
    """A tier change as it is compared; `effective_us` in µs since 1970 UTC."""

    customer_id: str
    seq: int
    effective_us: int
    from_tier: str | None
    to_tier: str
    reason: str


Records = list[list[Record]]
"""For each partition, in order."""


@dataclass(frozen=True)
class Load:
    """Records and what must come of them.

    Fields  warm, timed  the records of the two phases
            warm_orders, timed_orders  how many
            warm_changes  changes by orders of the first phase; ageing comes on top, when exactly is a peer's own
            changes      all changes until `as_of_us`
    """

    warm: Records
    timed: Records
    warm_orders: int
    timed_orders: int
    warm_changes: int
    changes: frozenset[Change]
    as_of_us: int


def partition_of(key: bytes, partitions: int) -> int:
    """Return where Kafka's own clients send a key."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


def draw(*, orders: int, customers: int, keys: str, partitions: int, warm: int, seed: int, days: int) -> Load:
    """Draw a load; `warm` of the `orders` are for warming up."""
    drawn = pa.Table.from_batches(
        generate_batches(customers=customers, orders=orders, keys=keys, seed=seed, days=days)
    )
    table = _resent(drawn, seed)
    last = drawn["occurred_at"][-1].as_py()
    closing = pa.Table.from_pylist(
        [
            {
                "customer_id": name,
                "order_id": "closing",
                "occurred_at": last + CLOSING_AFTER,
                "amount_minor": 1,
            }
            for name in _closing_customers(partitions)
        ],
        schema=LOAD_SCHEMA,
    )
    cut = warm + int(warm * RESENT_SHARE)
    timed = pa.concat_tables([table.slice(cut), closing])
    engine = Engine(RULESET)
    first = engine.step(table.slice(0, cut)).changes
    rest = engine.step(timed).changes
    assert engine.counters.duplicates > 0
    changes = frozenset(_changes(first)) | frozenset(_changes(rest))
    assert len(changes) == first.num_rows + rest.num_rows
    return Load(
        warm=_records(table.slice(0, cut), partitions),
        timed=_records(timed, partitions),
        warm_orders=cut,
        timed_orders=timed.num_rows,
        warm_changes=sum(reason != "recency_expired" for reason in first["reason"].to_pylist()),
        changes=changes,
        as_of_us=engine.clock_us,
    )


def _resent(table: pa.Table, seed: int) -> pa.Table:
    """Send some orders a second time, a little later."""
    rows = np.arange(table.num_rows)
    count = int(table.num_rows * RESENT_SHARE)
    again = np.sort(np.random.default_rng(seed).choice(rows[:-RESENT_ROWS_LATER], count, replace=False))
    return table.take(pa.array(np.insert(rows, again + RESENT_ROWS_LATER, again)))


def _closing_customers(partitions: int) -> list[str]:
    """Return names that go to partition 0, 1, 2 and so on."""
    names: dict[int, str] = {}
    number = 0
    while len(names) < partitions:
        name = f"closing-{number}"
        names.setdefault(partition_of(name.encode(), partitions), name)
        number += 1
    return [names[partition] for partition in range(partitions)]


def _records(table: pa.Table, partitions: int) -> Records:
    place = cache(lambda key: partition_of(key, partitions))
    records: Records = [[] for _ in range(partitions)]
    times_us = table["occurred_at"].cast(pa.int64()).to_pylist()
    texts = table["occurred_at"].cast(pa.timestamp("us")).cast(pa.string()).to_pylist()
    ids, orders, amounts = (table[name].to_pylist() for name in ("customer_id", "order_id", "amount_minor"))
    for customer_id, order_id, time_us, text, minor in zip(
        ids, orders, times_us, texts, amounts, strict=True
    ):
        value = {
            "customer_id": customer_id,
            "order_id": order_id,
            "type": "paid",
            "occurred_at": text.replace(" ", "T") + "Z",
            "amount": f"{minor // 100}.{minor % 100:02d}",
            "currency": "CNY",
        }
        key = customer_id.encode()
        records[place(key)].append(Record(key, orjson.dumps(value), time_us // 1000))
    return records


def _changes(table: pa.Table) -> Iterable[Change]:
    columns = {name: table[name] for name in CHANGE_COLUMNS}
    columns["effective_at"] = columns["effective_at"].cast(pa.int64())
    return map(Change._make, zip(*(column.to_pylist() for column in columns.values()), strict=True))
