"""Customers by id, asked over a real connection."""

import asyncio
import json
import logging
import shutil
import ssl
import subprocess
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow as pa
import pytest
from served_workers import watched as watched_engine

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.explain import explain
from rfmstream.engine.files.text_rows import json_lines
from rfmstream.engine.live.board import Board, Watched
from rfmstream.engine.live.feed import Feed
from rfmstream.engine.live.http import ARROW_STREAM, StatusServer
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.placement import Placement, places_of
from rfmstream.engine.service.page_server import tls_context
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.ruleset import load_ruleset
from rfmstream.schemas.ruleset_file import read_ruleset_file, shipped_path

Steps = Callable[[aiohttp.ClientSession], Coroutine[Any, Any, None]]

HERE, THERE = Source("orders.v1", 0), Source("orders.v1", 1)


def watched(customers: Sequence[str], state: str = "live") -> tuple[Engine, Watched]:
    engine = Engine("rfm8", mode="live")
    columns = {
        "customer_id": list(customers),
        "order_id": [f"o{at}" for at in range(len(customers))],
        "occurred_at": [f"2026-01-{1 + at:02d}T10:00:00Z" for at in range(len(customers))],
        "amount": ["10.00"] * len(customers),
    }
    engine.step(pa.table(columns))

    return engine, watched_engine(engine, state)


@pytest.fixture
def board() -> Board:
    ruleset = Engine("rfm8").ruleset
    path = shipped_path("rfm8")
    assert path is not None
    board = Board(
        ruleset, "event", joined=True, rules={ruleset.identity: read_ruleset_file(path)}, feed=Feed(ruleset)
    )
    board.expected = [HERE, THERE]
    board.partitions[HERE] = watched(["ann", "東京/3", "00042", "{x}?%"])[1]
    board.partitions[THERE] = watched(["cid"])[1]
    return board


def explained(row: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """Return what `rfmstream explain --json` says of a row of a snapshot in JSON lines."""
    ruleset = load_ruleset("rfm8")
    path = shipped_path("rfm8")
    assert path is not None
    instants = ("tier_since", "effective_at", "last_paid_at", "first_paid_at", "next_change_at")
    typed = row | {name: row[name] and datetime.fromisoformat(row[name]) for name in instants}
    found = explain(typed, ruleset, read_ruleset_file(path), as_of_us=1_771_545_600_000_000)
    return json.loads(json.dumps(found.as_dict()))


def asking(board: Board, steps: Steps, *, token: str | None = None, host: str = "127.0.0.1") -> None:
    async def run() -> None:
        server = StatusServer((host, 0), board, token)
        await server.start()
        try:
            async with aiohttp.ClientSession(server.url.replace("0.0.0.0", "127.0.0.1")) as session:  # noqa: S104
                await steps(session)
        finally:
            await server.stop()

    asyncio.run(run())


def test_a_customer_is_its_row_of_the_snapshot_and_what_its_tier_is_called(board: Board) -> None:
    async def steps(session: aiohttp.ClientSession) -> None:
        for id_ in ("ann", "%E6%9D%B1%E4%BA%AC%2F3", "00042", "%7Bx%7D%3F%25"):
            async with session.get(f"/customers/{id_}?as_of=2026-02-20") as response:
                found = await response.json()
                assert response.status == 200
            (table,) = [await board.partitions[HERE].snapshot(1_771_545_600_000_000)]
            lines = [
                json.loads(line)
                for line in json_lines(table.combine_chunks().to_batches()[0]).to_pybytes().splitlines()
            ]
            (row,) = [line for line in lines if line["customer_id"] == found["customer_id"]]
            assert found.pop("explain") == explained(row)
            assert found == row | {
                "tier_zh": "一般挽留客户",
                "tier_en": "Low-value Lapsed",
                "playbook": "low_cost",
            }

    asking(board, steps)


def test_many_customers_as_json_and_as_arrow(board: Board) -> None:
    async def steps(session: aiohttp.ClientSession) -> None:
        ids = ["cid", "nobody", "ann", "ann"]
        async with session.post("/customers", json=ids) as response:
            found = await response.json()
            assert ([row["customer_id"] for row in found["customers"]], found["not_found"]) == (
                ["ann", "cid"],
                ["nobody"],
            )
        async with session.post("/customers", json=ids, headers={"Accept": ARROW_STREAM}) as response:
            table = pa.ipc.open_stream(await response.read()).read_all()
            assert table["customer_id"].to_pylist() == ["ann", "cid"]
        async with session.post("/customers", json=[], headers={"Accept": ARROW_STREAM}) as response:
            assert pa.ipc.open_stream(await response.read()).read_all().num_rows == 0
        for bad in ({"a": 1}, [1], ["x"] * 10_001):
            async with session.post("/customers", json=bad) as response:
                assert response.status == 400
        async with session.post("/customers", json=["x" * 256] * 10_000) as response:
            assert response.status == 200
        async with session.post("/customers", data=b"{") as response:
            assert response.status == 400

    asking(board, steps)


def test_there_is_none_only_where_every_partition_says_so(board: Board) -> None:
    async def status(session: aiohttp.ClientSession, path: str) -> tuple[int, str | None]:
        async with session.get(path) as response:
            return response.status, response.headers.get("Retry-After")

    async def steps(session: aiohttp.ClientSession) -> None:
        assert await status(session, "/customers/nobody") == (404, None)
        board.partitions[THERE].stats.state = "recovering"
        assert await status(session, "/customers/nobody") == (503, "1")
        assert await status(session, "/customers/cid") == (503, "1")
        assert await status(session, "/customers/ann") == (200, None)
        del board.partitions[THERE]
        assert await status(session, "/customers/cid") == (421, None)
        assert await status(session, "/customers/ann") == (200, None)
        board.joined = False
        assert await status(session, "/customers/nobody") == (503, "1")
        assert (await status(session, "/customers/ann?as_of=soon"))[0] == 400

    asking(board, steps)


def test_a_tier(board: Board) -> None:
    async def steps(session: aiohttp.ClientSession) -> None:
        async with session.get("/tiers/100") as response:
            assert pa.ipc.open_stream(await response.read()).read_all().num_rows == 5
        async with session.get("/tiers/000?as_of=2026-02-01T12:00:00Z") as response:
            table = pa.ipc.open_stream(await response.read()).read_all()
            assert table["customer_id"].to_pylist() == ["ann", "cid"]
        async with session.get("/tiers/vip") as response:
            assert response.status == 404

    asking(board, steps)


def test_beyond_loopback_a_token_is_needed(board: Board) -> None:
    async def status(session: aiohttp.ClientSession, path: str, token: str | None = None) -> int:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with session.get(path, headers=headers) as response:
            return response.status

    async def without(session: aiohttp.ClientSession) -> None:
        assert await status(session, "/customers/ann") == 403
        for path in ("/tiers/100", "/snapshot", "/changes?follow=false"):
            assert await status(session, path) == 403
        assert await status(session, "/healthz") == 200

    async def with_one(session: aiohttp.ClientSession) -> None:
        for path in ("/customers/ann", "/tiers/100", "/snapshot", "/changes?follow=false"):
            assert await status(session, path) == 401
            assert await status(session, path, "wrong") == 401
            assert await status(session, path, "sésame") == 200

    asking(board, without, host="0.0.0.0")  # noqa: S104
    asking(board, with_one, host="0.0.0.0", token="sésame")  # noqa: S104, S106


def test_no_log_says_who_was_asked_for(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def steps(session: aiohttp.ClientSession) -> None:
        await session.get("/customers/00042")
        await session.post("/customers", json=["00042"])

    asking(board, steps)
    assert "00042" not in caplog.text


def test_a_client_that_does_not_read_is_left(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfmstream.engine.live.data._WRITE_S_MAX", 0.2)
    one = board.partitions[HERE]
    asked: list[bool] = []

    async def steps(session: aiohttp.ClientSession) -> None:
        is_asked = asyncio.Event()

        async def large(as_of_us: int | None) -> pa.Table:
            asked.append(True)
            is_asked.set()
            return pa.concat_tables([await one.snapshot(as_of_us)] * 200_000).combine_chunks()

        board.partitions[HERE] = one._replace(snapshot=large)
        address = session._base_url
        assert address is not None
        _, deaf = await asyncio.open_connection(address.host, address.port, limit=1)
        deaf.write(b"GET /snapshot HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await is_asked.wait()
        board.partitions[HERE] = one
        for path in ("/customers/ann", "/snapshot"):
            async with session.get(path) as response:
                assert response.status == 200
        deaf.close()

    asking(board, steps)
    assert asked == [True]


def test_data_has_an_address_of_its_own(board: Board) -> None:
    async def run() -> None:
        server = StatusServer(("127.0.0.1", 0), board, listen_data=("127.0.0.1", 0))
        await server.start()
        try:
            assert server.url != server.data_url
            async with aiohttp.ClientSession() as session:
                expected = {
                    server.url: {
                        "/healthz": 200,
                        "/metrics": 200,
                        "/": 200,
                        "/snapshot": 404,
                        "/customers/ann": 404,
                    },
                    server.data_url: {
                        "/healthz": 404,
                        "/metrics": 404,
                        "/snapshot": 200,
                        "/customers/ann": 200,
                    },
                }
                for url, pages in expected.items():
                    for path, status in pages.items():
                        async with session.get(url + path) as response:
                            assert response.status == status, (url, path)
        finally:
            await server.stop()

    asyncio.run(run())


def test_beyond_loopback_a_certificate_is_shown(board: Board, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    command += [
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(cert),
    ]
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    subprocess.run(command, check=True, capture_output=True)
    tls = tls_context(str(cert), str(key))

    async def run() -> None:
        server = StatusServer(
            ("127.0.0.1", 0),
            board,
            "secret",
            listen_data=("0.0.0.0", 0),  # noqa: S104
            tls=tls,
        )
        await server.start()
        try:
            # On loopback nobody listens in.
            assert server.url.startswith("http://")
            url = server.data_url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
            assert url.startswith("https://")
            trusted = ssl.create_default_context(cafile=str(cert))
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted)) as session:
                async with session.get(f"{url}/customers/ann") as response:
                    assert response.status == 401
                headers = {"Authorization": "Bearer secret"}
                async with session.get(f"{url}/customers/ann", headers=headers) as response:
                    assert (await response.json())["customer_id"] == "ann"
            with pytest.raises(aiohttp.ClientError):
                async with aiohttp.ClientSession() as session, session.get(f"{url}/customers/ann"):
                    pass
        finally:
            await server.stop()

    asyncio.run(run())
    with pytest.raises(ConfigError, match=r"listen_tls_cert_file: .* is no certificate with its key"):
        tls_context(str(key), None)


def test_the_worker_that_has_a_customer_is_named(board: Board) -> None:
    topic = "orders.v1"
    board.expected = [Source(topic, number) for number in range(4)]
    board.partitions = {Source(topic, 0): board.partitions[HERE]}
    ids = [f"n{number}" for number in range(30)]
    places = dict(zip(ids, places_of([id_.encode() for id_ in ids], 4).tolist(), strict=True))

    async def owner(session: aiohttp.ClientSession, id_: str) -> str | None:
        async with session.get(f"/customers/{id_}") as response:
            assert response.status == 421
            return response.headers.get("Rfmstream-Owner")

    async def steps(session: aiohttp.ClientSession) -> None:
        assert {await owner(session, id_) for id_ in ids} == {None}
        # All that is elsewhere is at one place.
        board.owners = {Source(topic, number): "http://b:1" for number in (1, 2, 3)}
        assert {await owner(session, id_) for id_ in ids} == {"http://b:1"}
        board.owners[Source(topic, 3)] = "http://c:1"
        # Nobody knows how records were placed.
        assert {await owner(session, id_) for id_ in ids} == {None}
        board.partitions[Source(topic, 0)].stats.placement = Placement(0, 4)
        for id_, place in places.items():
            assert await owner(session, id_) == (board.owners[Source(topic, place)] if place else None)

    asking(board, steps)


def test_many_may_ask_for_the_same_customer_at_once(board: Board) -> None:
    async def steps(session: aiohttp.ClientSession) -> None:
        async def ask(id_: str) -> tuple[int, bytes]:
            async with session.get(f"/customers/{id_}") as response:
                return response.status, await response.read()

        alone = await ask("ann")
        together = await asyncio.gather(*(ask(id_) for id_ in ["ann", "cid", "nobody"] * 20))
        assert [status for status, _ in together] == [200, 200, 404] * 20
        assert set(together[::3]) == {alone}
        assert len(set(together[1::3])) == 1

    asking(board, steps)
