"""`rfmstream maps`: the input maps."""

from pathlib import Path
from typing import Final

import click

from rfmstream.engine.cli.options import FILE

_FITS_SHOWN: Final = 5
_FITS_PARTLY: Final = 0.5
"""Of the needed columns: below that a map is no help."""


@click.group(
    short_help="Input maps: how other people's columns become order events.",
    epilog="""
\b
Examples:
  rfmstream maps list
  rfmstream maps show shopify-orders > ours.toml     # a start for a map of your own
  rfmstream maps guess orders_export_1.csv           # which one reads this, and what is missing?
  rfmstream maps show ours.toml                      # is it right?
  rfmstream replay export.csv --map ours.toml

\b
docs/input-maps.md explains every key. Exit codes: 0 done · 2 usage or configuration · 3 input refused
""",
)
def maps() -> None:
    """List the shipped input maps, show one, or guess which one fits a file.

    A map is a TOML file that says which columns make an order event: names, constants, time format and zone, decimal or
    minor units, order lines to sum, rows to leave out, which rows are refunds, cancellations or adjustments.
    """


@maps.command("list")
def list_() -> None:
    """List the shipped maps."""
    from rfmstream.engine.cli.show import print_columns  # loads rich
    from rfmstream.engine.files.mapping import list_maps, load_map  # loads Arrow and the compiler

    print_columns(("name", "for"), [(name, load_map(name).title) for name in list_maps()])


@maps.command()
@click.argument("name", metavar="NAME|FILE")
def show(name: str) -> None:
    """Check a map and print its file, comments included."""
    from rfmstream.engine.files.mapping import load_map  # loads Arrow and the compiler

    click.echo(Path(load_map(name).path).read_text(encoding="utf-8"), nl=False)


@maps.command()
@click.argument("file", metavar="FILE", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print the fits as one JSON object, nothing else.")
def guess(file: Path, *, as_json: bool) -> None:
    """Tell which shipped map fits a file best, by its columns, and what is missing.

    Only the start of the file is read. A fit says that the columns are there, not that they mean the same: look at the
    map's own notes (rfmstream maps show NAME), and at the summary of a first replay.
    """
    from rfmstream.engine.cli.show import print_columns, print_json  # loads rich
    from rfmstream.engine.files.guess import guess_map  # loads Arrow and the compiler

    fits = guess_map(file)
    if as_json:
        print_json({"file": str(file), "fits": [{**vars(fit), "share": round(fit.share, 3)} for fit in fits]})
        return
    best = fits[0]
    command = "rfmstream replay" if best.name is None else f"rfmstream replay --map {best.name}"
    if not best.missing:
        click.echo(f"{file}: {command} fits")
    elif best.share > _FITS_PARTLY:
        click.echo(f"{file}: {command} fits best, but these columns are missing: {', '.join(best.missing)}")
    else:
        click.echo(f"{file}: no shipped map fits; docs/input-maps.md tells how to write one")
    rows = [
        (fit.name or "(no map)", f"{fit.needed - len(fit.missing)} of {fit.needed}", ", ".join(fit.missing))
        for fit in fits
        if fit.share > 0
    ]
    print_columns(("map", "columns", "missing"), rows[:_FITS_SHOWN])
