"""The HTTP server of a long-running process: how it begins to listen, how it ends, and whom it answers.

A connection that says nothing is closed, one that does not read what it asked for too, and there are never more than so
many; none of that costs the process or other clients anything.
"""

import asyncio
import errno
import ipaddress
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from rfmstream.schemas.errors import ConfigError

if TYPE_CHECKING:
    from aiohttp.web_protocol import RequestHandler

_log = logging.getLogger(__name__)


def _is_ours(record: logging.LogRecord) -> bool:
    """Tell whether a failure is the server's: what is no HTTP gets its 400, and no traceback that holds its bytes."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_log.addFilter(_is_ours)

CONNECTIONS_MAX: Final = 256
HEADERS_S_MAX: Final = 10.0
"""So long a new connection may take to ask for something."""

BODY_S_MAX: Final = 30.0
"""So long what a request brings may take."""

ANSWER_S_MAX: Final = 60.0
"""So long an answer that is made at once may take to be read."""

KEEP_S: Final = 30.0
"""So long a connection is kept between two requests."""

_SWEEP_S: Final = 1.0
_MADE_S: Final = 0.1
"""So long at the most it takes until a connection that is being made has its transport."""
_BODY_BYTES_MAX: Final = 1 << 20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PageServer:
    """Serves pages on one address.

    In      listen          host, and port (0: any free one)
            close_s         how long pages in the making are waited for at the end
            body_bytes_max  of a request
            key             the setting that names the address, for errors
            tls             for an address that is not on loopback; None: plain
    Fields  app             where pages are added, before the start

    >>> server = PageServer(("127.0.0.1", 8765), close_s=1)
    >>> server.app.router.add_get("/healthz", healthz)
    >>> await server.start()  # ConfigError if the port is taken
    >>> await server.stop()
    """

    def __init__(
        self,
        listen: tuple[str, int],
        *,
        close_s: float,
        body_bytes_max: int = _BODY_BYTES_MAX,
        key: str = "listen",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host, self._port = listen
        self._key = key
        self._tls = None if is_loopback(self._host) else tls
        self.app = web.Application(
            middlewares=[self._only_by_own_name, self._in_time], client_max_size=body_bytes_max
        )
        self._runner = web.AppRunner(
            self.app,
            access_log=None,
            logger=_log,
            handle_signals=False,
            shutdown_timeout=close_s,
            keepalive_timeout=KEEP_S,
        )
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._silent: dict[RequestHandler, float] = {}
        """Connections that have not asked for anything yet, and since when."""

    @property
    def url(self) -> str:
        """Where it listens, once it does."""
        assert self._server is not None, "it listens"
        host, port = self._server.sockets[0].getsockname()[:2]
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    @property
    def is_on_loopback(self) -> bool:
        """Whether it listens where this machine alone can ask, once it does."""
        assert self._server is not None, "it listens"
        return all(is_loopback(socket.getsockname()[0]) for socket in self._server.sockets)

    async def start(self) -> None:
        """Begin to listen.

        Errors  ConfigError  the port is taken, or there is no such address here
        """
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._connection,
                self._host,
                self._port,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else HEADERS_S_MAX,
            )
        except OSError as error:
            await self._runner.cleanup()
            taken = error.errno == errno.EADDRINUSE
            raise ConfigError(
                f"{self._host}:{self._port} "
                + ("is taken" if taken else f"cannot be listened on: {_words(error)}"),
                key=self._key,
                fix="choose another port, 0 for any free one, or off",
            ) from error
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Close, after a moment for pages in the making."""
        if self._server is not None:
            self._server.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._runner.cleanup()

    def _connection(self) -> asyncio.Protocol:
        """Return what serves a connection that has just been made."""
        server = self._runner.server
        assert server is not None
        there = {*server.connections, *self._silent}
        if len(there) >= CONNECTIONS_MAX and not self._make_room():
            return _Refused()
        handler: RequestHandler = server()
        self._silent[handler] = time.monotonic()
        return handler

    def _make_room(self) -> bool:
        """Forget those that are gone, or close the one that has been silent for longest; False if there is none."""
        before = time.monotonic() - _MADE_S
        gone = [one for one, since in self._silent.items() if one.transport is None and since < before]
        for handler in gone:
            del self._silent[handler]
        if gone:
            return True
        for handler in list(self._silent):
            if handler.transport is not None:
                del self._silent[handler]
                handler.transport.abort()
                return True
        return False

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            before = time.monotonic() - HEADERS_S_MAX
            for handler, since in list(self._silent.items()):
                if since < before:
                    del self._silent[handler]
                    if handler.transport is not None:
                        handler.transport.abort()

    @web.middleware
    async def _only_by_own_name(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse a foreign name of a loopback address: a page in a browser here may have its own lead to it.

        Source  DNS rebinding, https://en.wikipedia.org/wiki/DNS_rebinding
        """
        self._silent.pop(request.protocol, None)
        name = _name_in(request.headers.get("Host", "localhost"))
        is_foreign = name not in ("localhost", self._host.lower()) and not is_loopback(name)
        if is_foreign and self.is_on_loopback:
            return web.Response(status=403, text="ask for localhost: no other name leads here\n")
        return await handler(request)

    @web.middleware
    async def _in_time(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Read what a request brings, and send an answer that is made at once, within their times."""
        if request.can_read_body:
            try:
                async with asyncio.timeout(BODY_S_MAX):
                    await request.read()
            except TimeoutError:
                return web.Response(status=408, text="the request did not come to its end\n")
            except ConnectionError:
                return web.Response(status=400)  # whoever asked has left: nobody reads this
        response = await handler(request)
        if isinstance(response, web.Response):
            response.headers.setdefault("X-Content-Type-Options", "nosniff")
            try:
                async with asyncio.timeout(ANSWER_S_MAX):
                    await response.prepare(request)
                    await response.write_eof()
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
        return response


class _Refused(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def tls_context(cert_file: str, key_file: str | None) -> ssl.SSLContext:
    """Return what a certificate is shown by.

    Errors  ConfigError  the files cannot be read, or do not belong together
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{cert_file} is no certificate with its key ({error.strerror or error})",
            key="listen_tls_cert_file",
            fix="name PEM files: the certificate with its chain, and listen_tls_key_file",
        ) from error
    return context


def is_loopback(name: str) -> bool:
    """Tell whether an address, as text, is this machine's own."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _words(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def _name_in(host: str) -> str:
    """Return the name or address in a Host header, empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
