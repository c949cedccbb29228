"""The status pages, asked over a real connection."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pyarrow as pa
import pytest

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.board import PARTITIONS_HEADER, Board, Watched
from rfmstream.engine.live.http import ARROW_STREAM, StatusServer
from rfmstream.engine.live.metrics import PARTITION_METRICS, registry_of
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.stats import PartitionStats
from rfmstream.schemas.errors import ConfigError

DAY_US = 86_400_000_000
Ask = Callable[[str], Coroutine[Any, Any, tuple[int, Any, bytes]]]


def watched(customers: list[str], state: str = "live") -> Watched:
    engine = Engine("rfm8", mode="live")
    engine.step(
        pa.table(
            {
                "customer_id": customers,
                "order_id": [f"o{i}" for i in range(len(customers))],
                "occurred_at": [f"2026-01-{1 + i:02d}T10:00:00Z" for i in range(len(customers))],
                "amount": ["10.00"] * len(customers),
            }
        )
    )

    async def snapshot(as_of_us: int | None) -> pa.Table:
        return engine.snapshot(as_of_us)

    stats = PartitionStats(state=state, records=3, applied=2, position=5, end=7, log_us=1, customers=2)
    stats.clock_us = engine.clock_us
    return Watched(stats, snapshot)


@pytest.fixture
def board() -> Board:
    board = Board(Engine("rfm8").ruleset, "event", joined=True)
    board.partitions[Source("orders.v1", 0)] = watched(["ann", "bob"])
    board.partitions[Source("orders.v1", 1)] = watched(["cid"])
    return board


def asking(board: Board, steps: Callable[[Ask], Coroutine[Any, Any, None]]) -> None:
    """Start a server, run the steps, which ask it for pages, and stop it."""

    async def run() -> None:
        server = StatusServer(("127.0.0.1", 0), board)
        await server.start()
        try:
            async with aiohttp.ClientSession(server.url) as session:

                async def ask(path: str) -> tuple[int, Any, bytes]:
                    async with session.get(path) as response:
                        return response.status, response.headers, await response.read()

                await steps(ask)
        finally:
            await server.stop()

    asyncio.run(run())


def test_health_and_readiness(board: Board) -> None:
    async def steps(ask: Ask) -> None:
        assert (await ask("/healthz"))[0] == 200
        status, _, body = await ask("/readyz")
        assert (status, b'"ready": true' in body, b'"lag": 2' in body) == (200, True, True)
        board.partitions[Source("orders.v1", 1)].stats.state = "recovering"
        status, _, body = await ask("/readyz")
        assert (status, b'"state": "recovering"' in body) == (503, True)
        assert (await ask("/healthz"))[0] == 200
        assert (await ask("/nothing"))[0] == 404

    asking(board, steps)


def test_a_worker_is_ready_once_it_has_joined_even_without_partitions() -> None:
    board = Board(Engine("rfm8").ruleset, "log")
    assert not board.ready
    board.joined = True
    assert board.ready


def test_a_snapshot_of_all_partitions(board: Board) -> None:
    async def steps(ask: Ask) -> None:
        status, headers, body = await ask("/snapshot")
        assert (status, headers["Content-Type"]) == (200, ARROW_STREAM)
        assert headers[PARTITIONS_HEADER] == "orders.v1-0,orders.v1-1"
        table = pa.ipc.open_stream(body).read_all()
        assert table["customer_id"].to_pylist() == ["ann", "bob", "cid"]
        # The present of a backfill is the newest clock of them all, the second of January.
        assert table["recency_days"].to_pylist() == [1, 0, 1]
        table.validate(full=True)

    asking(board, steps)


def test_a_snapshot_of_another_instant(board: Board) -> None:
    async def steps(ask: Ask) -> None:
        status, _, body = await ask("/snapshot?as_of=2026-02-15")
        table = pa.ipc.open_stream(body).read_all()
        assert (status, table["recency_days"].to_pylist()) == (200, [45, 44, 45])
        assert table["tier"].to_pylist() == ["000"] * 3
        # The plus sign of an offset reaches us as a blank where nobody escaped it.
        assert (await ask("/snapshot?as_of=2026-02-15T00:00:00+08:00"))[0] == 200
        status, _, body = await ask("/snapshot?as_of=2026-01-01")
        assert status == 400
        assert b"lies before the clock of orders.v1-0, 2026-01-02T10:00:00Z" in body
        status, _, body = await ask("/snapshot?as_of=soon")
        assert (status, b"'soon' is not an instant" in body) == (400, True)

    asking(board, steps)


def test_the_present_of_a_log_is_now_or_the_clock_that_is_ahead_of_it(board: Board) -> None:
    board.clock = "log"
    ahead = board.partitions[Source("orders.v1", 1)]
    soon_us = time.time_ns() // 1000 + 30 * DAY_US

    async def snapshot(as_of_us: int | None) -> pa.Table:
        # Its clock has moved on since the page looked at it.
        if as_of_us is not None and as_of_us < soon_us:
            raise ConfigError("before the clock")
        return await ahead.snapshot(soon_us if as_of_us is None else as_of_us)

    board.partitions[Source("orders.v1", 1)] = Watched(ahead.stats, snapshot)

    async def steps(ask: Ask) -> None:
        recency = pa.ipc.open_stream((await ask("/snapshot"))[2]).read_all()["recency_days"].to_pylist()
        assert recency[0] > 300
        assert recency[2] - recency[0] in (30, 31)

    asking(board, steps)


def test_no_snapshot_while_a_partition_recovers(board: Board) -> None:
    board.partitions[Source("orders.v1", 1)].stats.state = "replaying"

    async def steps(ask: Ask) -> None:
        status, _, body = await ask("/snapshot")
        assert (status, body) == (503, b"not ready: orders.v1-1\n")

    asking(board, steps)


def test_a_snapshot_that_breaks_off_does_not_look_whole(board: Board) -> None:
    async def snapshot(_: int | None) -> pa.Table:
        raise OSError("gone")

    board.partitions[Source("orders.v1", 1)] = Watched(PartitionStats(state="live"), snapshot)

    async def steps(ask: Ask) -> None:
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask("/snapshot")

    asking(board, steps)


def test_metrics(board: Board) -> None:
    first = board.partitions[Source("orders.v1", 0)].stats
    first.view = "rfm8"
    first.of("hk").flaps["101", "001"] = 2
    first.rejected["bad_time"] = 4
    first.changes["order", "101"] = 6
    first.changes["refund", ""] = 1
    first.signals["warning"] = 3
    first.commit.observe(0.002)
    first.commit.observe(100.0)
    first.checkpoint_us = time.time_ns() // 1000

    async def steps(ask: Ask) -> None:
        status, headers, body = await ask("/metrics")
        assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/plain")
        lines = body.decode().splitlines()
        place = 'partition="0",topic="orders.v1"'
        for line in (
            f'rfmstream_orders_applied_total{{{place},view="rfm8"}} 2.0',
            f'rfmstream_orders_applied_total{{{place},view="hk"}} 0.0',
            'rfmstream_flaps_total{from_tier="101",partition="0",to_tier="001",topic="orders.v1",view="hk"} 2.0',
            'rfmstream_orders_rejected_total{partition="0",reason="bad_time",topic="orders.v1"} 4.0',
            'rfmstream_tier_changes_total{partition="0",reason="order",tier="101",topic="orders.v1",view="rfm8"} 6.0',
            'rfmstream_tier_changes_total{partition="0",reason="refund",tier="",topic="orders.v1",view="rfm8"} 1.0',
            'rfmstream_signals_total{kind="warning",partition="0",topic="orders.v1",view="rfm8"} 3.0',
            *(
                f'rfmstream_signals_total{{kind="{kind}",partition="0",topic="orders.v1",view="rfm8"}} 0.0'
                for kind in ("dwell", "orders", "spend", "single_order")
            ),
            f"rfmstream_lag_records{{{place}}} 2.0",
            f'rfmstream_commit_seconds_bucket{{le="0.0025",{place}}} 1.0',
            f'rfmstream_commit_seconds_bucket{{le="30.0",{place}}} 1.0',
            f'rfmstream_commit_seconds_bucket{{le="+Inf",{place}}} 2.0',
            f"rfmstream_commit_seconds_sum{{{place}}} 100.002",
            "rfmstream_partitions 2.0",
        ):
            assert line in lines, line
        assert any(line.startswith("process_resident_memory_bytes ") for line in lines)

    asking(board, steps)


def test_every_metric_has_its_name_once(board: Board) -> None:
    names = [family.name for family in registry_of(board).collect()]
    assert len(names) == len(set(names))
    assert {f"rfmstream_{metric.name}" for metric in PARTITION_METRICS} <= set(names)


def test_lag_in_seconds_is_the_age_of_what_was_read() -> None:
    board = Board(Engine("rfm8").ruleset, "log")
    now_us = time.time_ns() // 1000
    for number, (end, log_us) in enumerate([(5, now_us - DAY_US), (5, -(2**63)), (0, now_us - DAY_US)]):
        stats = PartitionStats(end=end, log_us=log_us)
        board.partitions[Source("orders.v1", number)] = Watched(stats, watched([]).snapshot)
    found = {
        sample.labels["partition"]: sample.value
        for family in registry_of(board).collect()
        for sample in family.samples
        if sample.name == "rfmstream_lag_seconds"
    }
    assert found.keys() == {"0", "2"}
    assert found["0"] >= 86_400
    assert found["2"] == 0


def test_a_port_that_is_taken_is_named(board: Board) -> None:
    async def run() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(ConfigError, match=rf"^listen: 127\.0\.0\.1:{port} is taken; choose another"):
                await StatusServer(("127.0.0.1", port), board).start()
        with pytest.raises(ConfigError, match="cannot be listened on"):
            await StatusServer(("192.0.2.1", 8765), board).start()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8765", 200),
        ("127.0.0.1:8765", 200),
        ("[::1]:8765", 200),
        ("evil.example:80", 403),
        ("[", 403),
    ],
)
def test_a_foreign_name_that_leads_to_loopback_is_refused(board: Board, host: str, status: int) -> None:
    async def run() -> int:
        server = StatusServer(("127.0.0.1", 0), board)
        await server.start()
        try:
            async with aiohttp.request("GET", f"{server.url}/snapshot", headers={"Host": host}) as response:
                return response.status
        finally:
            await server.stop()

    assert asyncio.run(run()) == status
