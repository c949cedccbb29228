"""Measure delivery against a broker of its own and the least of receivers, on this machine.

    python -m bench.deliver.run [--out out/bench-deliver.json] [--events 50000] [--batched 300000] [--seconds 20]

webhooks  a signed request an event      batched  Segment calls, 200 events a request
latency   changes appended at 1,000/s, to their receipt

Broker, deliverer and receiver share the cores: beside events a second stands what a core of the deliverer alone makes,
by its processor time between the first and the last event.
"""

import argparse
import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.machine import machine
from ops.broker.broker import ROOT, Broker, free_ports
from rfmstream.engine.deliver.trial import trial_event

PARTITIONS = 4
READY_S_MAX = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--batched", type=int, default=300_000)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    with a_broker() as bootstrap:
        rows = [
            throughput(bootstrap, "webhooks", options.events),
            throughput(bootstrap, "batched", options.batched),
            latency(bootstrap, options.seconds),
        ]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if options.out:
        options.out.write_text(json.dumps({"machine": machine(), "results": rows}, indent=2) + "\n")
    return 0


DESTINATIONS = {
    "webhooks": 'kind = "webhook"\nsecrets = [{ env = "BENCH_SECRET" }]\nconcurrency = 64',
    "batched": 'kind = "segment"\nwrite_key = { env = "BENCH_SECRET" }\nconcurrency = 4',
}


def throughput(bootstrap: str, kind: str, count: int) -> dict[str, Any]:
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    asyncio.run(append(bootstrap, topic, count))
    with tempfile.TemporaryDirectory() as folder, receiving(Path(folder)) as port:
        config = write_config(Path(folder), bootstrap, topic, kind, port, start="earliest")
        with delivering(config) as process:
            first = wait_for(port, 1)
            cpu_before, began = cpu_s(process.pid), time.perf_counter()
            wait_for(port, count)
            wall, cpu = time.perf_counter() - began, cpu_s(process.pid) - cpu_before
    done = count - first
    return {
        "bench": kind,
        "events": count,
        "events_s": round(done / wall),
        "events_s_core": round(done / cpu),
        "seconds": round(wall, 2),
    }


def latency(bootstrap: str, seconds: int, rate: int = 1000) -> dict[str, Any]:
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    asyncio.run(append(bootstrap, topic, 0))
    with tempfile.TemporaryDirectory() as folder, receiving(Path(folder)) as port:
        config = write_config(Path(folder), bootstrap, topic, "webhooks", port, start="latest")
        with delivering(config, log := Path(folder) / "log"):
            time.sleep(4)
            asyncio.run(trickle(bootstrap, topic, seconds, rate))
            wait_for(port, seconds * rate)
            found = sorted(asked(port)["latencies_ms"][2 * rate :])
        assert log.exists()
    quantiles = {f"ms_p{q}": round(found[int(len(found) * q / 100)], 1) for q in (50, 90, 99)}
    return {"bench": "latency", "events_s": rate, **quantiles, "ms_max": round(found[-1], 1)}


def record(number: int, **more: object) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    event = trial_event("change", f"customer-{number}")
    data = {**event.data, **more}
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event.id.encode()),
        ("ce_source", event.source.encode()),
        ("ce_type", event.type.encode()),
        ("ce_subject", event.subject.encode()),
        ("ce_time", event.time.encode()),
        ("content-type", b"application/json"),
    ]
    return event.customer_id.encode(), orjson.dumps(data), headers


async def append(bootstrap: str, topic: str, count: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(f"{topic}.changes", PARTITIONS, 1)])
    while f"{topic}.changes" not in await admin.list_topics():  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, max_batch_size=1 << 19)
    await producer.start()
    sent = []
    for number in range(count):
        key, value, headers = record(number)
        sent.append(await producer.send(f"{topic}.changes", value, key=key, headers=headers))
        if len(sent) >= 20_000:
            await asyncio.gather(*sent)
            sent.clear()
    await asyncio.gather(*sent)
    await producer.stop()


async def trickle(bootstrap: str, topic: str, seconds: int, rate: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    began = time.perf_counter()
    sent = []
    for number in range(seconds * rate):
        wait = began + number / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        key, value, headers = record(number, appended_ms=time.time() * 1000)
        sent.append(await producer.send(f"{topic}.changes", value, key=key, headers=headers))
    await asyncio.gather(*sent)
    await producer.stop()


def write_config(folder: Path, bootstrap: str, topic: str, kind: str, port: int, *, start: str) -> Path:
    path = folder / "deliver.toml"
    names = "\n".join(
        f'{name}_topic = "{topic}.{name}"'
        for name in ("changes", "signals", "current", "rejected", "control")
    )
    path.write_text(
        f"""
listen = "off"
[kafka]
bootstrap_servers = "{bootstrap}"
app_id = "{topic}"
{names}
[destinations.bench]
url = "http://127.0.0.1:{port}/"
allow_private = true
start = "{start}"
{DESTINATIONS[kind]}
"""
    )
    return path


@contextmanager
def receiving(folder: Path) -> Iterator[int]:
    port_file = folder / "port"
    process = subprocess.Popen([sys.executable, "-m", "bench.deliver.receiver", str(port_file)], cwd=ROOT)
    try:
        give_up = time.monotonic() + READY_S_MAX
        while not (port_file.exists() and port_file.read_text()):
            assert time.monotonic() < give_up
            time.sleep(0.05)
        yield int(port_file.read_text())
    finally:
        process.terminate()
        process.wait()


@contextmanager
def delivering(config: Path, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    secret = "whsec_" + base64.b64encode(b"b" * 32).decode()
    with (log or config.with_suffix(".log")).open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "rfmstream", "deliver", "--config", str(config)],
            cwd=ROOT,
            env={**os.environ, "BENCH_SECRET": secret},
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def asked(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/count", timeout=30) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def wait_for(port: int, rows: int, timeout_s: float = 600) -> int:
    give_up = time.monotonic() + timeout_s
    while (found := int(asked(port)["rows"])) < rows:
        assert time.monotonic() < give_up, found
        time.sleep(0.05)
    return found


def cpu_s(process_id: int) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def a_broker() -> Iterator[str]:
    own = os.environ.get("KAFKA_BOOTSTRAP")
    if own:
        yield own
        return
    folder = Path(tempfile.mkdtemp(prefix="rfmstream-bench-"))
    broker = Broker(folder, *free_ports(2), jars=ROOT / ".kafka" / "jars")
    broker.start()
    try:
        yield broker.bootstrap
    finally:
        broker.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
