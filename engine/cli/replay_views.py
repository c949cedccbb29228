"""`rfmstream replay` of several views: which plan it is, and its summary."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rfmstream.engine.cli.progress import progress_bar
from rfmstream.engine.cli.show import print_json, print_summary, print_view
from rfmstream.engine.cli.warm_up import compile_kernels
from rfmstream.engine.core.checkpoint.folder import has_checkpoint
from rfmstream.engine.core.checkpoint.manifest import is_of_views
from rfmstream.engine.core.checkpoint.views import saved_views
from rfmstream.engine.events.instants import parse_instant
from rfmstream.engine.files.memory import is_asked, shown_size
from rfmstream.engine.files.rates import Rates, load_rates
from rfmstream.engine.replay.sizes import beyond_memory
from rfmstream.engine.replay.summary import summarise
from rfmstream.schemas.errors import ConfigError, StateError
from rfmstream.schemas.mapping import InputFormat
from rfmstream.schemas.plan import Plan, no_view, plan_of
from rfmstream.schemas.plan_file import load_plan
from rfmstream.schemas.ruleset import load_ruleset

if TYPE_CHECKING:
    from rfmstream.engine.files.identities import Identities
    from rfmstream.engine.replay.parts_replay import PartsReplay
    from rfmstream.engine.replay.replay import Outputs, ReplayResult
    from rfmstream.engine.replay.views import ByZone, ViewsReplay
    from rfmstream.schemas.mapping import InputMap


class Chosen:
    """The views that the options ask for.

    Fields  plan  None: the checkpoint's own
            may_drop  whether views of the checkpoint that the plan does not name are given up
    """

    def __init__(self, plan: Plan | None, *, may_drop: bool) -> None:
        self.plan = plan
        self.may_drop = may_drop


def chosen_plan(
    rulesets: Sequence[str],
    plan: Path | None,
    time_zone: str | None,
    currency: str | None,
    checkpoint: Path | None,
    *,
    follows_signals: bool,
) -> Chosen | None:
    """Return the views that the options, or else the checkpoint, ask for; None: it is one ruleset alone."""
    asked = None
    if plan is not None:
        asked = load_plan(plan, time_zone=time_zone, currency=currency)
    elif len(rulesets) > 1:
        asked = plan_of([load_ruleset(name, time_zone=time_zone, currency=currency) for name in rulesets])
    if asked is not None:
        return Chosen(asked if follows_signals else asked.without_signals(), may_drop=plan is not None)
    if checkpoint is None or not has_checkpoint(checkpoint) or not is_of_views(checkpoint):
        return None
    if rulesets or time_zone is not None or currency is not None:
        raise ConfigError(
            "the checkpoint holds several views",
            file=checkpoint,
            key="ruleset",
            fix="leave --ruleset, --time-zone and --currency out to go on with them, or give the --plan",
        )
    return Chosen(None, may_drop=False)


def replay_plan(
    chosen: Chosen,
    inputs: Sequence[Path],
    *,
    threads: int,
    kernels: Sequence[str],
    input_map: "InputMap | None",
    as_of: str | None,
    until: str | None,
    outputs: "Outputs",
    checkpoint: Path | None,
    strict: bool,
    settled: ExitStack,
    identities: "Identities | None",
    rates: Path | None,
    as_json: bool,
    resegment: bool,
    resegment_views: Sequence[str],
) -> None:
    """Replay the views and print what became of them."""
    from rfmstream.engine.replay.views import open_views, replay_views  # few runs need it

    names = () if chosen.plan is None else chosen.plan.names
    for name in resegment_views:
        if name not in names:
            raise no_view(name, names)
    check_memory(
        inputs,
        InputFormat() if input_map is None else input_map.input,
        "views are replayed",
        "replay fewer of them in a run: one ruleset without a plan is parted on disk",
        checkpoint=checkpoint,
        states=len(names) if checkpoint is None or names else len(saved_views(checkpoint)),
    )
    views = open_views(
        chosen.plan, checkpoint=checkpoint, threads=threads, resegment=names if resegment else resegment_views
    )
    if views.dropped and not chosen.may_drop:
        raise StateError(
            f"the checkpoint holds the view {views.dropped[0]}, which no --ruleset names",
            path=checkpoint,
            fix="name it, too; a --plan without it gives it up",
        )
    compile_kernels(*kernels)

    def exchange(currency: str, time_zone: str) -> Rates:
        assert rates is not None, "asked for where a file was named"
        return load_rates(rates, currency=currency, time_zone=time_zone)

    with progress_bar() as on_progress:
        result = replay_views(
            views,
            inputs,
            input_map=input_map,
            as_of=_instant(as_of, "--as-of"),
            until=_instant(until, "--until"),
            outputs=outputs,
            checkpoint=checkpoint,
            strict=strict,
            on_progress=on_progress,
            settled=settled,
            identities=identities,
            rates=None if rates is None else exchange,
        )
    tell_of_files(result)
    try:
        _print(result, as_json=as_json)
    except OSError:
        click.echo("rfmstream: all files and the checkpoint are written, but not this summary", err=True)
        raise


def check_memory(
    inputs: Sequence[Path],
    form: "InputFormat",
    what: str,
    fix: str,
    *,
    checkpoint: Path | None,
    states: int = 1,
) -> None:
    """Refuse a replay in memory beyond --memory, and say of one beyond the half of what there is that it is.

    what, fix  why it is in memory, and how else
    """
    taken = beyond_memory(inputs, form, checkpoint=checkpoint, states=states)
    if taken is None:
        return
    problem = f"{what} in memory, which may take {shown_size(taken)}"
    if is_asked():
        raise ConfigError(problem, key="--memory", fix=f"allow that much, or {fix}")
    click.echo(f"rfmstream: {problem}, more than half of what there is; else {fix}", err=True)


def tell_of_files(result: "ReplayResult | PartsReplay | ViewsReplay") -> None:
    """Say which files stay as an earlier run on the checkpoint left them, and which had more rows than now."""
    for path, rows in result.kept.items():
        click.echo(
            f"rfmstream: {path} is left as it was, with {rows:,} rows: the checkpoint had all of these orders already",
            err=True,
        )
    for path, rows in result.replaced.items():
        click.echo(
            f"rfmstream: {path} had {rows:,} rows, of an earlier run on this checkpoint, and has "
            f"{result.files[path]:,} now; name another file for each run to keep all",
            err=True,
        )


def _instant(text: str | None, key: str) -> "ByZone | None":
    return None if text is None else lambda zone: parse_instant(text, zone, key=key)


def _print(result: "ViewsReplay", *, as_json: bool) -> None:
    views = result.views
    summaries = {name: summarise(of) for name, of in result.results.items()}
    files = {str(path): rows for path, rows in result.files.items()}
    if as_json:
        print_json(
            {
                "views": {
                    name: {
                        "where": dict(views[name].view.where),
                        "per": views[name].view.per,
                        "shadow": views[name].view.shadow,
                        "populations": _populations(result, name),
                        **summary.as_dict(),
                    }
                    for name, summary in summaries.items()
                },
                "added": list(views.added),
                "dropped": list(views.dropped),
                "resegmented": list(result.resegmented),
                "files": files,
                "elapsed_s": round(result.elapsed_s, 3),
            }
        )
        return
    for name, summary in summaries.items():
        print_view(views[name].view, _populations(result, name))
        print_summary(summary)
    if views.added:
        click.echo(f"new, from the orders of this run on: {', '.join(views.added)}")
    if views.dropped:
        click.echo(f"no longer kept: {', '.join(views.dropped)}")
    if result.resegmented:
        click.echo(f"by another ruleset from here on: {', '.join(result.resegmented)}")
    for path, rows in files.items():
        click.echo(f"wrote {rows:,} rows: {path}")


def _populations(result: "ViewsReplay", name: str) -> int | None:
    populations = result.views[name].engine.populations
    return None if populations is None else len(populations.names) - 1
