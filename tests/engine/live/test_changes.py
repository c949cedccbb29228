"""GET /changes over a real connection: committed changes as lines and as events, from an offset, and slow readers."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import aiohttp
import pyarrow as pa
import pytest

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.board import Board
from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.feed import Feed, LostError
from rfmstream.engine.live.http import StatusServer

Steps = Callable[[aiohttp.ClientSession, Feed], Coroutine[Any, Any, None]]


def changes_of(count: int, *, begin: int = 0) -> pa.Table:
    rows = {
        "customer_id": [f"c{begin + at}" for at in range(count)],
        "order_id": [f"o{at}" for at in range(count)],
        "occurred_at": ["2026-01-01T10:00:00Z"] * count,
        "amount": ["10.00"] * count,
    }
    return Engine("rfm8", mode="live", threads=1).step(pa.table(rows)).changes


def asking(steps: Steps, **bounds: int) -> None:
    async def run() -> None:
        ruleset = Engine("rfm8").ruleset
        feed = Feed(ruleset, **bounds)
        server = StatusServer(("127.0.0.1", 0), Board(ruleset, "event", joined=True, feed=feed))
        await server.start()
        try:
            async with aiohttp.ClientSession(server.url) as session:
                await steps(session, feed)
        finally:
            await server.stop()

    asyncio.run(run())


async def read_out(reader: asyncio.StreamReader) -> bytes:
    found = b""
    while some := await asyncio.wait_for(reader.read(1 << 20), 60):
        found += some
    return found


async def lines_of(response: aiohttp.ClientResponse, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        line = await asyncio.wait_for(response.content.readline(), 30)
        if line.strip():
            found.append(json.loads(line))
    return found


async def events_of(response: aiohttp.ClientResponse, count: int) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    event: dict[str, str] = {}
    while len(found) < count:
        line = (await asyncio.wait_for(response.content.readline(), 30)).decode().rstrip("\n")
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value
        elif event:
            found.append(event)
            event = {}
    return found


def test_a_line_is_what_the_topic_has_and_an_offset() -> None:
    async def steps(session: aiohttp.ClientSession, feed: Feed) -> None:
        changes = changes_of(700)
        feed.add(changes.slice(0, 300))
        feed.add(changes.slice(300))
        async with session.get("/changes?from=oldest&follow=false") as response:
            assert response.headers["Content-Type"] == "application/x-ndjson"
            lines = [json.loads(line) for line in (await response.read()).splitlines()]
        expected = [
            json.loads(record.value or b"")
            for record in Encoder(Engine("rfm8").ruleset, source="/x").changes(changes)
        ]
        assert [line.pop("offset") for line in lines] == [f"{feed.epoch}-{at}" for at in range(1, 701)]
        assert lines == expected

    asking(steps)


def test_who_follows_gets_what_is_committed_from_then_on() -> None:
    async def steps(session: aiohttp.ClientSession, feed: Feed) -> None:
        feed.add(changes_of(5))
        async with session.get("/changes") as response:
            assert response.headers["Rfmstream-Changes"] == f"{feed.epoch}-5"
            feed.add(changes_of(0))
            feed.add(changes_of(2, begin=5))
            assert [line["customer_id"] for line in await lines_of(response, 2)] == ["c5", "c6"]
            feed.add(changes_of(1, begin=7))
            assert [line["customer_id"] for line in await lines_of(response, 1)] == ["c7"]

    asking(steps)


def test_events_go_on_where_the_last_one_was() -> None:
    async def steps(session: aiohttp.ClientSession, feed: Feed) -> None:
        feed.add(changes_of(4))
        accept = {"Accept": "text/event-stream"}
        async with session.get("/changes?from=oldest", headers=accept) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            first = await events_of(response, 2)
        assert [event["event"] for event in first] == ["change", "change"]
        # A browser that has lost the connection asks for the same address again.
        again = accept | {"Last-Event-ID": first[-1]["id"]}
        async with session.get("/changes?from=oldest", headers=again) as response:
            rest = await events_of(response, 2)
        assert [json.loads(event["data"])["customer_id"] for event in rest] == ["c2", "c3"]

    asking(steps)


def test_what_is_no_offset_or_is_not_kept_is_said() -> None:
    async def steps(session: aiohttp.ClientSession, feed: Feed) -> None:
        for number in range(5):
            feed.add(changes_of(10, begin=10 * number))
        assert (feed.begin, feed.end) == (30, 50)
        asked = {
            "soon": 400,
            "oldest&follow=no": 400,
            f"{feed.epoch}-": 400,
            f"{feed.epoch}-29": 410,
            f"{feed.epoch}-51": 410,
            "abc-40": 410,
            f"{feed.epoch}-30": 200,
            f"{feed.epoch}-50": 200,
        }
        for offset, status in asked.items():
            async with session.get(f"/changes?follow=false&from={offset}") as response:
                assert response.status == status, offset

    asking(steps, rows_max=20)


def test_as_arrow_it_is_what_is_kept_from_an_offset_on() -> None:
    async def steps(session: aiohttp.ClientSession, feed: Feed) -> None:
        for number in range(3):
            feed.add(changes_of(10, begin=10 * number))
        accept = {"Accept": "application/vnd.apache.arrow.stream"}
        for query, begin in {
            "": 0,
            "?from=oldest&follow=false": 0,
            f"?from={feed.epoch}-17": 17,
            "?from=newest": 30,
        }.items():
            async with session.get(f"/changes{query}", headers=accept) as response:
                assert response.headers["Rfmstream-Changes"] == f"{feed.epoch}-30"
                found = pa.ipc.open_stream(await response.read()).read_all()["customer_id"].to_pylist()
                assert found == [f"c{at}" for at in range(begin, 30)], query
        for query, status in {"?from=abc-1": 410, "?from=soon": 400, "?follow=true": 400}.items():
            async with session.get(f"/changes{query}", headers=accept) as response:
                assert response.status == status, query

    asking(steps)


def test_who_falls_behind_is_told() -> None:
    async def steps(session: aiohttp.ClientSession, feed: Feed) -> None:
        async with session.get("/changes") as response:
            # All at once: nobody could have read the first ones before they were gone.
            for number in range(5):
                feed.add(changes_of(10, begin=10 * number))
            assert await lines_of(response, 1) == [{"lost": True}]
            assert await response.content.read() == b""

    asking(steps, rows_max=20)


def test_who_does_not_read_is_left_and_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rfmstream.engine.live.change_stream.WRITE_S_MAX", 4.0)

    async def steps(session: aiohttp.ClientSession, feed: Feed) -> None:
        changes = changes_of(40_000)
        address = session._base_url
        assert address is not None
        deaf, writer = await asyncio.open_connection(address.host, address.port, limit=1)
        writer.write(b"GET /changes HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await deaf.read(1) == b"H"
        async with session.get("/changes") as response:
            feed.add(changes)
            lines = await lines_of(response, 40_000)
        assert lines[-1]["customer_id"] == "c39999"
        while "does not read the changes, and is left" not in caplog.text:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.05)
        # What the kernels of both ends hold is still there; then the connection is gone, not ended.
        with suppress(ConnectionResetError):
            assert not (await read_out(deaf)).endswith(b"0\r\n\r\n")
        writer.close()

    asking(steps)


def test_there_are_never_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfmstream.engine.live.change_stream.CLIENTS_MAX", 2)

    async def steps(session: aiohttp.ClientSession, _: Feed) -> None:
        async with session.get("/changes"), session.get("/changes"), session.get("/changes") as third:
            assert (third.status, third.headers["Retry-After"]) == (503, "10")
        while True:
            async with session.get("/changes") as response:
                if response.status == 200:
                    break

    asking(steps)


def test_the_feed_keeps_whole_commits_and_always_the_newest() -> None:
    feed = Feed(Engine("rfm8").ruleset, rows_max=10, bytes_max=1 << 30)
    feed.add(changes_of(25))
    assert (feed.begin, feed.end) == (0, 25)
    feed.add(changes_of(1, begin=25))
    assert (feed.begin, feed.end) == (25, 26)
    with pytest.raises(LostError):
        asyncio.run(feed.lines(24))
    found = asyncio.run(feed.of_customer("c25"))
    assert [line.offset for line in found] == [f"{feed.epoch}-26"]
    assert asyncio.run(feed.of_customer("c3")) == []
