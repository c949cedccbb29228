"""The worker's pages: /metrics, /healthz, /readyz, /snapshot, /tiers and /customers. On loopback unless told otherwise.

They run on the worker's own event loop, where its partitions are between two steps whenever a page is made; what takes
long happens in threads.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
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
from rfmstream.engine.live.lookup import ARROW_STREAM, BODY_BYTES_MAX, Lookup
from rfmstream.engine.live.metrics import registry_of
from rfmstream.engine.live.model import Source
from rfmstream.engine.service.page_server import PageServer
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError, TransportError
from rfmstream.schemas.snapshots import snapshot_schema

__all__ = ["ARROW_STREAM", "StatusServer"]

_CLOSE_S: Final = 2.0
_WRITE_S_MAX: Final = 30.0
"""A client that takes nothing for so long is left: others wait for their snapshot."""

_log = logging.getLogger(__name__)


class StatusServer:
    """Serves the status pages of one worker.

    >>> server = StatusServer(("127.0.0.1", 8765), board)
    >>> await server.start()  # ConfigError if the port is taken
    >>> await server.stop()
    """

    def __init__(self, listen: tuple[str, int], board: Board, token: str | None = None) -> None:
        self._server = PageServer(listen, close_s=_CLOSE_S, body_bytes_max=BODY_BYTES_MAX)
        self._board = board
        self._registry = registry_of(board)
        self._one_snapshot = asyncio.Semaphore(1)
        app = self._server.app
        app.router.add_get("/", self._index)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/snapshot", self._snapshot)
        app.router.add_get("/tiers/{tier}", self._tier)
        self._lookup = Lookup(
            board,
            instant_of=self._asked,
            present_us=self._present_us,
            token=token,
            is_open=lambda: self._server.is_on_loopback,
        )
        self._lookup.add_to(app)

    @property
    def url(self) -> str:
        """Where it listens, once it does."""
        return self._server.url

    async def start(self) -> None:
        """Begin to listen.

        Errors  ConfigError  the port is taken, or there is no such address here
        """
        await self._server.start()

    async def stop(self) -> None:
        """Close, after a moment for pages in the making."""
        await self._server.stop()

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(
            text="rfmstream worker: /metrics /healthz /readyz /snapshot?as_of=INSTANT"
            " /tiers/{tier}?as_of=INSTANT /customers/{id}?as_of=INSTANT\n"
        )

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

    async def _tier(self, request: web.Request) -> web.StreamResponse:
        refusal = self._lookup.refusal(request)
        if refusal is not None:
            return refusal
        tiers = [tier.id for tier in self._board.ruleset.tiers]
        if request.match_info["tier"] not in tiers:
            return web.Response(status=404, text=f"the ruleset's tiers are {', '.join(tiers)}\n")
        return await self._snapshot(request)

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
                tables = _of_tier(self._tables(partitions, asked_us), request.match_info.get("tier"))
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
            except TimeoutError:
                _log.warning("a snapshot was not read", extra={"client": request.remote})
                if request.transport is not None:
                    request.transport.abort()
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
                await asyncio.wait_for(response.write(chunks.taken()), _WRITE_S_MAX)
            table = await anext(rest, None)
        writer.close()
        await asyncio.wait_for(response.write(chunks.taken()), _WRITE_S_MAX)
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


async def _of_tier(tables: AsyncIterator[pa.Table], tier: str | None) -> AsyncIterator[pa.Table]:
    """Yield the rows of a tier; None: all of them."""
    async for table in tables:
        yield table if tier is None else table.filter(pc.equal(table["tier"].cast(pa.string()), tier))


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
