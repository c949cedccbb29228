"""The HTTP server of a long-running process: how it begins to listen, how it ends, and which names it answers to."""

import errno
import ipaddress
import os
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from rfmstream.schemas.errors import ConfigError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_BODY_BYTES_MAX = 1 << 20


class PageServer:
    """Serves pages on one address.

    In      listen          host, and port (0: any free one)
            close_s         how long pages in the making are waited for at the end
            body_bytes_max  of a request
    Fields  app             where pages are added, before the start

    >>> server = PageServer(("127.0.0.1", 8765), close_s=1)
    >>> server.app.router.add_get("/healthz", healthz)
    >>> await server.start()  # ConfigError if the port is taken
    >>> await server.stop()
    """

    def __init__(
        self, listen: tuple[str, int], *, close_s: float, body_bytes_max: int = _BODY_BYTES_MAX
    ) -> None:
        self._host, self._port = listen
        self.app = web.Application(middlewares=[self._only_by_own_name], client_max_size=body_bytes_max)
        self._runner = web.AppRunner(
            self.app, access_log=None, handle_signals=False, shutdown_timeout=close_s
        )

    @property
    def url(self) -> str:
        """Where it listens, once it does."""
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def is_on_loopback(self) -> bool:
        """Whether it listens where this machine alone can ask, once it does."""
        return is_loopback(self._runner.addresses[0][0])

    async def start(self) -> None:
        """Begin to listen.

        Errors  ConfigError  the port is taken, or there is no such address here
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            words = os.strerror(error.errno) if error.errno else str(error)
            raise ConfigError(
                f"{self._host}:{self._port} "
                + ("is taken" if error.errno == errno.EADDRINUSE else f"cannot be listened on: {words}"),
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
        is_foreign = name not in ("localhost", self._host.lower()) and not is_loopback(name)
        if is_foreign and self.is_on_loopback:
            return web.Response(status=403, text="ask for localhost: no other name leads here\n")
        return await handler(request)


def is_loopback(name: str) -> bool:
    """Tell whether an address, as text, is this machine's own."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _name_in(host: str) -> str:
    """Return the name or address in a Host header, empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
