"""A receiver of deliveries: a real HTTP server in a thread of its own, that keeps what it is sent."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web


@dataclass(frozen=True)
class Received:
    """A request as it came, and the status that it was answered with."""

    at_s: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def json(self) -> Any:  # noqa: ANN401
        return orjson.loads(self.body)


Answering = Callable[[int, str, dict[str, str], bytes], web.Response]
"""From the number of the request, its path, headers and body to an answer."""


class Receiver:
    """Listens on a free port of loopback; `answer` decides what it says, 204 to everything at first."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.answer: Answering = lambda *_: web.Response(status=204)
        self.delay_s = 0.0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def taken(self) -> list[Received]:
        return [one for one in self.requests if 200 <= one.status < 300]

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def wait_for(self, holds: Callable[[], bool], timeout_s: float = 60) -> None:
        give_up = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < give_up, [(one.path, one.status) for one in self.requests[-20:]]
            time.sleep(0.02)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._take)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        at_s = time.monotonic()
        headers = {name.lower(): value for name, value in request.headers.items()}
        response = self.answer(len(self.requests), request.path_qs, headers, body)
        one = Received(at_s, request.method, request.path_qs, headers, body, response.status)
        self.requests.append(one)
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        return response


@contextmanager
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    try:
        yield one
    finally:
        one.stop()
