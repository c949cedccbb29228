"""`rfmstream maps`: the input maps."""

import click


@click.group(
    short_help="Input maps: how other people's columns become order events.",
    epilog="""
\b
Examples:
  rfmstream maps list
  rfmstream maps show shopify-orders > ours.toml     # a start for a map of your own
  rfmstream maps show ours.toml                      # is it right?
  rfmstream replay export.csv --map ours.toml

\b
docs/input-maps.md explains every key. Exit codes: 0 done · 2 usage or configuration
""",
)
def maps() -> None:
    """List the shipped input maps, or show one.

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
    from pathlib import Path

    from rfmstream.engine.files.mapping import load_map  # loads Arrow and the compiler

    click.echo(Path(load_map(name).path).read_text(encoding="utf-8"), nl=False)
