"""`rfmstream report`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rfmstream.engine.cli.options import FILE, chosen_ruleset, language_option, memory_option, ruleset_options

if TYPE_CHECKING:
    from rfmstream.schemas.mapping import InputMap

_SUFFIXES = (".html", ".json")
CUSTOMERS_MAX = 1000
"""Of each tier: the page is to be read, and whoever wants all of them has the snapshot."""


@click.command(
    short_help="Pictures and numbers of tiers, money and movement: one file that opens from disk.",
    epilog="""
\b
Examples:
  rfmstream replay orders.parquet --changes changes.parquet --snapshot tiers.parquet
  rfmstream report changes.parquet --snapshot tiers.parquet --out report.html
  # with the orders: months, purchase days and cohorts by month
  rfmstream report changes.parquet --snapshot tiers.parquet --orders orders.parquet --out report.html
  # numbers for programs; next month's report says what changed since
  rfmstream report changes.parquet --snapshot tiers.parquet --out may.json
  rfmstream report june/changes.parquet --snapshot june/tiers.parquet --previous may.json --out june.html
  # who moved where in the first quarter, and pictures for mails
  rfmstream report changes.parquet --snapshot tiers.parquet --since 2027-01-01 --until 2027-04-01 \\
      --out quarter.html --png pictures
  # the twenty best customers of each tier, by id
  rfmstream report changes.parquet --snapshot tiers.parquet --customers 20 --out twenty.html

\b
Files:
  CHANGES   of rfmstream replay --changes; several, oldest first, where runs went on from a checkpoint.
  SNAPSHOT  of the same run's end: of replay --snapshot, or of rfmstream snapshot.
  The page holds numbers of groups, and no customer's id unless --customers asks for some. It loads nothing and works
  without a network. docs/report.md explains every view. It needs the extra `report`: pip install 'rfmstream[report]';
  .json and --json do not.

\b
Exit codes: 0 done · 1 a disk failed · 2 usage or configuration · 3 a file cannot be read or they do not belong
together · 130 interrupted
""",
)
@click.argument("changes", metavar="CHANGES...", nargs=-1, required=True, type=FILE)
@click.option(
    "--snapshot", metavar="FILE", type=FILE, required=True, help="The snapshot at the end of the changes."
)
@click.option(
    "--orders",
    metavar="FILE",
    type=FILE,
    multiple=True,
    help="The orders that were replayed; once for each input.",
)
@click.option("--map", "map_name", metavar="NAME|FILE", help="Input map of the orders: rfmstream maps list.")
@ruleset_options("the built-in the snapshot names; give the FILE if it was your own")
@click.option(
    "--as-of",
    metavar="INSTANT",
    help="The snapshot's instant, ISO 8601. [default: what its rows tell: its newest order or change, or the day that "
    "recency_days count to]",
)
@click.option(
    "--since",
    metavar="INSTANT",
    help="Compare the tiers of this instant... [default: 90 days before --until]",
)
@click.option("--until", metavar="INSTANT", help="...with those of this one. [default: the snapshot's]")
@click.option("--view", metavar="NAME", help="The view to report, where the files hold several.")
@click.option("--previous", metavar="FILE", type=FILE, help="An earlier report.json: say what changed since.")
@click.option(
    "--customers",
    metavar="N",
    type=click.IntRange(1, CUSTOMERS_MAX),
    help=f"List the N customers of each tier who spent the most, at most {CUSTOMERS_MAX:,}: their ids are then in what "
    "is written. [default: none]",
)
@language_option("The language shown first, and that of the PNGs")
@click.option(
    "--out",
    "outs",
    metavar="FILE",
    type=FILE,
    multiple=True,
    help="Write the page (.html) or its numbers (.json); once for each.",
)
@click.option("--png", metavar="DIR", type=FILE, help="Write each picture as a PNG into this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print all numbers as one JSON object, nothing else.")
@memory_option
def report(
    *,
    changes: tuple[Path, ...],
    snapshot: Path,
    orders: tuple[Path, ...],
    map_name: str | None,
    ruleset: str | None,
    time_zone: str | None,
    currency: str | None,
    as_of: str | None,
    since: str | None,
    until: str | None,
    view: str | None,
    previous: Path | None,
    customers: int | None,
    lang: str,
    outs: tuple[Path, ...],
    png: Path | None,
    as_json: bool,
) -> None:
    """Report who the customers are, what they are worth, where they move and what comes if nobody orders.

    Every number on the page is in --json, too, and can be had by SQL from the same files.
    """
    _check(outs, png, as_json=as_json, map_name=map_name, orders=orders)
    if png is not None or any(out.suffix.lower() == ".html" for out in outs):
        from rfmstream.engine.insight.report.vega import check_renderer

        check_renderer()
    import orjson

    from rfmstream.engine.cli.warm_up import compile_kernels
    from rfmstream.engine.files.documents import write_document
    from rfmstream.engine.insight.report.build import Question, as_dict, build, zone_of_snapshot

    compile_kernels("report")
    chosen = chosen_ruleset(ruleset, time_zone, currency)
    instants = _instants(
        {"--as-of": as_of, "--since": since, "--until": until},
        lambda: zone_of_snapshot(snapshot, chosen),
    )
    made = build(
        Question(
            changes=changes,
            snapshot=snapshot,
            orders=orders,
            input_map=_map(map_name),
            ruleset=chosen,
            as_of_us=instants["--as-of"],
            since_us=instants["--since"],
            until_us=instants["--until"],
            view=view,
            previous=previous,
            customers=customers or 0,
        )
    )
    written = []
    for out in outs:
        if out.suffix.lower() == ".json":
            content = orjson.dumps(as_dict(made), option=orjson.OPT_INDENT_2) + b"\n"
        else:
            from rfmstream.engine.insight.report.page import page

            content = page(made, lang).encode()
        write_document(out, content)
        written.append(f"{out} ({len(content) / 1e3:,.0f} kB)")
    if png is not None:
        from rfmstream.engine.insight.report.page import pictures_as_png

        png.mkdir(parents=True, exist_ok=True)
        for name, image in pictures_as_png(made, lang):
            write_document(png / f"{name}.png", image)
            written.append(str(png / f"{name}.png"))
    if as_json:
        from rfmstream.engine.cli.show import print_json

        print_json(as_dict(made))
        return
    click.echo(f"{made.customers:,} customers as of {made.as_of} by {made.ruleset}")
    for name in written:
        click.echo(f"wrote {name}")


def _check(
    outs: tuple[Path, ...], png: Path | None, *, as_json: bool, map_name: str | None, orders: tuple[Path, ...]
) -> None:
    if not outs and png is None and not as_json:
        raise click.UsageError("nothing to make: name --out FILE, --png DIR or --json")
    for out in outs:
        if out.suffix.lower() not in _SUFFIXES:
            raise click.UsageError(f"--out {out}: its suffix is .html or .json")
    if map_name is not None and not orders:
        raise click.UsageError("--map reads --orders, and there are none")


def _map(name: str | None) -> "InputMap | None":
    if name is None:
        return None
    from rfmstream.engine.files.mapping import load_map

    return load_map(name)


def _instants(texts: dict[str, str | None], zone: Callable[[], str]) -> dict[str, int | None]:
    from rfmstream.engine.events.instants import parse_instant

    return {
        key: None if text is None else parse_instant(text, zone(), key=key) for key, text in texts.items()
    }
