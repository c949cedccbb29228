"""GET /changes: committed tier changes as they happen, as lines of JSON or as server-sent events.

Those of all views, but not of shadows: they are told only to whoever names one, and are numbered apart.

Each client is read at its own pace, and holds nothing but its place: one that takes nothing for a while is left, and
one that falls behind what is kept is told so. Neither costs the others, or the worker, anything.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import pyarrow as pa
from aiohttp import web

from rfmstream.engine.live.asked import AskedView, asked_bool, asked_view
from rfmstream.engine.live.board import Board
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


class Followed(NamedTuple):
    """What a client follows: changes, and those among them that it wants; None: all."""

    feed: Feed
    asked: AskedView | None = None

    async def lines(self, place: int) -> tuple[list[Line], int]:
        """Return the wanted ones of some changes from a place on, and the place behind them all.

        Errors  LostError  they are not kept any more
        """
        lines = await self.feed.lines(place)
        if self.asked is None or not lines:
            return list(lines), place + len(lines)
        if place < self.feed.begin:
            raise LostError
        name, population = self.asked.name, self.asked.population
        rows = self.feed.rows(place, len(lines)).select(["view", "population"]).to_pylist()
        wanted = [
            line
            for line, row in zip(lines, rows, strict=True)
            if name in {None, row["view"]} and population in {None, row["population"]}
        ]
        return wanted, place + len(lines)

    async def as_arrow(self, place: int) -> bytes:
        """Return the wanted ones of the changes that are kept from a place on, oldest first, as an Arrow stream."""
        asked = self.asked
        tables = self.feed.since(place, None if asked is None else asked.name)
        return await asyncio.to_thread(
            lambda: _as_arrow(tables if asked is None else [asked.only(table) for table in tables])
        )


class ChangeStream:
    """Serves GET /changes?from=OFFSET&follow=false&view=NAME&population=VALUE."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._clients = 0

    @property
    def clients(self) -> int:
        """How many follow the changes now."""
        return self._clients

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one client until it goes, or is left.

        Errors  ConfigError  that is no offset, no view, or what a form does not have
        """
        is_arrow = request.headers.get("Accept", "").startswith(ARROW_STREAM)
        follows = asked_bool(request, "follow", default=not is_arrow)
        if is_arrow and follows:
            raise ConfigError("an Arrow stream ends at the newest change", key="follow", fix="leave it out")
        followed = self._followed(request)
        asked = request.headers.get("Last-Event-ID") or request.query.get(
            "from", "oldest" if is_arrow else "newest"
        )
        try:
            place = followed.feed.place_of(asked)
        except LostError:
            return web.Response(
                status=410,
                text=f"changes behind {asked[:40]} are not kept here any more: take a snapshot, and go on from the"
                " offset it names, or read the topic of the changes\n",
            )
        if is_arrow:
            return await _kept(followed, place)
        if self._clients >= CLIENTS_MAX:
            text = f"{CLIENTS_MAX} clients follow the changes already\n"
            return web.Response(status=503, headers={"Retry-After": "10"}, text=text)
        self._clients += 1
        try:
            return await self._serve(request, followed, place, follows=follows)
        finally:
            self._clients -= 1

    def _followed(self, request: web.Request) -> Followed:
        """Return what is asked for.

        Errors  ConfigError  there is no such view, or it has no populations
        """
        asked = asked_view(request, self._board) if request.query.keys() & {"view", "population"} else None
        feed = self._board.feed_of(None if asked is None else asked.view)
        assert feed is not None, "whoever serves changes keeps them"
        return Followed(feed, asked)

    async def _serve(
        self, request: web.Request, followed: Followed, place: int, *, follows: bool
    ) -> web.StreamResponse:
        is_events = EVENT_STREAM in request.headers.get("Accept", "")
        response = web.StreamResponse(
            headers={
                "Content-Type": EVENT_STREAM if is_events else NDJSON,
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
                "Rfmstream-Changes": followed.feed.offset(place),
            }
        )
        try:
            await response.prepare(request)
            await self._follow(response, followed, place, is_events=is_events, follows=follows)
            await response.write_eof()
        except ConnectionResetError:
            _log.debug("a client has left the changes")
        except TimeoutError:
            _log.warning("a client does not read the changes, and is left", extra={"client": request.remote})
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _follow(
        self, response: web.StreamResponse, followed: Followed, place: int, *, is_events: bool, follows: bool
    ) -> None:
        feed = followed.feed
        end = feed.end
        if is_events:
            await self._write(response, b": committed tier changes\n\n")
        written_at = time.monotonic()
        while follows or place < end:
            try:
                lines, place = await followed.lines(place)
            except LostError:
                # Whoever reads more slowly than customers move has missed some, and must not think otherwise.
                lost = b'{"lost":true}'
                await self._write(
                    response, b"event: lost\ndata: " + lost + b"\n\n" if is_events else lost + b"\n"
                )
                return
            quiet_s = time.monotonic() - written_at
            if lines or quiet_s >= QUIET_S:
                told = b"".join(map(_event if is_events else _line, lines))
                await self._write(response, told or (b": \n\n" if is_events else b"\n"))
                written_at = time.monotonic()
            elif place == feed.end:
                with suppress(TimeoutError):
                    async with asyncio.timeout(QUIET_S - quiet_s):
                        await feed.wait(place)

    @staticmethod
    async def _write(response: web.StreamResponse, data: bytes) -> None:
        async with asyncio.timeout(WRITE_S_MAX):
            await response.write(data)


async def _kept(followed: Followed, place: int) -> web.Response:
    """Answer with what is kept from a place on: for those who want to count, not to follow."""
    headers = {"Rfmstream-Changes": followed.feed.offset(followed.feed.end)}
    return web.Response(body=await followed.as_arrow(place), content_type=ARROW_STREAM, headers=headers)


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
