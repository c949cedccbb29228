"""Several views of one stream of orders: orders are judged once, and each view gives what a run of its own would.

Views do not touch each other. What they share is work: orders are read and judged once for each currency and time zone
that their rulesets count in, and ids are hashed once.

Source  docs/semantics.md section 10
"""

from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import pyarrow as pa

from rfmstream.engine.core.checkpoint.views import (
    SavedView,
    read_view,
    saved_plan,
    saved_views,
    write_views,
)
from rfmstream.engine.core.counters import Counters
from rfmstream.engine.core.engine import Engine, to_table
from rfmstream.engine.core.guard import Guard, changes, reads
from rfmstream.engine.core.kernel_batch import Hashed
from rfmstream.engine.core.machine import STEP_ROWS, Machine, Mode, StepResult
from rfmstream.engine.core.populations import Populations
from rfmstream.engine.core.rejections import Rejections, once_an_event
from rfmstream.engine.core.shard import new_seeds
from rfmstream.engine.core.view import ViewEngine
from rfmstream.engine.events.arrow_buffers import check_table
from rfmstream.engine.events.instants import Instant, to_us
from rfmstream.engine.events.normalise import normalise
from rfmstream.schemas.changes import CHANGE_SCHEMA
from rfmstream.schemas.errors import ConfigError, StateError
from rfmstream.schemas.plan import Plan, View
from rfmstream.schemas.plan_file import load_plan
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.signals import SIGNAL_SCHEMA
from rfmstream.schemas.snapshots import SNAPSHOT_SCHEMA


@dataclass(frozen=True)
class ViewsResult:
    """What a batch brought.

    Fields  views     by view: changes, signals, and the rows that it rejected
            rejected  the rows that changed nothing, once for each reason: REJECTED_SCHEMA and `views`, who rejected it
            shadows   the views whose changes and signals are for nobody to act on
    """

    views: Mapping[str, StepResult]
    rejected: pa.Table
    shadows: frozenset[str] = frozenset()

    @property
    def changes(self) -> pa.Table:
        """The tier changes of all views but shadows, one view after the other; the column `view` tells them apart."""
        return together((result.changes for result in self._shown()), CHANGE_SCHEMA)

    @property
    def signals(self) -> pa.Table:
        """The signals of all views but shadows."""
        return together((result.signals for result in self._shown()), SIGNAL_SCHEMA)

    def _shown(self) -> Iterable[StepResult]:
        return (result for name, result in self.views.items() if name not in self.shadows)


@dataclass(frozen=True)
class Group:
    """Views that judge orders alike: they count in one currency, and read times without a zone in one zone.

    Fields  places  of its views in the plan
    """

    currency: str
    time_zone: str
    views: tuple[ViewEngine, ...]
    places: tuple[int, ...]

    @property
    def attributes(self) -> tuple[str, ...]:
        """The columns that its views look at."""
        return tuple(dict.fromkeys(name for of in self.views for name in of.view.attributes))


@dataclass(frozen=True)
class Resegmented:
    """What it brought that another ruleset took a view over.

    Fields  before  the counters without it
    """

    before: Counters
    result: StepResult


class Views:
    """Looks at one stream of orders in several ways at once.

    plan     a Plan, or the path of its file
    threads  shards to spread each view's customers over, each worked on by a thread
    mode     what the changes say of themselves

    Fields   plan   which views there are
             views  by name, in the plan's order; `views["hk"].engine` is the engine of one
             added  views that a checkpoint did not hold: they begin with the orders to come
             dropped  views that a checkpoint held and the plan does not
             resegmented  by name, views of the checkpoint that another ruleset took over, and what that brought

    >>> views = Views("views.toml")
    >>> result = views.step(table)         # columns of the contract, and those that the plan names
    >>> result.changes.to_pandas()
    >>> views.snapshot(as_of="2026-12-01T00:00:00Z", view="hk")
    """

    def __init__(self, plan: Plan | str | PathLike[str], *, threads: int = 1, mode: Mode = "replay") -> None:
        self.plan = plan if isinstance(plan, Plan) else load_plan(plan)
        self.mode = mode
        self._guard = Guard()
        self.added: tuple[str, ...] = ()
        self.dropped: tuple[str, ...] = ()
        self.resegmented: dict[str, Resegmented] = {}
        self._seeds, self._hashed, self._rows_read = new_seeds(), Hashed(), 0
        if threads < 1:
            raise ConfigError(f"{threads} threads", key="threads", fix="use 1 or more")
        self._engines = {
            view.name: ViewEngine(
                view,
                Engine.of(
                    Machine(
                        view.ruleset,
                        threads=threads,
                        mode=mode,
                        view=view.name,
                        populations=Populations() if view.per is not None else None,
                        seeds=self._seeds,
                        hashed=self._hashed_of(view),
                    )
                ),
            )
            for view in self.plan.views
        }

    def _hashed_of(self, view: View) -> Hashed | None:
        """Return what a view's machine shares with others: views that are given the same batches share hashes."""
        return None if view.attributes else self._hashed

    @property
    def views(self) -> Mapping[str, ViewEngine]:
        """The views and their engines."""
        return self._engines

    def __getitem__(self, name: str) -> ViewEngine:
        """Return a view and its engine.

        Raises  ConfigError where there is none of that name
        """
        return self._engines[self.plan.view(name).name]

    @property
    def groups(self) -> tuple[Group, ...]:
        """The views by how they judge orders, in order of their first one."""
        found: dict[tuple[str, str], list[int]] = {}
        for place, view in enumerate(self.plan.views):
            found.setdefault((view.ruleset.currency, view.ruleset.time_zone), []).append(place)
        engines = list(self._engines.values())
        return tuple(
            Group(*key, tuple(engines[place] for place in places), tuple(places))
            for key, places in found.items()
        )

    @property
    def memory(self) -> dict[str, dict[str, int]]:
        """The bytes each view's state takes, by what they hold."""
        return {name: of.engine.memory for name, of in self._engines.items()}

    @changes
    def step(self, orders: Any) -> ViewsResult:  # noqa: ANN401 - whatever speaks the Arrow PyCapsule interface
        """Apply orders, in the order in which they stand, as `Engine.step` does.

        orders  a table of the columns of the contract and of those that the plan names
        Raises  InputError where a column is missing, damaged or of a type that cannot be read exactly
        """
        table = to_table(orders)
        check_table(table)
        rejections = Rejections(self.plan.names)
        results: dict[str, list[StepResult]] = {name: [] for name in self.plan.names}
        judged = [
            (
                group,
                normalise(
                    table,
                    currency=group.currency,
                    time_zone=group.time_zone,
                    first_row=self._rows_read,
                    attributes=group.attributes,
                ),
            )
            for group in self.groups
        ]
        self._guard.begin()
        for group, (canonical, malformed) in judged:
            step = self._step_canonical(group, canonical, malformed, rejections, has_parts=False)
            for name, result in step.items():
                results[name].append(result)
        self._rows_read += table.num_rows
        shadows = frozenset(view.name for view in self.plan.views if view.shadow)
        return ViewsResult({name: parts[0] for name, parts in results.items()}, rejections.table(), shadows)

    @changes
    def step_canonical(
        self,
        group: Group,
        orders: pa.RecordBatch,
        malformed: pa.RecordBatch,
        rejections: Rejections,
        *,
        has_parts: bool = False,
    ) -> dict[str, StepResult]:
        """Apply a batch that was judged for a group to its views.

        orders      CANONICAL_SCHEMA and the attributes of the group
        malformed   REJECTED_SCHEMA and the attributes: rows that could not be read
        rejections  takes what the views reject
        has_parts   orders, and rows that could not be read, may come in several parts, told by their rows
        """
        self._guard.begin()
        return self._step_canonical(group, orders, malformed, rejections, has_parts=has_parts)

    def _step_canonical(
        self,
        group: Group,
        orders: pa.RecordBatch,
        malformed: pa.RecordBatch,
        rejections: Rejections,
        *,
        has_parts: bool,
    ) -> dict[str, StepResult]:
        self._take_malformed(group, malformed, rejections, has_parts=has_parts)
        made: dict[str, list[StepResult]] = {of.view.name: [] for of in group.views}
        # Whole batches, where parts of an order must not be torn apart.
        step_rows = max(orders.num_rows, 1) if has_parts else STEP_ROWS
        for start in range(0, max(orders.num_rows, 1), step_rows):
            part = orders.slice(start, step_rows)
            for of, place in zip(group.views, group.places, strict=True):
                result = of.step_canonical(part, has_parts=has_parts)
                made[of.view.name].append(result)
                for rejected in result.rejected.to_batches():
                    rejections.add_of(place, rejected)
        return {name: _joined(results) for name, results in made.items()}

    def _take_malformed(
        self, group: Group, malformed: pa.RecordBatch, rejections: Rejections, *, has_parts: bool
    ) -> None:
        if not malformed.num_rows:
            return
        by, absent = np.zeros((2, malformed.num_rows, len(self.plan.views)), dtype=np.bool_)
        for of, place in zip(group.views, group.places, strict=True):
            by[:, place], absent[:, place] = of.rejects(malformed)
        if has_parts:
            malformed, (by, absent) = once_an_event(malformed, (by, absent))
        reasons = malformed.column("reason")
        for of, place in zip(group.views, group.places, strict=True):
            of.engine.counters.reject(reasons.filter(pa.array(by[:, place])).to_pylist())
            of.engine.counters.reject(["malformed"] * int(absent[:, place].sum()))
        if absent.any():
            at = malformed.schema.get_field_index("reason")
            told = pa.array(["malformed"] * malformed.num_rows, pa.string())
            rejections.add(malformed.set_column(at, malformed.schema.field(at), told), absent)
        rejections.add(malformed, by)

    @changes
    def advance(self, now: Instant) -> ViewsResult:
        """Let time pass up to `now` in every view."""
        results, now_us = {}, to_us(now)
        self._guard.begin()
        for name, of in self._engines.items():
            told = of.engine.advance(now_us)
            results[name] = StepResult(told, Rejections(()).table(), of.engine.signals)
        shadows = frozenset(view.name for view in self.plan.views if view.shadow)
        return ViewsResult(results, Rejections(self.plan.names).table(), shadows)

    @reads
    def snapshot(self, as_of: Instant | None = None, *, view: str | None = None) -> pa.Table:
        """Return one row a customer as of an instant (default: each view's clock), without changing anything.

        view    only of this one; default: all but shadows, one after the other
        Raises  ConfigError where `as_of` lies before a view's clock, or there is no such view
        """
        if view is not None:
            return self[view].engine.snapshot(as_of)
        shown = (of for of in self._engines.values() if not of.view.shadow)
        return together((of.engine.snapshot(as_of) for of in shown), SNAPSHOT_SCHEMA)

    @changes
    def resegment(self, name: str, ruleset: Ruleset, now: Instant | None = None) -> pa.Table:
        """Let a view go on by another ruleset, as `Engine.resegment` does; return its changes, `rules_changed`."""
        of, now_us = self[name], None if now is None else to_us(now)
        of.engine.check_resegment(ruleset, now_us)
        self._guard.begin()
        told = of.engine.resegment(ruleset, now_us)
        views = tuple(
            View(view.name, ruleset, view.where, view.per, view.shadow) if view.name == name else view
            for view in self.plan.views
        )
        self.plan = Plan(views, self.plan.path)
        self._engines[name] = ViewEngine(self.plan.view(name), of.engine)
        return told

    @reads
    def use_threads(self, threads: int) -> None:
        """Work on each view's shards with so many threads from now on."""
        for of in self._engines.values():
            of.engine.use_threads(threads)

    @reads
    def checkpoint(self, directory: str | PathLike[str]) -> None:
        """Write the states of all views to a directory, replacing the checkpoint there in one step."""
        self._write(list(self._engines.values()), [], directory)

    def _write(
        self, left: list[ViewEngine], held: list[tuple[View, Machine]], directory: str | PathLike[str]
    ) -> None:
        """Hold one engine more, and write them once all are held."""
        if not left:
            write_views(held, directory)
            return
        first, *others = left
        first.engine.holding(lambda machine: self._write(others, [*held, (first.view, machine)], directory))

    @classmethod
    def restore(
        cls,
        directory: str | PathLike[str],
        plan: Plan | str | PathLike[str] | None = None,
        *,
        threads: int | None = None,
        resegment: Collection[str] = (),
    ) -> "Views":
        """Return the views a checkpoint holds.

        plan     which views to go on with; default: the checkpoint's own. One that the checkpoint does not hold begins
                 with the orders to come, one that the plan does not name is dropped: see `added` and `dropped`
        threads  default: as many shards as were checkpointed
        resegment  names of views: where the plan has another ruleset than the checkpoint, it takes over at the view's
                 clock. What that brings is in `resegmented`
        Raises   StateError where there is no whole checkpoint, or a view was made with another ruleset or other events
        """
        wanted = plan if plan is None or isinstance(plan, Plan) else load_plan(plan)
        while True:
            saved = saved_views(directory)
            try:
                return cls._restored(directory, saved, wanted, threads, resegment)
            except StateError:
                # While it was read another one may have taken its place, whose views are in other folders.
                if saved_views(directory) == saved:
                    raise

    @classmethod
    def _restored(
        cls,
        directory: str | PathLike[str],
        saved: dict[str, SavedView],
        wanted: Plan | None,
        threads: int | None,
        resegment: Collection[str],
    ) -> "Views":
        views = cls(saved_plan(directory, saved) if wanted is None else wanted, threads=threads or 1)
        for view in views.plan.views:
            if view.name in saved:
                machine, is_other = read_view(
                    directory,
                    view,
                    saved[view.name],
                    threads=threads,
                    seeds=views._seeds,
                    hashed=views._hashed_of(view),
                    takes_over=view.name in resegment,
                )
                engine = Engine.of(machine)
                if is_other:
                    before = deepcopy(engine.counters)
                    told = engine.resegment(view.ruleset)
                    result = StepResult(told, Rejections(()).table(), engine.signals)
                    views.resegmented[view.name] = Resegmented(before, result)
                views._engines[view.name] = ViewEngine(view, engine)
                views._rows_read = max(views._rows_read, machine.counters.read)
                views.mode = machine.mode
        for of in views._engines.values():
            of.engine.use_mode(views.mode)
        views.added = tuple(name for name in views.plan.names if name not in saved)
        views.dropped = tuple(name for name in saved if name not in views.plan.names)
        return views


def together(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """Return tables of several views one after the other; what only one view's ruleset says of itself is left out."""
    return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])


def _joined(results: list[StepResult]) -> StepResult:
    if len(results) == 1:
        return results[0]
    return StepResult(
        pa.concat_tables([result.changes for result in results]),
        pa.concat_tables([result.rejected for result in results]),
        pa.concat_tables([result.signals for result in results]),
    )
