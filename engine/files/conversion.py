"""Orders in other currencies, converted: an order at the rate of its local day, its refunds at its order's rate.

A refund's rate is known once its order's day is, so all orders of a run are held. What is left of an order is the
difference of what was paid and what was refunded so far, each rounded once: refunds that together give back all leave
0.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.events.attributes import attributes_of, concat, with_attributes
from rfmstream.engine.events.instants import to_text
from rfmstream.engine.events.normalise import NO_REJECTED, rejected_batch
from rfmstream.engine.files.numbers import decimal_text
from rfmstream.engine.files.rates import Rates, Ratio, converted
from rfmstream.schemas.codes import AMOUNT_MINOR_MAX, OrderType, Outcome
from rfmstream.schemas.currencies import CURRENCY_EXPONENTS
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.orders import CANONICAL_SCHEMA, ORDER_TYPES

_REFUNDS: Final = (OrderType.REFUNDED, OrderType.REFUNDED_TOTAL)
_AMOUNTLESS: Final = [int(OrderType.CANCELLED), int(OrderType.ERASED)]


@dataclass
class _Order:
    """An order in another currency: its rate, and what was refunded of it so far in that currency."""

    ratio: Ratio | None
    refunded: int
    seen: dict[str | int, tuple[int, int]]

    def refund(self, minor: int, identity: str | int, ratio: Ratio) -> int:
        """Return what a refund takes off in the run's currency; one that comes again takes what it took before."""
        before = self.seen.get(identity)
        if before is not None and before[0] == minor:
            return before[1]
        so_far = converted(self.refunded, ratio)
        self.refunded += minor
        own = converted(self.refunded, ratio) - so_far
        self.seen.setdefault(identity, (minor, own))
        return own


class Conversion:
    """Gathers the orders of a run, then gives them in the run's own currency."""

    def __init__(self, rates: Rates, *, memory_budget_bytes: int) -> None:
        self._rates = rates
        self._budget_bytes = memory_budget_bytes
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0
        self._sources: list[tuple[int, str | None]] = []

    def add(self, orders: pa.RecordBatch, source: str | None) -> None:
        """Take orders of CANONICAL_SCHEMA, with a column `currency` that is null for the run's own.

        Errors  InputError  the orders held exceed the memory budget
        """
        if not orders.num_rows:
            return
        self._held.append(orders)
        self._sources.append((orders.num_rows, source))
        self._held_bytes += orders.nbytes
        if self._held_bytes > self._budget_bytes // 2:
            raise InputError(
                f"converting currencies needs all orders in memory, and {self._held_bytes >> 20} MiB of them "
                f"exceed half the budget of {self._budget_bytes >> 20} MiB",
                fix="raise the memory budget, or replay smaller files one after the other with a checkpoint",
            )

    def orders(self) -> tuple[pa.RecordBatch | None, pa.RecordBatch]:
        """Return all orders converted, in the order they came in (None: there are none), and those rejected."""
        if not self._held:
            return None, NO_REJECTED
        whole = concat(self._held)
        self._held = []
        minor = whole.column("amount_minor").to_numpy().copy()
        outcome = np.zeros(len(minor), np.uint8)
        types = whole.column("type").to_numpy()
        abroad = whole.column("currency").is_valid().to_numpy(zero_copy_only=False)
        at = np.flatnonzero(abroad & ~np.isin(types, _AMOUNTLESS))
        if len(at):
            minor[at], outcome[at] = self._converted(whole.take(pa.array(at)))
        canonical = whole.drop_columns(["currency"])
        place = CANONICAL_SCHEMA.get_field_index("amount_minor")
        canonical = canonical.set_column(place, CANONICAL_SCHEMA.field(place), pa.array(minor))
        bad = np.flatnonzero(outcome)
        if not len(bad):
            return canonical, NO_REJECTED
        return canonical.filter(pa.array(outcome == 0)), self._rejected(whole, bad, outcome[bad])

    def _converted(self, foreign: pa.RecordBatch) -> tuple[list[int], list[int]]:
        """Return minor units of the run's currency, and outcomes (0: right)."""
        types = foreign.column("type").to_numpy()
        us = foreign.column("occurred_at").cast(pa.int64()).to_numpy()
        days = self._rates.days(us)
        names = ("customer_id", "order_id", "currency", "event_id", "amount_minor")
        customers, orders, codes, events, amounts = (foreign.column(name).to_pylist() for name in names)
        minor, outcome = [0] * len(us), [0] * len(us)
        known: dict[tuple[str, str, str], _Order] = {}
        # In order of time, and payments first: whichever way the rows stand in the files, the rates are the same.
        sequence = np.lexsort((np.arange(len(us)), types != OrderType.PAID, us))
        is_refund = np.isin(types[sequence], _REFUNDS)
        for at in (*sequence[~is_refund].tolist(), *sequence[is_refund].tolist()):
            key = customers[at], orders[at], codes[at]
            ratio = self._rates.ratios.get((codes[at], int(days[at])))
            if types[at] == OrderType.PAID:
                ratio = known.setdefault(key, _Order(ratio, 0, {})).ratio
            elif types[at] in _REFUNDS:
                ratio = known[key].ratio if key in known else None
            if ratio is None:
                outcome[at] = int(Outcome.NO_RATE)
                continue
            if types[at] == OrderType.REFUNDED:
                minor[at] = known[key].refund(amounts[at], events[at] or int(us[at]), ratio)
            else:
                minor[at] = converted(amounts[at], ratio)
            if types[at] == OrderType.REFUNDED_TOTAL:
                known[key].refunded = max(known[key].refunded, amounts[at])
            if abs(minor[at]) > AMOUNT_MINOR_MAX:
                outcome[at] = int(Outcome.BAD_AMOUNT)
        return minor, outcome

    def _rejected(
        self, whole: pa.RecordBatch, at: np.ndarray[Any, Any], outcome: np.ndarray[Any, Any]
    ) -> pa.RecordBatch:
        """Return rejected rows, a batch a source put together."""
        edges = np.cumsum([count for count, _ in self._sources])
        of_source = np.searchsorted(edges, at, "right")
        out = []
        for number in np.unique(of_source):
            here = of_source == number
            rows = whole.take(pa.array(at[here]))
            codes = rows.column("currency").to_pylist()
            amounts = rows.column("amount_minor").to_pylist()
            times = rows.column("occurred_at").cast(pa.int64()).to_pylist()
            exponents = [CURRENCY_EXPONENTS[code] for code in codes]
            shown = {
                "customer_id": rows.column("customer_id"),
                "order_id": rows.column("order_id"),
                "type": pa.array(
                    [ORDER_TYPES[code] for code in rows.column("type").to_pylist()], pa.string()
                ),
                "occurred_at": pa.array([to_text(us) for us in times], pa.string()),
                "amount": pa.array(map(decimal_text, amounts, exponents), pa.string()),
                "currency": rows.column("currency"),
                "event_id": rows.column("event_id"),
            }
            reason = pa.array([Outcome(code).name.lower() for code in outcome[here]], pa.string())
            source = self._sources[int(number)][1]
            made = rejected_batch(rows.column("row").to_numpy(), source, reason, shown)
            out.append(with_attributes(made, attributes_of(rows)))
        whole_out = pa.concat_batches(out)
        return whole_out.take(pc.sort_indices(whole_out.column("row")))
