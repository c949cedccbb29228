"""Orders that are not void, by customer and day: what months, purchase days and cohorts are counted from.

Source  docs/semantics.md section 3; a row that a replay rejects counts nowhere here either
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.events.zone import local_days
from rfmstream.engine.files.source import open_orders
from rfmstream.engine.insight.lives import lives_of
from rfmstream.engine.insight.report.columns import hash_column, seeds
from rfmstream.engine.insight.report.local_time import Ints, months_of
from rfmstream.engine.insight.report.movement import by_customer
from rfmstream.schemas.mapping import InputMap
from rfmstream.schemas.orders import ORDER_TYPES
from rfmstream.schemas.ruleset import Ruleset

_SEEDS: Final = {name: seeds(number) for number, name in enumerate(("customer", "order", "event"), 2)}
_PAID: Final = ORDER_TYPES.index("paid")
_REFUNDED: Final = ORDER_TYPES.index("refunded")
_CANCELLED: Final = ORDER_TYPES.index("cancelled")
_LATER_TYPES: Final = {name: at for at, name in enumerate(ORDER_TYPES)}
_TOTAL: Final = _LATER_TYPES.get("refunded_total", -1)
_ERASED: Final = _LATER_TYPES.get("erased", -1)
_LIFE: Final = np.uint64(0x9E3779B97F4A7C15)
"""Added to an order's hash for each order of its id that was forgotten before it."""


@dataclass(frozen=True)
class Orders:
    """Orders that are not void, those of a customer together and in order of time.

    Fields  customer  u64[n], a hash of the id
            day       local days since 1970-01-01
            left_minor  what is left of each after refunds
            is_first  bool[n], the customer's first row
    """

    customer: NDArray[np.uint64]
    day: Ints
    left_minor: Ints
    is_first: NDArray[np.bool_]

    @property
    def month(self) -> Ints:
        """Local months since 1970-01."""
        return months_of(self.day)

    def purchase_days(self) -> Ints:
        """Return the days on which each customer bought."""
        return self._kinds(self.day)

    def _kinds(self, value: Ints) -> Ints:
        """Count the different values of each customer; they ascend within one."""
        if len(value) == 0:
            return np.zeros(0, np.int64)
        is_new = self.is_new(value)
        counted: Ints = np.add.reduceat(is_new.astype(np.int64), np.flatnonzero(self.is_first))
        return counted

    def is_new(self, value: Ints) -> NDArray[np.bool_]:
        """Tell the rows at which a customer's value differs from that of the row before."""
        new = self.is_first.copy()
        new[1:] |= value[1:] != value[:-1]
        return new


def read_orders(
    paths: Sequence[Path], ruleset: Ruleset, *, input_map: InputMap | None, until_us: int | None
) -> Orders:
    """Read orders, and leave out those that are void, with their refunds taken off.

    In      until_us  leave out what happened after that instant; None: nothing
    Errors  as of `open_orders`
    """
    parts: list[dict[str, NDArray[Any]]] = []
    stream = open_orders(paths, input_map=input_map, currency=ruleset.currency, time_zone=_zone(ruleset))
    for batch, _ in stream:
        if batch.num_rows:
            parts.append(_columns(batch))
    rows = (
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else _no_rows()
    )
    if until_us is not None:
        rows = {name: values[rows["at_us"] <= until_us] for name, values in rows.items()}
    return _kept(rows, ruleset)


def _zone(ruleset: Ruleset) -> str | None:
    """Return how a replay reads times without a zone: docs/semantics.md section 1."""
    return ruleset.time_zone if _ERASED >= 0 else None


def _columns(batch: pa.RecordBatch) -> dict[str, NDArray[Any]]:
    table = pa.Table.from_batches([batch])
    customer = hash_column(table["customer_id"], _SEEDS["customer"])
    event = hash_column(table["event_id"].fill_null("").cast(pa.string()), _SEEDS["event"])
    return {
        "customer": customer,
        # The same order id of two customers is two orders.
        "order": hash_column(table["order_id"].fill_null("").cast(pa.string()), _SEEDS["order"]) ^ customer,
        "event": event,
        "type": table["type"].to_numpy().astype(np.int64),
        "at_us": table["occurred_at"].cast(pa.int64()).to_numpy(),
        "amount": table["amount_minor"].fill_null(0).to_numpy(),
    }


def _no_rows() -> dict[str, NDArray[Any]]:
    hashes = np.zeros(0, np.uint64)
    numbers = np.zeros(0, np.int64)
    return {
        "customer": hashes,
        "order": hashes,
        "event": hashes,
        "type": numbers,
        "at_us": numbers,
        "amount": numbers,
    }


def _kept(rows: dict[str, NDArray[Any]], ruleset: Ruleset) -> Orders:
    rows = _without_erased(rows)
    life = lives_of(rows["order"], rows["type"] == _PAID, rows["at_us"], ruleset)
    if life.any():
        rows["order"] = rows["order"] + life.astype(np.uint64) * _LIFE
    paid = np.flatnonzero(rows["type"] == _PAID)
    # The first of an order's rows counts: those after it are duplicates, or rejected as in conflict with it.
    order, first = np.unique(rows["order"][paid], return_index=True)
    paid = paid[first]
    left = rows["amount"][paid].copy()
    is_void = np.zeros(len(paid), bool)
    changed = np.flatnonzero(
        np.isin(rows["type"], (_REFUNDED, _CANCELLED, *((_TOTAL,) if _TOTAL >= 0 else ())))
    )
    at = np.searchsorted(order, rows["order"][changed])
    known = (
        (at < len(order)) & (order[np.minimum(at, len(order) - 1)] == rows["order"][changed])
        if len(order)
        else at < 0
    )
    known[known] &= rows["at_us"][changed[known]] >= rows["at_us"][paid[at[known]]]
    _take_off(rows, changed[known], at[known], left, is_void)
    stands = paid[~is_void]
    customer, left, at_us = rows["customer"][stands], left[~is_void], rows["at_us"][stands]
    by_time = np.argsort(at_us, kind="stable")
    sort = by_time[by_customer(customer[by_time])]
    customer = customer[sort]
    is_first = np.ones(len(customer), bool)
    is_first[1:] = customer[1:] != customer[:-1]
    return Orders(customer, local_days(ruleset.time_zone, at_us[sort]), left[sort], is_first)


def _take_off(
    rows: dict[str, NDArray[Any]], changed: Ints, at: Ints, left: Ints, is_void: NDArray[np.bool_]
) -> None:
    """Take cancellations and refunds off `left` and mark what is void, one row after the other: they are few."""
    seen: set[tuple[int, int, int, int]] = set()
    taken: dict[int, int] = {}
    amounts = left.copy()
    for row, place in zip(changed.tolist(), at.tolist(), strict=True):
        kind, event = int(rows["type"][row]), int(rows["event"][row])
        # Without an event id of its own an event is known by type, order and instant.
        identity = (place, kind, event, 0 if event != _NO_EVENT else int(rows["at_us"][row]))
        if kind == _CANCELLED:
            is_void[place] = True
            left[place] = 0
            continue
        if identity in seen or is_void[place]:
            continue
        amount, so_far = int(rows["amount"][row]), taken.get(place, 0)
        off = amount - so_far if kind == _TOTAL else amount
        if off <= 0 or so_far + off > int(amounts[place]):
            continue
        seen.add(identity)
        taken[place] = so_far + off
        left[place] -= off
        is_void[place] = left[place] == 0


def _without_erased(rows: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Leave out what customers did before they were erased."""
    erased = np.flatnonzero(rows["type"] == _ERASED)
    if len(erased) == 0:
        return rows
    until = {int(rows["customer"][row]): int(rows["at_us"][row]) for row in erased}
    keys = np.array(sorted(until), np.uint64)
    bound = np.array([until[key] for key in sorted(until)], np.int64)
    at = np.minimum(np.searchsorted(keys, rows["customer"]), len(keys) - 1)
    gone = (keys[at] == rows["customer"]) & (rows["at_us"] <= bound[at])
    return {name: values[~gone] for name, values in rows.items()}


_NO_EVENT: Final = int(hash_column(pa.chunked_array([[""]], pa.string()), _SEEDS["event"])[0])
