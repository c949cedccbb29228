"""A batch of canonical orders as kernels read it: addresses of its columns, and hashes of its ids."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import offsets_and_data, values_of
from rfmstream.engine.core.kernel_records import KernelRecord
from rfmstream.engine.core.shard import Shard
from rfmstream.engine.core.threads import Threads
from rfmstream.kernels.ids import hash_ids
from rfmstream.kernels.layout import BATCH
from rfmstream.kernels.parse import lengths_within
from rfmstream.schemas.codes import ID_BYTES_MAX

_ROUTE_KEYS: Final = np.array(
    [0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89], dtype=np.uint64
)
"""Keys (digits of pi) of the hash that says a customer's shard: the same for ever, so that a run with threads can be
repeated row for row, and a checkpoint's shards go on with their customers."""


@dataclass
class Hashed:
    """The hashes of the ids of a batch, for the next engine of the same seeds and threads that is given that batch.

    Fields  orders  the batch; None: none yet
            hashes  u64[n] each: customers, orders, and what says a customer's shard (u64[0] where there is one)
            shards  of the engine that made them
    """

    orders: pa.RecordBatch | None = None
    hashes: tuple[NDArray[np.uint64], ...] = ()
    shards: int = 0


def kernel_batch(
    orders: pa.RecordBatch, shards: list[Shard], threads: Threads, hashed: Hashed | None = None
) -> KernelRecord:
    """Return a batch of schemas.orders.CANONICAL_SCHEMA as kernels.layout.BATCH, its ids hashed.

    hashed  what was hashed for another engine, or is for the next one
    """
    customer_offset, customer_data = offsets_and_data(orders.column(0))
    order_offset, order_data = offsets_and_data(orders.column(1))
    event_ids = orders.column(5)
    event_offset, event_data = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.uint8)
    if event_ids.null_count < orders.num_rows:
        event_offset, event_data = offsets_and_data(_with_digests(event_ids.fill_null("")))
    customer_hash, order_hash, route = _hashes(orders, shards, threads, hashed)
    batch = KernelRecord(BATCH)
    batch.point(
        customer_offset=customer_offset,
        customer_data=customer_data,
        order_offset=order_offset,
        order_data=order_data,
        event_offset=event_offset,
        event_data=event_data,
        kind=values_of(orders.column(2), np.uint8),
        at_us=values_of(orders.column(3), np.int64),
        amount_minor=values_of(orders.column(4), np.int64),
        customer_hash=customer_hash,
        order_hash=order_hash,
        route=route,
        log_us=np.empty(0, dtype=np.int64),
    )
    return batch


def _hashes(
    orders: pa.RecordBatch, shards: list[Shard], threads: Threads, hashed: Hashed | None
) -> tuple[NDArray[np.uint64], ...]:
    """Return the hashes of customers' and orders' ids, and those that say a customer's shard."""
    if hashed is not None and hashed.orders is orders and hashed.shards == len(shards):
        return hashed.hashes
    customer_offset, customer_data = offsets_and_data(orders.column(0))
    order_offset, order_data = offsets_and_data(orders.column(1))
    customer_hash = np.empty(orders.num_rows, dtype=np.uint64)
    order_hash = np.empty(orders.num_rows, dtype=np.uint64)
    seeds = shards[0].seeds
    route = np.empty(orders.num_rows if len(shards) > 1 else 0, dtype=np.uint64)

    def hash_span(span: tuple[int, int]) -> None:
        rows, edges = slice(*span), slice(span[0], span[1] + 1)
        hash_ids(customer_offset[edges], customer_data, seeds, customer_hash[rows])
        hash_ids(order_offset[edges], order_data, seeds, order_hash[rows])
        if route.size:
            hash_ids(customer_offset[edges], customer_data, _ROUTE_KEYS, route[rows])

    threads.for_each(hash_span, threads.spans(orders.num_rows))
    hashes = customer_hash, order_hash, route
    if hashed is not None:
        hashed.orders, hashed.hashes, hashed.shards = orders, hashes, len(shards)
    return hashes


def shards_of(customer_ids: pa.StringArray, shards: int) -> NDArray[np.uint8]:
    """Return the number of each customer's shard, of up to 256: what `kernels.fold.shard_of` says."""
    offsets, data = offsets_and_data(customer_ids)
    route = np.empty(len(customer_ids), dtype=np.uint64)
    hash_ids(offsets, data, _ROUTE_KEYS, route)
    return ((route & np.uint64(0xFFFF)) * np.uint64(shards) >> np.uint64(16)).astype(np.uint8)


def _with_digests(event_ids: pa.StringArray) -> pa.Array:
    """Return event ids with a digest in place of each that is longer than what the kernels remember.

    The contract sets event ids no bound. The digest begins with a byte that no UTF-8 text has, so it is nobody's id.
    """
    offsets, _ = offsets_and_data(event_ids)
    if lengths_within(offsets, 0, ID_BYTES_MAX):
        return event_ids
    long = np.diff(offsets) > ID_BYTES_MAX
    digests = [
        b"\xff" + sha256(event_id.as_buffer()).digest() for event_id in event_ids.filter(pa.array(long))
    ]
    return pc.replace_with_mask(event_ids.cast(pa.binary()), pa.array(long), pa.array(digests, pa.binary()))
