"""`rfmstream tail`."""

from contextlib import aclosing
from functools import cache
from pathlib import Path
from typing import Any

import click

from rfmstream.engine.cli.running import run_async
from rfmstream.engine.cli.settings import SettingsCommand, setting_options
from rfmstream.engine.live.settings import CLIENT_SETTINGS, TOPIC_SETTINGS
from rfmstream.schemas.errors import ConfigError

_SETTINGS = (*CLIENT_SETTINGS, *(setting for setting in TOPIC_SETTINGS if setting.name == "changes_topic"))


@click.command(
    cls=SettingsCommand,
    short_help="Tier changes, as they arrive in Kafka.",
    epilog="""
\b
Examples:
  rfmstream tail                                  # what happens from now on
  rfmstream tail --from-beginning --customer 00042
  rfmstream tail --from-beginning --until-end --json > changes.jsonl

\b
Only committed changes are shown. Brokers, TLS and login are settings of the worker: its environment variables and
its --config file serve here too.
Exit codes: 0 done · 1 the brokers failed · 2 usage or configuration · 130 interrupted
""",
)
@click.option("--from-beginning", is_flag=True, help="Begin with the oldest change instead of the next.")
@click.option("--until-end", is_flag=True, help="Stop after the changes there are now.")
@click.option("--count", metavar="N", type=click.IntRange(1), help="Stop after N changes.")
@click.option("--customer", metavar="ID", help="Show this customer's alone.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print each change as the JSON object it is, one a line."
)
@setting_options(_SETTINGS)
def tail(
    *,
    from_beginning: bool,
    until_end: bool,
    count: int | None,
    customer: str | None,
    as_json: bool,
    config: Path | None,
    **flags: object,
) -> None:
    """Print tier changes from the topic they are written to, a line each.

    Times are local in the ruleset's time zone where the change names a built-in ruleset, else UTC.
    """
    from rfmstream.engine.live.config import load_client_config
    from rfmstream.engine.live.kafka.reader import read_values  # loads the client
    from rfmstream.engine.live.sources import resolve_one

    client = load_client_config(flags, file=config)
    topic = resolve_one("changes_topic", flags=flags, file=config)

    async def follow() -> None:
        shown = 0
        values = read_values(client, topic, from_beginning=from_beginning, until_end=until_end)
        async with aclosing(values):
            async for value in values:
                change = _change(value, topic)
                if customer in (None, change["customer_id"]):
                    click.echo(_json_line(change) if as_json else _line(change))
                    shown += 1
                if shown == count:
                    return

    run_async(follow())


def _change(value: bytes, topic: str) -> dict[str, Any]:
    """Return the change in a record's value: the value itself, or the data of a structured CloudEvent.

    Errors  ConfigError  it is none
    """
    import orjson

    try:
        event = orjson.loads(value)
        change: dict[str, Any] = event["data"] if "specversion" in event else event
        change["customer_id"], change["ruleset"], change["to_tier"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise ConfigError(
            f"topic {topic} holds what is no tier change: {value[:60].decode(errors='replace')!r}",
            key="changes_topic",
            fix="name the topic the worker writes tier changes to",
        ) from None
    return change


def _json_line(change: dict[str, Any]) -> str:
    import orjson

    return orjson.dumps(change).decode()


def _line(change: dict[str, Any]) -> str:
    from rfmstream.engine.cli.show import change_line  # loads rich

    return change_line(change, _zone(change["ruleset"]))


@cache
def _zone(identity: str) -> str:
    from rfmstream.schemas.ruleset_identity import ruleset_of  # loads numpy

    ruleset = ruleset_of(identity)
    return "UTC" if ruleset is None else ruleset.time_zone
