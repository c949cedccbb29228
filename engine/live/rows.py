"""The rows of a batch of records, as each view reads them, found by the ordinals of their records."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import values_of
from rfmstream.engine.core.view import ViewEngine
from rfmstream.engine.live.model import LogBatch, Rejection
from rfmstream.engine.live.originals import Originals
from rfmstream.engine.live.spans import integers, rejection, times_us
from rfmstream.engine.live.state import State, populations_of
from rfmstream.schemas.codes import OrderType
from rfmstream.schemas.orders import CANONICAL_SCHEMA
from rfmstream.schemas.plan import ATTRIBUTE

_ROW: Final = CANONICAL_SCHEMA.get_field_index("row")
_TYPE: Final = CANONICAL_SCHEMA.get_field_index("type")
_CUSTOMER: Final = CANONICAL_SCHEMA.get_field_index("customer_id")


def erasure_runs(orders: pa.RecordBatch) -> Iterator[tuple[int, int, bool]]:
    """Cut orders where erasures begin and end: (first, end, whether they are erasures).

    So it is known which tier changes come before an erasure and which behind it.
    """
    erases = values_of(orders.column(_TYPE), np.uint8) == OrderType.ERASED
    if not erases.any():
        yield 0, orders.num_rows, False
        return
    edges = [0, *(np.flatnonzero(erases[1:] != erases[:-1]) + 1).tolist(), orders.num_rows]
    for first, end in pairwise(edges):
        yield first, end, bool(erases[first])


def forgotten(
    of: ViewEngine, orders: pa.RecordBatch, places: NDArray[np.int64]
) -> list[tuple[str, str | None]]:
    """Return who is erased in a view by the orders at some places, and in which population."""
    taken = pa.array(places)
    ids: list[str] = orders.column(_CUSTOMER).take(taken).to_pylist()
    if of.view.per is None:
        return [(customer, None) for customer in ids]
    names = orders.column(ATTRIBUTE + of.view.per).take(taken).to_pylist()
    return [
        (customer, name)
        for customer, own in zip(ids, names, strict=True)
        for name in ([own] if own is not None else populations_of(of.engine, customer))
    ]


class ReadRows:
    """The rows of a batch as each view reads them."""

    def __init__(self, batch: LogBatch, state: State) -> None:
        rows: dict[tuple[str, str], Rows] = {}
        self._rows: dict[str, Rows] = {}
        for of in state.views:
            reading = of.view.ruleset.currency, of.view.ruleset.time_zone
            if reading not in rows:
                rows[reading] = Rows(batch.read_by(reading))
            self._rows[of.view.name] = rows[reading]

    def rows_of(self, of: ViewEngine) -> "Rows":
        """Return the rows of a view."""
        return self._rows[of.view.name]


class Rows:
    """The rows of a batch, found by the ordinals of their records."""

    def __init__(self, batch: LogBatch) -> None:
        self.batch = batch
        self._refused_at = [rejection.offset for rejection in batch.refused]
        self._originals = Originals(batch)
        self._cut: tuple[int, int, pa.RecordBatch] = 0, 0, batch.orders.slice(0, 0)

    def orders(self, start: int, stop: int) -> pa.RecordBatch:
        """Return the orders [start, stop); the same batch where the same ones are asked for by the next view."""
        if self._cut[:2] != (start, stop):
            self._cut = start, stop, self.batch.orders.slice(start, stop - start)
        return self._cut[2]

    def span(self, first: int, end: int) -> tuple[int, int]:
        """Return the orders [start, stop) of records [first, end)."""
        start, stop = np.searchsorted(self.batch.record_of, [first, end]).tolist()
        return start, stop

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, int, bool]]:
        """Cut the orders [start, stop) where erasures begin and end: (first, end, whether they are erasures)."""
        for first, end, erases in erasure_runs(self.batch.orders.slice(start, stop - start)):
            yield start + first, start + end, erases

    def forgotten(self, of: ViewEngine, orders: NDArray[np.int64]) -> list[tuple[str, str | None]]:
        """Return who is erased in a view by these orders, and in which population."""
        return forgotten(of, self.batch.orders, orders)

    def placed(self, orders: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the offsets of orders' records, and the times of these, in µs."""
        records = self.batch.record_of[orders]
        return integers(self.batch.records.offsets)[records], times_us(self.batch.records)[records]

    def refused(self, first: int, end: int) -> list[Rejection]:
        """Return what was refused before it could be applied, of records [first, end)."""
        offsets, at = self.batch.records.offsets, self._refused_at
        stop = bisect_left(at, offsets[end]) if end < len(offsets) else len(at)
        return self.batch.refused[bisect_left(at, offsets[first]) : stop]

    def rejection(self, order: int, reason: str) -> Rejection:
        """Return the rejection of an order, by its place among the orders of the batch."""
        record = int(self.batch.record_of[order])
        place = self.batch.orders.column(_ROW)[order].as_py() - int(self.batch.firsts[record])
        return rejection(self.batch.records, record, place, reason, self._originals.of(record, place))
