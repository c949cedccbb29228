"""`rfmstream replay`."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rfmstream.engine.cli.options import (
    FILE,
    SUFFIXES,
    chosen_ruleset,
    csv_safe_option,
    replay_memory_option,
    ruleset_options,
    temp_dir_option,
)
from rfmstream.engine.core.processors import usable_cores

if TYPE_CHECKING:
    from rfmstream.engine.files.identities import Identities
    from rfmstream.engine.files.rates import Rates
    from rfmstream.engine.replay.parts_replay import PartsReplay
    from rfmstream.engine.replay.replay import ReplayResult
    from rfmstream.schemas.mapping import InputFormat, InputMap
    from rfmstream.schemas.ruleset import Ruleset

_THREADS_MAX = 2


def default_threads() -> int:
    """Return how many threads fold when nobody says: the usable cores, but no more than two.

    Reading and writing have threads of their own, and from two folding threads on reading one file is the bound.
    """
    return min(usable_cores(), _THREADS_MAX)


@contextmanager
def _loading() -> Iterator[None]:
    """Load modules: so many objects that stay that looking for garbage among them takes a sixth of a start."""
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        gc.enable()


def _readers(inputs: Sequence[Path]) -> list[str]:
    """Return which kernels read these files, by their names; a guess that nothing depends on."""
    names = " ".join(path.name for path in inputs)
    return ["jsonl"] if ".json" in names else [] if ".parquet" in names or ".arrow" in names else ["csv"]


def _map_and_ids(map_name: str | None, ids: Path | None) -> "tuple[InputMap | None, Identities | None]":
    """Load the input map and the aliases, where they were named; few runs need either."""
    input_map = identities = None
    if map_name is not None:
        from rfmstream.engine.files.mapping import load_map

        input_map = load_map(map_name)
    if ids is not None:
        from rfmstream.engine.files.identities import load_identities

        identities = load_identities(ids)
    return input_map, identities


def _exchange(rates: Path, own: "Ruleset") -> "Rates":
    from rfmstream.engine.files.rates import load_rates  # few runs need it

    return load_rates(rates, currency=own.currency, time_zone=own.time_zone)


def _opened(
    chosen: "Ruleset | None",
    inputs: Sequence[Path],
    form: "InputFormat",
    checkpoint: Path | None,
    *,
    threads: int,
    resegment: bool,
    follows_signals: bool,
) -> "tuple[Ruleset, Callable[..., ReplayResult | PartsReplay]]":
    """Return the ruleset by which a run decides, and the run: as a whole, or in parts where that takes too much."""
    from rfmstream.engine.replay.replay import open_engine
    from rfmstream.engine.replay.replay import replay as run
    from rfmstream.engine.replay.sizes import parts_for
    from rfmstream.schemas.ruleset import load_ruleset

    if not follows_signals:
        chosen = (chosen or load_ruleset("rfm8")).without_signals()
    parts = parts_for(inputs, form, checkpoint=checkpoint, threads=threads)
    if resegment and parts is not None:
        # Where another ruleset takes over, all of the state moves at once.
        from rfmstream.engine.cli.replay_views import check_memory

        check_memory(
            inputs,
            form,
            "with --resegment all is replayed",
            "take over with few orders first, and replay the others without it",
            checkpoint=checkpoint,
        )
        parts = None
    if parts is None:
        engine = open_engine(chosen, checkpoint=checkpoint, threads=threads, resegment=resegment)
        is_other = resegment and chosen is not None and engine.ruleset is not chosen
        own = engine.ruleset if chosen is None else chosen
        return own, partial(run, engine, resegment=chosen if is_other else None)
    from rfmstream.engine.replay.in_parts import opened, replay_in_parts  # few runs need it

    own = opened(chosen, checkpoint)
    return own, partial(replay_in_parts, own, parts=parts)


@click.command(
    short_help="Order history in; every tier change and a snapshot out.",
    epilog=f"""
\b
Examples:
  # what would the eight classic tiers say of our history?
  rfmstream replay orders.parquet
  # everything to files; amounts in pounds, days of London
  rfmstream replay orders/ --ruleset rfm8-annual --currency GBP --time-zone Europe/London \\
      --changes changes.parquet --snapshot tiers.parquet --rejected rejected.csv
  # two rulesets side by side: a view each, told apart by the column `view`
  rfmstream replay orders.parquet --ruleset rfm8 --ruleset scores4 --changes changes.parquet
  # views of a plan: by store, by category, and next quarter's rules as a shadow (docs/views.md)
  rfmstream replay orders.parquet --plan views.toml --changes changes.parquet --snapshot tiers.parquet
  # a Shopify export, as of the end of the year
  rfmstream replay export.csv --map shopify-orders --currency USD --as-of 2026-12-31T23:59:59Z
  # the state of the first nine months, whatever came later
  rfmstream replay orders.csv --until 1997-10-01
  # day by day: the second run goes on where the first one stopped
  rfmstream replay monday.jsonl  --checkpoint state --changes monday.parquet
  rfmstream replay tuesday.jsonl --checkpoint state --changes tuesday.parquet

\b
Files:
  INPUT  Parquet, Arrow IPC, CSV, JSON, a workbook (XLSX, XLS, ODS), HTML or XML, plain, gzip or zstd, or in a ZIP; a
         directory stands for all files below it.
         Any order of rows will do: they are sorted by time first. Columns, unless a map says otherwise:
         customer_id, order_id, occurred_at, amount (or amount_minor); optional: type (paid, refunded,
         cancelled, adjusted, refunded_total, erased), currency, event_id. At one instant paid rows come first.
  FILE   its suffix chooses the format: {SUFFIXES}. It appears whole or not at all.

\b
Exit codes:
  0 done · 1 a disk failed · 2 usage or configuration · 3 input refused · 4 state or checkpoint · 130 interrupted
""",
)
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=FILE)
@click.option(
    "--map", "map_name", metavar="NAME|FILE", help="Input map for other columns: rfmstream maps list."
)
@ruleset_options("rfm8, or the checkpoint's own", multiple=True)
@click.option(
    "--plan",
    metavar="FILE",
    type=FILE,
    help="Views of a TOML file, [[view]] with name, ruleset, where, per and shadow, instead of --ruleset: "
    "docs/views.md. Shadow views are written to files of their own beside the others: changes.shadow-NAME.parquet.",
)
@click.option(
    "--as-of",
    metavar="INSTANT",
    help="Let time pass up to here after the last event, ISO 8601. A date alone or a time without an offset is local "
    "in the ruleset's time zone. [default: --until, or the last event's time]",
)
@click.option(
    "--until",
    metavar="INSTANT",
    help="Leave out the rows dated at or after it, written as --as-of is. A typo of a year (2204 for 2024) would move "
    "the clock and let everybody age.",
)
@click.option(
    "--changes", metavar="FILE", type=FILE, help="Write every tier change; those of a customer in order."
)
@click.option("--snapshot", metavar="FILE", type=FILE, help="Write one row a customer, as of the end.")
@click.option(
    "--signals",
    metavar="FILE",
    type=FILE,
    help="Write every signal the ruleset asks for: a warning before a tier is lost, a dwell after long silence in it, "
    "a milestone reached. Without this and without --checkpoint they are not followed.",
)
@click.option("--rejected", metavar="FILE", type=FILE, help="Write the rows that were not applied, and why.")
@click.option(
    "--ids",
    metavar="FILE",
    type=FILE,
    help="A table with the columns alias and customer_id: orders of an alias, such as a guest's e-mail, count as "
    "that customer's.",
)
@click.option(
    "--rates",
    metavar="FILE",
    type=FILE,
    help="A table with the columns date, currency and rate (1 unit of it in the ruleset's currency): an order counts "
    "at the rate of its local day, a refund at its order's. A missing rate is no_rate.",
)
@click.option(
    "--excluded", metavar="FILE", type=FILE, help="Write the rows that the map leaves out, and why."
)
@click.option(
    "--checkpoint",
    metavar="DIR",
    type=FILE,
    help="Go on from the checkpoint in DIR if it holds one, and leave a new one there at the end. A row that was "
    "already applied counts as a duplicate.",
)
@click.option(
    "--resegment",
    is_flag=True,
    help="Let other rules take the checkpoint's state over, in every view that has one: each customer is re-evaluated "
    "at the clock of before, and each tier that differs is told as rules_changed.",
)
@click.option(
    "--resegment-view",
    "resegment_views",
    metavar="NAME",
    multiple=True,
    help="The same of one view alone; repeatable. Other views are refused another ruleset.",
)
@click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(1, 256),
    help="Threads that fold orders; results do not depend on it. [default: the cores, at most 2]",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Refuse the input if any row is rejected: exit code 3, the first few are named, and no file but --rejected "
    "is left; the checkpoint stays as it was.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object, nothing else.")
@replay_memory_option
@temp_dir_option
@csv_safe_option
def replay(
    *,
    inputs: tuple[Path, ...],
    map_name: str | None,
    rulesets: tuple[str, ...],
    plan: Path | None,
    time_zone: str | None,
    currency: str | None,
    as_of: str | None,
    until: str | None,
    changes: Path | None,
    snapshot: Path | None,
    signals: Path | None,
    rejected: Path | None,
    excluded: Path | None,
    ids: Path | None,
    rates: Path | None,
    checkpoint: Path | None,
    resegment: bool,
    resegment_views: tuple[str, ...],
    threads: int | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Replay order history: find every tier change there ever was, and the tiers at the end.

    At the end a summary says what became of the rows (read = applied + duplicates + rejected), why tiers changed and
    who is in which tier.
    """
    if plan is not None and rulesets:
        raise click.UsageError("give the rulesets in the --plan, or each by --ruleset, not both")
    if (resegment or resegment_views) and checkpoint is None:
        raise click.UsageError("--resegment is of the state in a --checkpoint")
    # Loaded here, so that help need not wait for Arrow and the compiler.
    with _loading():
        from rfmstream.engine.cli.progress import progress_bar
        from rfmstream.engine.cli.replay_views import chosen_plan, replay_plan, tell_of_files
        from rfmstream.engine.cli.show import print_json, print_summary
        from rfmstream.engine.cli.warm_up import compile_kernels
        from rfmstream.engine.core.checkpoint.folder import held
        from rfmstream.engine.events.instants import parse_instant
        from rfmstream.engine.replay.replay import Outputs
        from rfmstream.engine.replay.summary import summarise
        from rfmstream.schemas.mapping import InputFormat

    input_map, identities = _map_and_ids(map_name, ids)
    outputs = Outputs(
        changes=changes, snapshot=snapshot, rejected=rejected, excluded=excluded, signals=signals
    )
    # Whoever breaks it off after its files are there, and runs it again, would get empty ones.
    settled = click.get_current_context().with_resource(ExitStack())
    state = [] if checkpoint is None else ["state"]
    # Following them is a fifth of a replay's work; where nothing takes them only their number could be told.
    follows_signals = signals is not None or checkpoint is not None
    views = chosen_plan(rulesets, plan, time_zone, currency, checkpoint, follows_signals=follows_signals)
    if views is not None:
        with nullcontext() if checkpoint is None else held(checkpoint):
            replay_plan(
                views,
                inputs,
                threads=threads or default_threads(),
                kernels=("orders", *_readers(inputs), "time", "snapshot", *state),
                input_map=input_map,
                as_of=as_of,
                until=until,
                outputs=outputs,
                checkpoint=checkpoint,
                strict=strict,
                settled=settled,
                identities=identities,
                rates=rates,
                as_json=as_json,
                resegment=resegment,
                resegment_views=resegment_views,
            )
        return
    if resegment_views:
        raise click.UsageError("there is one ruleset alone, and no view to name: --resegment")
    with nullcontext() if checkpoint is None else held(checkpoint):
        chosen = chosen_ruleset(rulesets[0] if rulesets else None, time_zone, currency)
        threads = threads or default_threads()
        form = InputFormat() if input_map is None else input_map.input
        own, job = _opened(
            chosen,
            inputs,
            form,
            checkpoint,
            threads=threads,
            resegment=resegment,
            follows_signals=follows_signals,
        )
        exchange = None if rates is None else _exchange(rates, own)
        compile_kernels("orders", *_readers(inputs), "time", "snapshot", *state)
        with progress_bar() as on_progress:
            result = job(
                inputs,
                input_map=input_map,
                as_of_us=None if as_of is None else parse_instant(as_of, own.time_zone, key="--as-of"),
                until_us=None if until is None else parse_instant(until, own.time_zone, key="--until"),
                outputs=outputs,
                checkpoint=checkpoint,
                strict=strict,
                on_progress=on_progress,
                settled=settled,
                identities=identities,
                rates=exchange,
            )
    summary = summarise(result)
    tell_of_files(result)
    try:
        if as_json:
            print_json(summary.as_dict())
        else:
            print_summary(summary)
    except OSError:
        # Whoever runs it again with that checkpoint finds nothing but duplicates, and gets empty files.
        click.echo("rfmstream: all files and the checkpoint are written, but not this summary", err=True)
        raise
