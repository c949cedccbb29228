"""Orders for the live worker: histories that are over, and orders that happen now."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

import numpy as np
import pyarrow as pa
from aiokafka import AIOKafkaProducer
from numpy.typing import NDArray

from bench.live.site import PARTITIONS, Site
from rfmstream import Engine
from rfmstream.engine.core.buffers import values_of
from rfmstream.engine.events.normalise import normalise
from rfmstream.engine.files.text_rows import ROWS_AT_ONCE
from rfmstream.engine.live.config import WorkerConfig
from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.kafka.producer import OrderSender, Partitioner, opened
from rfmstream.engine.live.orders_out import ROWS_PER_RECORD, OrderEncoder, Pace, ValueForm
from rfmstream.engine.replay.generate import generate_batches
from rfmstream.schemas.codes import OrderType
from rfmstream.schemas.orders import CANONICAL_SCHEMA
from rfmstream.schemas.ruleset import load_ruleset

SEED: Final = 1
CURRENCY: Final = "CNY"
TOLERANCE_US: Final = WorkerConfig.time_tolerance_s * 1_000_000
HISTORY_DAYS: Final = 730
TICK_S: Final = 0.02
_REPLAYED_ROWS: Final = 20_000


@dataclass(frozen=True)
class History:
    """Paid orders of the two years up to today's first instant, UTC, in order of time.

    Fields  form  that of the records
    """

    customers: int
    orders: int
    keys: str = "uniform"
    form: ValueForm = "json"
    days: int = HISTORY_DAYS

    def batches(self) -> Iterator[pa.RecordBatch]:
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        for batch in generate_batches(
            customers=self.customers,
            orders=self.orders,
            keys=self.keys,
            seed=SEED,
            days=self.days,
            start=today - timedelta(days=self.days),
        ):
            yield normalise(batch, currency=CURRENCY)[0]

    async def send(self, site: Site, topic: str) -> int:
        """Send all to a topic, each record with the time of its newest order; return how many records that were."""
        encoder = OrderEncoder(CURRENCY, Partitioner(PARTITIONS), form=self.form)
        async with opened(site.client) as producer:
            sender = OrderSender(producer, site.client, topic, encoder, Pace())
            for batch in self.batches():
                await sender.send(batch, lambda *_: None)
        return sender.records

    def expected(self, ruleset: str) -> "Digest":
        """Return the digest of the tier changes up to now."""
        if self.form != "json":
            return self._expected_of_many(ruleset)
        replay = Replay(ruleset)
        for batch in self.batches():
            replay.add(batch)
        return replay.finish()

    def _expected_of_many(self, ruleset: str) -> "Digest":
        """Do as `expected`, with the log's clock: the orders of a record happen for it when the newest of them does."""
        engines = [Engine(ruleset, mode="live") for _ in range(PARTITIONS)]
        encoder, digest = Encoder(load_ruleset(ruleset), source="/bench"), Digest()
        partitions_of = Partitioner(PARTITIONS)
        for batch in self.batches():
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                part = batch.slice(start, ROWS_AT_ONCE)
                to = partitions_of([key.encode() for key in part.column("customer_id").to_pylist()])
                times_us = values_of(part.column("occurred_at"), np.int64)
                for number, engine in enumerate(engines):
                    rows = np.flatnonzero(to == number)
                    ends = (np.arange(rows.size) // ROWS_PER_RECORD + 1) * ROWS_PER_RECORD
                    log_us = times_us[rows[np.minimum(ends, rows.size) - 1]] // 1000 * 1000
                    changes, _ = engine.step_log(part.take(pa.array(rows)), log_us, tolerance_us=TOLERANCE_US)
                    digest.add_table(encoder, changes)
        for engine in engines:
            digest.add_table(encoder, engine.advance(datetime.now(UTC)))
        return digest


class Replay:
    """The engine by itself: what a worker must bring."""

    def __init__(self, ruleset: str) -> None:
        self._engine = Engine(ruleset, mode="live")
        self._encoder = Encoder(load_ruleset(ruleset), source="/bench")
        self._digest = Digest()
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0

    def add(self, orders: pa.RecordBatch) -> None:
        """Apply orders, many small batches at a time."""
        self._waiting.append(orders)
        self._rows += orders.num_rows
        if self._rows >= _REPLAYED_ROWS:
            self._apply()

    def finish(self) -> "Digest":
        """Let time pass up to now and return the digest of all changes."""
        if self._waiting:
            self._apply()
        self._digest.add_table(self._encoder, self._engine.advance(datetime.now(UTC)))
        return self._digest

    def _apply(self) -> None:
        orders = pa.concat_batches(self._waiting)
        self._waiting, self._rows = [], 0
        self._digest.add_table(self._encoder, self._engine.step_canonical(orders).changes)


class Digest:
    """Tells tier changes apart by their values, whatever their order; only within one process."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and (self.count, self._sum) == (other.count, other._sum)

    def __hash__(self) -> int:
        return hash((self.count, self._sum))

    def __repr__(self) -> str:
        return f"{self.count:,} changes, digest {self._sum & 0xFFFFFFFF:08x}"

    def add(self, values: list[bytes]) -> None:
        self.count += len(values)
        self._sum = (self._sum + sum(map(hash, values))) & (2**64 - 1)

    def add_table(self, encoder: Encoder, changes: pa.Table) -> None:
        self.add([record.value or b"" for record in encoder.changes(changes)])


async def digest_of(site: Site, topic: str) -> Digest:
    """Return the digest of all that is committed in a topic of changes."""
    digest = Digest()
    async with site.consumer(topic) as consumer:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        while True:
            for records in (await consumer.getmany(timeout_ms=300)).values():
                digest.add([record.value for record in records])
            if not [place for place, end in ends.items() if await consumer.position(place) < end]:
                return digest


class Present:
    """Orders that happen at the instant they are sent, of customers drawn at random.

    In      note  called with all orders, in the order they are sent
    Fields  sent     how many
            acks_us  of each batch, how long after its orders happened the broker had it
    """

    def __init__(
        self, producer: AIOKafkaProducer, topic: str, customers: int, note: Callable[[pa.RecordBatch], None]
    ) -> None:
        self._producer, self._topic, self._customers, self._note = producer, topic, customers, note
        self._random = np.random.default_rng(SEED)
        self._encoder = OrderEncoder(CURRENCY, Partitioner(PARTITIONS))
        self.sent = 0
        self.acks_us: list[int] = []

    async def run(
        self, rate: float, seconds: float, *, begins_s: float | None = None, ahead: int = 1
    ) -> None:
        """Send `rate` orders a second, those of a tick together; wait for the broker at the end alone.

        In   begins_s  the first tick is due a tick after this (time.time); None: after now
             ahead     so many ticks are made ready before they are due: 100,000 orders take half a second

        The orders of a tick happen when it is due, however late they are sent.
        """
        begins_s = time.time() if begins_s is None else begins_s
        ticks = self._ticks(rate, round(seconds / TICK_S), begins_s)
        ready = deque(islice(ticks, ahead))
        waiting: set[asyncio.Future[Any]] = set()
        while ready:
            due_us, orders, batches = ready.popleft()
            await asyncio.sleep(max(due_us / 1e6 - time.time(), 0))
            self._note(orders)
            self.sent += orders.num_rows
            for partition, batch in batches:
                future = await self._producer.send_batch(batch, self._topic, partition=partition)
                waiting.add(future)
                future.add_done_callback(waiting.discard)
                future.add_done_callback(lambda _, due_us=due_us: self._acknowledged(due_us))
            ready += islice(ticks, 1)
        await asyncio.gather(*waiting)

    def _ticks(
        self, rate: float, count: int, begins_s: float
    ) -> Iterator[tuple[int, pa.RecordBatch, list[Any]]]:
        """Yield when each tick is due, its orders, and the batches of each partition."""
        drawn = 0
        for tick in range(1, count + 1):
            due_us = round(1000 * (begins_s + tick * TICK_S)) * 1000
            orders = self._draw(drawn, int(tick * TICK_S * rate), due_us)
            drawn += orders.num_rows
            yield due_us, orders, self._batches(orders)

    def _acknowledged(self, at_us: int) -> None:
        self.acks_us.append(time.time_ns() // 1000 - at_us)

    def _draw(self, first: int, end: int, at_us: int) -> pa.RecordBatch:
        count, numbers = end - first, np.arange(first, end)
        columns = [
            pa.array([f"c{number:011d}" for number in self._random.integers(0, self._customers, count)]),
            pa.array([f"n{number:010d}" for number in numbers.tolist()]),
            pa.array(np.full(count, OrderType.PAID, np.uint8)),
            pa.array(np.full(count, at_us)).cast(CANONICAL_SCHEMA.field("occurred_at").type),
            pa.array(self._random.integers(100, 100_000, count)),
            pa.nulls(count, pa.string()),
            pa.array(numbers),
        ]
        return pa.RecordBatch.from_arrays(
            [column.cast(kind.type) for column, kind in zip(columns, CANONICAL_SCHEMA, strict=True)],
            schema=CANONICAL_SCHEMA,
        )

    def _batches(self, orders: pa.RecordBatch) -> list[tuple[int, Any]]:
        builders: dict[int, Any] = {}
        done = []
        for partition, key, value, headers, timestamp_ms in self._encoder.records(orders):
            record = {"timestamp": timestamp_ms, "key": key, "value": value, "headers": headers}
            builder = builders.get(partition)
            if builder is None or builder.append(**record) is None:
                if builder is not None:
                    done.append((partition, builder))
                builder = builders[partition] = self._producer.create_batch()
                assert builder.append(**record) is not None
        done += builders.items()
        for _, builder in done:
            builder.close()
        return done


@asynccontextmanager
async def present(
    site: Site, topic: str, customers: int, note: Callable[[pa.RecordBatch], None] = lambda _: None
) -> AsyncIterator[Present]:
    async with opened(site.client) as producer:
        yield Present(producer, topic, customers, note)


def percentiles_ms(delays_us: NDArray[np.int64]) -> dict[str, float]:
    """Return p50, p99 and the largest, in ms; where nothing came in time, they are infinite."""
    if not delays_us.size:
        return dict.fromkeys(("p50", "p99", "max"), float("inf"))
    p50, p99, largest = (np.percentile(delays_us, (50, 99, 100)) / 1000).round(2).tolist()
    return {"p50": p50, "p99": p99, "max": largest}
