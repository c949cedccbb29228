"""`rfmstream rulesets suggest`."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rfmstream.engine.cli.options import FILE, memory_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from rfmstream.engine.insight.bands import Band
    from rfmstream.engine.insight.suggest import Suggestion
    from rfmstream.engine.replay.tiers import TierRow
    from rfmstream.schemas.ruleset import Ruleset


@click.command(
    "suggest",
    short_help="Find the cuts in your own order history.",
    epilog="""
\b
Examples:
  rfmstream rulesets suggest orders.parquet --like rfm8 --currency USD --out mine.toml
  # natural breaks of M instead of multiples of the average order (pip install 'rfmstream[suggest]')
  rfmstream rulesets suggest orders/ --like scores4 --monetary breaks --out mine.toml
  rfmstream replay orders.parquet --ruleset mine.toml     # has the shares that were told

\b
How: R cuts are quantiles of the days from one purchase day to the customer's next (one cut: 80 %; two: 50 and 90;
three: 50, 80, 95; four: 50, 80, 90, 95). F cuts are quantiles of orders a customer; ties collapse, which is told, and
then the median of those beyond stands in. M cuts are 3 to 5 times the average order value (one cut: 4 times), or
natural breaks.

\b
Exit codes: 0 done · 2 usage or configuration · 3 input refused, or too little of it
""",
)
@click.argument("orders", metavar="ORDERS...", nargs=-1, required=True, type=FILE)
@click.option("--map", "map_name", metavar="NAME|FILE", help="Input map of the orders: rfmstream maps list.")
@click.option(
    "--like",
    metavar="NAME|FILE",
    default="rfm8",
    show_default=True,
    help="The ruleset whose tiers, rules, window and number of cuts are kept.",
)
@click.option("--time-zone", metavar="ZONE", help="IANA zone of the new ruleset instead of that one's own.")
@click.option("--currency", metavar="CODE", help="Currency of the new ruleset instead of that one's own.")
@click.option(
    "--as-of", metavar="INSTANT", help="Measure at this instant, ISO 8601. [default: the newest order]"
)
@click.option(
    "--monetary",
    type=click.Choice(["multiples", "breaks"]),
    default="multiples",
    show_default=True,
    help="M cuts: multiples of the average order value, or natural breaks (Jenks).",
)
@click.option("--name", metavar="NAME", help="Name of the new ruleset. [default: the file's]")
@click.option("--out", metavar="FILE", type=FILE, required=True, help="Write the ruleset here: a .toml file.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, nothing else; money in minor units."
)
@memory_option
def suggest(
    *,
    orders: tuple[Path, ...],
    map_name: str | None,
    like: str,
    time_zone: str | None,
    currency: str | None,
    as_of: str | None,
    monetary: Any,  # noqa: ANN401 - one of two words, as click checked
    name: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Find R, F and M cuts in order history and write a ruleset with them, with the evidence and what comes of it.

    The shares it tells are those of a replay of the same orders by the written file.
    """
    from rfmstream.engine.cli.show import print_json
    from rfmstream.engine.core.engine import Engine
    from rfmstream.engine.events.instants import parse_instant, to_text
    from rfmstream.engine.files.mapping import load_map
    from rfmstream.engine.insight.bands import count_bands
    from rfmstream.engine.insight.suggest import suggest as find
    from rfmstream.engine.insight.suggest import toml_of
    from rfmstream.engine.replay.tiers import count_tiers
    from rfmstream.schemas.ruleset import load_ruleset
    from rfmstream.schemas.ruleset_file import shipped_path

    base = load_ruleset(like, time_zone=time_zone, currency=currency)
    _check_out(out, orders)
    as_of_us = None if as_of is None else parse_instant(as_of, base.time_zone, key="--as-of")
    engine = Engine(base)
    purchases = _read(engine, orders, None if map_name is None else load_map(map_name))
    if as_of_us is not None:
        engine.advance(as_of_us)
    found = find(purchases, engine.snapshot(), base, monetary)
    extends = like if shipped_path(like) else os.path.relpath(like, out.parent)
    # What a file may be called and a ruleset may not is left out of the name.
    own_name = name or re.sub("[^A-Za-z0-9_-]+", "-", out.stem)[:64]
    text = toml_of(found, name=own_name, base=extends, like=base)
    own = _written(out, text)
    engine.resegment(own)
    snapshot = engine.snapshot()
    bands = count_bands(snapshot, own.lookup.shape[1:])
    tiers = count_tiers(snapshot, own)
    if as_json:
        document = {
            "ruleset": own.identity,
            "like": base.identity,
            "currency": own.currency,
            "as_of": to_text(engine.clock_us),
            **found.as_dict(),
            "bands": [vars(band) for band in bands],
            "tiers": [_tier_dict(tier) for tier in tiers],
            "file": str(out),
        }
        print_json(document)
    else:
        _print(found, own, bands, tiers, to_text(engine.clock_us))
        click.echo(f"wrote {own.identity}: {out}")


def _check_out(out: Path, orders: "Sequence[Path]") -> None:
    from rfmstream.schemas.errors import ConfigError

    if out.suffix != ".toml":
        raise ConfigError("is no name of a ruleset file", file=out, key="--out", fix="end it in .toml")
    if not out.parent.is_dir():
        raise ConfigError("cannot be written: there is no such folder", file=out, key="--out")
    if out.resolve() in {path.resolve() for path in orders}:
        raise ConfigError("would overwrite an input", file=out, key="--out", fix="name another file")


def _read(engine: Any, orders: tuple[Path, ...], input_map: Any) -> Any:  # noqa: ANN401 - loaded late
    """Apply the orders to the engine, and return the purchases among them."""
    from rfmstream.engine.cli.progress import progress_bar
    from rfmstream.engine.cli.warm_up import compile_kernels
    from rfmstream.engine.files.source import open_orders
    from rfmstream.engine.insight.purchases import Purchases

    refused = 0
    compile_kernels("orders", "csv", "time")
    with progress_bar() as on_progress:

        def batches() -> "Iterator[pa.RecordBatch]":
            nonlocal refused
            for batch, rejected in open_orders(
                orders,
                input_map=input_map,
                currency=engine.ruleset.currency,
                time_zone=engine.ruleset.time_zone,
                on_progress=on_progress,
            ):
                refused += rejected.num_rows
                refused += engine.step_canonical(batch).rejected.num_rows
                yield batch

        purchases = Purchases.of(batches(), engine.ruleset)
    if refused:
        click.echo(f"{refused:,} rows of the orders are rejected (rfmstream replay tells why)", err=True)
    return purchases


def _written(out: Path, text: str) -> "Ruleset":
    """Write the file, whole or not at all, once it is known to be a ruleset."""
    from rfmstream.engine.core.checkpoint.created import create
    from rfmstream.engine.files.output import part_of
    from rfmstream.schemas.errors import ConfigError
    from rfmstream.schemas.ruleset import load_ruleset

    part = part_of(out)
    try:
        create(part, like=out)
        part.write_text(text, encoding="utf-8")
        ruleset = load_ruleset(part)
        part.replace(out)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", file=out, key="--out") from error
    finally:
        part.unlink(missing_ok=True)
    return ruleset


def _tier_dict(tier: "TierRow") -> dict[str, Any]:
    names = (
        "id",
        "label_zh",
        "label_en",
        "customers",
        "customer_share",
        "orders",
        "revenue_minor",
        "revenue_share",
    )
    return {name: getattr(tier, name) for name in names}


def _print(
    found: "Suggestion",
    own: "Ruleset",
    bands: "Sequence[Band]",
    tiers: "Sequence[TierRow]",
    as_of: str,
) -> None:
    from rfmstream.engine.cli.show import money, print_columns
    from rfmstream.engine.insight.suggest import F_SHARES, GAP_SHARES, MULTIPLES, round_half_up

    exponent = own.currency_exponent
    shares = ", ".join(f"{share:.0%}" for share in GAP_SHARES)
    days = ", ".join(f"{value:g}" for value in found.gaps_days)
    click.echo(
        f"R  from one purchase day to the customer's next, {found.gaps:,} times: {shares} within {days} days"
    )
    quantiles = ", ".join(f"{value:g}" for value in found.frequency)
    click.echo(
        f"F  orders a customer, quantiles {', '.join(f'{share:.0%}' for share in F_SHARES)}: {quantiles}"
    )
    low, high = (money(round_half_up(found.average_minor * times), exponent) for times in MULTIPLES)
    average = money(round_half_up(found.average_minor), exponent)
    click.echo(
        f"M  average order {average} {own.currency}; {MULTIPLES[0]} to {MULTIPLES[1]} times that: {low} to {high}"
    )
    for note in found.notes:
        click.echo(f"   {note}")
    cuts = {
        "r": [f"within {cut:,} days" for cut in own.recency_cuts_days][::-1],
        "f": [f"{cut:,} orders" for cut in own.frequency_cuts],
        "m": [f"{money(cut, exponent)}" for cut in own.monetary_cuts_minor],
    }
    print_columns(
        ("band", "from", "customers", "share", f"revenue {own.currency}", "share"),
        [
            (
                f"{band.measure.upper()} {band.band}",
                cuts[band.measure][band.band - 1] if band.band else "the rest",
                f"{band.customers:,}",
                _percent(band.customer_share),
                money(band.revenue_minor, exponent),
                _percent(band.revenue_share),
            )
            for band in bands
        ],
    )
    print_columns(
        (f"tier as of {as_of}", "label", "customers", "share", f"revenue {own.currency}", "share"),
        [
            (
                tier.id or "-",
                tier.label_en,
                f"{tier.customers:,}",
                _percent(tier.customer_share),
                money(tier.revenue_minor, exponent),
                _percent(tier.revenue_share),
            )
            for tier in tiers
        ],
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
