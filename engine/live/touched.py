"""Whose orders a step has that is being committed: what the state says of all others is committed already."""

from collections.abc import Collection
from functools import cached_property
from typing import Final

from rfmstream.engine.live.model import LogBatch
from rfmstream.schemas.orders import CANONICAL_SCHEMA

ORDERS_MAX: Final = 4_096
"""Of more orders nobody looks whose they are: that would take a millisecond."""
IDS_MAX: Final = 32
"""Nor where more customers are asked for: most likely one of them is among them."""

_CUSTOMER: Final = CANONICAL_SCHEMA.get_field_index("customer_id")


class Touched:
    """The customers of a batch of records, or of none, where time alone passes.

    That time has passed changes nothing in what a customer is at an instant that has not: docs/semantics.md 7.
    """

    def __init__(self, batch: LogBatch | None) -> None:
        self._batches = () if batch is None else (batch, *batch.others)

    def has_any(self, ids: Collection[str]) -> bool:
        """Tell whether any of some customers may be among them."""
        if not self._batches:
            return False
        return len(ids) > IDS_MAX or self._customers is None or not self._customers.isdisjoint(ids)

    @cached_property
    def _customers(self) -> frozenset[str] | None:
        """The customers; None: too many to look."""
        if sum(batch.orders.num_rows for batch in self._batches) > ORDERS_MAX:
            return None
        return frozenset(id_ for batch in self._batches for id_ in batch.orders.column(_CUSTOMER).to_pylist())
