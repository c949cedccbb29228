"""Workers on a real broker: their committed output is the replay of the same history, row for row."""

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pytest
from kafka_cluster import Broker, Cluster
from kafka_logs import wait_until
from kafka_workers import assert_is_the_replay, flags_of, real_history, send, values_of_the_replay, worker

from rfmstream.engine.live.kafka.transactions import Transactions, Writing
from rfmstream.engine.live.kafka.worker import Worker
from rfmstream.engine.live.store import POSITION

AS_OF = "2000-01-01T00:00:00Z"
AS_OF_US = 946_684_800_000_000


@pytest.mark.parametrize("partitions", [1, 3, 12])
def test_a_history_through_kafka_is_the_replay(cluster: Cluster, tmp_path: Path, partitions: int) -> None:
    history = real_history()

    async def prepare() -> None:
        await cluster.create(cluster.orders, partitions, retention_ms="-1")
        await send(cluster, history, partitions)

    asyncio.run(prepare())
    flags = flags_of(cluster, tmp_path / "state", clock="event", until_end=True, as_of=AS_OF)
    with worker(flags, tmp_path / "log") as process:
        assert process.exit_code() == 0, process.log.read_text()
    assert_is_the_replay(cluster, partitions, values_of_the_replay(AS_OF_US))


@pytest.mark.deep
def test_a_worker_that_joins_and_one_that_leaves_under_load(cluster: Cluster, tmp_path: Path) -> None:
    history = pa.Table.from_batches(real_history()).combine_chunks()
    partitions, pieces = 6, 60
    flags = flags_of(cluster, tmp_path / "state", clock="event", checkpoint_interval_s=1)
    asyncio.run(cluster.create(cluster.orders, partitions, retention_ms="-1"))

    async def load() -> None:
        piece = history.num_rows // pieces + 1
        for number in range(pieces):
            await send(cluster, history.slice(number * piece, piece).to_batches(), partitions)

    with worker(flags, tmp_path / "first") as first:
        first.wait_for("partitions assigned count=6")
        sending = Thread(target=lambda: asyncio.run(load()))
        sending.start()
        with worker(flags, tmp_path / "second") as second:
            second.wait_for("partitions assigned count=3")
            first.wait_for("partitions assigned count=3")
            first.terminate()
            assert first.exit_code() == 0, first.log.read_text()
            second.wait_for("partitions assigned count=6")
            sending.join()
            last = {**flags, "until_end": True, "as_of": AS_OF}
            second.terminate()
            assert second.exit_code() == 0, second.log.read_text()
    with worker(last, tmp_path / "last") as process:
        assert process.exit_code() == 0, process.log.read_text()
        # Both had left the group, and a checkpoint of each partition at its very end.
        assert "checkpoint=None" not in process.log.read_text()
    assert_is_the_replay(cluster, partitions, values_of_the_replay(AS_OF_US))


@pytest.mark.deep
def test_a_worker_told_to_stop_amidst_a_rebalance_finishes_its_steps(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = b'{"customer_id": "c", "order_id": "o", "occurred_at": "2026-01-01T00:00:00Z", "amount": "5"}'
    commit = Transactions.commit

    async def run() -> None:
        begun, gate = asyncio.Event(), asyncio.Event()

        async def held_up(self: Transactions, writing: Writing) -> None:
            begun.set()
            await gate.wait()
            await commit(self, writing)

        await cluster.create(cluster.orders, 1)
        worker = Worker(cluster.config(checkpoints=str(tmp_path)))
        running = asyncio.create_task(worker.run())
        while not any(lane.runner.live for lane in worker._lanes.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        monkeypatch.setattr(Transactions, "commit", held_up)
        await cluster.send([(0, b"c", order)])
        await begun.wait()
        revoking = asyncio.create_task(worker._on_revoked(worker._app, []))
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.3)
        gate.set()
        await asyncio.gather(revoking, running)

    asyncio.run(run())
    [change] = asyncio.run(cluster.committed_records(cluster.outputs.changes, [0]))
    assert change.key == b"c"


def test_a_broker_that_restarts_under_load(own_broker: Broker, tmp_path: Path) -> None:
    cluster = Cluster(own_broker.bootstrap, "restart")
    history = pa.Table.from_batches(real_history()).combine_chunks()
    half = history.num_rows // 2
    flags = flags_of(cluster, tmp_path / "state", clock="event")
    asyncio.run(cluster.create(cluster.orders, 3, retention_ms="-1"))
    with worker(flags, tmp_path / "log") as process:
        process.wait_for("partitions assigned")
        asyncio.run(send(cluster, history.slice(0, half).to_batches(), 3))
        own_broker.stop()
        own_broker.start()
        asyncio.run(send(cluster, history.slice(half).to_batches(), 3))
        process.terminate()
        assert process.exit_code() == 0, process.log.read_text()
    with worker({**flags, "until_end": True, "as_of": AS_OF}, tmp_path / "last") as process:
        assert process.exit_code() == 0, process.log.read_text()
    assert_is_the_replay(cluster, 3, values_of_the_replay(AS_OF_US))


def test_a_worker_that_cannot_go_on_says_why_in_one_line(cluster: Cluster, tmp_path: Path) -> None:
    flags = flags_of(cluster, tmp_path / "state", clock="event", until_end=True)
    asyncio.run(cluster.create(cluster.orders, 2))
    with worker(flags, tmp_path / "log") as process:
        assert process.exit_code() == 0, process.log.read_text()
    with worker({**flags, "ruleset": "rfm8"}, tmp_path / "other") as process:
        assert process.exit_code() == 4, process.log.read_text()
    assert process.log.read_text().splitlines()[-1].startswith("rfmstream: ")
    with worker({**flags, "input_topics": "absent"}, tmp_path / "absent") as process:
        assert process.exit_code() == 2, process.log.read_text()
    assert "there is no topic absent" in process.log.read_text().splitlines()[-1]


@pytest.mark.deep
def test_workers_killed_at_any_moment_lose_and_repeat_nothing(cluster: Cluster, tmp_path: Path) -> None:
    history = pa.Table.from_batches(real_history()).combine_chunks()
    kills, partitions, chance = 20, 3, random.Random(3)  # noqa: S311
    flags = flags_of(cluster, tmp_path / "state", clock="event", checkpoint_interval_s=1)
    log = tmp_path / "log"
    asyncio.run(cluster.create(cluster.orders, partitions, retention_ms="-1"))
    piece = history.num_rows // kills + 1
    for number in range(kills):
        batches = history.slice(number * piece, piece).to_batches()
        seen = len(log.read_text()) if log.exists() else 0
        with worker(flags, log) as process:
            process.wait_for("partitions assigned", after=seen)
            asyncio.run(send(cluster, batches, partitions))
            time.sleep(chance.uniform(0, 2))
            if number == kills // 4:  # whatever the machine, later ones find checkpoints
                wait_until(lambda: len(list((tmp_path / "state").rglob(POSITION))) >= partitions, process)
            process.kill()
        asyncio.run(cluster.expel(cluster.name))
    with worker({**flags, "until_end": True, "as_of": AS_OF}, log) as process:
        assert process.exit_code() == 0, log.read_text()
    assert_is_the_replay(cluster, partitions, values_of_the_replay(AS_OF_US))
    assert log.read_text().count("checkpoint=None") < kills * partitions, "checkpoints were used"
