"""`rfmstream snapshot`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rfmstream.engine.cli.options import (
    FILE,
    SUFFIXES,
    chosen_ruleset,
    csv_safe_option,
    ruleset_options,
    view_options,
)

if TYPE_CHECKING:
    from rfmstream.schemas.ruleset import Ruleset


@click.command(
    short_help="The tiers of all customers: from a checkpoint, from workers that run, or of the past.",
    epilog=f"""
\b
Examples:
  rfmstream snapshot --checkpoint state --out tiers.parquet
  # who will have dropped when February begins if nobody orders?
  rfmstream snapshot --checkpoint state --as-of 2027-02-01 --out forecast.csv
  # of all partitions of two live workers, now
  rfmstream snapshot --worker http://127.0.0.1:8765 --worker http://127.0.0.1:8766 --out tiers.parquet
  # of the checkpoints that live workers leave
  rfmstream snapshot --checkpoint s3://shop-rfm/checkpoints --out tiers.parquet
  # of any past instant, out of the log of tier changes
  rfmstream snapshot --changes changes.parquet --as-of 2026-06-30T12:00:00Z --out june.parquet

\b
FILE's suffix chooses the format: {SUFFIXES}.
Exit codes: 0 done · 1 a worker does not answer · 2 usage or configuration · 3 a file of changes cannot be read ·
  4 state or checkpoint · 130 interrupted
""",
)
@click.option(
    "--checkpoint",
    metavar="DIR|URI",
    help="A checkpoint of replay --checkpoint, or the checkpoints of live workers: all partitions.",
)
@click.option(
    "--worker",
    "workers",
    metavar="URL",
    multiple=True,
    help="Where a live worker listens; once for each worker of the group.",
)
@click.option(
    "--changes",
    metavar="FILE",
    type=FILE,
    multiple=True,
    help="Tier changes of replay --changes, with --as-of some instant of theirs: everybody's tier then, exactly. "
    "Several files, oldest first, where runs went on from a checkpoint. R, F and M as of then are not in the log.",
)
@click.option(
    "--app-id",
    metavar="NAME",
    default="rfmstream",
    show_default=True,
    help="Whose live checkpoints: the workers' app id.",
)
@click.option(
    "--as-of",
    metavar="INSTANT",
    help="The instant to look at, ISO 8601, not before the checkpoint's newest event; one in the future is the "
    "forecast if no order comes. A date alone or a time without an offset is local in the ruleset's time zone. "
    "[default: the checkpoint's clock; of a worker, the present]",
)
@click.option(
    "--partial",
    is_flag=True,
    help="Write what the workers that were asked have, even if that is not all partitions.",
)
@ruleset_options("the checkpoint's own; give the FILE if it was your own")
@view_options()
@click.option("--out", metavar="FILE", type=FILE, required=True, help="Write one row a customer here.")
@csv_safe_option
def snapshot(
    *,
    checkpoint: str | None,
    workers: tuple[str, ...],
    changes: tuple[Path, ...],
    app_id: str,
    as_of: str | None,
    partial: bool,
    ruleset: str | None,
    time_zone: str | None,
    currency: str | None,
    view: str | None,
    population: str | None,
    out: Path,
) -> None:
    """Write one row a customer: tier, bands, R, F and M, and when the tier will change by time alone.

    Nothing is changed by it; workers go on meanwhile. Rows of a live worker are consistent within each partition.
    """
    if (checkpoint is not None) + bool(workers) + bool(changes) != 1:
        raise click.UsageError("name one of --checkpoint, --worker and --changes")
    from rfmstream.engine.files.output import OutputFile, check_output  # loads Arrow
    from rfmstream.schemas.errors import StateError

    check_output(out)
    if changes:
        chosen = chosen_ruleset(ruleset, time_zone, currency)
        _write_past(changes, chosen, as_of, out, view=view, population=population)
        return
    if checkpoint is None:
        from rfmstream.engine.live.snapshots import snapshot_of_workers
        from rfmstream.engine.live.sources import resolve_one

        if ruleset is not None or time_zone is not None or currency is not None:
            raise click.UsageError("a worker has its own --ruleset, --time-zone and --currency")
        token = resolve_one("listen_token", flags={})
        found = snapshot_of_workers(workers, as_of, token, view=view, population=population)
    else:
        chosen = chosen_ruleset(ruleset, time_zone, currency)
        if is_plain(checkpoint):
            _write_plain(Path(checkpoint), chosen, as_of, out, view=view, population=population)
            return
        from rfmstream.engine.live.snapshots import snapshot_of_store
        from rfmstream.engine.live.store import Store

        store = Store(checkpoint, app_id=app_id)
        found = snapshot_of_store(store, chosen, as_of, view=view, population=population)
    with OutputFile(out, found.schema) as file:
        for batch in found.batches:
            file.write(batch)
        # Who has which partition is known once all have answered.
        if found.missing and not partial:
            raise StateError(
                f"{len(found.missing)} of {len(found.expected)} partitions are missing: {', '.join(found.missing)}",
                fix="name the workers that have them with --worker, too, or take what there is with --partial",
            )
        file.publish()
    click.echo(f"{file.rows:,} customers of {len(found.partitions)} partitions: {out}")


def is_plain(checkpoint: str) -> bool:
    """Tell whether a directory is one checkpoint, not a live worker's many."""
    from rfmstream.engine.core.checkpoint.folder import has_checkpoint

    # A directory that is not there, its name too long for any, is refused in the words of the plain one.
    return "://" not in checkpoint and (has_checkpoint(checkpoint) or not os.path.exists(checkpoint))  # noqa: PTH110


def _write_past(
    changes: tuple[Path, ...],
    ruleset: "Ruleset | None",
    as_of: str | None,
    out: Path,
    *,
    view: str | None,
    population: str | None,
) -> None:
    from rfmstream.engine.events.instants import to_text
    from rfmstream.engine.files.output import check_outputs, write_table
    from rfmstream.engine.insight.past import past_tiers

    if as_of is None:
        raise click.UsageError("--changes tells the past: name its instant by --as-of")
    check_outputs([out], changes)
    table, as_of_us = past_tiers(changes, as_of, ruleset, view=view, population=population)
    write_table(out, table)
    click.echo(f"{table.num_rows:,} customers as of {to_text(as_of_us)}: {out}")


def _write_plain(
    checkpoint: Path,
    ruleset: "Ruleset | None",
    as_of: str | None,
    out: Path,
    *,
    view: str | None,
    population: str | None,
) -> None:
    from rfmstream.engine.core.engine import Engine  # loads Arrow and the compiler
    from rfmstream.engine.core.view import of_population
    from rfmstream.engine.events.instants import parse_instant, to_text
    from rfmstream.engine.files.output import write_table

    engine = Engine.restore(checkpoint, ruleset=ruleset, view=view)
    as_of_us = None if as_of is None else parse_instant(as_of, engine.ruleset.time_zone, key="--as-of")
    table = of_population(engine.snapshot(as_of_us), engine, population)
    write_table(out, table)
    shown = to_text(engine.clock_us if as_of_us is None else as_of_us)
    click.echo(f"{table.num_rows:,} customers as of {shown} by {engine.ruleset.identity}: {out}")
