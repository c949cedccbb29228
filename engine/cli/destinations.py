"""`rfmstream destinations`: the tools that delivery maps are shipped for, and the destinations of a deliver.toml."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rfmstream.engine.cli.options import FILE
from rfmstream.engine.cli.running import run_async
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.secrets import masked

if TYPE_CHECKING:
    from rfmstream.engine.deliver.config import DeliverConfig, Destination


@click.group(
    short_help="Where deliver can send to: shipped delivery maps, and trying one's own.",
    epilog="""
\b
Examples:
  rfmstream destinations list
  rfmstream destinations show klaviyo-events > ours.toml       # a start for a map of your own
  rfmstream destinations show --fields                         # the names that {placeholders} can have
  rfmstream destinations check --config deliver.toml           # is it right? secrets are not needed
  rfmstream destinations try crm --config deliver.toml --dry   # what a made-up event would look like
  rfmstream destinations try crm --config deliver.toml         # send it, and see the answer

\b
docs/deliver.md explains the maps. Exit codes: 0 done · 1 the destination did not take it · 2 usage or configuration
""",
)
def destinations() -> None:
    """List the shipped delivery maps, show one, check a deliver.toml, or try a destination of it.

    A delivery map is a TOML file that says how tier changes and signals become requests of a tool's API: method, URL,
    headers, a JSON body with typed placeholders, how many rows a request takes, and what its answers mean.
    """


@destinations.command("list")
def list_() -> None:
    """List the kinds of destinations and the shipped maps."""
    from rfmstream.engine.cli.show import print_columns  # loads rich
    from rfmstream.engine.deliver.delivery_map import list_delivery_maps, map_path, map_settings

    rows = [
        ("webhook", "", "a signed CloudEvent a request (Standard Webhooks 1.0)"),
        (
            "segment",
            "",
            "Segment, RudderStack, Customer.io Pipelines, Dittofeed: batches of identify and track",
        ),
    ]
    rows += [("http", name, map_settings(map_path(name))[0]) for name in list_delivery_maps()]
    print_columns(("kind", "map", "for"), rows)


@destinations.command()
@click.argument("name", metavar="[NAME|FILE]", required=False)
@click.option("--fields", is_flag=True, help="List the names that placeholders can have instead.")
def show(*, name: str | None, fields: bool) -> None:
    """Print a map's file, comments included."""
    from rfmstream.engine.deliver.delivery_map import map_path, map_settings

    if fields:
        from rfmstream.engine.cli.show import print_columns  # loads rich
        from rfmstream.engine.deliver.template import DATA_NAMES, EVENT_NAMES

        rows = [(one, text) for one, (text, _) in EVENT_NAMES.items()]
        rows += [
            (one, "of the event's data; null where it has none")
            for one in DATA_NAMES
            if one not in EVENT_NAMES
        ]
        print_columns(("name", "stands for"), rows)
        return
    if name is None:
        raise click.UsageError("name a map, or ask for --fields")
    path = map_path(name)
    map_settings(path)
    click.echo(path.read_text(encoding="utf-8"), nl=False)


@destinations.command()
@click.option("--config", metavar="FILE", type=FILE, required=True, help="The deliver.toml to check.")
@click.option("--secrets", is_flag=True, help="Read the secrets, too.")
def check(*, config: Path, secrets: bool) -> None:
    """Check a deliver.toml and the maps it names, and say what each destination would do. Nothing is sent."""
    from time import time

    from rfmstream.engine.deliver.config import load_deliver_config
    from rfmstream.engine.deliver.forms import UnfitError
    from rfmstream.engine.deliver.trial import trial_event, trial_request

    loaded = load_deliver_config(config, without_secrets=not secrets)
    for destination in loaded.destinations:
        takes = []
        for kind in ("change", "signal"):
            if destination.filter.events is not None and kind not in destination.filter.events:
                continue
            try:
                trial_request(destination, trial_event(kind), time())
            except UnfitError:
                continue
            takes.append(f"{kind}s")
        pace = destination.pace
        rates = ", ".join(f"{rate.count} requests in {rate.window_s:g} s" for rate in pace.rates) or "no rate"
        click.echo(
            f"{destination.name}: {destination.kind} to {masked(destination.form.url)}: "
            f"{' and '.join(takes) or 'nothing'}; "
            f"{rates}, {pace.batch} in a request, {pace.concurrency} at a time; "
            f"group {loaded.broker.group(destination.name)}"
        )


@destinations.command("try")
@click.argument("name")
@click.option("--config", metavar="FILE", type=FILE, required=True, help="The deliver.toml that names it.")
@click.option("--signal", "is_signal", is_flag=True, help="Make a signal up instead of a tier change.")
@click.option("--customer", metavar="ID", help="About this customer, whom the tool may have to know.")
@click.option("--dry", is_flag=True, help="Print the request without its secrets; send nothing.")
def try_(*, name: str, config: Path, is_signal: bool, customer: str | None, dry: bool) -> None:
    """Send one made-up event to a destination, once, and show the answer."""
    from time import time

    from rfmstream.engine.deliver.config import load_deliver_config
    from rfmstream.engine.deliver.forms import UnfitError
    from rfmstream.engine.deliver.model import Delivered
    from rfmstream.engine.deliver.trial import send_trial, trial_event, trial_request

    destination = _named(load_deliver_config(config, without_secrets=dry), name, config)
    kind = "signal" if is_signal else "change"
    try:
        item, request = trial_request(destination, trial_event(kind, customer), time())
    except UnfitError as error:
        raise ConfigError(f"{name} takes no {kind}: {error}", file=config, fix="try the other") from None
    if dry:
        click.echo(f"{request.method} {masked(request.url)}")
        for header in sorted(request.headers):
            click.echo(f"{header}: ...")
        click.echo(f"\n{request.body.decode()}")
        return
    answer, verdict = run_async(send_trial(destination, item, request))
    click.echo(f"{answer.reason}: {type(verdict).__name__.lower()}")
    if answer.body:
        click.echo(answer.body[:2000].decode(errors="replace"))
    is_taken = isinstance(verdict, Delivered) and not verdict.errors
    raise SystemExit(0 if is_taken else 1)


def _named(config: "DeliverConfig", name: str, path: Path) -> "Destination":
    for destination in config.destinations:
        if destination.name == name:
            return destination
    names = ", ".join(destination.name for destination in config.destinations)
    raise ConfigError(f"there is no destination {name}", file=path, key="destinations", fix=f"name {names}")
