"""Signals of the worker on a real broker: those of a replay, each once, whatever becomes of the worker."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import orjson
import pyarrow as pa
from kafka_cluster import ROOT, Cluster
from kafka_logs import wait_until, written
from kafka_workers import RULESET, flags_of, real_history, send, worker

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.encode import Encoder

AS_OF = "2000-01-01T00:00:00Z"
PARTITIONS = 3


def history() -> pa.RecordBatch:
    """Return the purchases of the first months of CDNOW, in order of time."""
    return pa.Table.from_batches(real_history()).combine_chunks().slice(0, 20_000).to_batches()[0]


def replayed() -> Counter[bytes | None]:
    """Return the signals of a replay as the values of their records."""
    engine = Engine(RULESET)
    tables = [engine.step_canonical(history()).signals]
    engine.advance(AS_OF)
    encoder = Encoder(RULESET, source="/test")
    tables.append(engine.signals)
    kinds = {kind for table in tables for kind in table["kind"].to_pylist()}
    assert kinds == {"warning", "dwell", "orders"}
    return Counter(
        record.value for table in tables for records in encoder.signals(table) for record in records
    )


def test_signals_of_the_worker_are_those_of_the_replay(cluster: Cluster, tmp_path: Path) -> None:
    flags = flags_of(cluster, tmp_path / "state", clock="event")
    asyncio.run(cluster.create(cluster.orders, PARTITIONS, retention_ms="-1"))
    half = history().num_rows // 2
    asyncio.run(send(cluster, [history().slice(0, half)], PARTITIONS))
    # Killed at some place in the middle; then all of its state is lost, and everything is applied again in silence.
    with worker(flags, tmp_path / "killed") as process:
        process.wait_for("partition recovered")
        wait_until(
            lambda: asyncio.run(written(cluster, cluster.outputs.signals, PARTITIONS)) > 0,
            process,
        )
        process.kill()
    shutil.rmtree(tmp_path / "state", ignore_errors=True)
    with worker({**flags, "until_end": True}, tmp_path / "half") as process:
        assert process.exit_code() == 0, process.log.read_text()
    asyncio.run(send(cluster, [history().slice(half)], PARTITIONS))
    with worker({**flags, "until_end": True, "as_of": AS_OF}, tmp_path / "rest") as process:
        assert process.exit_code() == 0, process.log.read_text()

    records = asyncio.run(cluster.committed_records(cluster.outputs.signals, range(PARTITIONS)))
    expected = replayed()
    assert Counter(record.value for record in records) == expected
    ids = Counter((dict(record.headers)["ce_source"], dict(record.headers)["ce_id"]) for record in records)
    assert set(ids.values()) == {1}
    assert {dict(record.headers)["ce_type"] for record in records} == {b"io.rfmstream.signal.v1"}
    times: dict[bytes, list[str]] = defaultdict(list)
    for record in records:
        data = orjson.loads(record.value)
        assert record.key == data["customer_id"].encode()
        times[record.key].append(data["effective_at"])
    assert all(each == sorted(each) for each in times.values())

    lines = tail(cluster, "--json").splitlines()
    assert Counter(lines) == Counter(value.decode() for value in expected.elements() if value is not None)
    texts = tail(cluster).splitlines()
    assert len(texts) == len(lines)
    assert sum(": order 2 " in f"{text} " for text in texts) == sum(
        1 for line in lines if (json.loads(line)["kind"], json.loads(line)["count"]) == ("orders", 2)
    )


def tail(cluster: Cluster, *more: str) -> str:
    """Return what `tail --signals` prints."""
    command = [sys.executable, "-c", "from rfmstream.engine.cli import main; main()", "tail", "--signals"]
    settings = {
        "RFMSTREAM_BOOTSTRAP_SERVERS": cluster.bootstrap,
        "RFMSTREAM_SIGNALS_TOPIC": cluster.outputs.signals,
    }
    done = subprocess.run(
        [*command, "--from-beginning", "--until-end", *more],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
