"""The server of status pages: where it listens, and which names it answers to."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from rfmstream.engine.service.page_server import CONNECTIONS_MAX, PageServer, is_loopback
from rfmstream.schemas.errors import ConfigError


async def page(_: web.Request) -> web.Response:
    return web.Response(text="here")


def served(test: Callable[[PageServer], Awaitable[None]], host: str = "127.0.0.1") -> None:
    async def whole() -> None:
        server = PageServer((host, 0), close_s=0.1)
        server.app.router.add_get("/", page)
        await server.start()
        try:
            await test(server)
        finally:
            await server.stop()

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:80", 200),
        ("127.0.0.1", 200),
        ("[::1]:8765", 200),
        ("evil.example", 403),
        ("192.0.2.1", 403),
        ("[", 403),
    ],
)
def test_a_loopback_address_answers_to_its_own_names(host: str, status: int) -> None:
    async def test(server: PageServer) -> None:
        assert server.is_on_loopback
        async with (
            aiohttp.ClientSession() as session,
            session.get(server.url, headers={"Host": host}) as answer,
        ):
            assert answer.status == status

    served(test)


def test_a_port_that_is_taken_is_an_error_with_a_fix() -> None:
    async def test(server: PageServer) -> None:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(ConfigError, match=rf"listen: 127\.0\.0\.1:{port} is taken; choose another port"):
            await PageServer(("127.0.0.1", port), close_s=0.1).start()

    served(test)


def test_a_body_that_is_too_large_is_refused() -> None:
    async def whole() -> None:
        server = PageServer(("127.0.0.1", 0), close_s=0.1, body_bytes_max=10)

        async def take(request: web.Request) -> web.Response:
            await request.read()
            return web.Response()

        server.app.router.add_post("/", take)
        await server.start()
        async with aiohttp.ClientSession() as session:
            for size, status in ((10, 200), (11, 413)):
                async with session.post(server.url, data=b"x" * size) as answer:
                    assert answer.status == status
        await server.stop()

    asyncio.run(whole())


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Return what came until the connection was closed, or reset."""
    found = b""
    try:
        while some := await asyncio.wait_for(reader.read(1 << 20), 60):
            found += some
    except ConnectionResetError:
        pass
    return found


def test_a_connection_that_says_nothing_whole_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfmstream.engine.service.page_server.HEADERS_S_MAX", 0.2)

    async def test(server: PageServer) -> None:
        port = int(server.url.rpartition(":")[2])
        for said in (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            assert await ended(reader) == b""
            writer.close()

    served(test)


def test_what_is_no_http_is_refused_and_not_quoted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_: web.Request) -> web.Response:
        raise RuntimeError("ours")

    async def whole() -> None:
        server = PageServer(("127.0.0.1", 0), close_s=0.1)
        server.app.router.add_get("/", broken)
        await server.start()
        for said in (b"GET / HTTP/1.1\r\nHost\x1b[1m\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
            writer.write(said + b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await ended(reader))[9:12] == (b"400" if b"\x1b" in said else b"500")
            writer.close()
        await server.stop()

    asyncio.run(whole())
    assert "RuntimeError: ours" in caplog.text
    assert "Host" not in caplog.text


def test_there_are_never_more_than_so_many_and_who_asks_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfmstream.engine.service.page_server.CONNECTIONS_MAX", 5)

    async def test(server: PageServer) -> None:
        port = int(server.url.rpartition(":")[2])
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        async with aiohttp.ClientSession() as session, session.get(server.url) as answer:
            assert answer.status == 200
        # Whoever was silent for longest had to go.
        for reader, _ in silent[:15]:
            assert await ended(reader) == b""
        for _, writer in silent:
            writer.close()

    served(test)


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfmstream.engine.service.page_server.BODY_S_MAX", 0.2)

    async def test(server: PageServer) -> None:
        server_port = int(server.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", server_port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
        assert (await asyncio.wait_for(reader.readline(), 60)).startswith(b"HTTP/1.1 408 ")
        writer.close()

    served(test)


def test_whoever_leaves_within_a_body_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    async def test(server: PageServer) -> None:
        port = int(server.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
        await writer.drain()
        await asyncio.sleep(0.1)  # until the server waits for the rest
        writer.transport.abort()
        await asyncio.sleep(0.1)

    served(test)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_an_answer_that_is_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfmstream.engine.service.page_server.ANSWER_S_MAX", 0.2)

    async def whole() -> None:
        server = PageServer(("127.0.0.1", 0), close_s=0.1)

        async def large(_: web.Request) -> web.Response:
            return web.Response(body=bytes(64 << 20))

        server.app.router.add_get("/", page)
        server.app.router.add_get("/large", large)
        await server.start()
        port = int(server.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.read(1) == b"H"
        async with aiohttp.ClientSession() as session, session.get(server.url) as answer:
            assert answer.status == 200
        await asyncio.sleep(0.5)  # longer than it may take to be read
        assert len(await ended(reader)) < 64 << 20
        writer.close()
        await server.stop()

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("name", "expected"), [("127.0.0.1", True), ("::1", True), ("10.0.0.1", False), ("x", False)]
)
def test_loopback_addresses(name: str, *, expected: bool) -> None:
    assert is_loopback(name) is expected


def test_connections_that_are_gone_refuse_nobody() -> None:
    """Many short ones that never ask for anything whole, as a fuzzer or a scanner of ports makes them."""

    async def test(server: PageServer) -> None:
        port = int(server.url.rpartition(":")[2])
        for _ in range(CONNECTIONS_MAX + 10):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /healthz HTT\r\n\r\n")
            await writer.drain()
            writer.close()
        await asyncio.sleep(0.3)
        async with aiohttp.ClientSession() as session, session.get(server.url) as answer:
            assert answer.status == 200

    served(test)
