"""Replay of several views: order history in; what each view tells, its snapshot, and the rejected rows out.

The files of orders are read and judged once for all views that count in one currency and one zone. A file of changes,
signals or a snapshot holds the rows of every view but shadows, which have files of their own. Rows of one view stand in
the order in which a replay of its own writes them; views are not merged in order of time.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.core.counters import Counters
from rfmstream.engine.core.machine import StepResult
from rfmstream.engine.core.rejections import Rejections, views_schema, with_views
from rfmstream.engine.core.views import Group, Views
from rfmstream.engine.files.background import WriteBehind, read_ahead
from rfmstream.engine.files.identities import Identities
from rfmstream.engine.files.input_files import find_files
from rfmstream.engine.files.interrupts import uninterrupted
from rfmstream.engine.files.output import OutputFile, check_outputs, rows_in
from rfmstream.engine.files.rates import Rates
from rfmstream.engine.files.source import open_orders
from rfmstream.engine.replay.alike import Alike
from rfmstream.engine.replay.parts import Dates, Listener, OnProgress, check_as_of, put
from rfmstream.engine.replay.replay import Outputs, RejectedRows, ReplayResult, may_go_on
from rfmstream.schemas.changes import CHANGE_SCHEMA
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.mapping import InputFormat, InputMap
from rfmstream.schemas.orders import EXCLUDED_SCHEMA
from rfmstream.schemas.plan import Plan, View
from rfmstream.schemas.signals import SIGNAL_SCHEMA
from rfmstream.schemas.snapshots import SNAPSHOT_SCHEMA

_OF_VIEWS: Final = {"changes": CHANGE_SCHEMA, "snapshot": SNAPSHOT_SCHEMA, "signals": SIGNAL_SCHEMA}
"""The outputs that hold rows of views."""
_WORDS_MAX: Final = 127

ByZone = Callable[[str], int | None]
"""An instant in µs since 1970 UTC, as it is written in a time zone; None: none."""


@dataclass(frozen=True)
class ViewsReplay:
    """What a replay of several views did.

    Fields  views     after the replay, ready to go on
            results   of each view, as if it had been alone; `input_rows`, `excluded` and what was left out by date are
                      those of the files
            rejected  the first few rejected rows, as dicts of REJECTED_SCHEMA and `views`
            files     rows written, by file
            kept, replaced  as of `ReplayResult`
            elapsed_s  wall time, files and checkpoint included
            resegmented  views of the checkpoint that another ruleset took over
    """

    views: Views
    results: Mapping[str, ReplayResult]
    rejected: tuple[dict[str, Any], ...]
    files: Mapping[Path, int]
    kept: Mapping[Path, int]
    replaced: Mapping[Path, int]
    elapsed_s: float
    resegmented: tuple[str, ...] = ()


def open_views(
    plan: Plan | None,
    *,
    checkpoint: Path | None = None,
    threads: int | None = None,
    resegment: Collection[str] = (),
) -> Views:
    """Return the views to replay into: the checkpoint's if the directory holds one, else new ones.

    In      plan     None: the checkpoint's own
            threads  None: as many as the checkpoint had, or 1
            resegment  names of views whose ruleset may take over from another one
    Errors  StateError   the directory holds something else, a damaged checkpoint or one that the plan contradicts
            ConfigError  there is neither a plan nor a checkpoint
    """
    if checkpoint is not None and may_go_on(checkpoint):
        return Views.restore(checkpoint, plan, threads=threads, resegment=resegment)
    if plan is None:
        raise ConfigError("there is no plan", key="plan", fix="name the file of the views")
    return Views(plan, threads=threads or 1)


def shadow_path(path: Path, view: str) -> Path:
    """Return the file of a shadow view beside that of the others."""
    return path.with_name(f"{path.stem}.shadow-{view}{path.suffix}")


def replay_views(  # noqa: PLR0913 - the options of one command
    views: Views,
    inputs: Sequence[Path],
    *,
    input_map: InputMap | None = None,
    as_of: ByZone | int | None = None,
    until: ByZone | int | None = None,
    outputs: Outputs | None = None,
    checkpoint: Path | None = None,
    strict: bool = False,
    on_progress: OnProgress | None = None,
    settled: ExitStack | None = None,
    identities: Identities | None = None,
    rates: Callable[[str, str], Rates] | None = None,
) -> ViewsReplay:
    """Apply the orders of `inputs` to all views, in order of time, and write what comes of it.

    In      as_of, until  instants in µs since 1970 UTC, or by the time zone of a view's ruleset
            rates         by currency and time zone
            others        as of `replay`
    Errors  as of `replay`; InputError, too, where the orders have not a column that a view looks at
    """
    started_s = time.monotonic()
    outputs = outputs or Outputs()
    zones = {group.time_zone for group in views.groups}
    untils = {zone: until(zone) if callable(until) else until for zone in zones}
    ends = {zone: as_of(zone) if callable(as_of) else as_of for zone in zones}
    ends = {zone: untils[zone] if end is None else end for zone, end in ends.items()}
    _check(views, outputs, ends)
    files = find_files(inputs, InputFormat() if input_map is None else input_map.input)
    before = {name: deepcopy(of.engine.counters) for name, of in views.views.items()}
    before |= {name: told.before for name, told in views.resegmented.items()}
    rows_before = max(of.engine.counters.input_rows for of in views.views.values())
    told: dict[str, _Told] = {}
    with ExitStack() as stack:
        made = _Files(stack, views, outputs, [*inputs, *(file.path for file in files)])
        rejected = RejectedRows(made.others.get("rejected"), files)
        whole, reasons = Rejections(views.plan.names), Counter[str]()
        with ExitStack() as behind:
            writers = made.writers(behind)
            writers.put({name: told.result for name, told in views.resegmented.items()})
            for number, group in enumerate(views.groups):
                listener = Listener(on_progress)
                orders = open_orders(
                    inputs,
                    input_map=input_map,
                    currency=group.currency,
                    rows_before=rows_before,
                    time_zone=group.time_zone,
                    on_progress=listener,
                    identities=identities,
                    rates=None if rates is None else rates(group.currency, group.time_zone),
                    on_excluded=made.others["excluded"].write
                    if "excluded" in made.others and number == 0
                    else None,
                    attributes=group.attributes,
                )
                dates = Dates(untils[group.time_zone])
                alike = Alike()
                for batch, malformed in read_ahead(orders, listener.stop):
                    rejections = Rejections(views.plan.names)
                    orders_due = dates.before(batch)
                    alike.add(orders_due)
                    step = views.step_canonical(
                        group, orders_due, malformed, rejections, has_parts=orders.has_parts
                    )
                    writers.put(step)
                    whole.add(*rejections.merged())
                    if len(views.groups) == 1:
                        reasons.update(_tell(whole, rejected))
                _finish(group, orders.rows_read, ends, writers)
                told |= dict.fromkeys(
                    (of.view.name for of in group.views),
                    _Told(
                        *(orders.rows_read, orders.excluded, orders.lines_repeated, orders.sheets_unread),
                        *(alike.rows, dates),
                    ),
                )
            reasons.update(_tell(whole, rejected))
        counters = {name: of.engine.counters.since(before[name]) for name, of in views.views.items()}
        if strict and reasons:
            read = max(of.read for of in counters.values())
            raise rejected.refusal(Counters(read=read, rejected=dict(reasons)))
        snapshots = {name: of.engine.snapshot() for name, of in views.views.items()}
        made.finish(snapshots)
        fuller = made.fuller() if checkpoint is not None and any(of.read for of in before.values()) else {}
        kept = {} if any(of.applied for of in counters.values()) else made.without_rows(fuller)
        # Files without their checkpoint, or the other way round, are half a result.
        with ExitStack() if settled is None else nullcontext(settled) as last:
            last.enter_context(uninterrupted())
            made.publish(kept)
            if checkpoint is not None:
                views.checkpoint(checkpoint)
    resegmented, views.resegmented = tuple(views.resegmented), {}
    elapsed_s = time.monotonic() - started_s
    return ViewsReplay(
        views=views,
        results={
            name: ReplayResult(
                engine=of.engine,
                counters=counters[name],
                input_rows=told[name].rows,
                excluded=told[name].excluded,
                lines_repeated=told[name].lines_repeated,
                sheets_unread=told[name].sheets_unread,
                alike=told[name].alike,
                rows_after_until=told[name].dates.after_until,
                rows_ahead=told[name].dates.ahead,
                newest_ahead_us=told[name].dates.newest_ahead_us,
                rejected=(),
                as_of_us=of.engine.clock_us,
                snapshot=snapshots[name],
                files={},
                kept={},
                replaced={},
                elapsed_s=elapsed_s,
            )
            for name, of in views.views.items()
        },
        rejected=tuple(rejected.first),
        files={path: rows for path, rows in made.rows().items() if path not in kept},
        kept=kept,
        replaced={path: rows for path, rows in fuller.items() if path not in kept},
        elapsed_s=elapsed_s,
        resegmented=resegmented,
    )


def _tell(rejections: Rejections, rejected: RejectedRows) -> list[str]:
    """Write the rejected rows gathered so far, and return the reason of each."""
    rows = with_views(*rejections.taken(), rejections.names)
    rejected.add(rows)
    reasons: list[str] = rows.column("reason").to_pylist()
    return reasons


@dataclass(frozen=True)
class _Told:
    """What is known of the files once they are read for a group."""

    rows: int
    excluded: tuple[tuple[str, int], ...]
    lines_repeated: int
    sheets_unread: tuple[str, ...]
    alike: int
    dates: Dates


def _check(views: Views, outputs: Outputs, ends: Mapping[str, int | None]) -> None:
    for of in views.views.values():
        check_as_of(of.engine, ends[of.view.ruleset.time_zone])
    if outputs.signals is not None and not any(view.ruleset.asks_signals for view in views.plan.views):
        raise ConfigError(
            "no view's ruleset asks for signals",
            key="signals",
            fix="give one warn_days, dwell_days or [milestones]: docs/rulesets.md, or leave the file out",
        )
    # A shadow has files of its own.
    shown = [view for view in views.plan.views if not view.shadow]
    words = {tier.id for view in shown for tier in view.ruleset.tiers}
    if len(words) > _WORDS_MAX or len(shown) > _WORDS_MAX:
        raise ConfigError(
            f"the views have {len(shown)} names and {len(words)} tiers; a file holds {_WORDS_MAX} of each",
            file=views.plan.path,
            key="view",
            fix="make some of them shadows, or a plan of their own",
        )


def _finish(group: Group, rows: int, ends: Mapping[str, int | None], writers: "_Writers") -> None:
    """Let time pass to its end in the views of a group."""
    end_us = ends[group.time_zone]
    for of in group.views:
        of.engine.counters.input_rows += rows
        if end_us is not None:
            check_as_of(of.engine, end_us)
            changes = of.engine.advance(end_us)
            writers.put({of.view.name: StepResult(changes, _NONE, of.engine.signals)})


_NONE: Final = pa.table({})


class _Files:
    """The files of a run: for each output of views one of all views but shadows, and one of each shadow.

    Fields  others  the files that belong to no view: rejected, excluded
    """

    def __init__(self, stack: ExitStack, views: Views, outputs: Outputs, inputs: Sequence[Path]) -> None:
        self.others: dict[str, OutputFile] = {}
        self._of: dict[tuple[str, str], OutputFile] = {}
        self._words: dict[tuple[str, str], _Words] = {}
        self._all: list[OutputFile] = []
        shown = [view for view in views.plan.views if not view.shadow]
        plan: list[tuple[str, Path, list[View]]] = []
        for kind, path in outputs.paths().items():
            plan.append((kind, path, shown))
            if kind in _OF_VIEWS:
                plan += [
                    (kind, shadow_path(path, view.name), [view]) for view in views.plan.views if view.shadow
                ]
        check_outputs((path for _, path, _ in plan), inputs)
        others = {"rejected": views_schema(), "excluded": EXCLUDED_SCHEMA}
        for kind, path, of in plan:
            schema = of_views(_OF_VIEWS[kind], of) if kind in _OF_VIEWS else others[kind]
            file = OutputFile(path, schema)
            # Before the file is there, so that no interruption can come between the two.
            stack.push(file)
            file.open()
            self._all.append(file)
            if kind not in _OF_VIEWS:
                self.others[kind] = file
            words = _Words(of)
            for view in of if kind in _OF_VIEWS else ():
                self._of[kind, view.name], self._words[kind, view.name] = file, words

    def writers(self, stack: ExitStack) -> "_Writers":
        """Return what writes changes and signals behind the fold's back."""
        behind = (
            {
                id(file): stack.enter_context(WriteBehind(file.write))
                for (kind, _), file in self._of.items()
                if kind != "snapshot"
            }
            if self._of
            else {}
        )
        return _Writers(
            {
                key: (behind[id(file)], self._words[key])
                for key, file in self._of.items()
                if key[0] != "snapshot"
            }
        )

    def finish(self, snapshots: Mapping[str, pa.Table]) -> None:
        """Write the snapshots, and force every file to the disk, before any gets its name."""
        for name, table in snapshots.items():
            if ("snapshot", name) in self._of:
                for batch in table.to_batches():
                    self._of["snapshot", name].write(self._words["snapshot", name].shared(batch))
        for file in self._all:
            file.finish()

    def fuller(self) -> dict[Path, int]:
        """Return the files that hold more rows than what is to replace them, of the kinds that tell what is new."""
        new = {file.path: file.rows for (kind, _), file in self._of.items() if kind in ("changes", "signals")}
        found = {path: rows_in(path) for path in new}
        return {path: rows for path, rows in found.items() if rows > new[path]}

    def without_rows(self, paths: Mapping[Path, int]) -> dict[Path, int]:
        """Return those of some files that are to be replaced by nothing."""
        rows = self.rows()
        return {path: there for path, there in paths.items() if not rows[path]}

    def publish(self, kept: Mapping[Path, int]) -> None:
        """Give the files their names, but for those that are to stay as they are."""
        for file in self._all:
            if file.path not in kept:
                file.publish()

    def rows(self) -> dict[Path, int]:
        """Return how many rows each file holds."""
        return {file.path: file.rows for file in self._all}


class _Writers:
    """Puts what views tell to their files."""

    def __init__(
        self, behind: "Mapping[tuple[str, str], tuple[WriteBehind[pa.RecordBatch], _Words]]"
    ) -> None:
        self._behind = behind

    def put(self, step: Mapping[str, StepResult]) -> None:
        """Hand on the changes and signals of some views."""
        for name, result in step.items():
            for kind, table in (("changes", result.changes), ("signals", result.signals)):
                if (kind, name) in self._behind and table.num_rows:
                    out, words = self._behind[kind, name]
                    put(out, words.table(table))


class _Words:
    """The words of views that share a file, so that all batches have the same dictionaries."""

    def __init__(self, views: Sequence[View]) -> None:
        self._is_one = len(views) == 1
        tiers = pa.array(dict.fromkeys(tier.id for view in views for tier in view.ruleset.tiers), pa.string())
        self._words = {
            "view": pa.array([view.name for view in views], pa.string()),
            "ruleset": pa.array(dict.fromkeys(view.ruleset.identity for view in views), pa.string()),
        } | dict.fromkeys(("from_tier", "to_tier", "next_tier", "tier"), tiers)

    def table(self, table: pa.Table) -> pa.Table:
        """Return a table of one view with the dictionaries of all."""
        if self._is_one:
            return table
        return pa.Table.from_batches([self.shared(batch) for batch in table.to_batches()])

    def shared(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch of one view with the dictionaries of all."""
        if self._is_one:
            return batch
        columns = list(batch.columns)
        for at, field in enumerate(batch.schema):
            if field.name in self._words:
                columns[at] = _recoded(columns[at], self._words[field.name])
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema.remove_metadata())


def _recoded(column: pa.DictionaryArray, words: pa.StringArray) -> pa.DictionaryArray:
    places = pc.index_in(column.dictionary, value_set=words).cast(pa.int8())
    return pa.DictionaryArray.from_arrays(places.take(column.indices), words)


def of_views(schema: pa.Schema, views: Sequence[View]) -> pa.Schema:
    """Return a schema with what a file of views says of their rulesets.

    Of one view it is what a file of it alone says; of several what they agree in, and in `rfmstream.views` each one's.
    """
    if len(views) == 1:
        return schema.with_metadata(views[0].ruleset.metadata)
    told = [view.ruleset.metadata for view in views]
    common = {
        key: told[0][key]
        for key in ("rfmstream.currency", "rfmstream.currency_exponent", "rfmstream.time_zone")
        if told and all(one[key] == told[0][key] for one in told)
    }
    each = {
        view.name: {key.removeprefix("rfmstream."): value for key, value in one.items()} | view.selects
        for view, one in zip(views, told, strict=True)
    }
    return schema.with_metadata(common | {"rfmstream.views": orjson.dumps(each).decode()})
