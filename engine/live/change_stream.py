"""GET /changes: committed tier changes as they happen, as lines of JSON or as server-sent events.

Each client is read at its own pace, and holds nothing but its place: one that takes nothing for a while is left, and
one that falls behind what is kept is told so. Neither costs the others, or the worker, anything.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
from aiohttp import web

from rfmstream.engine.live.asked import asked_bool
from rfmstream.engine.live.feed import Feed, Line, LostError
from rfmstream.schemas.changes import CHANGE_SCHEMA
from rfmstream.schemas.errors import ConfigError

EVENT_STREAM: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"
ARROW_STREAM: Final = "application/vnd.apache.arrow.stream"

CLIENTS_MAX: Final = 32
WRITE_S_MAX: Final = 10.0
"""A client that takes nothing for so long is left."""

QUIET_S: Final = 15.0
"""After so long without a change something is sent all the same, so that both ends know that the other is there."""

_log = logging.getLogger(__name__)


class ChangeStream:
    """Serves GET /changes?from=OFFSET&follow=false.

    As an Arrow stream it is what is kept from an offset on, or all of it: for those who want to count, not to follow.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._clients = 0

    @property
    def clients(self) -> int:
        """How many follow the changes now."""
        return self._clients

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one client until it goes, or is left.

        Errors  ConfigError  that is no offset, or what a form does not have
        """
        is_arrow = request.headers.get("Accept", "").startswith(ARROW_STREAM)
        follows = asked_bool(request, "follow", default=not is_arrow)
        if is_arrow and follows:
            raise ConfigError("an Arrow stream ends at the newest change", key="follow", fix="leave it out")
        asked = request.headers.get("Last-Event-ID") or request.query.get(
            "from", "oldest" if is_arrow else "newest"
        )
        try:
            place = self._feed.place_of(asked)
        except LostError:
            return web.Response(
                status=410,
                text=f"changes behind {asked[:40]} are not kept here any more: take a snapshot, and go on from the"
                " offset it names, or read the topic of the changes\n",
            )
        if is_arrow:
            return await self._kept(place)
        if self._clients >= CLIENTS_MAX:
            text = f"{CLIENTS_MAX} clients follow the changes already\n"
            return web.Response(status=503, headers={"Retry-After": "10"}, text=text)
        self._clients += 1
        try:
            return await self._serve(request, place, follows=follows)
        finally:
            self._clients -= 1

    async def _kept(self, place: int) -> web.Response:
        offset, tables = self._feed.offset(self._feed.end), self._feed.tables(place)
        body = await asyncio.to_thread(_as_arrow, tables)
        return web.Response(body=body, content_type=ARROW_STREAM, headers={"Rfmstream-Changes": offset})

    async def _serve(self, request: web.Request, place: int, *, follows: bool) -> web.StreamResponse:
        is_events = EVENT_STREAM in request.headers.get("Accept", "")
        response = web.StreamResponse(
            headers={
                "Content-Type": EVENT_STREAM if is_events else NDJSON,
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
                "Rfmstream-Changes": self._feed.offset(place),
            }
        )
        try:
            await response.prepare(request)
            await self._follow(response, place, is_events=is_events, follows=follows)
            await response.write_eof()
        except ConnectionResetError:
            _log.debug("a client has left the changes")
        except TimeoutError:
            _log.warning("a client does not read the changes, and is left", extra={"client": request.remote})
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _follow(
        self, response: web.StreamResponse, place: int, *, is_events: bool, follows: bool
    ) -> None:
        end = self._feed.end
        if is_events:
            await self._write(response, b": committed tier changes\n\n")
        while follows or place < end:
            try:
                lines = await self._feed.lines(place)
            except LostError:
                # Whoever reads more slowly than customers move has missed some, and must not think otherwise.
                lost = b'{"lost":true}'
                await self._write(
                    response, b"event: lost\ndata: " + lost + b"\n\n" if is_events else lost + b"\n"
                )
                return
            if lines:
                place += len(lines)
                await self._write(response, b"".join(map(_event if is_events else _line, lines)))
                continue
            try:
                async with asyncio.timeout(QUIET_S):
                    await self._feed.wait(place)
            except TimeoutError:
                await self._write(response, b": \n\n" if is_events else b"\n")

    @staticmethod
    async def _write(response: web.StreamResponse, data: bytes) -> None:
        async with asyncio.timeout(WRITE_S_MAX):
            await response.write(data)


def _as_arrow(tables: Sequence[pa.Table]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, CHANGE_SCHEMA) as writer:
        for table in tables:
            writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _line(line: Line) -> bytes:
    return b'{"offset":"%s",%s\n' % (line.offset.encode(), line.value[1:])


def _event(line: Line) -> bytes:
    return b"id: %s\nevent: change\ndata: %s\n\n" % (line.offset.encode(), line.value)
