"""Runs the page of several workers until it is interrupted."""

import asyncio
import signal
from collections.abc import Sequence

import click

from rfmstream.engine.cli.explain import agreed
from rfmstream.engine.files.interrupts import ending_signals
from rfmstream.engine.live.access import Access
from rfmstream.engine.live.page import Draws, LivePages
from rfmstream.engine.live.page_of_workers import WorkersSource, views_of_workers
from rfmstream.engine.service.page_server import PageServer, is_loopback
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.ruleset import Ruleset


def serve(
    workers: Sequence[str],
    listen: tuple[str, int],
    draws: Draws,
    *,
    token: str | None,
    named: Sequence[Ruleset],
) -> None:
    """Serve the page.

    In      token   what the workers ask for; whoever is on loopback here needs none
            named   rulesets of the workers that are no built-ins, or all of them
    Errors  ConfigError, TransportError, StateError  as of `views_of_workers`; the port is taken
    """
    if not is_loopback(listen[0]):
        raise ConfigError(
            f"{listen[0]} is not on loopback", key="--listen", fix="listen there, and let a tunnel lead to it"
        )
    asyncio.run(_serve(workers, listen, draws, token, named))


async def _serve(
    workers: Sequence[str],
    listen: tuple[str, int],
    draws: Draws,
    token: str | None,
    named: Sequence[Ruleset],
) -> None:
    by_identity = {ruleset.identity: ruleset for ruleset in named}
    ruleset, views = await views_of_workers(
        workers, token, lambda identity: agreed(identity, by_identity.get(identity))
    )
    there = {ruleset.identity, *(view.ruleset.identity for view in views)}
    if strange := by_identity.keys() - there:
        raise ConfigError(
            f"what is there was decided by {', '.join(sorted(there))}, not by {', '.join(sorted(strange))}",
            key="--ruleset",
            fix="name those, with their time zone and currency, or leave built-ins out",
        )
    source = WorkersSource(workers, ruleset, token, views=views)
    server = PageServer(listen, close_s=1.0, key="--listen")
    access = Access(None, is_open=lambda: server.is_on_loopback)
    source.add_to(server.app, access)
    LivePages(source, draws).add_to(server.app, access)
    stop = asyncio.Event()
    for number in (signal.SIGINT, *ending_signals()):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await source.start()
    try:
        await server.start()
        click.echo(f"open {server.url}")
        await stop.wait()
    finally:
        await server.stop()
        await source.stop()
