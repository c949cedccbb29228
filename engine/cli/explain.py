"""`rfmstream explain`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rfmstream.engine.cli.options import FILE, chosen_ruleset, ruleset_options, view_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from rfmstream.engine.core.explain import Explanation, Measure
    from rfmstream.schemas.ruleset import Ruleset
    from rfmstream.schemas.ruleset_model import RulesetFile


@click.command(
    short_help="Why is a customer in this tier, and what would move it?",
    epilog="""
\b
Examples:
  rfmstream explain 00042 --checkpoint state
  rfmstream explain 00042 --worker http://127.0.0.1:8765 --json
  # as of the customer's newest tier change
  rfmstream explain 00042 --changes changes.parquet

\b
What buying could do: for each other tier the least number of further paid orders, made at that instant, and with so
many the least amount of them together; a tier that no number of orders up to the highest F cut leads to is out of
reach.

\b
Exit codes: 0 done · 1 a worker does not answer · 2 usage or configuration · 3 there is no such customer · 4 checkpoint
""",
)
@click.argument("customer", metavar="CUSTOMER")
@click.option(
    "--checkpoint",
    metavar="DIR|URI",
    help="Ask a checkpoint of replay --checkpoint, or the checkpoints of live workers.",
)
@click.option(
    "--worker", "workers", metavar="URL", multiple=True, help="Ask live workers; once for each of the group."
)
@click.option("--changes", metavar="FILE", type=FILE, help="Ask a file of tier changes.")
@click.option(
    "--app-id", metavar="NAME", default="rfmstream", show_default=True, help="Whose live checkpoints."
)
@click.option(
    "--as-of",
    metavar="INSTANT",
    help="Explain this instant, ISO 8601; one in the future is what is to come if no order does. [default: the "
    "checkpoint's clock; a worker's present; of --changes, always the newest change]",
)
@ruleset_options("the built-in that is named there; give the FILE if it was your own")
@view_options()
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, nothing else; money in minor units."
)
def explain(
    *,
    customer: str,
    checkpoint: str | None,
    workers: tuple[str, ...],
    changes: Path | None,
    app_id: str,
    as_of: str | None,
    ruleset: str | None,
    time_zone: str | None,
    currency: str | None,
    view: str | None,
    population: str | None,
    as_json: bool,
) -> None:
    """Explain one customer: measures beside cuts, the rule that matched, what time will do, and what buying could.

    CUSTOMER is the id, as text: 00042 is not 42.
    """
    if (checkpoint is not None) + bool(workers) + (changes is not None) != 1:
        raise click.UsageError("name one of --checkpoint, --worker and --changes")
    if changes is not None and as_of is not None:
        raise click.UsageError("--changes tells of the newest change alone: leave --as-of out")
    from rfmstream.engine.cli.show import print_json
    from rfmstream.engine.core.explain import explain as explained

    chosen = chosen_ruleset(ruleset, time_zone, currency)
    as_of_us: int | None = None
    if changes is not None:
        row, own = _of_changes(changes, customer, chosen, view=view, population=population)
    elif checkpoint is not None:
        row, own, as_of_us = _of_checkpoint(
            checkpoint, app_id, customer, chosen, as_of, view=view, population=population
        )
    else:
        row, own, as_of_us = _of_workers(workers, customer, chosen, as_of, view=view, population=population)
    found = explained(row, own, _file_of(own, ruleset), as_of_us=as_of_us)
    if as_json:
        print_json(found.as_dict())
    else:
        _print(found)


def _of_changes(
    path: Path, customer: str, chosen: "Ruleset | None", *, view: str | None, population: str | None
) -> "tuple[dict[str, Any], Ruleset]":
    from rfmstream.engine.replay.timeline import read_timeline

    story = read_timeline(path, customer, view=view, population=population)
    return story.changes[-1], agreed(story.identity, chosen)


def _of_checkpoint(
    checkpoint: str,
    app_id: str,
    customer: str,
    chosen: "Ruleset | None",
    as_of: str | None,
    *,
    view: str | None,
    population: str | None,
) -> "tuple[dict[str, Any], Ruleset, int]":
    from rfmstream.engine.cli.snapshot import is_plain
    from rfmstream.engine.core.engine import Engine
    from rfmstream.engine.core.view import of_population
    from rfmstream.engine.events.instants import parse_instant
    from rfmstream.engine.live.snapshots import engines_of_store
    from rfmstream.engine.live.store import Store

    if is_plain(checkpoint):
        engines = [Engine.restore(checkpoint, ruleset=chosen, view=view)]
    else:
        engines = list(engines_of_store(Store(checkpoint, app_id=app_id), chosen, view).values())
    own = engines[0].ruleset
    if as_of is None:
        as_of_us = max(engine.clock_us for engine in engines)
    else:
        as_of_us = parse_instant(as_of, own.time_zone, key="--as-of")
    batches = (
        batch
        for engine in engines
        for batch in of_population(engine.snapshot(as_of_us), engine, population).to_batches()
    )
    return _row_of(batches, customer, checkpoint), own, as_of_us


def _of_workers(
    workers: tuple[str, ...],
    customer: str,
    chosen: "Ruleset | None",
    as_of: str | None,
    *,
    view: str | None,
    population: str | None,
) -> "tuple[dict[str, Any], Ruleset, int | None]":
    from rfmstream.engine.events.instants import parse_instant
    from rfmstream.engine.live.snapshots import snapshot_of_workers
    from rfmstream.engine.live.sources import resolve_one

    token = resolve_one("listen_token", flags={})
    found = snapshot_of_workers(workers, as_of, token, view=view, population=population)
    own = agreed((found.schema.metadata or {}).get(b"rfmstream.ruleset", b"").decode(), chosen)
    as_of_us = None if as_of is None else parse_instant(as_of, own.time_zone, key="--as-of")
    return _row_of(found.batches, customer, workers[0]), own, as_of_us


def agreed(identity: str, chosen: "Ruleset | None") -> "Ruleset":
    """Return the ruleset of an identity: the one that was named, or a built-in."""
    from rfmstream.schemas.errors import ConfigError
    from rfmstream.schemas.ruleset_identity import ruleset_of

    found = chosen or ruleset_of(identity)
    if found is None:
        raise ConfigError(
            f"{identity} is not a built-in ruleset", key="--ruleset", fix="name its file with --ruleset"
        )
    if found.identity != identity:
        raise ConfigError(
            f"what is there was decided by {identity}, not by {found.identity}",
            key="--ruleset",
            fix="name that one, with its time zone and currency",
        )
    return found


def _row_of(batches: "Iterable[pa.RecordBatch]", customer: str, source: str) -> dict[str, Any]:
    import pyarrow.compute as pc

    from rfmstream.schemas.errors import ConfigError, InputError

    rows: list[dict[str, Any]] = []
    for batch in batches:
        rows += batch.filter(pc.equal(batch["customer_id"], customer)).to_pylist()
    if not rows:
        raise InputError(
            f"there is no customer {customer!r}", source=source, fix="ids are text: 00042 is not 42"
        )
    if len(rows) > 1:
        raise ConfigError(
            f"the customer is in several: {', '.join(sorted(str(row['population']) for row in rows))}",
            key="--population",
            fix="name one of them",
        )
    return rows[0]


def _file_of(ruleset: "Ruleset", given: str | None) -> "RulesetFile":
    from rfmstream.schemas.ruleset_file import read_ruleset_file, shipped_path

    return read_ruleset_file(shipped_path(given or ruleset.name) or Path(given or ruleset.name))


def _print(found: "Explanation") -> None:
    from rfmstream.engine.cli.show import money, print_columns
    from rfmstream.schemas.errors import printable

    def name(tier: str | None, label: str | None) -> str:
        return "no tier" if tier is None else f"{tier} {label or ''}".rstrip()

    def amount(minor: int) -> str:
        return f"{money(minor, found.currency_exponent)} {found.currency}"

    when = f" as of {found.as_of}" if found.as_of else ""
    click.echo(printable(f"customer {found.customer_id} by {found.ruleset}{when}"))
    because = f", {found.reason}" + (f" {found.order_id}" if found.order_id else "") if found.reason else ""
    since = f" since {found.since} (change {found.seq}{because})" if found.since else ""
    click.echo(printable(f"{name(found.tier, found.label_en)}{since}"))
    if found.matched is not None:
        click.echo(f"rule {found.matched.number}: {found.matched.conditions}")
    window = "a lifetime" if found.window_days is None else f"{found.window_days} days"
    r_value = "never paid" if found.recency.value is None else f"{found.recency.value:,} days ago"
    print_columns(
        ("measure", "value", "band", "cuts"),
        [
            ("R", r_value, str(found.recency.band), _recency_cuts(found.recency)),
            (
                f"F over {window}",
                f"{found.frequency.value:,} orders",
                str(found.frequency.band),
                _cuts(found.frequency, str),
            ),
            (
                f"M over {window}",
                amount(found.monetary.value or 0),
                str(found.monetary.band),
                _cuts(found.monetary, amount),
            ),
        ],
    )
    if found.next_change_at is None:
        click.echo("time: without an order nothing changes any more")
    else:
        labels = {reach.tier: reach.label_en for reach in found.reach}
        after = name(found.next_tier, labels.get(found.next_tier or ""))
        click.echo(f"time: without an order {after} from {found.next_change_at}")
    print_columns(
        ("buying now could reach", "further orders", "of at least, together"),
        [
            (
                name(reach.tier, reach.label_en),
                "out of reach" if reach.orders is None else f"{reach.orders:,}",
                "" if reach.amount_minor is None else amount(reach.amount_minor),
            )
            for reach in found.reach
        ],
    )
    for action in found.actions:
        click.echo(f"- {action}")


def _recency_cuts(measure: "Measure") -> str:
    return "; ".join(
        f"{cut.at:,} days: "
        + ("no payment" if cut.until is None else f"{'until' if cut.is_reached else 'ended'} {cut.until}")
        for cut in measure.cuts
    )


def _cuts(measure: "Measure", show: Any) -> str:  # noqa: ANN401 - writes a number
    return "; ".join(
        f"{show(cut.at)}: " + ("reached" if cut.is_reached else f"{show(cut.missing)} missing")
        for cut in measure.cuts
    )
