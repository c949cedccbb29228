"""Who bought, when and for how much, out of order events: what outcomes are measured by.

A purchase is an order that is not void at the end of the events, at its payment time, with what is left of its amount.
Adjustments name no order and are none.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rfmstream.engine.insight.codes import codes_in, encode, instants_us
from rfmstream.engine.insight.lives import lives_of
from rfmstream.schemas.codes import FOREVER_US, NEVER_US
from rfmstream.schemas.orders import ORDER_TYPES
from rfmstream.schemas.ruleset import Ruleset

_TYPES: Final = {word: code for code, word in enumerate(ORDER_TYPES)}
_ABSENT: Final = 255
DAY_US: Final = 86_400_000_000
_COLUMNS: Final = ("customer_id", "order_id", "type", "occurred_at", "amount_minor", "event_id")


class Purchases:
    """The purchases of all customers, in order of (customer, time).

    Fields  customers  string[k], the ids; a customer's code is its place
            newest_us  the newest event, NEVER_US without any
    """

    def __init__(
        self,
        customers: pa.Array,
        code: NDArray[np.int64],
        at_us: NDArray[np.int64],
        amount_minor: NDArray[np.int64],
        newest_us: int,
    ) -> None:
        self.customers = customers
        self.newest_us = newest_us
        # A customer and the rank of an instant among all instants fit one integer, and a search in those is the join.
        self._instants_us = np.unique(at_us)
        key = self._keys(code, np.searchsorted(self._instants_us, at_us))
        order = np.argsort(key, kind="stable")
        self._key = key[order]
        self._total_minor = np.concatenate(([0], np.cumsum(amount_minor[order])))

    @classmethod
    def of(cls, batches: Iterable[pa.RecordBatch], ruleset: Ruleset | None = None) -> "Purchases":
        """Take them out of batches of schemas.orders.CANONICAL_SCHEMA, in order of time.

        ruleset  whose forgotten orders no row speaks of any more; None: nothing is forgotten
        """
        kept = [batch.select(_COLUMNS) for batch in batches]
        if not kept:
            nothing = np.empty(0, np.int64)
            return cls(pa.array([], pa.large_string()), nothing, nothing, nothing, NEVER_US)
        return cls._of_table(pa.Table.from_batches(kept), ruleset)

    @classmethod
    def _of_table(cls, events: pa.Table, ruleset: Ruleset | None) -> "Purchases":
        (customer,), customers = encode(events["customer_id"])
        (order_id,), order_ids = encode(events["order_id"])
        kind = events["type"].to_numpy()
        at_us = instants_us(events["occurred_at"])
        amount_minor = events["amount_minor"].to_numpy()

        def is_kind(word: str) -> NDArray[np.bool_]:
            return np.asarray(kind == _TYPES.get(word, _ABSENT))

        is_paid = is_kind("paid")
        # Events of one order have one number, by which they are summed.
        orders, order = np.unique(customer * (len(order_ids) + 1) + order_id, return_inverse=True)
        life = lives_of(order, is_paid, at_us, ruleset)
        if life.any():
            orders, order = np.unique(order * (life.max() + 1) + life, return_inverse=True)
        count = orders.size
        # Of several payments of one order the first is the order, and the others are duplicates.
        paid_row = np.full(count, kind.size, np.int64)
        np.minimum.at(paid_row, order[is_paid], np.flatnonzero(is_paid))
        # What takes an amount off counts once, and only if the order was there.
        takes = is_kind("refunded") | is_kind("refunded_total") | is_kind("cancelled")
        takes &= np.arange(kind.size) > paid_row[order]
        (event_id,), _ = encode(events["event_id"])
        has_id = event_id >= 0
        identity = (
            np.where(has_id, customer, order),
            event_id,
            np.where(has_id, 0, kind),
            np.where(has_id, 0, at_us),
        )
        takes = _firsts(takes, *identity)
        taken_minor = _taken_minor(
            order, amount_minor, is_kind("refunded") & takes, is_kind("refunded_total") & takes, count
        )
        is_void = np.zeros(count, np.bool_)
        is_void[order[is_kind("cancelled") & takes]] = True
        erased_us = np.full(len(customers), NEVER_US, np.int64)
        np.maximum.at(erased_us, customer[is_kind("erased")], at_us[is_kind("erased")])
        rows = paid_row[paid_row < kind.size]
        taken_minor, is_void = (column[order[rows]] for column in (taken_minor, is_void))
        paid_minor = amount_minor[rows]
        is_void |= (taken_minor > 0) & (taken_minor >= paid_minor)
        is_void |= at_us[rows] <= erased_us[customer[rows]]
        rows, left_minor = rows[~is_void], (paid_minor - taken_minor)[~is_void]
        return cls(customers, customer[rows], at_us[rows], left_minor, int(at_us.max(initial=NEVER_US)))

    def codes_of(self, customer_id: pa.ChunkedArray) -> NDArray[np.int64]:
        """Return customers' codes, -1 for those who have no event."""
        return codes_in(customer_id, self.customers)

    def within(
        self, code: NDArray[np.int64], at_us: NDArray[np.int64], span_us: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count a customer's purchases after an instant and up to `span_us` later.

        Returns (i64 purchases, i64 minor units); 0 for a code of -1
        """
        first = self._place(code, at_us)
        end = self._place(code, np.minimum(at_us, FOREVER_US - span_us) + span_us)
        return end - first, self._total_minor[end] - self._total_minor[first]

    @property
    def count(self) -> int:
        """All purchases."""
        return int(self._key.size)

    @property
    def amount_minor(self) -> int:
        """What they brought, all together."""
        return int(self._total_minor[-1])

    def gap_days(self, time_zone: str) -> NDArray[np.int64]:
        """Return the days from each purchase day of a customer to the next one, in a zone's calendar."""
        code, rank = np.divmod(self._key, self._instants_us.size + 1)
        instants = pa.array(self._instants_us).cast(pa.timestamp("us", "UTC"))
        local = pc.local_timestamp(instants.cast(pa.timestamp("us", time_zone))).cast(pa.int64()).to_numpy()
        day = (local // DAY_US)[rank] if rank.size else rank
        gaps = np.diff(day)[np.diff(code) == 0]
        return np.asarray(gaps[gaps > 0], np.int64)

    def _place(self, code: NDArray[np.int64], at_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many purchases, in their order, come before a customer's first one after an instant."""
        key = self._keys(code, np.searchsorted(self._instants_us, at_us, side="right"))
        return np.where(code < 0, 0, np.searchsorted(self._key, key))

    def _keys(self, code: NDArray[np.int64], rank: NDArray[Any]) -> NDArray[np.int64]:
        return np.asarray(code * (self._instants_us.size + 1) + rank, np.int64)


def _firsts(wanted: NDArray[np.bool_], *identity: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of the wanted rows are the first of their identity."""
    rows = np.flatnonzero(wanted)
    _, first = np.unique(np.stack([column[rows] for column in identity]), axis=1, return_index=True)
    found = np.zeros(wanted.size, np.bool_)
    found[rows[first]] = True
    return found


def _taken_minor(
    order: NDArray[np.int64],
    amount_minor: NDArray[np.int64],
    is_refund: NDArray[np.bool_],
    is_total: NDArray[np.bool_],
    count: int,
) -> NDArray[np.int64]:
    """Return what was refunded of each order: single refunds add up, the others say how much it is in all."""
    taken_minor = np.zeros(count, np.int64)
    np.add.at(taken_minor, order[is_refund], amount_minor[is_refund])
    np.maximum.at(taken_minor, order[is_total], amount_minor[is_total])
    # Where an order has both, which hardly happens, what comes first matters.
    both = np.intersect1d(order[is_refund], order[is_total])
    taken_minor[both] = 0
    for row in np.flatnonzero(np.isin(order, both) & (is_refund | is_total)).tolist():
        at, amount = order[row], amount_minor[row]
        taken_minor[at] = max(taken_minor[at], amount) if is_total[row] else taken_minor[at] + amount
    return taken_minor
