"""`rfmstream deliver`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rfmstream.engine.cli.options import FILE
from rfmstream.engine.cli.running import run_async
from rfmstream.schemas.errors import ConfigError

if TYPE_CHECKING:
    from rfmstream.engine.deliver.config import DeliverConfig, Destination

_CONFIG = click.option(
    "--config", metavar="FILE", type=FILE, required=True, help="TOML file: the brokers and the destinations."
)
_ONLY = click.option(
    "--destination",
    "names",
    metavar="NAME",
    multiple=True,
    help="This one alone; may be given several times.",
)


@click.group(
    invoke_without_command=True,
    short_help="Tier changes and signals to webhooks, Segment, Klaviyo and other tools.",
    epilog="""
\b
Examples:
  # send what happens from now on, until Ctrl-C
  rfmstream deliver --config deliver.toml
  # the guard holds back, and it was right to change so many: go on
  rfmstream deliver release --config deliver.toml --destination crm
  # send an afternoon again, with the same ids
  rfmstream deliver replay --config deliver.toml --destination crm \\
      --from 2026-11-28T12:00:00Z --to 2026-11-28T18:00:00Z

\b
deliver.toml:
  [kafka]
  bootstrap_servers = "127.0.0.1:9092"
  [destinations.crm]
  kind = "webhook"
  url = "https://crm.example.com/hooks/rfm"
  secrets = [{ env = "CRM_WEBHOOK_SECRET" }]

\b
docs/deliver.md explains every key; `rfmstream destinations list` names the tools that maps are shipped for.
Exit codes: 0 stopped by Ctrl-C or SIGTERM · 1 the brokers failed · 2 usage or configuration
""",
)
@click.option("--config", metavar="FILE", type=FILE, help="TOML file: the brokers and the destinations.")
@_ONLY
@click.pass_context
def deliver(ctx: click.Context, config: Path | None, names: tuple[str, ...]) -> None:
    """Bring tier changes and signals from Kafka to HTTP destinations: at least once, in order for each customer.

    Every destination has a consumer group and a pace of its own. One that is down waits alone, and Kafka is the queue.
    """
    if ctx.invoked_subcommand is not None:
        if config is not None or names:
            raise click.UsageError(f"write --config and --destination behind {ctx.invoked_subcommand}", ctx)
        return
    if config is None:
        raise click.UsageError("Missing option '--config'.", ctx)
    loaded = _load(config, names)
    from rfmstream.engine.deliver.service import run_deliver  # loads the clients

    raise SystemExit(run_deliver(loaded))


@deliver.command()
@_CONFIG
@_ONLY
def release(*, config: Path, names: tuple[str, ...]) -> None:
    """Let destinations go on that a guard holds back, or that were parked by an answer 410 or 401.

    What was written until now is let through, whether a process runs at the moment or not; the guard counts on from
    here.
    """
    loaded = _load(config, names)
    from rfmstream.engine.deliver.kafka.producer import send_release

    groups = [loaded.broker.group(destination.name) for destination in loaded.destinations]
    run_async(send_release(loaded.broker, groups))
    click.echo(f"released: {', '.join(destination.name for destination in loaded.destinations)}")


@deliver.command()
@_CONFIG
@_ONLY
@click.option("--from", "begin", metavar="INSTANT", help="Records written from here on, ISO 8601.")
@click.option("--to", "end", metavar="INSTANT", help="Records written before this.")
@click.option(
    "--ids", metavar="FILE", type=FILE, help="Events whose ce_id or webhook-id stands in a line of it."
)
def replay(
    *, config: Path, names: tuple[str, ...], begin: str | None, end: str | None, ids: Path | None
) -> None:
    """Send events again that are in the topics still, with the same ids: receivers drop what they have by those.

    Filters hold as ever; the guard does not, since somebody asked. Nothing is committed: what is being delivered at the
    same time goes on.
    """
    if begin is None and ids is None:
        raise click.UsageError("say which events: --from, or --ids")
    loaded = _load(config, names)
    from rfmstream.engine.deliver.resend import Wanted, resend

    wanted = Wanted(
        None if begin is None else _ms(begin, "--from"),
        None if end is None else _ms(end, "--to"),
        None if ids is None else _ids(ids),
    )

    async def again(destination: "Destination") -> Any:  # noqa: ANN401 - loaded above
        return await resend(destination, loaded.broker, wanted)

    for destination in loaded.destinations:
        found = run_async(again(destination))
        click.echo(
            f"{destination.name}: {found.found} events, {found.sent} sent again, {found.rejected} rejected, "
            f"{found.filtered} not for it"
        )


def _load(path: Path, names: tuple[str, ...]) -> "DeliverConfig":
    from dataclasses import replace

    from rfmstream.engine.deliver.config import load_deliver_config
    from rfmstream.engine.live.logs import set_up_logs

    loaded = load_deliver_config(path)
    set_up_logs(loaded.log_format, loaded.log_level)
    known = {destination.name: destination for destination in loaded.destinations}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"there is no destination {name}",
                file=path,
                key="destinations",
                fix=f"name {', '.join(known)}",
            )
    return replace(loaded, destinations=tuple(known[name] for name in names)) if names else loaded


def _ms(text: str, option: str) -> int:
    from rfmstream.engine.events.instants import parse_instant

    return parse_instant(text, "UTC", key=option) // 1000


def _ids(path: Path) -> frozenset[str]:
    from rfmstream.engine.deliver.resend import read_ids

    try:
        return read_ids(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot be read ({words})", file=path, key="--ids", fix="check the path") from None
