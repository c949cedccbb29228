"""What each codec of the tier changes costs worker and broker: CPU seconds and bytes, against a broker of our own.

    python -m bench.live.compression --bootstrap 127.0.0.1:9092 --broker-pid PID [--changes 200000]

The same tier changes are made into the batches of both topics of changes, and written in transactions of some thousand
changes as a backfill does, and of ten as a live day does. CPU time, not elapsed time: other work on the machine does
not count. The broker's is that of its process, less what it takes while idle.
"""

import argparse
import asyncio
import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.config import ClientConfig
from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.kafka.batches import RecordBatch, record_batches
from rfmstream.engine.live.kafka.transactional import TransactionalProducer
from rfmstream.engine.replay.generate import generate
from rfmstream.schemas.ruleset import load_ruleset

CODECS: Final = (None, "gzip", "snappy", "lz4", "zstd")
TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


def changes_of(count: int, folder: Path) -> pa.Table:
    """Return as many tier changes of a made-up history."""
    from rfmstream.engine.files.source import open_orders  # noqa: PLC0415 - it is not measured

    path = folder / "orders.parquet"
    generate(customers=count // 8, orders=count * 2, seed=1, out=path)
    engine = Engine(load_ruleset("rfm8-annual"))
    tables = [engine.step_canonical(batch).changes for batch, _ in open_orders([path], currency="CNY")]
    tables.append(engine.advance(engine.clock_us + 400 * 86_400_000_000))
    return pa.concat_tables(tables).slice(0, count)


def batches_of(encoder: Encoder, changes: pa.Table, codec: Any) -> list[RecordBatch]:  # noqa: ANN401
    """Return the batches of a step, those of the second topic as the worker makes them."""
    found: list[RecordBatch] = []
    now_ms = time.time_ns() // 1_000_000
    for first, second in encoder.parts(changes):
        some = list(record_batches(first, timestamp_ms=now_ms, compression=codec))
        others = (
            [batch.copy() for batch in some]
            if second is first
            else list(record_batches(second, timestamp_ms=now_ms, compression=codec))
        )
        found += [*some, *others]
    return found


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


async def measure(
    bootstrap: str,
    pid: int,
    changes: pa.Table,
    step: int,
    codec: Any,  # noqa: ANN401
) -> dict[str, float]:
    """Write all changes in steps of so many; return what that cost."""
    topic = f"codec-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    client = ClientConfig(bootstrap_servers=(bootstrap,))
    producer = TransactionalProducer(client, f"{topic}/1", timeout_ms=60_000)
    await producer.start()
    encoder = Encoder(load_ruleset("rfm8-annual"), source="/bench")
    place = TopicPartition(topic, 0)
    tables = [changes.slice(start, step) for start in range(0, changes.num_rows, step)]
    await asyncio.sleep(2)
    before_s, idle_from = cpu_s(pid), time.monotonic()
    await asyncio.sleep(3)
    idle = (cpu_s(pid) - before_s) / (time.monotonic() - idle_from)
    made_s = size = 0.0
    broker_s, began = cpu_s(pid), time.monotonic()
    for table in tables:
        started_s = time.thread_time()
        batches = batches_of(encoder, table, codec)
        made_s += time.thread_time() - started_s
        size += sum(batch.size() for batch in batches)
        await producer.begin([place], f"{topic}-group")
        await producer.write([(place, batch) for batch in batches])
        await producer.commit()
    broker_s = cpu_s(pid) - broker_s - idle * (time.monotonic() - began)
    await producer.close()
    await admin.delete_topics([topic])
    await admin.close()
    rows = changes.num_rows
    return {
        "worker_us_a_change": round(made_s / rows * 1e6, 2),
        "broker_us_a_change": round(broker_s / rows * 1e6, 2),
        "bytes_a_change": round(size / rows, 1),
    }


def main() -> int:
    """Measure all codecs and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bootstrap", default="127.0.0.1:9092")
    parser.add_argument("--broker-pid", type=int, required=True)
    parser.add_argument("--changes", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))  # noqa: S108 - a benchmark's
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    changes = changes_of(options.changes, options.folder)
    found: dict[str, dict[str, float]] = {}
    for step, rows in ((5000, changes.num_rows), (10, min(changes.num_rows, 20_000))):
        for codec in CODECS:
            # The first of each warms kernels and connections up.
            asyncio.run(
                measure(options.bootstrap, options.broker_pid, changes.slice(0, step * 2), step, codec)
            )
            result = asyncio.run(
                measure(options.bootstrap, options.broker_pid, changes.slice(0, rows), step, codec)
            )
            found[f"{codec or 'none'}/{step}"] = result
            print(f"{codec or 'none':>7} in steps of {step:>5}: {result}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
