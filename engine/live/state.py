"""The state of a partition: the engine of each view, moved on together.

Views do not touch each other. They share the records, the passing of time, and what a step commits.

Source: docs/semantics.md 10.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from rfmstream.engine.core.buffers import offsets_and_data
from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.flaps import follow_flaps
from rfmstream.engine.core.machine import Mode
from rfmstream.engine.core.view import ViewEngine
from rfmstream.engine.core.views import Views
from rfmstream.engine.live.plain import is_plain
from rfmstream.kernels.lookup import find_customers
from rfmstream.schemas.plan import Plan, View, no_view
from rfmstream.schemas.ruleset import Ruleset


class State:
    """The engines of a plan's views, in its order.

    Holds   with the clock `log` all have one clock; with `event` each that of the newest event of its own
    """

    def __init__(self, views: Iterable[ViewEngine]) -> None:
        self._use(tuple(views))

    def _use(self, views: tuple[ViewEngine, ...]) -> None:
        self.views = views
        self.is_plain = bool(views) and is_plain(self.plan)
        """Whether it is a single ruleset's, for all orders."""

    @classmethod
    def of(cls, engine: "Engine | State") -> "State":
        """Return the state of one engine: a view of all orders, named after its ruleset."""
        if isinstance(engine, State):
            return engine
        return cls([ViewEngine(View(engine.view, engine.ruleset), engine)])

    @classmethod
    def begin(cls, plan: Plan) -> "State":
        """Return the state in which nothing has happened."""
        if is_plain(plan):
            return cls.of(Engine(plan.views[0].ruleset))
        return cls(Views(plan).views.values())

    @property
    def engine(self) -> Engine:
        """The first view's engine."""
        return self.views[0].engine

    @property
    def engines(self) -> list[Engine]:
        """Each view's engine."""
        return [of.engine for of in self.views]

    @property
    def names(self) -> tuple[str, ...]:
        """The views' names."""
        return tuple(of.view.name for of in self.views)

    @property
    def plan(self) -> Plan:
        """What views there are, each with the ruleset that it goes by now."""
        return Plan(tuple(of.view for of in self.views))

    @property
    def clock_us(self) -> int:
        """The newest instant that a view has come to; NEVER_US: nothing has happened."""
        return max(of.engine.clock_us for of in self.views)

    @property
    def past_us(self) -> int:
        """The instant that every view has come to."""
        return min(of.engine.clock_us for of in self.views)

    def view(self, name: str | None) -> ViewEngine:
        """Return a view; None: the first one that is no shadow.

        Errors  ConfigError  there is none of that name
        """
        if name is None:
            return next((of for of in self.views if not of.view.shadow), self.views[0])
        found = next((of for of in self.views if of.view.name == name), None)
        if found is None:
            raise no_view(name, self.names)
        return found

    def use_mode(self, mode: Mode) -> None:
        """Let the changes from now on say this mode."""
        for engine in self.engines:
            engine.use_mode(mode)

    def follow_flaps(self) -> None:
        """Count each view's flaps from now on."""
        for engine in self.engines:
            follow_flaps(engine)

    def next_due_us(self, until_us: int) -> int:
        """Return the earliest instant up to `until_us` at which time alone may bring something to some view."""
        return min(engine.next_due_us(until_us) for engine in self.engines)

    def resegment(
        self, rulesets: Mapping[str, Ruleset], at_us: int, *, passes: bool = True
    ) -> list[pa.Table]:
        """Let views go on by other rulesets; return the changes of each view.

        In      passes  let time pass in the other views
        """
        made, views = [], []
        for of in self.views:
            ruleset = rulesets.get(of.view.name)
            if ruleset is None:
                # To an instant that has passed already nothing happens.
                made.append(of.engine.advance(at_us if passes else of.engine.clock_us))
                views.append(of)
                continue
            made.append(of.engine.resegment(ruleset, at_us))
            view = View(of.view.name, ruleset, of.view.where, of.view.per, of.view.shadow)
            views.append(ViewEngine(view, of.engine))
        self._use(tuple(views))
        return made

    def frozen(self) -> "State":
        """Return a copy to be written as a checkpoint while this one goes on."""
        return State([of.frozen() for of in self.views])

    def with_views(self, others: "State", order: Sequence[str]) -> "State":
        """Return the state of these views and others, in an order of their names; what it does not name is left out."""
        there = {of.view.name: of for of in (*self.views, *others.views)}
        return State([there[name] for name in order])


def populations_of(engine: Engine, customer: str) -> list[str]:
    """Return the populations that a customer is in, or was in before it was erased.

    Cost    O(populations)
    """
    populations = engine.populations
    if populations is None or len(populations.names) == 1:
        return []
    numbers = np.arange(1, len(populations.names))
    keys = populations.keys(numbers, pa.array([customer] * numbers.size, pa.string()), remember=False)
    offset, data = offsets_and_data(keys)
    found = np.zeros((len(engine.shards), numbers.size), dtype=np.int64)
    for shard, handles in zip(engine.shards, found, strict=True):
        find_customers(shard.state.rows, offset, data, handles)
    return [populations.names[number] for number in numbers[found.any(axis=0)].tolist()]
