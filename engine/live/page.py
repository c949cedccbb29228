"""The page at `/`: what partitions hold, moving as changes are committed. Whoever draws it is handed in.

A reader holds one stream. It brings the state, at most a few times a second and only where it has changed, and says
when pictures are new. Pictures are drawn only while somebody looks, and not so often that orders would feel it.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import orjson
import pyarrow as pa
from aiohttp import web

from rfmstream.engine.live.access import Access
from rfmstream.engine.live.asked import answering
from rfmstream.engine.live.change_stream import EVENT_STREAM, QUIET_S, WRITE_S_MAX
from rfmstream.schemas.errors import RfmError
from rfmstream.schemas.ruleset import Ruleset

READERS_MAX: Final = 32
STATE_S: Final = 0.25
"""The state is told no more often."""

VIEWS_S_MIN: Final = 3.0
VIEWS_S_MAX: Final = 60.0
VIEWS_SHARE: Final = 0.1
"""Of the time, at most so much goes into pictures, as far as they are drawn every VIEWS_S_MAX at all."""

_log = logging.getLogger(__name__)


class Held(NamedTuple):
    """What pictures are made of: snapshots of partitions, changes since the start, and their instant.

    as_of_us  NEVER_US: as the snapshots' rows tell it
    """

    tables: Sequence[pa.Table]
    changes: Sequence[pa.Table]
    as_of_us: int


class Draws(Protocol):
    """Makes the page and its pictures; `engine.insight.report.live_page.LivePage`. Called in any thread."""

    def warm_up(self) -> None:
        """Do what takes long the first time."""
        ...

    def shell(self) -> tuple[str, str]:
        """Return the page without any data, and its Content-Security-Policy."""
        ...

    def views(
        self, tables: Sequence[pa.Table], changes: Sequence[pa.Table], ruleset: Ruleset, as_of_us: int
    ) -> bytes:
        """Return the pictures as JSON."""
        ...

    def many(self) -> bytes:
        """Return what is said in their place where there are too many customers."""
        ...


class PageSource(Protocol):
    """What a page shows: of one worker, or of several."""

    @property
    def ruleset(self) -> Ruleset | None:
        """The ruleset; None: not known yet."""
        ...

    @property
    def is_drawn(self) -> bool:
        """Whether there are so few customers that pictures can be drawn."""
        ...

    async def state(self) -> dict[str, Any]:
        """Return what is told of partitions, tiers and the newest changes."""
        ...

    async def held(self) -> Held:
        """Return what pictures are made of.

        Errors  RfmError  it cannot be had now
        """
        ...


class LivePages:
    """Serves the page, its stream and its pictures."""

    def __init__(self, source: PageSource, draws: Draws) -> None:
        self._source = source
        self._draws = draws
        self._shell = draws.shell()
        self._readers = 0
        self._state = b""
        self._state_at = 0.0
        self._telling = asyncio.Lock()
        self._views = b""
        self._drawn_of: object = None
        self._version = 0
        self._next_views_at = 0.0
        self._drawing: asyncio.Task[None] | None = None

    def add_to(self, app: web.Application, access: Access) -> None:
        """Serve / without any data, and /page/… for those who may have data."""
        app.router.add_get("/", answering(self._page))
        app.router.add_get("/page/state", access.guarded(answering(self._one_state)))
        app.router.add_get("/page/stream", access.guarded(answering(self._stream)))
        app.router.add_get("/page/views", access.guarded(answering(self._pictures)))

    async def _page(self, _: web.Request) -> web.Response:
        html, policy = self._shell
        headers = {
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }
        return web.Response(text=html, content_type="text/html", headers=headers)

    async def _one_state(self, _: web.Request) -> web.Response:
        return _json(await self._told())

    async def _pictures(self, _: web.Request) -> web.Response:
        if not self._views:
            await self._draw_again()
        if not self._views:
            return web.Response(status=503, headers={"Retry-After": "1"}, text="not ready: nothing to draw\n")
        return _json(self._views)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if self._readers >= READERS_MAX:
            text = f"{READERS_MAX} readers look already\n"
            return web.Response(status=503, headers={"Retry-After": "10"}, text=text)
        response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "Cache-Control": "no-store"})
        self._readers += 1
        try:
            await response.prepare(request)
            await self._tell(response)
        except ConnectionResetError:
            _log.debug("a reader has left the page")
        except TimeoutError:
            _log.warning("a reader does not read the page, and is left", extra={"client": request.remote})
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._readers -= 1
        return response

    async def _tell(self, response: web.StreamResponse) -> None:
        told, version, quiet_s = b"", -1, 0.0
        while True:
            state = await self._told()
            events = []
            if state != told:
                events.append(b"event: state\ndata: " + state + b"\n\n")
                told = state
            self._draw_in_time(state)
            if self._version != version:
                version = self._version
                events.append(b"event: views\ndata: %d\n\n" % version)
            quiet_s = 0.0 if events else quiet_s + STATE_S
            if quiet_s >= QUIET_S:
                events.append(b": \n\n")
                quiet_s = 0.0
            if events:
                async with asyncio.timeout(WRITE_S_MAX):
                    await response.write(b"".join(events))
            await asyncio.sleep(STATE_S)

    async def _told(self) -> bytes:
        """Return the state as JSON, made once for all readers."""
        async with self._telling:
            if not self._state or time.monotonic() - self._state_at >= STATE_S / 2:
                self._state = orjson.dumps(await self._source.state())
                self._state_at = time.monotonic()
            return self._state

    def _draw_in_time(self, state: bytes) -> None:
        """Begin to draw where there is something new to be seen, and long enough after the last time."""
        is_drawing = self._drawing is not None and not self._drawing.done()
        if is_drawing or state == self._drawn_of or time.monotonic() < self._next_views_at:
            return
        self._drawing = asyncio.create_task(self._draw_again(state))

    async def _draw_again(self, state: bytes | None = None) -> None:
        ruleset = self._source.ruleset
        if ruleset is None:
            return
        started = time.monotonic()
        try:
            if self._source.is_drawn:
                held = await self._source.held()
                views = await asyncio.to_thread(
                    self._draws.views, held.tables, held.changes, ruleset, held.as_of_us
                )
            else:
                views = self._draws.many()
        except RfmError as error:
            _log.debug("no pictures now", extra={"reason": str(error)})
            self._next_views_at = time.monotonic() + 1.0
            return
        took_s = time.monotonic() - started
        wait_s = min(max(VIEWS_S_MIN, took_s / VIEWS_SHARE), VIEWS_S_MAX)
        self._next_views_at = time.monotonic() + wait_s
        self._drawn_of = state
        if views != self._views:
            self._views = views
            self._version += 1


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})
