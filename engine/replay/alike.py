"""Refunds and adjustments that are alike and have no event id: the contract takes them for one, which may be wrong.

Source  docs/semantics.md section 1: the default of event_id
"""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.schemas.codes import OrderType
from rfmstream.schemas.orders import CANONICAL_SCHEMA

_TYPES: Final = pa.array(
    [int(OrderType.REFUNDED), int(OrderType.ADJUSTED)], CANONICAL_SCHEMA.field("type").type
)
_KEYS: Final = ("customer_id", "order_id", "type", "occurred_at", "amount_minor")


class Alike:
    """Counts them over the batches of one run, which come in order of time.

    Fields  rows  those that repeat another one of the run, so far
    """

    def __init__(self) -> None:
        self.rows = 0
        self._newest: pa.Table | None = None
        """Those of the newest instant, each once: more of that instant may stand in the next batch."""

    def add(self, orders: pa.RecordBatch) -> None:
        """Look at a batch of canonical orders."""
        types = orders.column("type")
        if not orders.num_rows or not np.isin(types.to_numpy(), _TYPES.to_numpy()).any():
            return
        chosen = pc.and_(pc.is_in(types, value_set=_TYPES), pc.is_null(orders.column("event_id")))
        these = pa.table(orders.select(list(_KEYS)).filter(chosen))
        if self._newest is not None:
            these = pa.concat_tables([self._newest, these])
        distinct = these.group_by(list(_KEYS), use_threads=False).aggregate([])
        self.rows += these.num_rows - distinct.num_rows
        if distinct.num_rows:
            self._newest = distinct.filter(pc.equal(distinct["occurred_at"], pc.max(distinct["occurred_at"])))
