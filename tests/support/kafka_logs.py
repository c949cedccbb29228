"""What a log holds after a test: the tiers its records and ticks have to give, and what a worker says of itself."""

import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import orjson
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from kafka_cluster import Cluster
from kafka_workers import RULESET, WorkerProcess
from prometheus_client.parser import text_string_to_metric_families

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.law import Clock
from rfmstream.engine.live.model import LogBatch, RawRecords, Tick
from rfmstream.engine.live.partition import Partition
from rfmstream.schemas.ruleset import Ruleset

TOLERANCE_US = 300_000_000


class Sent(NamedTuple):
    """A record to be sent."""

    partition: int
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp_ms: int | None = None


async def send_records(cluster: Cluster, records: Iterable[Sent]) -> list[Any]:
    """Send records in order; return what the broker says of each."""
    producer = AIOKafkaProducer(
        bootstrap_servers=cluster.bootstrap, enable_idempotence=True, max_request_size=16 << 20
    )
    await producer.start()
    try:
        sent = [
            await producer.send(
                cluster.orders,
                record.value,
                key=record.key,
                partition=record.partition,
                timestamp_ms=record.timestamp_ms,
                headers=list(record.headers),
            )
            for record in records
        ]
        return [await each for each in sent]
    finally:
        await producer.stop()


async def records_of(cluster: Cluster, topic: str, partitions: int) -> dict[int, list[ConsumerRecord]]:
    """Return the committed records of a topic by their partitions."""
    found: dict[int, list[ConsumerRecord]] = {number: [] for number in range(partitions)}
    for record in await cluster.committed_records(topic, range(partitions)):
        found[record.partition].append(record)
    return found


async def written(cluster: Cluster, topic: str, partitions: int) -> int:
    """Return how far a topic has got: its records and the marks of its transactions."""
    ends = await cluster.ends([TopicPartition(topic, number) for number in range(partitions)])
    return sum(ends.values())


async def ticks_of(cluster: Cluster, partitions: int) -> dict[int, list[Tick]]:
    """Return the notes of time that passed, by their partitions, without those that begin or change the law."""
    notes = await notes_of(cluster, partitions)
    return {
        number: [tick for tick in of if tick.ruleset is None and tick.until is None]
        for number, of in notes.items()
    }


async def notes_of(cluster: Cluster, partitions: int) -> dict[int, list[Tick]]:
    """Return all that the clock topic holds, by its partitions."""
    records = await records_of(cluster, cluster.outputs.clock, partitions)
    return {number: [Tick(**orjson.loads(record.value)) for record in of] for number, of in records.items()}


def decoded(records: Sequence[ConsumerRecord], currency: str) -> LogBatch:
    """Return the rows of records of one partition."""
    return Decoder(currency=currency).decode(
        RawRecords(
            keys=[record.key for record in records],
            values=[record.value for record in records],
            headers=[record.headers for record in records],
            timestamps_ms=[record.timestamp for record in records],
            offsets=[record.offset for record in records],
            position=records[-1].offset + 1 if records else 0,
        )
    )


async def retold(
    cluster: Cluster, partitions: int, *, clock: Clock = "log", ruleset: Ruleset = RULESET
) -> Counter[bytes | None]:
    """Tell the history of a log again, in one go: its records in order of their offsets, with the ticks among them.

    Returns the values of the change records that makes
    """
    orders = await records_of(cluster, cluster.orders, partitions)
    ticks, notes = await ticks_of(cluster, partitions), await notes_of(cluster, partitions)
    encoder = Encoder(ruleset, source="/test")
    values: Counter[bytes | None] = Counter()
    for number, records in orders.items():
        batch = decoded(records, ruleset.currency)
        engine = Engine(ruleset, mode="live" if clock == "log" else "replay")
        partition = Partition(engine, clock=clock, tolerance_us=TOLERANCE_US, position=0)
        partition.caps = [note for note in notes[number] if note.until is not None]
        steps, first = [], 0
        for tick in ticks[number]:
            before = sum(record.offset < tick.position for record in records)
            if before > first:
                steps += partition.apply(batch, first, before)
            first = before
            steps += partition.pass_time(tick.clock_us, to_the_end=True)
        if first < len(records):
            steps += partition.apply(batch, first)
        values.update(record.value for step in steps for record in encoder.changes(step.changes))
    return values


def metrics_of(process: WorkerProcess) -> dict[str, Counter[tuple[str, ...]]]:
    """Return the counts a worker shows, summed over its partitions: of each metric, by its other labels' values."""
    log = process.log.read_text()
    url = log[log.rindex("status=") + len("status=") :].split()[0]
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:  # noqa: S310 - our own
            text = answer.read().decode()
    except OSError as error:
        raise AssertionError(process.log.read_text()) from error
    found: dict[str, Counter[tuple[str, ...]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key not in ("topic", "partition")}
            found.setdefault(sample.name, Counter())[tuple(labels.values())] += sample.value
    return found


def records_read(process: WorkerProcess) -> float:
    """Return how many records a worker has committed since its start, as its metrics say."""
    process.wait_for("worker starts")
    return metrics_of(process).get("rfmstream_records_total", Counter()).total()


def wait_until(what: Callable[[], bool], process: WorkerProcess, timeout_s: float = 120) -> None:
    """Wait until something holds, as long as the worker lives."""
    give_up = time.monotonic() + timeout_s
    while not what():
        assert process.is_alive, process.log.read_text()
        assert time.monotonic() < give_up, process.log.read_text()
        time.sleep(0.05)
