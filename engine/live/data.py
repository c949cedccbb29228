"""Customers' data over HTTP: /snapshot, /tiers, /customers and /changes.

It runs on the worker's own event loop, where its partitions are between two steps whenever an answer is made; what
takes long happens in threads.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from aiohttp import web

from rfmstream.engine.events.instants import parse_instant, to_text
from rfmstream.engine.live.access import Access
from rfmstream.engine.live.asked import AskedView, answering, asked_view, later
from rfmstream.engine.live.board import EXPECTED_HEADER, PARTITIONS_HEADER, READY_STATES, Board, Watched
from rfmstream.engine.live.change_stream import ChangeStream
from rfmstream.engine.live.lookup import ARROW_STREAM, CUSTOMER_PATH, Lookup, asked_id
from rfmstream.engine.live.model import Source
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError, RfmError
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.snapshots import snapshot_schema

CHANGES_HEADER: Final = "Rfmstream-Changes"
"""Of a snapshot: the offset from which on /changes tells what has changed since."""

_WRITE_S_MAX: Final = 30.0
"""A client that takes nothing for so long is left: others wait for their snapshot."""

_log = logging.getLogger(__name__)


class Data:
    """Answers with the data of a worker's partitions."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._one_snapshot = asyncio.Semaphore(1)
        self._lookup = Lookup(board, instant_of=self._asked, present_us=self.present_us)
        self.changes = None if board.feed is None else ChangeStream(board)

    def add_to(self, app: web.Application, access: Access) -> None:
        """Serve what there is."""
        for path, handler in {"/snapshot": self._snapshot, "/tiers/{tier}": self._tier}.items():
            app.router.add_get(path, access.guarded(answering(handler, "as_of", "view", "population")))
        self._lookup.add_to(app, access)
        if self.changes is not None:
            app.router.add_get(
                "/changes",
                access.guarded(answering(self.changes.handle, "from", "follow", "view", "population")),
            )
            app.router.add_get(
                f"{CUSTOMER_PATH}/changes", access.guarded(answering(self._story, "view", "population"))
            )

    async def _story(self, request: web.Request) -> web.Response:
        """Answer with the changes of a customer that are kept here, oldest first, as their topic has them."""
        view, id_ = asked_view(request, self._board), asked_id(request)
        feed = self._board.feed_of(view.view)
        lines = [] if feed is None else await feed.of_customer(id_, view.name, view.population)
        body = b'{"changes":[%s]}\n' % b",".join(line.value for line in lines)
        headers = {"Cache-Control": "no-store"}
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def _tier(self, request: web.Request) -> web.StreamResponse:
        view = asked_view(request, self._board)
        tiers = [tier.id for tier in view.ruleset.tiers]
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
                return later(", ".join(waiting) or "no partitions yet")
            view = asked_view(request, self._board)
            feed = self._board.feed_of(view.view)
            behind = {} if feed is None else {CHANGES_HEADER: feed.offset(feed.end)}
            asked_us = self._asked(request.query.get("as_of"), partitions)
            tables = _of_tier(self.tables(partitions, asked_us, view), request.match_info.get("tier"))
            # Made before the first byte is sent, so that what cannot be had at all is an error page.
            first = await anext(tables, None)
            names = ",".join(map(str, partitions))
            response = web.StreamResponse(
                headers={
                    "Content-Type": ARROW_STREAM,
                    PARTITIONS_HEADER: names,
                    EXPECTED_HEADER: ",".join(map(str, self._board.expected)),
                    **behind,
                }
            )
            try:
                await response.prepare(request)
                await self._send(response, view.ruleset, first, tables)
            except ConnectionResetError:
                _log.info("a snapshot was not waited for", extra={"client": request.remote})
            except RfmError as error:
                # Too late for an error page: the stream breaks off, which no reader takes for its end.
                _log.warning("a snapshot broke off", extra={"reason": str(error)})
                if request.transport is not None:
                    request.transport.abort()
            except TimeoutError:
                _log.warning("a snapshot was not read", extra={"client": request.remote})
                if request.transport is not None:
                    request.transport.abort()
            return response

    async def _send(
        self,
        response: web.StreamResponse,
        ruleset: Ruleset,
        first: pa.Table | None,
        rest: AsyncIterator[pa.Table],
    ) -> None:
        chunks = _Chunks()
        writer = pa.ipc.new_stream(chunks, snapshot_schema(ruleset))
        table = first
        while table is not None:
            for batch in table.to_batches():
                await asyncio.to_thread(writer.write_batch, batch)
                async with asyncio.timeout(_WRITE_S_MAX):
                    await response.write(chunks.taken())
            table = await anext(rest, None)
        writer.close()
        async with asyncio.timeout(_WRITE_S_MAX):
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

    async def tables(
        self, partitions: Mapping[Source, Watched], asked_us: int | None, view: AskedView | None = None
    ) -> AsyncIterator[pa.Table]:
        """Yield the table of each partition, of one instant; of a partition whose clock is past it, of its clock."""
        view = view or AskedView(self._board.ruleset)
        present_us = self.present_us(partitions)
        for one in partitions.values():
            if asked_us is not None:
                yield view.only(await view.snapshot(one, asked_us))
                continue
            try:
                table = await view.snapshot(one, max(present_us, one.stats.clock_us))
            except ConfigError:
                table = await view.snapshot(one, None)
            yield view.only(table)

    def present_us(self, partitions: Mapping[Source, Watched]) -> int:
        """Return what the present is: the wall clock's now, or where the events' clock is, the newest of all."""
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
