"""`rfmstream deliver` as a process that can be killed, and topics with changes for it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson
from aiokafka import AIOKafkaProducer
from deliver_events import change
from kafka_cluster import ROOT, Cluster

from rfmstream.engine.deliver.model import Event

SECRET = "whsec_" + "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"


class DeliverProcess:
    """A delivery process; its log goes to a file."""

    def __init__(self, config: Path, log: Path, *command: str) -> None:
        self.log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rfmstream", "deliver", *command, "--config", str(config)],
                cwd=ROOT,
                env={**os.environ, "HOOK_SECRET": SECRET, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def exit_code(self, timeout_s: float = 60) -> int:
        return self._process.wait(timeout_s)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, text: str, *, timeout_s: float = 60) -> None:
        give_up = time.monotonic() + timeout_s
        while text not in self.log.read_text():
            assert self.is_alive, self.log.read_text()
            assert time.monotonic() < give_up, self.log.read_text()
            time.sleep(0.02)


@contextmanager
def delivering(config: Path, log: Path) -> Iterator[DeliverProcess]:
    process = DeliverProcess(config, log)
    try:
        yield process
    finally:
        if process.is_alive:
            process.kill()


def write_config(
    folder: Path, cluster: Cluster, destinations: str, *, top: str = "", listen: str = "off"
) -> Path:
    """Write a deliver.toml for a cluster's topics."""
    path = folder / "deliver.toml"
    path.write_text(
        f"""
listen = "{listen}"
{top}
[kafka]
bootstrap_servers = "{cluster.bootstrap}"
app_id = "{cluster.name}"
changes_topic = "{cluster.name}.changes"
signals_topic = "{cluster.name}.signals"
current_topic = "{cluster.name}.current"
rejected_topic = "{cluster.name}.refused"
control_topic = "{cluster.name}.control"
{destinations}
""",
        encoding="utf-8",
    )
    return path


async def send_events(
    cluster: Cluster,
    events: Sequence[Event],
    partitions: int,
    *,
    topic: str | None = None,
    when_ms: int | None = None,
) -> None:
    """Send events as the worker does: CloudEvents in binary mode, a customer's in one partition."""
    producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        sent = []
        for event in events:
            headers = [
                ("ce_specversion", b"1.0"),
                ("ce_id", event.id.encode()),
                ("ce_source", event.source.encode()),
                ("ce_type", event.type.encode()),
                ("ce_subject", event.subject.encode()),
                ("ce_time", event.time.encode()),
                ("content-type", b"application/json"),
            ]
            key = event.customer_id.encode()
            sent.append(
                await producer.send(
                    topic or f"{cluster.name}.changes",
                    event.raw,
                    key=key,
                    partition=sum(key) % partitions,
                    headers=headers,
                    timestamp_ms=when_ms,
                )
            )
        for one in sent:
            await one
    finally:
        await producer.stop()


def history(customers: int, changes: int) -> list[Event]:
    """Return changes of customers in turn, each customer's counted from 1."""
    return [change(f"c{number % customers}", number // customers + 1) for number in range(changes)]


def seqs_of(bodies: Sequence[bytes]) -> dict[str, list[int]]:
    """Return the numbers of each customer's changes in the order of webhooks."""
    found: dict[str, list[int]] = {}
    for body in bodies:
        data = orjson.loads(body)["data"]
        found.setdefault(data["customer_id"], []).append(data["seq"])
    return found
