"""What a worker serves: /metrics, /healthz and /readyz, and its customers' data, at one address or at two.

On loopback unless told otherwise. Beyond it, data is for whoever shows the token, and TLS hides both.
"""

import ssl
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from rfmstream.engine.live.access import Access
from rfmstream.engine.live.asked import answering
from rfmstream.engine.live.board import Board, details
from rfmstream.engine.live.data import Data
from rfmstream.engine.live.lookup import ARROW_STREAM, BODY_BYTES_MAX
from rfmstream.engine.live.metrics import registry_of
from rfmstream.engine.live.page import Draws, LivePages
from rfmstream.engine.live.page_source import BoardSource
from rfmstream.engine.service.page_server import PageServer

__all__ = ["ARROW_STREAM", "StatusServer"]

_CLOSE_S: Final = 2.0
_STATUS: Final = "/metrics /healthz /readyz"
_DATA: Final = (
    "/snapshot?as_of=INSTANT /tiers/{tier}?as_of=INSTANT /customers/{id}?as_of=INSTANT /changes?from=OFFSET"
)


class StatusServer:
    """Serves the pages of one worker.

    In      listen       where metrics and health are
            token        what whoever asks for customers' data has to show; None: nothing, on loopback only
            listen_data  where customers' data is; None: where metrics and health are
            tls          for what is not on loopback
            draws        makes the page; None: there is none

    >>> server = StatusServer(("127.0.0.1", 8765), board)
    >>> await server.start()  # ConfigError if the port is taken
    >>> await server.stop()
    """

    def __init__(  # noqa: PLR0913 - each by name
        self,
        listen: tuple[str, int],
        board: Board,
        token: str | None = None,
        *,
        listen_data: tuple[str, int] | None = None,
        tls: ssl.SSLContext | None = None,
        draws: Draws | None = None,
    ) -> None:
        self._board = board
        self._registry = registry_of(board)
        self._status = PageServer(listen, close_s=_CLOSE_S, body_bytes_max=BODY_BYTES_MAX, tls=tls)
        status = self._status.app
        status.router.add_get("/metrics", answering(self._metrics))
        status.router.add_get("/healthz", answering(self._healthz))
        status.router.add_get("/readyz", answering(self._readyz))
        self._data = self._status
        if listen_data is not None:
            status.router.add_get("/", answering(self._index))
            self._data = PageServer(
                listen_data, close_s=_CLOSE_S, body_bytes_max=BODY_BYTES_MAX, key="listen_data", tls=tls
            )
        access = Access(token, is_open=lambda: self._data.is_on_loopback)
        self.pages = Data(board)
        self.pages.add_to(self._data.app, access)
        if draws is None:
            self._data.app.router.add_get("/", answering(self._index))
        else:
            LivePages(BoardSource(board, self.pages), draws).add_to(self._data.app, access)

    @property
    def url(self) -> str:
        """Where metrics and health are, once it listens."""
        return self._status.url

    @property
    def data_url(self) -> str:
        """Where customers' data is, once it listens."""
        return self._data.url

    async def start(self) -> None:
        """Begin to listen.

        Errors  ConfigError  a port is taken, or there is no such address here
        """
        await self._status.start()
        if self._data is not self._status:
            try:
                await self._data.start()
            except BaseException:
                await self._status.stop()
                raise

    async def stop(self) -> None:
        """Close, after a moment for pages in the making."""
        await self._status.stop()
        if self._data is not self._status:
            await self._data.stop()

    async def _index(self, _: web.Request) -> web.Response:
        if self._data is self._status:
            return web.Response(text=f"rfmstream worker: {_STATUS} {_DATA}\n")
        return web.Response(text=f"rfmstream worker: {_STATUS}\n")

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
