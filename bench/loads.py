"""What the benches are fed with: orders in memory and in files, and engines that have been through them.

Loads and engines are large, so only the newest of each is kept; benches that share one stand next to each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scale import SCALE

from rfmstream import Engine
from rfmstream.engine.events.instants import to_us
from rfmstream.engine.replay.generate import BATCH_ROWS, LOAD_SCHEMA, generate, generate_batches

SEED: Final = 1
DAYS: Final = 730
DAY_US: Final = 86_400_000_000
FIRST_DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)

CUSTOMER_ID_BYTES: Final = 12
ORDER_ID_BYTES: Final = 11


@dataclass(frozen=True)
class Load:
    """Paid orders over two years, sorted; customer ids of 12 bytes and order ids of 11.

    Fields  late  share of rows that come up to six hours after their time
    """

    customers: int
    orders: int
    keys: str = "uniform"
    late: float = 0.0


UNIFORM: Final = Load(SCALE.customers, SCALE.orders)
ZIPF: Final = Load(SCALE.customers, SCALE.orders, "zipf:1.2")
LATE: Final = Load(SCALE.customers, SCALE.orders, late=0.05)
MANY: Final = Load(SCALE.customers_many, SCALE.orders)


class Loads:
    """Draws loads, and feeds them to engines."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._drawn: tuple[Load | None, list[pa.RecordBatch]] = (None, [])
        self._engine: tuple[object, Engine | None] = (None, None)

    def batches(self, load: Load) -> list[pa.RecordBatch]:
        """Return a load in memory."""
        if self._drawn[0] != load:
            self._drawn = (None, [])
            drawn = generate_batches(
                customers=load.customers, orders=load.orders, keys=load.keys, seed=SEED, days=DAYS
            )
            self._drawn = (load, [_belated(batch, load) for batch in drawn] if load.late else list(drawn))
        return self._drawn[1]

    def file(self, load: Load, suffix: str) -> Path:
        """Return a sorted load as a file."""
        path = self._folder / f"{load.customers}-{load.orders}-{load.keys}{suffix}"
        if not path.exists():
            generate(
                customers=load.customers, orders=load.orders, keys=load.keys, seed=SEED, days=DAYS, out=path
            )
        return path

    def engine(self, ruleset: str, threads: int, load: Load) -> Engine:
        """Return an engine that has been through a load; whoever asks must leave it as it is."""
        key = (ruleset, threads, load)
        if self._engine[0] != key:
            self._engine = (None, None)
            engine = Engine(ruleset, threads=threads)
            for batch in self.batches(load):
                engine.step(batch)
            self._engine = (key, engine)
        assert self._engine[1] is not None
        return self._engine[1]

    def forget(self) -> None:
        """Give back the memory."""
        self._drawn, self._engine = (None, []), (None, None)


def _belated(batch: pa.RecordBatch, load: Load) -> pa.RecordBatch:
    """Let a share of the rows come up to six hours later, within their batch."""
    rng = np.random.default_rng(SEED)
    rows_later = rng.integers(1, max(load.orders // DAYS // 4, 2), batch.num_rows)
    come_at = np.arange(batch.num_rows) + np.where(rng.random(batch.num_rows) < load.late, rows_later, 0)
    return batch.take(pa.array(np.argsort(come_at, kind="stable")))


def day_of_orders(customers: NDArray[np.int64], day: int) -> Iterator[pa.RecordBatch]:
    """Yield one order of each customer, in this order, spread over the day `day` after FIRST_DAY, UTC."""
    start_us = to_us(FIRST_DAY + timedelta(days=day))
    for first in range(0, customers.size, BATCH_ROWS):
        numbers = np.arange(first, min(first + BATCH_ROWS, customers.size), dtype=np.int64)
        at_us = start_us + numbers * DAY_US // customers.size
        columns = [
            _ids("c", customers[numbers], CUSTOMER_ID_BYTES),
            _ids("o", numbers + day * 10**8, ORDER_ID_BYTES),
            pa.array(at_us).view(LOAD_SCHEMA.field("occurred_at").type),
            pa.array(np.full(numbers.size, 5_000, np.int64)),
        ]
        yield pa.record_batch(columns, schema=LOAD_SCHEMA)


def _ids(letter: str, numbers: NDArray[np.int64], width: int) -> pa.StringArray:
    text = np.empty((numbers.size, width), np.uint8)
    text[:, 0] = ord(letter)
    text[:, 1:] = numbers[:, None] // 10 ** np.arange(width - 2, -1, -1) % 10 + ord("0")
    offsets = np.arange(0, (numbers.size + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(numbers.size, pa.py_buffer(offsets), pa.py_buffer(text))
