"""`rfmstream snapshot`."""

from pathlib import Path

import click

from engine.cli.options import FILE, SUFFIXES, chosen_ruleset, ruleset_options


@click.command(
    short_help="The tiers of all customers, from a checkpoint.",
    epilog=f"""
\b
Examples:
  rfmstream snapshot --checkpoint state --out tiers.parquet
  # who will have dropped by the end of next month if nobody orders?
  rfmstream snapshot --checkpoint state --as-of 2027-01-31 --out forecast.csv

\b
FILE's suffix chooses the format: {SUFFIXES}.
Exit codes: 0 done · 2 usage or configuration · 4 state or checkpoint · 130 interrupted
""",
)
@click.option(
    "--checkpoint", metavar="DIR", type=FILE, required=True, help="A checkpoint of replay --checkpoint."
)
@click.option(
    "--as-of",
    metavar="INSTANT",
    help="The instant to look at, ISO 8601, not before the checkpoint's newest event; one in the future is the "
    "forecast if no order comes. A date alone or a time without an offset is local in the ruleset's time zone. "
    "[default: the checkpoint's clock]",
)
@ruleset_options("the checkpoint's own; give the FILE if it was your own")
@click.option("--out", metavar="FILE", type=FILE, required=True, help="Write one row a customer here.")
def snapshot(
    *,
    checkpoint: Path,
    as_of: str | None,
    ruleset: str | None,
    time_zone: str | None,
    currency: str | None,
    out: Path,
) -> None:
    """Write one row a customer: tier, bands, R, F and M, and when the tier will change by time alone.

    The checkpoint is not changed.
    """
    from engine.engine import Engine, to_text  # loads Arrow and the compiler
    from engine.instants import parse_instant
    from engine.output import check_output, write_table

    check_output(out)
    engine = Engine.restore(checkpoint, ruleset=chosen_ruleset(ruleset, time_zone, currency))
    as_of_us = (
        engine.clock_us if as_of is None else parse_instant(as_of, engine.ruleset.time_zone, key="--as-of")
    )
    table = engine.snapshot(as_of_us)
    write_table(out, table)
    click.echo(f"{table.num_rows:,} customers as of {to_text(as_of_us)} by {engine.ruleset.identity}: {out}")
