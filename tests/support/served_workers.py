"""The status pages of a worker over a real connection, its partitions being engines the test holds."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa

from rfmstream import Engine
from rfmstream.engine.live.access import Access
from rfmstream.engine.live.board import Board, Watched
from rfmstream.engine.live.http import StatusServer
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.page import Draws, LivePages
from rfmstream.engine.live.page_of_workers import WorkersSource
from rfmstream.engine.live.state import State
from rfmstream.engine.live.stats import PartitionStats, ViewStats, tiers_of
from rfmstream.engine.service.page_server import PageServer
from rfmstream.schemas.plan import View
from rfmstream.schemas.ruleset import Ruleset


@contextmanager
def served(*engines: Engine) -> Iterator[str]:
    """Serve engines of one ruleset as the partitions of a worker, and give its URL."""
    partitions = {Source("orders.v1", number): watched(engine) for number, engine in enumerate(engines)}
    with serving(Board(engines[0].ruleset, "event", partitions, joined=True)) as url:
        yield url


@contextmanager
def serving(board: Board, draws: Draws | None = None) -> Iterator[str]:
    """Run a status server in a thread of its own, as a worker elsewhere would, and give its URL."""
    loop = asyncio.new_event_loop()
    server = StatusServer(("127.0.0.1", 0), board, draws=draws)
    loop.run_until_complete(server.start())
    try:
        with running(loop):
            yield server.url
    finally:
        loop.run_until_complete(server.stop())
        loop.close()


@contextmanager
def page_of_workers(urls: Sequence[str], ruleset: Ruleset, views: Sequence[View] = ()) -> Iterator[str]:
    """Serve the page of several workers in a thread of its own, and give its URL."""
    loop = asyncio.new_event_loop()

    async def start() -> tuple[PageServer, WorkersSource]:
        source = WorkersSource(urls, ruleset, None, views=views)
        await source.start()
        server = PageServer(("127.0.0.1", 0), close_s=1.0)
        access = Access(None, is_open=lambda: True)
        source.add_to(server.app, access)
        LivePages(source, Shell()).add_to(server.app, access)
        await server.start()
        return server, source

    server, source = loop.run_until_complete(start())
    try:
        with running(loop):
            yield server.url
    finally:
        loop.run_until_complete(server.stop())
        loop.run_until_complete(source.stop())
        loop.close()


@contextmanager
def running(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Run a loop in a thread of its own."""
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


class Shell:
    """A page without anything."""

    def warm_up(self) -> None:
        pass

    def shell(self) -> tuple[str, str]:
        return "", "default-src 'none'"

    def views(self, *_: object) -> bytes:
        return b"{}"

    def many(self) -> bytes:
        return b"{}"


_T = TypeVar("_T")


class _Reads:
    """The engine of each view, to be read at any moment."""

    def __init__(self, state: State) -> None:
        self._state = state

    def committed(self, ids: Sequence[str], as_of_us: int, view: str | None = None) -> Engine | None:
        assert all(ids), "an empty id is nobody's"
        engine = self._state.view(view).engine
        return engine if engine.clock_us <= as_of_us else None

    async def ask(
        self, question: Callable[[Engine], _T], view: str | None = None, *, small: bool = False
    ) -> _T:
        engine = self._state.view(view).engine
        return question(engine) if small else await asyncio.to_thread(question, engine)


def watched(engine: Engine | State, name: str = "live") -> Watched:
    """Return an engine, or those of views, as a board shows the partition of them; `name` of its state."""
    state = State.of(engine)

    async def snapshot(as_of_us: int | None, view: str | None = None) -> pa.Table:
        return state.view(view).engine.snapshot(as_of_us)

    first, *further = state.views
    stats = PartitionStats(state=name, tiers=tiers_of(first.engine), customers=first.engine.customers)
    stats.view, stats.clock_us = first.view.name, state.clock_us
    for of in further:
        stats.further[of.view.name] = ViewStats(tiers=tiers_of(of.engine), customers=of.engine.customers)
    return Watched(stats, snapshot, _Reads(state))
