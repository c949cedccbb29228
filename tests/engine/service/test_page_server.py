"""The server of status pages: where it listens, and which names it answers to."""

import asyncio
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
