"""`rfmstream rulesets diff`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rfmstream.engine.cli.options import FILE, SUFFIXES, csv_safe_option, memory_option, view_options

if TYPE_CHECKING:
    import pyarrow as pa

    from rfmstream.engine.core.engine import Engine
    from rfmstream.engine.insight.diff import Diff
    from rfmstream.engine.insight.history import History, Pace
    from rfmstream.schemas.mapping import InputMap
    from rfmstream.schemas.ruleset import Ruleset

_MATRIX_TIERS_MAX = 9


@click.command(
    "diff",
    short_help="What another ruleset would change, before it goes live.",
    epilog=f"""
\b
Examples:
  # of order files: who moves, what is sent at once, how restless each ruleset was in the last 90 days
  rfmstream rulesets diff rfm8-annual rfm8-grace orders.parquet --currency USD
  # of a checkpoint, or of the checkpoints that live workers leave
  rfmstream rulesets diff rfm8 ours.toml --checkpoint state --customers moved.parquet
  # of a live worker, now; the orders are read for the figures of the last days alone
  rfmstream rulesets diff rfm8 ours.toml orders/ --worker http://127.0.0.1:8765

\b
Sent at once: the tier changes, rules_changed, that activating NEW emits. A tier keeps its id: whoever is in a tier of
the same id by both is told nothing; whoever was in a tier whose id NEW does not have is told.
A worker's snapshot answers for a NEW that counts F and M over a lifetime, in whatever time zone and day unit; within a
window only where NEW has that of OLD, in the same zone and unit. A checkpoint answers for any. Both count in one
currency, which a state never changes.

\b
FILE's suffix chooses the format: {SUFFIXES}.
Exit codes: 0 done · 1 a worker does not answer · 2 usage or configuration · 3 input refused · 4 state or checkpoint
""",
)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.argument("orders", metavar="[ORDERS...]", nargs=-1, type=FILE)
@click.option("--map", "map_name", metavar="NAME|FILE", help="Input map of the orders: rfmstream maps list.")
@click.option(
    "--checkpoint",
    metavar="DIR|URI",
    help="Ask the state of replay --checkpoint, or the checkpoints of live workers, of all partitions. Nothing is "
    "changed by it.",
)
@click.option(
    "--worker",
    "workers",
    metavar="URL",
    multiple=True,
    help="Ask a live worker by OLD; once for each worker of the group.",
)
@click.option(
    "--app-id", metavar="NAME", default="rfmstream", show_default=True, help="Whose live checkpoints."
)
@view_options(population=False)
@click.option("--time-zone", metavar="ZONE", help="IANA zone of both instead of their own.")
@click.option("--currency", metavar="CODE", help="Currency of both instead of their own.")
@click.option(
    "--as-of",
    metavar="INSTANT",
    help="Compare at this instant, ISO 8601. [default: the newest order, the checkpoint's clock, a worker's present]",
)
@click.option(
    "--last",
    "days",
    metavar="DAYS",
    type=click.IntRange(1, 36_500),
    default=90,
    show_default=True,
    help="Count changes a day and flaps over so many days of the orders' end.",
)
@click.option(
    "--within",
    metavar="DAYS",
    type=click.IntRange(1, 36_500),
    default=30,
    show_default=True,
    help="A flap: a change that the customer's next one undoes within so many days.",
)
@click.option(
    "--customers",
    "customers_file",
    metavar="FILE",
    type=FILE,
    help="Write the customers who move: both tiers, whether a change is sent, and the new measures.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, nothing else; money in minor units."
)
@memory_option
@csv_safe_option
def diff(
    *,
    old: str,
    new: str,
    orders: tuple[Path, ...],
    map_name: str | None,
    checkpoint: str | None,
    workers: tuple[str, ...],
    app_id: str,
    view: str | None,
    time_zone: str | None,
    currency: str | None,
    as_of: str | None,
    days: int,
    within: int,
    customers_file: Path | None,
    as_json: bool,
) -> None:
    """Compare two rulesets on the same customers: who moves, what activating NEW sends, how restless each is.

    OLD and NEW are names of built-in rulesets or .toml files. The customers are those of ORDERS, of a checkpoint or of
    a live worker; with one of these two, ORDERS only give the figures of the last days.
    """
    _check_asked(checkpoint, workers, orders, view)
    from rfmstream.engine.cli.show import print_json
    from rfmstream.engine.events.instants import parse_instant
    from rfmstream.engine.files.mapping import load_map
    from rfmstream.engine.files.output import check_outputs, write_table
    from rfmstream.engine.insight.diff import make_diff
    from rfmstream.schemas.errors import ConfigError
    from rfmstream.schemas.ruleset import load_ruleset

    before = load_ruleset(old, time_zone=time_zone, currency=currency)
    after = load_ruleset(new, time_zone=time_zone, currency=currency)
    if before.currency != after.currency:
        raise ConfigError(
            f"{before.identity} counts in {before.currency}, {after.identity} in {after.currency}",
            key="--currency",
            fix="name one for both",
        )
    if customers_file is not None:
        check_outputs([customers_file], orders)
    as_of_us = None if as_of is None else parse_instant(as_of, before.time_zone, key="--as-of")
    input_map = None if map_name is None else load_map(map_name)
    history = _history(before, after, orders, input_map, days) if orders else None
    rows: list[pa.Table]
    clock_us: int | None
    if checkpoint is None and not workers:
        assert history is not None, "there are orders"
        engines = [history.engines[0]]
        paces = _ended(history, as_of_us, within)
        rows, clock_us = _rows_of_engines(engines, after, as_of_us)
    else:
        paces = () if history is None else _ended(history, as_of_us, within)
        if checkpoint is not None:
            rows, clock_us = _rows_of_engines(_restored(checkpoint, app_id, before, view), after, as_of_us)
        else:
            rows, clock_us = _rows_of_workers(workers, before, after, as_of_us, view)
    found = make_diff(before, after, clock_us, rows)
    if customers_file is not None:
        write_table(customers_file, _moved(rows))
    if as_json:
        print_json({**found.as_dict(), "history": [pace.as_dict() for pace in paces]})
    else:
        _print(found, paces)


def _check_asked(
    checkpoint: str | None, workers: Sequence[str], orders: Sequence[Path], view: str | None
) -> None:
    if checkpoint is not None and workers:
        raise click.UsageError("name one of --checkpoint and --worker")
    if checkpoint is None and not workers:
        if not orders:
            raise click.UsageError("name order files, --checkpoint or --worker")
        if view is not None:
            raise click.UsageError("--view is of a --checkpoint or a --worker; order files have none")


def _history(
    old: "Ruleset", new: "Ruleset", orders: Sequence[Path], input_map: "InputMap | None", days: int
) -> "History":
    """Run both rulesets over the same orders."""
    from rfmstream.engine.cli.progress import progress_bar
    from rfmstream.engine.cli.warm_up import compile_kernels
    from rfmstream.engine.core.engine import Engine
    from rfmstream.engine.files.source import open_orders
    from rfmstream.engine.insight.history import History

    history = History([Engine(old), Engine(new)], days)
    refused = 0

    compile_kernels("orders", "csv", "time")
    with progress_bar() as on_progress:
        stream = open_orders(
            orders,
            input_map=input_map,
            currency=old.currency,
            time_zone=old.time_zone,
            on_progress=on_progress,
        )

        def batches() -> "Iterator[pa.RecordBatch]":
            nonlocal refused
            for batch, rejected in stream:
                refused += rejected.num_rows
                yield batch

        history.follow(batches())
    if refused:
        click.echo(f"{refused:,} rows of the orders are rejected (rfmstream replay tells why)", err=True)
    return history


def _ended(history: "History", as_of_us: int | None, within_days: int) -> "tuple[Pace, ...]":
    if as_of_us is not None:
        _check_not_before(history.engines[0], as_of_us)
    history.end(as_of_us)
    return history.paces(within_days)


def _check_not_before(engine: "Engine", as_of_us: int) -> None:
    from rfmstream.engine.events.instants import to_text
    from rfmstream.schemas.errors import ConfigError

    if as_of_us < engine.clock_us:
        raise ConfigError(
            f"{to_text(as_of_us)} lies before the clock, {to_text(engine.clock_us)}",
            key="--as-of",
            fix="choose that instant or a later one; time does not go back",
        )


def _restored(checkpoint: str, app_id: str, ruleset: "Ruleset", view: str | None) -> "list[Engine]":
    """Return the engines of a plain checkpoint, or of those of all partitions of live workers."""
    from rfmstream.engine.cli.snapshot import is_plain
    from rfmstream.engine.core.engine import Engine
    from rfmstream.engine.live.snapshots import engines_of_store
    from rfmstream.engine.live.store import Store

    if is_plain(checkpoint):
        return [Engine.restore(checkpoint, ruleset=ruleset, view=view)]
    return list(engines_of_store(Store(checkpoint, app_id=app_id), ruleset, view).values())


def _rows_of_engines(
    engines: "list[Engine]", new: "Ruleset", as_of_us: int | None
) -> "tuple[list[pa.Table], int]":
    from rfmstream.engine.insight.diff import diff_rows_of_engine

    # Partitions are compared at one instant, the newest clock of all, as a snapshot of them is.
    now_us = max(engine.clock_us for engine in engines) if as_of_us is None else as_of_us
    rows = []
    for engine in engines:
        if as_of_us is not None:
            _check_not_before(engine, as_of_us)
        engine.advance(now_us)
        rows.append(diff_rows_of_engine(engine, new))
    return rows, now_us


def _rows_of_workers(
    workers: tuple[str, ...], old: "Ruleset", new: "Ruleset", as_of_us: int | None, view: str | None
) -> "tuple[list[pa.Table], int | None]":
    """Return the rows of the workers' snapshots, and their instant; None: whatever is their present."""
    import time

    from rfmstream.engine.events.instants import to_text
    from rfmstream.engine.insight.diff import check_comparable, counts_days_alike, diff_rows_of_snapshot
    from rfmstream.engine.live.snapshots import snapshot_of_workers
    from rfmstream.schemas.errors import StateError

    check_comparable(old, new)
    if as_of_us is None and not counts_days_alike(old, new):
        # Other days are counted from the newest order to an instant, which has to be known.
        as_of_us = time.time_ns() // 1000
    found = snapshot_of_workers(workers, None if as_of_us is None else to_text(as_of_us), view=view)
    said = (found.schema.metadata or {}).get(b"rfmstream.fingerprint", b"").decode()
    if said != old.fingerprint:
        other = (found.schema.metadata or {}).get(b"rfmstream.ruleset", b"?").decode()
        raise StateError(
            f"the worker's ruleset is {other}, not {old.identity}", path=workers[0], fix="name that one"
        )
    rows = [diff_rows_of_snapshot(batch, old, new, as_of_us) for batch in found.batches if batch.num_rows]
    return rows, as_of_us


def _moved(rows: "list[pa.Table]") -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    from rfmstream.engine.insight.diff import DIFF_SCHEMA

    moved = []
    for table in rows:
        old, new = (table[name].cast(pa.string()) for name in ("old_tier", "new_tier"))
        is_same = pc.fill_null(pc.equal(old, new), False)  # noqa: FBT003
        is_none = pc.and_(pc.is_null(old), pc.is_null(new))
        moved.append(table.filter(pc.invert(pc.or_(is_same, is_none))))
    return pa.concat_tables([DIFF_SCHEMA.empty_table(), *moved]).unify_dictionaries()


def _print(found: "Diff", paces: "tuple[Pace, ...]") -> None:
    from rfmstream.engine.cli.show import money, print_columns
    from rfmstream.engine.events.instants import to_text

    moment = "now" if found.as_of_us is None else f"as of {to_text(found.as_of_us)}"
    share = "" if found.sent_share is None else f", {found.sent_share:.1%} of {found.customers:,} customers"
    click.echo(f"{found.old.identity} → {found.new.identity} {moment}")
    click.echo(f"activating it sends {found.sent:,} changes at once{share}")
    exponent = found.new.currency_exponent
    customers = {(cell.old_tier, cell.new_tier): f"{cell.customers:,}" for cell in found.cells}
    revenue = {(cell.old_tier, cell.new_tier): money(cell.revenue_minor, exponent) for cell in found.cells}
    places = {tier.id: place for place, tier in enumerate(found.new.tiers)}
    columns = sorted(
        {cell.new_tier for cell in found.cells}, key=lambda tier: places.get(tier or "", len(places))
    )
    if len(columns) <= _MATRIX_TIERS_MAX:
        rows = list(dict.fromkeys(cell.old_tier for cell in found.cells))
        for title, values in (("customers", customers), (f"revenue {found.new.currency}", revenue)):
            print_columns(
                (f"{title}: old \\ new", *(_tier(tier) for tier in columns)),
                [(_tier(row), *(values.get((row, column), "") for column in columns)) for row in rows],
            )
    else:
        print_columns(
            ("old", "new", "customers", f"revenue {found.new.currency}", "sent"),
            [
                (_tier(cell.old_tier), _tier(cell.new_tier), customers[pair], revenue[pair], f"{cell.sent:,}")
                for cell in found.cells
                for pair in [(cell.old_tier, cell.new_tier)]
            ],
        )
    if paces:
        within = paces[0].flaps.within_days
        print_columns(
            (f"last {paces[0].days:,.0f} days", "changes", "a day", f"undone within {within} days", "share"),
            [
                (
                    pace.ruleset,
                    f"{pace.flaps.changes:,}",
                    f"{pace.changes_per_day:,.1f}",
                    f"{pace.flaps.undone:,}",
                    "-" if pace.flaps.share is None else f"{pace.flaps.share:.1%}",
                )
                for pace in paces
            ],
        )


def _tier(tier: str | None) -> str:
    return "no tier" if tier is None else tier
