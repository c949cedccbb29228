"""The process of `rfmstream deliver`: a runner for each destination, the releases, the status pages."""

import asyncio
import logging
import signal
from contextlib import suppress
from typing import Final

from rfmstream.engine.deliver.config import DeliverConfig
from rfmstream.engine.deliver.kafka.admin import create_topics
from rfmstream.engine.deliver.kafka.producer import follow_releases
from rfmstream.engine.deliver.runner import Runner
from rfmstream.engine.deliver.status import StatusPages
from rfmstream.engine.service.garbage import collect_rarely
from rfmstream.schemas.errors import TransportError

_log = logging.getLogger(__name__)

_RETRY_S: Final = 2.0


async def serve(config: DeliverConfig, stop: asyncio.Event) -> None:
    """Deliver until `stop` is set.

    Errors  ConfigError     something is to be set or granted first
            TransportError  no broker answers at the start
    """
    broker = config.broker
    runners = [Runner(destination, broker, config.customers) for destination in config.destinations]
    if broker.create_topics:
        await create_topics(
            broker, {broker.rejected_topic: {}, broker.control_topic: {"cleanup.policy": "compact"}}
        )
    pages = None if config.listen is None else StatusPages(runners, *config.listen)
    if pages is not None:
        await pages.start()
        _log.info("status pages on %s", pages.url)
    by_group = {runner.group: runner for runner in runners}

    def released(group: str, until_ms: int) -> None:
        if group in by_group:
            by_group[group].release(until_ms)

    known = asyncio.Event()
    releases = asyncio.create_task(follow_releases(broker, released, known))
    stopping = asyncio.create_task(stop.wait())
    tasks: list[asyncio.Task[None]] = []
    try:
        # A guard must know what has been released before it judges.
        knowing = asyncio.create_task(known.wait())
        await asyncio.wait([knowing, stopping, releases], return_when=asyncio.FIRST_COMPLETED)
        knowing.cancel()
        tasks = [asyncio.create_task(_keep(runner, stop)) for runner in runners]
        await asyncio.wait([*tasks, releases], return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            for ended in (*tasks, releases):
                if ended.done():
                    ended.result()
        await asyncio.gather(*tasks)
    finally:
        stop.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in (releases, stopping):
            task.cancel()
        await asyncio.gather(releases, stopping, return_exceptions=True)
        if pages is not None:
            await pages.stop()


async def _keep(runner: Runner, stop: asyncio.Event) -> None:
    """Run one destination; brokers that fail once it ran are waited for, without end."""
    while not stop.is_set():
        has_run = runner.facts.has_joined
        try:
            await runner.run(stop)
        except TransportError as error:
            if not runner.facts.has_joined and not has_run:
                raise
            _log.warning(
                "the brokers failed; begun anew",
                extra={"destination": runner.destination.name, "error": str(error)},
            )
            runner.renew()
            with suppress(TimeoutError):
                async with asyncio.timeout(_RETRY_S):
                    await stop.wait()


def run_deliver(config: DeliverConfig) -> int:
    """Deliver until SIGTERM or Ctrl-C; return the exit code.

    Errors  ConfigError, TransportError
    """

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        collect_rarely()
        await serve(config, stop)
        _log.info("stopped; what has arrived is committed")

    asyncio.run(main())
    return 0
