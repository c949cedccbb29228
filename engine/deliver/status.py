"""The status pages of delivery: /healthz, /readyz, /metrics."""

import errno
import ipaddress
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from rfmstream.engine.deliver.metrics import delivery_registry, state_of
from rfmstream.engine.deliver.runner import Runner
from rfmstream.schemas.errors import ConfigError

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_READY: Final = ("sending", "down", "parked", "guarded")


class StatusPages:
    """An HTTP server of one delivery process."""

    def __init__(self, runners: Sequence[Runner], host: str, port: int) -> None:
        self._runners = runners
        self._host, self._port = host, port
        self._registry = delivery_registry(runners)
        app = web.Application(middlewares=[self._only_by_own_name])
        app.router.add_get("/", self._index)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)

    @property
    def url(self) -> str:
        """Where it listens, once it does."""
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

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
        """Close."""
        await self._runner.cleanup()

    @web.middleware
    async def _only_by_own_name(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Refuse a foreign name of a loopback address: a page in a browser here may have its own lead to it."""
        name = urlsplit(f"//{request.headers.get('Host', 'localhost')}").hostname or ""
        is_foreign = name not in ("localhost", self._host.lower()) and not _is_loopback(name)
        if is_foreign and _is_loopback(self._runner.addresses[0][0]):
            return web.Response(status=403, text="ask for localhost: no other name leads here\n")
        return await handler(request)

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(text="rfmstream deliver: /metrics /healthz /readyz\n")

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        states = [_shown(runner) for runner in self._runners]
        ready = all(state_of(runner) in _READY for runner in self._runners)
        return web.json_response({"ready": ready, "destinations": states}, status=200 if ready else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )


def _shown(runner: Runner) -> dict[str, object]:
    lanes = None if runner.sender is None else runner.sender.lanes
    return {
        "name": runner.destination.name,
        "state": state_of(runner),
        "reason": None if lanes is None else lanes.parked or lanes.trouble,
        "lag": runner.facts.lag,
        "sent": 0 if lanes is None else lanes.counts["sent"],
        "rejected": 0 if lanes is None else lanes.counts["rejected"],
    }


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
