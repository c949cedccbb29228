"""One view of the orders: which events of a batch are its own, whose they are in it, and the engine they go to.

A view gives exactly what an engine of its own gives over the events that are its own. An erasure that does not say the
value of a column the view looks at counts in it all the same, in every population: who asks to be forgotten does not
know our columns.

Source  docs/semantics.md section 10; docs/readings.md
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import offsets_and_data, values_of
from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.machine import StepResult
from rfmstream.engine.core.rejected_rows import rejected_rows
from rfmstream.kernels.lookup import find_customers
from rfmstream.schemas.codes import AMOUNT_MINOR_MAX, OrderType, Outcome
from rfmstream.schemas.errors import ConfigError, InputError
from rfmstream.schemas.orders import CANONICAL_SCHEMA, REJECTED_SCHEMA
from rfmstream.schemas.plan import ATTRIBUTE, View

NOT_OURS: Final = np.uint8(255)
"""In place of an Outcome: the event is none of the view's."""
_UNDECIDED: Final = np.uint8(254)
_NOBODYS: Final = 0
"""The population that no customer is in."""

_TYPE, _AT, _MINOR, _ROW = (
    CANONICAL_SCHEMA.get_field_index(name) for name in ("type", "occurred_at", "amount_minor", "row")
)


@dataclass(frozen=True)
class Selection:
    """What a view makes of a batch.

    Fields  orders   what its engine is to apply
            places   i64[m]: for each of them the place in the batch; None: the same
            outcome  u8[n]: NOT_OURS, or the Outcome of rows that are decided already; None: none is
            extra    bool[m]: rows that stand for no row of the batch of their own; None: none do
            erased   who is erased in every population: the place in `orders`, the customer, and when, µs since 1970 UTC
            minor    i64[n]: the amounts of the batch, where parts are summed the sum; None: as they are
    """

    orders: pa.RecordBatch
    places: NDArray[np.int64] | None = None
    outcome: NDArray[np.uint8] | None = None
    extra: NDArray[np.bool_] | None = None
    erased: tuple[tuple[int, str, int], ...] = ()
    minor: NDArray[np.int64] | None = None


class ViewEngine:
    """A view and its engine.

    Fields  view    what it is
            engine  keeps its customers; with `per` those of all populations
    """

    def __init__(self, view: View, engine: Engine) -> None:
        self.view = view
        self.engine = engine
        self._values = {name: pa.array(values, pa.string()) for name, values in view.where}

    def frozen(self) -> "ViewEngine":
        """Return a copy to be written as a checkpoint while this one goes on."""
        return ViewEngine(self.view, self.engine.frozen())

    def step_canonical(self, orders: pa.RecordBatch, *, has_parts: bool = False) -> StepResult:
        """Apply a batch of CANONICAL_SCHEMA and a column `attribute.NAME` for each attribute of the view.

        has_parts  the batch holds orders in several parts, told by their rows: what falls to one customer is summed
        """
        chosen = self.select(orders, has_parts=has_parts)
        changes, outcome = self._step(chosen, None, tolerance_us=0)
        refused = _are_rejected(outcome)
        rejected = REJECTED_SCHEMA.empty_table()
        if refused.any():
            shown = orders.select(CANONICAL_SCHEMA.names)
            if chosen.minor is not None:
                shown = shown.set_column(_MINOR, CANONICAL_SCHEMA.field(_MINOR), pa.array(chosen.minor))
            shown = shown.filter(pa.array(refused))
            rejected = pa.Table.from_batches(
                [rejected_rows(shown, outcome[refused], self.engine.ruleset)], schema=REJECTED_SCHEMA
            )
        return StepResult(changes, rejected, self.engine.signals)

    def erase(self, customers: pa.Array) -> StepResult:
        """Erase customers, by their ids, at the view's clock, in every population."""
        count, at_us = len(customers), self.engine.clock_us
        columns = {
            "customer_id": customers,
            "order_id": pa.array([""] * count, pa.string()),
            "type": pa.array([int(OrderType.ERASED)] * count, pa.uint8()),
            "occurred_at": pa.array([at_us] * count, pa.int64()).cast(CANONICAL_SCHEMA.field(_AT).type),
            "amount_minor": pa.array([0] * count, pa.int64()),
            "event_id": pa.nulls(count, pa.string()),
            "row": pa.array(np.arange(count)),
        }
        orders = pa.RecordBatch.from_arrays(list(columns.values()), schema=CANONICAL_SCHEMA)
        for name in self.view.attributes:
            orders = orders.append_column(ATTRIBUTE + name, pa.nulls(count, pa.string()))
        return self.step_canonical(orders)

    def step_log(
        self,
        orders: pa.RecordBatch,
        log_us: NDArray[np.int64] | None = None,
        *,
        tolerance_us: int = 0,
        has_parts: bool = False,
    ) -> tuple[pa.Table, NDArray[np.uint8]]:
        """Apply a batch as `Engine.step_log` does.

        Returns  tier changes; and u8[n], the Outcome of each row or NOT_OURS. The signals are the engine's
        """
        return self._step(self.select(orders, has_parts=has_parts), log_us, tolerance_us=tolerance_us)

    def _step(
        self, chosen: Selection, log_us: NDArray[np.int64] | None, *, tolerance_us: int
    ) -> tuple[pa.Table, NDArray[np.uint8]]:
        clock = log_us if log_us is None or chosen.places is None else log_us[chosen.places]
        changes, outcome = self.engine.step_log(chosen.orders, clock, tolerance_us=tolerance_us)
        if chosen.places is None or chosen.outcome is None:
            return changes, outcome
        for at, customer, us in chosen.erased:
            if outcome[at] == Outcome.APPLIED and self.engine.populations is not None:
                self.engine.populations.erased_us[customer] = us
        places, whole = chosen.places, chosen.outcome
        if chosen.extra is not None:
            self._uncount(outcome[chosen.extra])
            outcome, places = outcome[~chosen.extra], places[~chosen.extra]
        self.engine.counters.reject(
            [Outcome(code).name.lower() for code in whole[_are_rejected(whole)].tolist()]
        )
        whole[places] = outcome
        return changes, whole

    def _uncount(self, outcome: NDArray[np.uint8]) -> None:
        """Take back what the engine counted of rows that stand for no row of the input of their own."""
        counters = self.engine.counters
        counters.read -= outcome.size
        counters.applied -= int(np.count_nonzero(outcome == Outcome.APPLIED))
        counters.duplicates -= int(np.count_nonzero(outcome == Outcome.DUPLICATE))
        for code in outcome[outcome >= Outcome.MALFORMED].tolist():
            reason = Outcome(code).name.lower()
            counters.rejected[reason] -= 1
            if not counters.rejected[reason]:
                del counters.rejected[reason]

    def rejects(self, rejected: pa.RecordBatch) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Tell which of the rows that could not be read are the view's.

        In       rejected  REJECTED_SCHEMA and the attributes
        Returns  bool[n]: rejected for the reason that is told; bool[n]: rejected as malformed, which goes before any
                 other reason, since they do not say their population
        """
        n = rejected.num_rows
        ours, malformed = np.ones(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
        if n == 0:
            return ours, malformed
        # What could not be divided into columns says nothing of any, and may be anybody's.
        divided = _bools(pc.is_null(rejected.column("raw")))
        for name in ("type", "occurred_at", "amount"):
            divided |= _bools(rejected.column(name).is_valid())
        erases = _bools(pc.fill_null(pc.equal(rejected.column("type"), "erased"), fill_value=False))
        for name, values in self._values.items():
            column = _attribute(rejected, name)
            ours &= _bools(pc.is_in(column, value_set=values)) | (
                _bools(column.is_null()) & (~divided | erases)
            )
        if self.view.per is not None:
            absent = _bools(_attribute(rejected, self.view.per).is_null())
            malformed = ours & absent & divided & ~erases
            ours &= ~malformed
        return ours, malformed

    def select(self, orders: pa.RecordBatch, *, has_parts: bool = False) -> Selection:
        """Return the events of a batch that are the view's, under the keys that their customers have in it."""
        n = orders.num_rows
        if n == 0 or (not self.view.attributes and not has_parts):
            return Selection(orders)
        places = np.arange(n, dtype=np.int64)
        outcome = np.full(n, _UNDECIDED)
        chosen = self._is_ours(orders)
        if not chosen.all():
            outcome[~chosen] = NOT_OURS
            places = np.flatnonzero(chosen)
            orders = orders.filter(pa.array(chosen))
        is_parted = self.view.per is not None
        made = self._parted(orders, places, outcome) if is_parted else Selection(orders, places, outcome)
        return _judged(_summed(made)) if has_parts else made

    def _is_ours(self, orders: pa.RecordBatch) -> NDArray[np.bool_]:
        chosen = np.ones(orders.num_rows, dtype=np.bool_)
        for name, values in self._values.items():
            column = _attribute(orders, name)
            has_value = _bools(pc.is_in(column, value_set=values))
            if column.null_count:
                has_value |= _bools(column.is_null()) & (
                    values_of(orders.column(_TYPE), np.uint8) == OrderType.ERASED
                )
            chosen &= has_value
        return chosen

    def _parted(
        self, orders: pa.RecordBatch, places: NDArray[np.int64], outcome: NDArray[np.uint8]
    ) -> Selection:
        """Return orders under the keys of their customers; those that do not say their population are malformed."""
        populations = self.engine.populations
        assert self.view.per is not None, "only a view of populations parts customers"
        assert populations is not None, "its engine knows them"
        names = _attribute(orders, self.view.per)
        everywhere = False
        if names.null_count:
            absent = _bools(names.is_null())
            erases = values_of(orders.column(_TYPE), np.uint8) == OrderType.ERASED
            outcome[places[absent & ~erases]] = Outcome.MALFORMED
            kept = ~absent | erases
            everywhere = bool((absent & erases).any())
            orders, places, names = orders.filter(pa.array(kept)), places[kept], names.filter(pa.array(kept))
        if everywhere or self._are_erased(orders):
            return self._with_erasures(orders, places, names, outcome)
        keys = populations.keys(populations.numbers(names), orders.column(0))
        return Selection(_keyed(orders, keys), places, outcome)

    def _are_erased(self, orders: pa.RecordBatch) -> bool:
        populations = self.engine.populations
        if populations is None or not populations.erased_us:
            return False
        found = pc.is_in(orders.column(0), value_set=pa.array(populations.erased_us, pa.string()))
        return bool(pc.any(found).as_py())

    def _with_erasures(
        self,
        orders: pa.RecordBatch,
        places: NDArray[np.int64],
        names: pa.StringArray,
        outcome: NDArray[np.uint8],
    ) -> Selection:
        """Do as `_parted` where an event erases a customer in every population, or one did so before.

        It becomes an erasure in each population that the customer is in. In one that the customer comes to later, an
        erasure goes before the first event, so that what is dated before it is rejected there, too.
        """
        populations = self.engine.populations
        assert populations is not None, "only a view of populations parts customers"
        known, erased_us = _Known(self.engine), dict(populations.erased_us)
        customers, values = orders.column(0).to_pylist(), names.to_pylist()
        types = values_of(orders.column(_TYPE), np.uint8)
        instants = values_of(orders.column(_AT), np.int64).tolist()
        own = np.flatnonzero(_bools(names.is_valid()))
        numbers = np.full(len(values), _NOBODYS, dtype=np.int64)
        numbers[own] = populations.numbers(names.take(pa.array(own)))
        made: list[
            tuple[int, int, int | None]
        ] = []  # place in `orders`, population, and of an extra one: erased when
        erased = []
        for at, (customer, value) in enumerate(zip(customers, values, strict=True)):
            number = int(numbers[at])
            if value is None:
                erased.append((len(made), customer, instants[at]))
                made.append((at, _NOBODYS, None))
                made += [(at, other, instants[at]) for other in known.populations_of(customer)]
                known.forget(customer)
                erased_us[customer] = max(instants[at], erased_us.get(customer, instants[at]))
                continue
            if customer in erased_us and number not in known.populations_of(customer):
                made.append((at, number, erased_us[customer]))
            if types[at] != OrderType.ERASED:
                known.note(customer, number)
            made.append((at, number, None))
        rows = np.array([at for at, _, _ in made], dtype=np.int64)
        extra = np.array([us is not None for _, _, us in made], dtype=np.bool_)
        orders = _erasing(orders.take(pa.array(rows)), extra, [us for _, _, us in made if us is not None])
        keys = populations.keys(np.array([number for _, number, _ in made], dtype=np.int64), orders.column(0))
        return Selection(_keyed(orders, keys), places[rows], outcome, extra, tuple(erased))


class _Known:
    """In which populations the customers of a batch are, as its rows are gone through."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, set[int]] = {}

    def populations_of(self, customer: str) -> list[int]:
        """Return the populations a customer is in, ascending."""
        if customer not in self._known:
            self._known[customer] = set(self._found(customer))
        return sorted(self._known[customer])

    def note(self, customer: str, number: int) -> None:
        self.populations_of(customer)
        self._known[customer].add(number)

    def forget(self, customer: str) -> None:
        self._known[customer] = set()

    def _found(self, customer: str) -> Sequence[int]:
        populations = self._engine.populations
        assert populations is not None, "only a view of populations parts customers"
        count = len(populations.names)
        if count == 0:
            return []
        keys = populations.keys(np.arange(count), pa.array([customer] * count, pa.string()), remember=False)
        offset, data = offsets_and_data(keys)
        handles = np.zeros((len(self._engine.shards), count), dtype=np.int64)
        for shard, found in zip(self._engine.shards, handles, strict=True):
            find_customers(shard.state.rows, offset, data, found)
        numbers: list[int] = np.flatnonzero(handles.any(axis=0)).tolist()
        return numbers


def of_population(table: pa.Table, engine: Engine, population: str | None) -> pa.Table:
    """Return the rows of a view's table that are of one population; None: all.

    Errors  ConfigError  the view has no populations, or not this one
    """
    if population is None:
        return table
    names = engine.populations.names[1:] if engine.populations is not None else []
    if population not in names:
        raise ConfigError(
            f"the view {engine.view} has no population {population!r}",
            key="population",
            fix=f"it has {len(names):,}, such as {', '.join(names[:5])}"
            if names
            else "it is not parted by `per`",
        )
    return table.filter(pc.equal(table["population"], population))


def _erasing(orders: pa.RecordBatch, extra: NDArray[np.bool_], erased_us: list[int]) -> pa.RecordBatch:
    """Return orders in which the extra rows are erasures at these instants."""
    mask = pa.array(extra)
    count = len(erased_us)
    of = {
        "order_id": pa.array([""] * count, pa.string()),
        "type": pa.array([int(OrderType.ERASED)] * count, pa.uint8()),
        "occurred_at": pa.array(erased_us, pa.int64()).cast(CANONICAL_SCHEMA.field(_AT).type),
        "amount_minor": pa.array([0] * count, pa.int64()),
        "event_id": pa.nulls(count, pa.string()),
    }
    for name, values in of.items():
        at = CANONICAL_SCHEMA.get_field_index(name)
        column = pc.replace_with_mask(orders.column(at), mask, values)
        orders = orders.set_column(at, CANONICAL_SCHEMA.field(at), column)
    return orders


def _summed(chosen: Selection) -> Selection:
    """Return orders with the parts of an order that fall to one customer made one, their amounts summed.

    A part that went into another one is no row of the view's: the order counts once.
    """
    orders, places, outcome = chosen.orders, chosen.places, chosen.outcome
    assert places is not None, "parts are told by their places"
    assert outcome is not None, "which are known where the outcomes are"
    extra = np.zeros(orders.num_rows, dtype=np.bool_) if chosen.extra is None else chosen.extra
    keys = [*(orders.column(at) for at in (_ROW, _TYPE, 0, 1)), pa.array(extra)]
    parts = pa.table(
        [*keys, orders.column(_MINOR), pa.array(np.arange(orders.num_rows))],
        names=["row", "type", "customer", "order", "extra", "minor", "at"],
    )
    whole = parts.group_by(["row", "type", "customer", "order", "extra"], use_threads=False).aggregate(
        [("minor", "sum"), ("at", "min")]
    )
    if whole.num_rows == orders.num_rows:
        return chosen
    first = whole["at_min"].to_numpy()
    order = np.argsort(first, kind="stable")
    minor, first = whole["minor_sum"].to_numpy()[order], first[order]
    merged = np.ones(orders.num_rows, dtype=np.bool_)
    merged[first] = False
    outcome[places[merged]] = NOT_OURS
    sums = np.zeros(orders.num_rows, dtype=np.int64)
    sums[first] = minor
    orders = orders.set_column(_MINOR, CANONICAL_SCHEMA.field(_MINOR), pa.array(sums))
    return _kept(replace(chosen, orders=orders), ~merged)


def _judged(chosen: Selection) -> Selection:
    """Return orders without those that come to less than zero, or to too much: parts are not judged before."""
    orders, places, outcome = chosen.orders, chosen.places, chosen.outcome
    assert places is not None, "parts are told by their places"
    assert outcome is not None, "which are known where the outcomes are"
    minor = values_of(orders.column(_MINOR), np.int64)
    shown = np.zeros(outcome.size, dtype=np.int64)
    shown[places] = minor
    negative = (minor < 0) & (values_of(orders.column(_TYPE), np.uint8) != OrderType.ADJUSTED)
    bad = np.abs(minor) > AMOUNT_MINOR_MAX
    outcome[places[negative]] = Outcome.NEGATIVE_AMOUNT
    outcome[places[bad]] = Outcome.BAD_AMOUNT
    return replace(_kept(chosen, ~(negative | bad)), minor=shown)


def _kept(chosen: Selection, kept: NDArray[np.bool_]) -> Selection:
    """Return some of the orders that were chosen."""
    if kept.all():
        return chosen
    assert chosen.places is not None, "parts are told by their places"
    moved = np.cumsum(kept) - 1
    return replace(
        chosen,
        orders=chosen.orders.filter(pa.array(kept)),
        places=chosen.places[kept],
        extra=None if chosen.extra is None else chosen.extra[kept],
        erased=tuple((int(moved[at]), customer, us) for at, customer, us in chosen.erased if kept[at]),
    )


def _keyed(orders: pa.RecordBatch, keys: pa.StringArray) -> pa.RecordBatch:
    return orders.set_column(0, CANONICAL_SCHEMA.field(0), keys)


def _attribute(batch: pa.RecordBatch, name: str) -> pa.StringArray:
    at = batch.schema.get_field_index(ATTRIBUTE + name)
    if at < 0:
        raise InputError(
            f"the orders come without the column {name}", fix="read them with the plan's attributes"
        )
    return batch.column(at)


def _are_rejected(outcome: NDArray[np.uint8]) -> NDArray[np.bool_]:
    rejected: NDArray[np.bool_] = (outcome >= Outcome.MALFORMED) & (outcome < _UNDECIDED)
    return rejected


def _bools(mask: Any) -> NDArray[np.bool_]:  # noqa: ANN401 - an Arrow array of flags
    bools: NDArray[np.bool_] = mask.to_numpy(zero_copy_only=False)
    return bools
