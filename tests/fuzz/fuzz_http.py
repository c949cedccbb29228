"""A fuzzer's target: whatever is sent to the status pages, the next one who asks is answered."""

import asyncio
import threading
from contextlib import suppress
from functools import cache

SENT_BYTES_MAX = 4000
QUIET_S = 0.02
PAGES = (
    b"/healthz",
    b"/readyz",
    b"/metrics",
    b"/snapshot",
    b"/snapshot.arrow",
    b"/customers/ann",
    b"/tiers",
    b"/",
)


@cache
def _served() -> tuple[asyncio.AbstractEventLoop, int]:
    from rfmstream import Engine  # noqa: PLC0415 - after instrumentation
    from rfmstream.engine.live.board import Board  # noqa: PLC0415
    from rfmstream.engine.live.http import StatusServer  # noqa: PLC0415

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    server = StatusServer(("127.0.0.1", 0), Board(Engine("rfm8").ruleset, "event", joined=True))
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(30)
    return loop, int(server.url.rsplit(":", 1)[1])


async def _asked(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        await writer.drain()
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(
                QUIET_S if b"healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" not in request else 10
            ):
                return await reader.read(1 << 16)
        return b""
    finally:
        writer.close()


def take_http(data: bytes) -> None:
    """Take what is sent."""
    loop, port = _served()

    def ask(request: bytes) -> bytes:
        return asyncio.run_coroutine_threadsafe(_asked(port, request), loop).result(30)

    with suppress(ConnectionError):
        answer = ask(data[:SENT_BYTES_MAX])
        assert not answer.startswith(b"HTTP/1.1 500"), answer
    answer = ask(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), answer


def http_seeds() -> list[bytes]:
    """Return requests of each page."""
    host = b" HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    return [
        *(b"GET " + page + host + b"\r\n" for page in PAGES),
        b"GET /snapshot?as_of=2026-01-01T00:00:00Z&format=csv" + host + b"Accept: text/csv\r\n\r\n",
        b"GET /customers/%2e%2e%2f%00" + host + b"Authorization: Bearer x\r\n\r\n",
        b"POST /metrics" + host + b"Content-Length: 10\r\n\r\n12345",
        b"GET /healthz HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ]
