"""What Faust's way costs a message: from a poll in the consumer's thread to the worker's lanes.

Polls that return at once take the place of the consumer's, so that nothing is measured but the way: the call from the
worker's thread to the consumer's and back, Faust's consumer, conductor, topic, stream and agent. A message holds the
fetches of all partitions, so this is a price a poll, not a record.

    python -m bench.live.hops
"""

import asyncio
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench.live.site import ROOT
from ops.broker.broker import Broker, free_ports
from rfmstream.engine.live.config import WorkerConfig
from rfmstream.engine.live.kafka.producer import prepare_topic
from rfmstream.engine.live.kafka.seams import install_fetches
from rfmstream.engine.live.kafka.transport import App, ConsumerThread, Fetched, Reading
from rfmstream.engine.live.model import RawRecords, Source
from rfmstream.engine.service.client_config import ClientConfig

MESSAGES: Final = 5_000
_TOPIC: Final = "hops"
_NONE: Final = RawRecords([], [], [], [], [], 0)


class _Way:
    """Counts messages at its end, and how long each took on average."""

    def __init__(self) -> None:
        self.waits_us: list[float] = []
        self.done = asyncio.Event()

    def receive(self, _: Source, fetched: Fetched) -> None:
        self.waits_us.append(time.perf_counter_ns() / 1e3 - fetched.begin)
        if len(self.waits_us) == MESSAGES:
            self.done.set()


async def measure(bootstrap: str) -> dict[str, Any]:
    """Run a worker's app over polls that return at once; return µs a message."""
    client = ClientConfig(bootstrap_servers=(bootstrap,))
    await prepare_topic(client, _TOPIC, partitions=1, replication_factor=1)
    way = _Way()
    reading = Reading(WorkerConfig(client=client, app_id="hops", input_topics=(_TOPIC,)), _raise)
    app = App(reading, way.receive)

    async def poll(_: ConsumerThread, __: int) -> dict[Source, Fetched]:
        begin = time.perf_counter_ns() // 1000
        return {Source(_TOPIC, 0): Fetched(0, begin, _NONE, 0, None)}

    ConsumerThread._poll = poll  # type: ignore[method-assign]  # noqa: SLF001 - what is measured begins behind it
    cpu_s, begins = time.process_time(), time.perf_counter()
    await app.start()
    await way.done.wait()
    seconds, cpu = time.perf_counter() - begins, time.process_time() - cpu_s
    waits = sorted(way.waits_us[MESSAGES // 10 : MESSAGES])
    await app.stop()
    return {
        "messages": MESSAGES,
        "us_median": round(waits[len(waits) // 2], 1),
        "us_p99": round(waits[len(waits) * 99 // 100], 1),
        "cpu_us_with_start": round(cpu / MESSAGES * 1e6, 1),
        "seconds_with_start": round(seconds, 2),
    }


def _raise(error: BaseException) -> None:
    raise error


def main() -> None:
    """Print the figures as JSON."""
    install_fetches()
    with TemporaryDirectory() as folder:
        broker = Broker(Path(folder), *free_ports(2), jars=ROOT / ".kafka" / "jars")
        broker.start()
        try:
            print(json.dumps(asyncio.run(measure(broker.bootstrap))))
        finally:
            broker.stop()


if __name__ == "__main__":
    main()
