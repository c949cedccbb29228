"""`rfmstream redrive`."""

from pathlib import Path

import click

from rfmstream.engine.cli.running import run_async
from rfmstream.engine.cli.settings import SettingsCommand, setting_options
from rfmstream.engine.live.settings import CLIENT_SETTINGS
from rfmstream.schemas.codes import REJECTIONS

_REASONS = [outcome.name.lower() for outcome in REJECTIONS]


@click.command(
    cls=SettingsCommand,
    short_help="Rejected rows back to the input they came from.",
    epilog="""
\b
Examples:
  # refunds that overtook their orders today
  rfmstream redrive --reason unknown_order --since 2026-11-28
  # how many would there be?
  rfmstream redrive --reason unknown_order --reason future_time --since 2026-11-28T08:00:00Z --dry-run

\b
What was wrong has to be right by then: the order has come, the clock is set, the worker has another currency. A row
that was applied meanwhile is a duplicate and ignored; one that is rejected again is in the rejected topic again.
Exit codes: 0 done · 1 the brokers failed · 2 usage or configuration · 130 interrupted
""",
)
@click.option(
    "--reason",
    "reasons",
    metavar="WORD",
    type=click.Choice(_REASONS),
    multiple=True,
    required=True,
    help=f"Which rows: {', '.join(_REASONS)}; may be given again.",
)
@click.option(
    "--since",
    metavar="INSTANT",
    required=True,
    help="Rows rejected from then on, ISO 8601; without an offset in UTC.",
)
@click.option("--until", metavar="INSTANT", help="And before then. [default: now]")
@click.option("--dry-run", is_flag=True, help="Count them, send nothing.")
@click.option("--rejected-topic", metavar="TOPIC", help="[default: the worker's rejected_topic]")
@setting_options(CLIENT_SETTINGS)
def redrive(
    *,
    reasons: tuple[str, ...],
    since: str,
    until: str | None,
    dry_run: bool,
    rejected_topic: str | None,
    config: Path | None,
    **flags: object,
) -> None:
    """Send rejected rows again, each to the partition it came from, under its own key.

    A refund that came before its order is rejected as unknown_order; once the order is there, this puts it right.
    """
    from rfmstream.engine.events.instants import parse_instant
    from rfmstream.engine.live.config import load_client_config
    from rfmstream.engine.live.kafka.redrive import redrive as send  # loads the client
    from rfmstream.engine.live.sources import resolve_one

    client = load_client_config(flags, file=config)
    topic = resolve_one("rejected_topic", flags={"rejected_topic": rejected_topic}, file=config)
    since_us = parse_instant(since, "UTC", key="--since")
    until_us = None if until is None else parse_instant(until, "UTC", key="--until")
    done = run_async(
        send(
            client,
            topic,
            reasons=set(reasons),
            since_us=since_us,
            until_us=until_us,
            dry_run=dry_run,
        )
    )
    verb = "would be put back" if dry_run else "put back"
    for (to, reason), rows in sorted(done.sent.items()):
        click.echo(f"{rows:,} rows rejected as {reason} {verb}: {to}")
    if not done.sent:
        click.echo(f"no rows to put back in {topic}")
    if done.left:
        click.echo(
            f"{done.left:,} rows are left: their bytes or their topic are not there any more", err=True
        )
