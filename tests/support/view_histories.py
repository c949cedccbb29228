"""Histories with stores and categories, plans to look at them by, and what the oracle says each view must give."""

from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st
from oracle import Event, Oracle, Row, Rules, place
from oracle_signals import SignalOracle, SignalRules
from strategies import histories, rules, signal_rules
from twins import canonical_batch, plain_rows, ruleset_of

from rfmstream.engine.core.rejections import Rejections
from rfmstream.engine.core.views import Views
from rfmstream.engine.events.normalise import NO_REJECTED
from rfmstream.schemas.plan import ATTRIBUTE, Plan, View

VALUES = {"store": [None, "hk", "tw", "hk "], "category": [None, "books", "書", "b" * 300]}
JOINT = "\N{INFORMATION SEPARATOR ONE}"


@dataclass(frozen=True)
class OneView:
    """A view, by the oracle's rules."""

    rules: Rules
    view: View


@dataclass(frozen=True)
class ViewCase:
    """Views, and a history for them in order of arrival."""

    views: list[OneView]
    events: list[Event]

    @property
    def plan(self) -> Plan:
        return Plan(tuple(one.view for one in self.views))

    def sorted(self) -> "ViewCase":
        return replace(self, events=sorted(self.events, key=place))


@st.composite
def view_cases(draw: st.DrawFn, max_size: int = 20) -> ViewCase:
    """One to four views whose rulesets count in one zone, or in several."""
    drawn = draw(st.lists(st.one_of(rules(), signal_rules()), min_size=1, max_size=3))
    views = []
    for number in range(draw(st.integers(1, 4))):
        own = drawn[number % len(drawn)]
        where = tuple(
            (name, tuple(draw(st.lists(st.sampled_from(values[1:]), min_size=1, max_size=2, unique=True))))
            for name, values in VALUES.items()
            if draw(st.integers(0, 2)) == 0
        )
        per = draw(st.sampled_from([None, None, "store", "category"]))
        views.append(OneView(own, View(f"v{number}", ruleset_of(own), where, per)))
    events = [
        {**event, **{name: draw(st.sampled_from(values)) for name, values in VALUES.items()}}
        for event in draw(histories(drawn[0], max_size))
    ]
    return ViewCase(views, events)


def attributed(events: list[Event], first_row: int = 0) -> pa.RecordBatch:
    """Lay events out as canonical orders with their attributes."""
    batch = canonical_batch(events, first_row)
    for name in VALUES:
        column = pa.array([event[name] for event in events], pa.string())
        batch = batch.append_column(ATTRIBUTE + name, column)
    return batch


def expected_of(one: OneView, events: list[Event]) -> tuple[Any, list[tuple[int, str]]]:
    """Return the oracle of a view after its events, and the rows that say no population.

    A customer of a population is a customer whose id says both. An erasure that says no population is one in each
    population of the history: where the customer is not in one, that is remembered and nothing told.
    """
    view = one.view
    oracle = SignalOracle(one.rules) if isinstance(one.rules, SignalRules) else Oracle(one.rules)
    populations = (
        sorted({event[view.per] for event in events if event[view.per] is not None}) if view.per else []
    )
    malformed = []
    for row, event in enumerate(events):
        erases = event["type"] == "erased"
        if not all(event[name] in values or (erases and event[name] is None) for name, values in view.where):
            continue
        if view.per is None:
            oracle.step([event])
        elif event[view.per] is not None:
            oracle.step([_joined(event, event[view.per])])
        elif erases:
            oracle.step([_joined(event, population) for population in ["", *populations]])
        else:
            malformed.append((row, "malformed"))
    return oracle, malformed


def _joined(event: Event, population: str) -> Event:
    return {**event, "customer_id": population + JOINT + event["customer_id"]}


def parted(rows: list[Row], one: OneView) -> list[Row]:
    """Return the oracle's rows as a view must tell them."""
    told = []
    for row in rows:
        population, customer = None, row["customer_id"]
        if one.view.per is not None:
            population, _, customer = customer.partition(JOINT)
        told.append({**row, "customer_id": customer, "view": one.view.name, "population": population})
    return told


def by_identity(rows: list[Row]) -> list[Row]:
    """Sort the rows of a view by customer; those of one stay in their order."""
    return sorted(rows, key=lambda row: (row["population"] or "", row["customer_id"]))


class DrivenViews:
    """Views driven by plain events, which collect what comes out of each as plain rows."""

    def __init__(self, case: ViewCase, threads: int = 1) -> None:
        self.case = case
        self.views = Views(case.plan, threads=threads)
        self.changes: dict[str, list[Row]] = {one.view.name: [] for one in case.views}
        self.signals: dict[str, list[Row]] = {one.view.name: [] for one in case.views}
        self.rejected: list[tuple[int, str, str]] = []
        self.rows_read = 0

    def step(self, events: list[Event]) -> None:
        rejections = Rejections(self.case.plan.names)
        batch = attributed(events, self.rows_read)
        for group in self.views.groups:
            for name, result in self.views.step_canonical(group, batch, NO_REJECTED, rejections).items():
                self.changes[name] += plain_rows(result.changes)
                self.signals[name] += plain_rows(result.signals)
        self.rows_read += len(events)
        told = rejections.table().to_pylist()
        self.rejected += [
            (row["row"], row["reason"], view) for row in told for view in row["views"].split(",")
        ]

    def advance(self, now_us: int) -> None:
        for name, result in self.views.advance(now_us).views.items():
            self.changes[name] += plain_rows(result.changes)
            self.signals[name] += plain_rows(result.signals)

    def restart(self, directory: str, threads: int) -> None:
        """Write a checkpoint, forget the views and go on with those restored from it."""
        self.views.checkpoint(directory)
        self.views = Views.restore(directory, self.case.plan, threads=threads)
        assert (self.views.added, self.views.dropped) == ((), ())


def assert_same_views(driven: DrivenViews, case: ViewCase, as_of_us: int | None = None) -> None:
    """Hold that each view tells all that the oracle tells of its own events, and nothing else."""
    for one in case.views:
        name = one.view.name
        oracle, malformed = expected_of(one, case.events)
        if as_of_us is not None:
            oracle.advance(as_of_us)
        assert by_identity(driven.changes[name]) == by_identity(parted(oracle.changes, one))
        if isinstance(oracle, SignalOracle):
            assert by_identity(driven.signals[name]) == by_identity(parted(oracle.signals, one))
        engine = driven.views[name].engine
        assert by_identity(plain_rows(engine.snapshot())) == by_identity(parted(oracle.snapshot(), one))
        told = [(row, reason) for row, reason, view in driven.rejected if view == name]
        assert [row for row in told if row[1] == "malformed"] == malformed
        counters = engine.counters
        rejected = sum(counters.rejected.values())
        assert counters.read == counters.applied + counters.duplicates + rejected
        assert rejected == len(told)
        if not any(
            event["type"] == "erased" and event[one.view.per or "store"] is None for event in case.events
        ):
            assert counters.applied == oracle.counters["applied"]
            assert counters.read == oracle.counters["read"] + len(malformed)
