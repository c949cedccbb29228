"""`rfmstream rulesets`: what decides the tiers."""

from pathlib import Path

import click

from rfmstream.engine.cli.diff import diff
from rfmstream.engine.cli.options import FILE, language_option
from rfmstream.engine.cli.suggest import suggest


@click.group(
    short_help="Rulesets: what decides the tiers.",
    epilog="""
\b
Examples:
  rfmstream rulesets list
  rfmstream rulesets show rfm8-annual --currency USD
  rfmstream rulesets show rfm8 --toml > ours.toml    # a start for a ruleset of your own
  rfmstream rulesets check ours.toml
  rfmstream rulesets suggest orders.parquet --like rfm8 --out mine.toml    # cuts from your own orders
  rfmstream rulesets diff rfm8 ours.toml orders.parquet    # what would it change?

\b
docs/rulesets.md explains every key. Exit codes: 0 done · 2 usage or configuration
""",
)
def rulesets() -> None:
    """List the built-in rulesets, show one, check or suggest a file of your own, or compare two."""


@rulesets.command("list")
def list_() -> None:
    """List the built-in rulesets."""
    from rfmstream.engine.cli.show import print_rulesets  # loads rich
    from rfmstream.schemas.ruleset import list_rulesets, load_ruleset  # loads numpy

    print_rulesets([load_ruleset(name) for name in list_rulesets()])


@rulesets.command()
@click.argument("name", metavar="NAME|FILE")
@click.option("--time-zone", metavar="ZONE", help="Show it with this IANA zone instead of its own.")
@click.option("--currency", metavar="CODE", help="Show it with this currency instead of its own.")
@language_option("The language of the playbooks, as far as the file has it")
@click.option("--toml", "as_toml", is_flag=True, help="Print the file instead, comments included.")
def show(*, name: str, time_zone: str | None, currency: str | None, lang: str, as_toml: bool) -> None:
    """Show a ruleset: cuts, window, tiers with their labels, and the playbook of each."""
    from rfmstream.engine.cli.show import print_ruleset  # loads rich
    from rfmstream.schemas.ruleset import load_ruleset  # loads numpy
    from rfmstream.schemas.ruleset_file import shipped_path

    ruleset = load_ruleset(name, time_zone=time_zone, currency=currency)
    if as_toml:
        click.echo((shipped_path(name) or Path(name)).read_text(encoding="utf-8-sig"), nl=False)
    else:
        print_ruleset(ruleset, lang)


@rulesets.command()
@click.argument("file", type=FILE)
@click.option("--time-zone", metavar="ZONE", help="Check it with this IANA zone instead of its own.")
@click.option("--currency", metavar="CODE", help="Check it with this currency instead of its own.")
def check(*, file: Path, time_zone: str | None, currency: str | None) -> None:
    """Check a ruleset file and show what it would do, or say what is wrong: file, key and fix."""
    from rfmstream.engine.cli.show import print_ruleset  # loads rich
    from rfmstream.schemas.ruleset import load_ruleset  # loads numpy

    ruleset = load_ruleset(file, time_zone=time_zone, currency=currency)
    click.echo(f"{file} is valid.")
    print_ruleset(ruleset)


rulesets.add_command(diff)
rulesets.add_command(suggest)
