"""The page at `/`: what partitions hold, moving as changes are committed. Whoever draws it is handed in.

A reader chooses a view and a population, and holds one stream. It brings the state, at most a few times a second and
only where it has changed, and says when pictures are new. Pictures are drawn only while somebody looks, one after
another, and not so often that orders would feel it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Protocol

import orjson
import pyarrow as pa
from aiohttp import web

from rfmstream.engine.live.access import Access
from rfmstream.engine.live.asked import AskedView, answering
from rfmstream.engine.live.change_stream import EVENT_STREAM, QUIET_S, WRITE_S_MAX
from rfmstream.schemas.errors import RfmError
from rfmstream.schemas.ruleset import Ruleset

READERS_MAX: Final = 32
POPULATIONS_MAX: Final = 1_000
"""So many are told to be chosen from; of the others a reader has to know the name."""

IDLE_MAX: Final = 8
"""Of so many choices that nobody looks at the pictures are kept."""

STATE_S: Final = 0.25
"""The state is told no more often."""

VIEWS_S_MIN: Final = 3.0
VIEWS_S_MAX: Final = 60.0
VIEWS_SHARE: Final = 0.1
"""Of the time, at most so much goes into pictures, as far as they are drawn every VIEWS_S_MAX at all."""
_CHOICE: Final = ("view", "population")
"""Keys of a query: what is looked at."""

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


class Look(Protocol):
    """What is seen of a view, or of one of its populations."""

    @property
    def ruleset(self) -> Ruleset:
        """The view's."""
        ...

    @property
    def is_drawn(self) -> bool:
        """Whether there are so few customers that pictures can be drawn."""
        ...

    def begin(self) -> None:
        """Somebody looks from now on."""
        ...

    def end(self) -> None:
        """Nobody looks any more."""
        ...

    async def state(self) -> dict[str, Any]:
        """Return what is told of partitions, tiers and the newest changes."""
        ...

    async def held(self) -> Held:
        """Return what pictures are made of.

        Errors  RfmError  it cannot be had now
        """
        ...


class PageSource(Protocol):
    """What a page shows: of one worker, or of several."""

    def asked(self, view: str | None, population: str | None) -> AskedView:
        """Return what a reader chooses.

        Errors  ConfigError  there is no such view, or it has no populations
        """
        ...

    def look(self, asked: AskedView) -> Look:
        """Return what is seen of it."""
        ...

    async def populations(self, asked: AskedView) -> dict[str, int]:
        """Return the populations of a view and the customers of each; none where it does not part them."""
        ...


class LivePages:
    """Serves the page, its streams and its pictures."""

    def __init__(self, source: PageSource, draws: Draws) -> None:
        self._source = source
        self._draws = draws
        self._shell = draws.shell()
        self._readers = 0
        self._channels: dict[tuple[str | None, str | None], _Channel] = {}
        self._drawing = asyncio.Lock()

    def add_to(self, app: web.Application, access: Access) -> None:
        """Serve / without any data, and /page/… for those who may have data."""
        app.router.add_get("/", answering(self._page, *_CHOICE, "lang"))
        for path, handler, *keys in (
            ("/page/state", self._one_state),
            ("/page/stream", self._stream, "pictures"),
            ("/page/views", self._pictures),
            ("/page/populations", self._populations),
        ):
            app.router.add_get(path, access.guarded(answering(handler, *_CHOICE, *keys)))

    async def _page(self, _: web.Request) -> web.Response:
        html, policy = self._shell
        headers = {
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }
        return web.Response(text=html, content_type="text/html", headers=headers)

    async def _one_state(self, request: web.Request) -> web.Response:
        channel = self._channel(request)
        with channel.watched():
            return _json(await channel.told())

    async def _populations(self, request: web.Request) -> web.Response:
        """Answer with the largest populations of a view."""
        found = await self._source.populations(self._asked(request))
        largest = sorted(found.items(), key=lambda one: (-one[1], one[0]))[:POPULATIONS_MAX]
        told = [{"name": name, "customers": count} for name, count in largest]
        return _json(orjson.dumps({"populations": told, "all": len(found)}))

    async def _pictures(self, request: web.Request) -> web.Response:
        channel = self._channel(request)
        with channel.watched():
            if not channel.views:
                await channel.draw_again()
        if not channel.views:
            return web.Response(status=503, headers={"Retry-After": "1"}, text="not ready: nothing to draw\n")
        return _json(channel.views)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        channel = self._channel(request)
        if self._readers >= READERS_MAX:
            text = f"{READERS_MAX} readers look already\n"
            return web.Response(status=503, headers={"Retry-After": "10"}, text=text)
        response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "Cache-Control": "no-store"})
        self._readers += 1
        try:
            await response.prepare(request)
            with channel.watched():
                await _tell(response, channel, has_pictures=request.query.get("pictures") != "false")
        except ConnectionResetError:
            _log.debug("a reader has left the page")
        except TimeoutError:
            _log.warning("a reader does not read the page, and is left", extra={"client": request.remote})
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._readers -= 1
        return response

    def _asked(self, request: web.Request) -> AskedView:
        return self._source.asked(request.query.get("view"), request.query.get("population"))

    def _channel(self, request: web.Request) -> "_Channel":
        """Return what all readers of one choice share.

        Errors  ConfigError  there is no such view, or it has no populations
        """
        asked = self._asked(request)
        key = asked.name, asked.population
        # Whoever comes back soon finds what was drawn; of those nobody looks at, the oldest are let go.
        channel = self._channels.pop(key, None)
        if channel is None:
            idle = [key for key, one in self._channels.items() if not one.readers]
            for old in idle[: max(len(idle) - IDLE_MAX + 1, 0)]:
                del self._channels[old]
            channel = _Channel(self._source.look(asked), self._draws, self._drawing, self._watched)
        self._channels[key] = channel
        return channel

    def _watched(self) -> int:
        """Return how many choices somebody looks at."""
        return sum(channel.readers > 0 for channel in self._channels.values())


class _Channel:
    """What is told to all who look at one view and population.

    In      drawing  held by whoever draws: one at a time
            watched  how many choices share the time there is for pictures
    Fields  readers  who looks
            views    the pictures as JSON; empty: none yet
            version  counts them
    """

    def __init__(self, look: Look, draws: Draws, drawing: asyncio.Lock, watched: Callable[[], int]) -> None:
        self.readers = 0
        self.views = b""
        self.version = 0
        self._look = look
        self._draws = draws
        self._drawing = drawing
        self._watched = watched
        self._state = b""
        self._state_at = 0.0
        self._telling = asyncio.Lock()
        self._drawn_of: object = None
        self._next_views_at = 0.0
        self._draws_now: asyncio.Task[None] | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count a reader."""
        self.readers += 1
        if self.readers == 1:
            self._look.begin()
        try:
            yield
        finally:
            self.readers -= 1
            if not self.readers:
                self._look.end()

    async def told(self) -> bytes:
        """Return the state as JSON, made once for all readers."""
        async with self._telling:
            if not self._state or time.monotonic() - self._state_at >= STATE_S / 2:
                self._state = orjson.dumps(await self._look.state())
                self._state_at = time.monotonic()
            return self._state

    def draw_in_time(self, state: bytes) -> None:
        """Begin to draw where there is something new to be seen, and long enough after the last time."""
        is_drawing = self._draws_now is not None and not self._draws_now.done()
        if is_drawing or state == self._drawn_of or time.monotonic() < self._next_views_at:
            return
        self._draws_now = asyncio.create_task(self.draw_again(state))

    async def draw_again(self, state: bytes | None = None) -> None:
        """Draw what is there now; where that cannot be had nothing happens.

        In      state  of which the pictures are; None: not known, any pictures will do
        """
        async with self._drawing:
            if state is None and self.views:
                return
            started = time.monotonic()
            try:
                if self._look.is_drawn:
                    held = await self._look.held()
                    views = await asyncio.to_thread(
                        self._draws.views, held.tables, held.changes, self._look.ruleset, held.as_of_us
                    )
                else:
                    views = self._draws.many()
            except RfmError as error:
                _log.debug("no pictures now", extra={"reason": str(error)})
                self._next_views_at = time.monotonic() + 1.0
                return
            took_s = time.monotonic() - started
        wait_s = min(max(VIEWS_S_MIN, took_s / VIEWS_SHARE), VIEWS_S_MAX) * max(self._watched(), 1)
        self._next_views_at = time.monotonic() + wait_s
        self._drawn_of = state
        if views != self.views:
            self.views = views
            self.version += 1


async def _tell(response: web.StreamResponse, channel: _Channel, *, has_pictures: bool) -> None:
    told, version, quiet_s = b"", 0, 0.0
    while True:
        state = await channel.told()
        events = []
        if state != told:
            events.append(b"event: state\ndata: " + state + b"\n\n")
            told = state
        if has_pictures:
            channel.draw_in_time(state)
            if channel.version != version:
                version = channel.version
                events.append(b"event: views\ndata: %d\n\n" % version)
        quiet_s = 0.0 if events else quiet_s + STATE_S
        if quiet_s >= QUIET_S:
            events.append(b": \n\n")
            quiet_s = 0.0
        if events:
            async with asyncio.timeout(WRITE_S_MAX):
                await response.write(b"".join(events))
        await asyncio.sleep(STATE_S)


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})
