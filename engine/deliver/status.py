"""The status pages of delivery: /healthz, /readyz, /metrics."""

from collections.abc import Sequence
from typing import Final

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from rfmstream.engine.deliver.metrics import delivery_registry, state_of
from rfmstream.engine.deliver.runner import Runner
from rfmstream.engine.service.page_server import PageServer

_READY: Final = ("sending", "down", "parked", "guarded")


class StatusPages:
    """An HTTP server of one delivery process."""

    def __init__(self, runners: Sequence[Runner], host: str, port: int) -> None:
        self._runners = runners
        self._registry = delivery_registry(runners)
        self._server = PageServer((host, port), close_s=1)
        app = self._server.app
        app.router.add_get("/", self._index)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)

    @property
    def url(self) -> str:
        """Where it listens, once it does."""
        return self._server.url

    async def start(self) -> None:
        """Begin to listen.

        Errors  ConfigError  the port is taken, or there is no such address here
        """
        await self._server.start()

    async def stop(self) -> None:
        """Close."""
        await self._server.stop()

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
