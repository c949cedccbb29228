"""The clients people subscribe and produce with: which codecs they read, and where their default puts a key.

What docs/live.md says of them in its tables is tried here with those that are installed: confluent-kafka, kafka-python
and aiokafka from PyPI, KafkaJS from npm. The others of the tables were tried by hand.
"""

import asyncio
import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from kafka_cluster import ROOT, Cluster
from kafka_workers import RULESET, real_history, replayed

from rfmstream.engine.live.config import ClientConfig
from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.kafka.batches import record_batches
from rfmstream.engine.live.kafka.transactional import TransactionalProducer
from rfmstream.engine.live.placement import places_of
from rfmstream.engine.live.settings import WORKER_SETTINGS

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
KEYS = [f"c{number}" for number in range(200)]
PARTITIONS = 7
CHANGES = 400
WAIT_S = 20

Client = tuple[Callable[[str, str], int], Callable[[str, str], None]]
"""How many records it reads of a topic of 400 changes, and what sends the keys: both of (bootstrap, topic)."""


def confluent() -> Client:
    kafka = pytest.importorskip("confluent_kafka", reason="pip install confluent-kafka")

    def read(bootstrap: str, topic: str) -> int:
        consumer = kafka.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"{topic}-confluent",
                "auto.offset.reset": "earliest",
            }
        )
        consumer.subscribe([topic])
        count, give_up = 0, time.monotonic() + WAIT_S
        while count < CHANGES and time.monotonic() < give_up:
            message = consumer.poll(1)
            count += message is not None and message.error() is None
        consumer.close()
        return count

    def send(bootstrap: str, topic: str) -> None:
        producer = kafka.Producer({"bootstrap.servers": bootstrap})
        for key in KEYS:
            producer.produce(topic, b"x", key=key)
        producer.flush()

    return read, send


def kafka_python() -> Client:
    kafka = pytest.importorskip("kafka", reason="pip install kafka-python")

    def read(bootstrap: str, topic: str) -> int:
        consumer = kafka.KafkaConsumer(
            topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=5000
        )
        try:
            return sum(1 for _ in consumer)
        except kafka.errors.UnsupportedCodecError:
            return 0
        finally:
            consumer.close()

    def send(bootstrap: str, topic: str) -> None:
        producer = kafka.KafkaProducer(bootstrap_servers=bootstrap)
        for key in KEYS:
            producer.send(topic, b"x", key=key.encode())
        producer.close()

    return read, send


def aiokafka() -> Client:
    async def reading(bootstrap: str, topic: str) -> int:
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            count, give_up = 0, time.monotonic() + WAIT_S
            while count < CHANGES and time.monotonic() < give_up:
                count += sum(map(len, (await consumer.getmany(timeout_ms=1000)).values()))
            return count
        finally:
            await consumer.stop()

    async def sending(bootstrap: str, topic: str) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
        await producer.start()
        for key in KEYS:
            await producer.send(topic, b"x", key=key.encode())
        await producer.stop()

    return (
        lambda bootstrap, topic: asyncio.run(reading(bootstrap, topic)),
        lambda bootstrap, topic: asyncio.run(sending(bootstrap, topic)),
    )


SCRIPT = """
import { Kafka, logLevel } from "kafkajs";
const [command, broker, topic] = process.argv.slice(2);
const kafka = new Kafka({ brokers: [broker], logLevel: logLevel.NOTHING });
if (command === "send") {
  const producer = kafka.producer();
  await producer.connect();
  const keys = [...Array(200).keys()].map((n) => ({ key: `c${n}`, value: "x" }));
  await producer.send({ topic, messages: keys });
} else {
  const consumer = kafka.consumer({ groupId: `${topic}-js`, retry: { retries: 0 } });
  let count = 0, failed = false;
  consumer.on(consumer.events.CRASH, () => { failed = true; });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  consumer.run({ eachMessage: async () => { count++; } });
  const end = Date.now() + 20000;
  while (Date.now() < end && count < 400 && !failed) await new Promise((done) => setTimeout(done, 50));
  console.log(JSON.stringify(count));
}
process.exit(0);
"""


def kafkajs(folder: Path) -> Client:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node.js: no client in JavaScript can be tried")
    package = ROOT / "examples" / "consumer-js" / "package.json"
    shutil.copy(package, folder)
    installed = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"kafkajs could not be installed: {installed.stderr.strip()[-200:]}")
    (folder / "client.mjs").write_text(SCRIPT)

    def run(*arguments: str) -> str:
        command = [node, "client.mjs", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout

    def read(bootstrap: str, topic: str) -> int:
        count: int = json.loads(run("read", bootstrap, topic))
        return count

    def send(bootstrap: str, topic: str) -> None:
        run("send", bootstrap, topic)

    return read, send


def client_of(name: str, folder: Path) -> Client:
    if name == "KafkaJS 2":
        return kafkajs(folder)
    return {"confluent-kafka (Python)": confluent, "kafka-python": kafka_python, "aiokafka": aiokafka}[name]()


CLIENTS = ("confluent-kafka (Python)", "kafka-python", "aiokafka", "KafkaJS 2")


@pytest.fixture(scope="module")
def written(bootstrap: str) -> dict[str, str]:
    """Return topics with the same changes by their codec, as the worker writes them."""
    cluster = Cluster(bootstrap, f"clients-{uuid.uuid4().hex[:8]}")
    changes = replayed(real_history()[:1], None).slice(0, CHANGES)

    async def write() -> None:
        producer = TransactionalProducer(
            ClientConfig(bootstrap_servers=(bootstrap,)), f"{cluster.name}/1", timeout_ms=60_000
        )
        await producer.start()
        for codec in CODECS:
            topic = f"{cluster.name}.{codec}"
            await cluster.create(topic, 1)
            place = TopicPartition(topic, 0)
            encoder = Encoder(RULESET, source="/test")
            compression: Any = None if codec == "none" else codec
            await producer.begin([place], f"{cluster.name}.group")
            for records, _ in encoder.parts(changes):
                batches = record_batches(
                    records, timestamp_ms=time.time_ns() // 1_000_000, compression=compression
                )
                await producer.write([(place, batch) for batch in batches])
            await producer.commit()
        await producer.close()

    asyncio.run(write())
    return {codec: f"{cluster.name}.{codec}" for codec in CODECS}


@pytest.mark.parametrize("name", CLIENTS)
def test_the_default_is_read_by_everybody(
    name: str, bootstrap: str, written: dict[str, str], tmp_path: Path
) -> None:
    [default] = [setting.default for setting in WORKER_SETTINGS if setting.name == "compression"]
    read, _ = client_of(name, tmp_path)
    for codec in ("none", str(default)):
        assert read(bootstrap, written[codec]) == CHANGES, codec


def test_kafkajs_reads_no_other_codec(bootstrap: str, written: dict[str, str], tmp_path: Path) -> None:
    """What the documents say of it: were it to learn them, another default would do."""
    read, _ = kafkajs(tmp_path)
    for codec in ("snappy", "lz4", "zstd"):
        assert read(bootstrap, written[codec]) == 0, codec


@pytest.mark.parametrize(
    ("name", "partitioner"),
    [(name, "crc32" if name.startswith("confluent") else "murmur2") for name in CLIENTS],
)
def test_where_the_default_puts_a_key(name: str, partitioner: str, cluster: Cluster, tmp_path: Path) -> None:
    _, send = client_of(name, tmp_path)
    asyncio.run(cluster.create(cluster.orders, PARTITIONS))
    send(cluster.bootstrap, cluster.orders)
    records = asyncio.run(cluster.committed_records(cluster.orders, range(PARTITIONS)))
    found = {record.key.decode(): record.partition for record in records}
    places = places_of([key.encode() for key in KEYS], PARTITIONS, partitioner)
    assert found == dict(zip(KEYS, places.tolist(), strict=True))
