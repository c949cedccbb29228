"""`rfmstream timeline`."""

from pathlib import Path

import click

from rfmstream.engine.cli.options import FILE, chosen_ruleset, ruleset_options, view_options


@click.command(
    short_help="The story of one customer, from a file of changes.",
    epilog="""
\b
Examples:
  rfmstream timeline changes.parquet                    # one with the most changes
  rfmstream timeline changes.parquet --customer 00042   # ids are text
  rfmstream timeline changes.csv --customer 00042 --limit 3

\b
Exit codes: 0 done · 2 usage or configuration · 3 the file cannot be read or lacks the customer
""",
)
@click.argument("changes", metavar="CHANGES", type=FILE)
@click.option("--customer", metavar="ID", help="Whose story. [default: a customer with the most changes]")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Show the newest N changes.",
)
@ruleset_options("the built-in the changes name; give the FILE if it was your own")
@view_options()
def timeline(
    *,
    changes: Path,
    customer: str | None,
    limit: int,
    ruleset: str | None,
    time_zone: str | None,
    currency: str | None,
    view: str | None,
    population: str | None,
) -> None:
    """Tell what happened to one customer: when the tier changed, why, and what would have come next.

    CHANGES is a file of rfmstream replay --changes. Times are local in the ruleset's time zone.
    """
    from rfmstream.engine.cli.show import print_timeline  # loads rich
    from rfmstream.engine.replay.timeline import read_timeline  # loads Arrow
    from rfmstream.schemas.ruleset_identity import ruleset_of

    story = read_timeline(changes, customer, view=view, population=population)
    own = ruleset_of(story.identity)
    given = chosen_ruleset(ruleset, time_zone, currency, default=own.name if own else "rfm8")
    print_timeline(story, given or own, limit)
