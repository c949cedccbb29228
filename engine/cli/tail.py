"""`rfmstream tail`."""

import sys
from contextlib import aclosing
from functools import cache
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

import click

from rfmstream.engine.cli.running import run_async
from rfmstream.engine.cli.settings import SettingsCommand, setting_options
from rfmstream.engine.live.settings import CLIENT_SETTINGS, TOPIC_SETTINGS
from rfmstream.schemas.errors import ConfigError, printable_json

_TOPICS = ("changes_topic", "signals_topic")
_SETTINGS = (*CLIENT_SETTINGS, *(setting for setting in TOPIC_SETTINGS if setting.name in _TOPICS))


@click.command(
    cls=SettingsCommand,
    short_help="Tier changes or signals, as they arrive in Kafka.",
    epilog="""
\b
Examples:
  rfmstream tail                                  # what happens from now on
  rfmstream tail --from-beginning --customer 00042
  rfmstream tail --from-beginning --until-end --json > changes.jsonl
  rfmstream tail --signals                        # warnings, dwells and milestones, for rulesets that ask for them

\b
Only what is committed is shown. Brokers, TLS and login are settings of the worker: its environment variables and
its --config file serve here too.
Exit codes: 0 done · 1 the brokers failed · 2 usage or configuration · 130 interrupted
""",
)
@click.option("--signals", is_flag=True, help="Show signals instead of tier changes.")
@click.option("--from-beginning", is_flag=True, help="Begin with the oldest instead of the next.")
@click.option("--until-end", is_flag=True, help="Stop after what there is now.")
@click.option("--count", metavar="N", type=click.IntRange(1), help="Stop after N.")
@click.option("--customer", metavar="ID", help="Show this customer's alone.")
@click.option("--json", "as_json", is_flag=True, help="Print each as the JSON object it is, one a line.")
@setting_options(_SETTINGS)
def tail(
    *,
    signals: bool,
    from_beginning: bool,
    until_end: bool,
    count: int | None,
    customer: str | None,
    as_json: bool,
    config: Path | None,
    **flags: object,
) -> None:
    """Print tier changes, or signals, from the topic they are written to, a line each.

    Times are local in the ruleset's time zone where the event names a built-in ruleset, else UTC.
    """
    from rfmstream.engine.live.config import load_client_config
    from rfmstream.engine.live.kafka.reader import read_values  # loads the client
    from rfmstream.engine.live.sources import resolve_one

    client = load_client_config(flags, file=config)
    key = "signals_topic" if signals else "changes_topic"
    topic = str(resolve_one(key, flags=flags, file=config))
    line = _signal_line if signals else _change_line

    width = get_terminal_size().columns if sys.stdout.isatty() and not as_json else 0

    def told() -> None:
        if not until_end and sys.stderr.isatty():
            kind = "signals" if signals else "tier changes"
            of = "" if customer is None else f" of customer {customer}"
            click.echo(f"waiting for {kind}{of} in {topic} of {','.join(client.bootstrap_servers)}", err=True)

    async def follow() -> None:
        shown = 0
        told()
        values = read_values(client, topic, key=key, from_beginning=from_beginning, until_end=until_end)
        async with aclosing(values):
            async for value in values:
                event = _event(value, topic, key)
                if customer in (None, event["customer_id"]):
                    click.echo(_json_line(event) if as_json else _cut(line(event), width))
                    shown += 1
                if shown == count:
                    return

    run_async(follow())


def _cut(line: str, width: int) -> str:
    """Shorten a line for a terminal that is narrower: it would break off amidst a word, again and again."""
    return line if not width or len(line) <= width else f"{line[: width - 1]}…"


_MARKS = {"changes_topic": ("to_tier", "tier change"), "signals_topic": ("kind", "signal")}
"""By the setting of its topic: a column that only such an event has, and what it is called."""


def _event(value: bytes, topic: str, key: str) -> dict[str, Any]:
    """Return the event in a record's value: the value itself, or the data of a structured CloudEvent.

    In      key  the setting that names the topic
    Errors  ConfigError  it is none of those
    """
    import orjson

    mark, name = _MARKS[key]
    try:
        whole = orjson.loads(value)
        event: dict[str, Any] = whole["data"] if "specversion" in whole else whole
        event["customer_id"], event["ruleset"], event[mark]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise ConfigError(
            f"topic {topic} holds what is no {name}: {value[:60].decode(errors='replace')!r}",
            key=key,
            fix=f"name the topic the worker writes {name}s to",
        ) from None
    return event


def _json_line(event: dict[str, Any]) -> str:
    import orjson

    return printable_json(orjson.dumps(event).decode())


def _change_line(change: dict[str, Any]) -> str:
    from rfmstream.engine.cli.show import change_line  # loads rich

    return change_line(change, _unit(change["ruleset"])[0])


def _signal_line(signal: dict[str, Any]) -> str:
    from rfmstream.engine.cli.show_signals import signal_line  # loads rich

    return signal_line(signal, *_unit(signal["ruleset"]))


@cache
def _unit(identity: str) -> tuple[str, str | None]:
    """Return the time zone and currency of a built-in ruleset; UTC and None for another."""
    from rfmstream.schemas.ruleset_identity import ruleset_of  # loads numpy

    ruleset = ruleset_of(identity)
    return ("UTC", None) if ruleset is None else (ruleset.time_zone, ruleset.currency)
