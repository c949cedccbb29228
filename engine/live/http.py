"""The worker's status pages: /metrics, /healthz, /readyz and /snapshot. On loopback unless told otherwise.

They run on the worker's own event loop, where its partitions are between two steps whenever a page is made; what takes
long happens in threads.
"""

import asyncio
import errno
import ipaddress
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

import pyarrow as pa
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from rfmstream.engine.events.instants import parse_instant, to_text
from rfmstream.engine.live.board import (
    EXPECTED_HEADER,
    PARTITIONS_HEADER,
    READY_STATES,
    Board,
    Watched,
    details,
)
from rfmstream.engine.live.metrics import registry_of
from rfmstream.engine.live.model import Source
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError, TransportError
from rfmstream.schemas.snapshots import snapshot_schema

ARROW_STREAM: Final = "application/vnd.apache.arrow.stream"

_CLOSE_S: Final = 2.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)


class StatusServer:
    """Serves the status pages of one worker.

    >>> server = StatusServer(("127.0.0.1", 8765), board)
    >>> await server.start()  # ConfigError if the port is taken
    >>> await server.stop()
    """

    def __init__(self, listen: tuple[str, int], board: Board) -> None:
        self._host, self._port = listen
        self._board = board
        self._registry = registry_of(board)
        self._one_snapshot = asyncio.Semaphore(1)
        app = web.Application(middlewares=[self._only_by_own_name])
        app.router.add_get("/", self._index)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/snapshot", self._snapshot)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_CLOSE_S)

    @property
    def url(self) -> str:
        """Where it listens, once it does."""
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        """Begin to listen.

        Errors  ConfigError  the port is taken, or there is no such address here
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            taken = error.errno == errno.EADDRINUSE
            raise ConfigError(
                f"{self._host}:{self._port} "
                + ("is taken" if taken else f"cannot be listened on: {_words(error)}"),
                key="listen",
                fix="choose another port, 0 for any free one, or off",
            ) from error

    async def stop(self) -> None:
        """Close, after a moment for pages in the making."""
        await self._runner.cleanup()

    @web.middleware
    async def _only_by_own_name(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse a foreign name of a loopback address: a page in a browser here may have its own lead to it.

        Source  DNS rebinding, https://en.wikipedia.org/wiki/DNS_rebinding
        """
        name = _name_in(request.headers.get("Host", "localhost"))
        is_foreign = name not in ("localhost", self._host.lower()) and not _is_loopback(name)
        if is_foreign and _is_loopback(self._runner.addresses[0][0]):
            return web.Response(status=403, text="ask for localhost: no other name leads here\n")
        return await handler(request)

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(text="rfmstream worker: /metrics /healthz /readyz /snapshot?as_of=INSTANT\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        ready = self._board.ready
        partitions = [
            {
                "topic": source.topic,
                "partition": source.partition,
                "state": one.stats.state,
                "position": one.stats.position,
                "lag": one.stats.lag,
                **details(one.stats),
            }
            for source, one in sorted(self._board.partitions.items())
        ]
        body = {"ready": ready, "ruleset": self._board.ruleset.identity, "partitions": partitions}
        return web.json_response(body, status=200 if ready else 503)

    async def _snapshot(self, request: web.Request) -> web.StreamResponse:
        # One at a time: a snapshot takes memory in proportion to the customers.
        async with self._one_snapshot:
            partitions = dict(sorted(self._board.partitions.items()))
            waiting = [
                str(source) for source, one in partitions.items() if one.stats.state not in READY_STATES
            ]
            if waiting or not self._board.joined:
                return web.Response(
                    status=503, text=f"not ready: {', '.join(waiting) or 'no partitions yet'}\n"
                )
            try:
                asked_us = self._asked(request.query.get("as_of"), partitions)
                tables = self._tables(partitions, asked_us)
                # Made before the first byte is sent, so that what cannot be had at all is an error page.
                first = await anext(tables, None)
            except ConfigError as error:
                return web.Response(status=400, text=f"{error}\n")
            except TransportError as error:
                return web.Response(status=503, text=f"not ready: {error}\n")
            names = ",".join(map(str, partitions))
            response = web.StreamResponse(
                headers={
                    "Content-Type": ARROW_STREAM,
                    PARTITIONS_HEADER: names,
                    EXPECTED_HEADER: ",".join(map(str, self._board.expected)),
                }
            )
            try:
                await response.prepare(request)
                await self._send(response, first, tables)
            except ConnectionResetError:
                _log.info("a snapshot was not waited for", extra={"client": request.remote})
            return response

    async def _send(
        self, response: web.StreamResponse, first: pa.Table | None, rest: AsyncIterator[pa.Table]
    ) -> None:
        chunks = _Chunks()
        writer = pa.ipc.new_stream(chunks, snapshot_schema(self._board.ruleset))
        table = first
        while table is not None:
            for batch in table.to_batches():
                await asyncio.to_thread(writer.write_batch, batch)
                await response.write(chunks.taken())
            table = await anext(rest, None)
        writer.close()
        await response.write(chunks.taken())
        await response.write_eof()

    def _asked(self, text: str | None, partitions: Mapping[Source, Watched]) -> int | None:
        """Return the instant that was asked for; None: whatever is the present."""
        if text is None:
            return None
        # In a query a plus sign that nobody escaped has become a blank, and an instant has no other.
        asked_us = parse_instant(text.replace(" ", "+"), self._board.ruleset.time_zone, key="as_of")
        for source, one in partitions.items():
            if asked_us < one.stats.clock_us:
                raise ConfigError(
                    f"{to_text(asked_us)} lies before the clock of {source}, {to_text(one.stats.clock_us)}",
                    key="as_of",
                    fix="ask for that or later; without as_of the answer is the present",
                )
        return asked_us

    async def _tables(
        self, partitions: Mapping[Source, Watched], asked_us: int | None
    ) -> AsyncIterator[pa.Table]:
        """Yield the table of each partition, of one instant; of a partition whose clock is past it, of its clock."""
        present_us = self._present_us(partitions)
        for one in partitions.values():
            if asked_us is not None:
                yield await one.snapshot(asked_us)
                continue
            try:
                table = await one.snapshot(max(present_us, one.stats.clock_us))
            except ConfigError:
                table = await one.snapshot(None)
            yield table

    def _present_us(self, partitions: Mapping[Source, Watched]) -> int:
        newest_us = max((one.stats.clock_us for one in partitions.values()), default=NEVER_US)
        return max(newest_us, time.time_ns() // 1000) if self._board.clock == "log" else newest_us


class _Chunks:
    """A file to write to, whose bytes are taken away piece by piece."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes | memoryview) -> int:
        # What Arrow lends is its own again after this call.
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _words(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def _name_in(host: str) -> str:
    """Return the name or address in a Host header, empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
