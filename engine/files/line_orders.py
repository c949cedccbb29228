"""The lines of one [[event]] section of a map, grouped into orders and the parts of orders that views look at."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.events.attributes import with_attributes
from rfmstream.engine.events.normalise import Fields
from rfmstream.engine.files.groups import grouped
from rfmstream.engine.files.line_damage import neighbours
from rfmstream.engine.files.numbers import Number
from rfmstream.kernels.parse import ABSENT, OK
from rfmstream.schemas.mapping import Event
from rfmstream.schemas.orders import REJECTED_SCHEMA


@dataclass
class LineOrders:
    """All lines of one [[event]] section.

    In      lines_by  the attributes whose values part an order
    Fields  group     i64[lines]   the order each line is of
            first     i64[orders]  the first line of each order
            part      i64[lines]   the part each line is of; mostly orders have one
            part_first  i64[parts] the first line of each part
            refused   bool[orders] orders that do not count
    """

    event: Event
    lines: Fields
    number: Number
    once: Number | None
    ids: list[pa.Array]
    rows: np.ndarray[Any, Any]
    file: np.ndarray[Any, Any]
    sources: list[str | None]
    group: np.ndarray[Any, Any]
    lines_by: tuple[str, ...]
    first: np.ndarray[Any, Any] = field(init=False)
    part: np.ndarray[Any, Any] = field(init=False)
    part_first: np.ndarray[Any, Any] = field(init=False)
    refused: np.ndarray[Any, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.first = _first(self.group)
        self.part, self.part_first = self.group, self.first
        if self.lines_by:
            self.part = grouped(self.group, *(self.lines.attributes[name] for name in self.lines_by))
            self.part_first = _first(self.part)
        self.refused = np.zeros(len(self.first), np.bool_)

    @property
    def part_order(self) -> np.ndarray[Any, Any]:
        """The order each part is of."""
        order: np.ndarray[Any, Any] = self.group[self.part_first]
        return order

    def once_of_parts(self) -> Number:
        """Return what counts once an order, for its parts: it belongs to the part with the order's first line."""
        assert self.once is not None, "the event says what counts once"
        of_order = self.once.once(self.group, len(self.first))
        of_part = of_order.take(self.part_order)
        others = (self.first[self.part_order] != self.part_first) & (of_part.status == OK)
        of_part.mantissa[others], of_part.status[others] = 0, ABSENT
        return of_part

    def attributes(self, parts: np.ndarray[Any, Any]) -> dict[str, pa.Array]:
        """Return what views look at, of some parts: each has that of its first line."""
        at = pa.array(self.part_first[parts])
        return {name: column.take(at) for name, column in self.lines.attributes.items()}

    def of_parts(self, rejected: pa.RecordBatch, orders: np.ndarray[Any, Any]) -> pa.RecordBatch:
        """Return the rejected rows of some orders once for each part, so that every view hears of its own.

        Views that see no such line lose their part of the order all the same.

        In      orders  i64[rows]  the order each row is of
        """
        if not self.lines.attributes:
            return rejected
        of_order = np.full(len(self.first), -1)
        of_order[orders[::-1]] = np.arange(len(orders))[::-1]  # of several rows the first
        of_part = of_order[self.part_order]
        parts = np.flatnonzero(of_part >= 0)
        told = rejected.select(REJECTED_SCHEMA.names).take(pa.array(of_part[parts]))
        return with_attributes(told, self.attributes(parts))

    def holding(self, customer_id: pa.Array, order_id: pa.Array) -> np.ndarray[Any, Any]:
        """Find the orders that ids belong to: by both, or by the order id where only one customer has it.

        Returns  i64[orders]  the first of the ids that is the order's; -1: none is
        """
        customers, orders = self._ids_of_orders()
        alone = pc.if_else(self._are_known(customer_id, order_id), pa.scalar(None, pa.string()), order_id)
        by_both = pc.index_in(
            _joined(customers, orders), value_set=_joined(customer_id, order_id), skip_nulls=True
        )
        by_order = pc.index_in(orders, value_set=alone, skip_nulls=True)
        single = pc.is_in(orders, value_set=_single(orders))
        by_order = pc.if_else(single, by_order, pa.scalar(None, pa.int32()))
        places: np.ndarray[Any, Any] = pc.fill_null(pc.coalesce(by_both, by_order), -1).to_numpy()
        return places

    def held(self, customer_id: pa.Array, order_id: pa.Array) -> np.ndarray[Any, Any]:
        """Return bool[ids], true where there is an order that they belong to, as `holding` finds it."""
        _, orders = self._ids_of_orders()
        known = self._are_known(customer_id, order_id)
        alone = pc.if_else(known, pa.scalar(None, pa.string()), order_id)
        found = pc.or_(known, pc.is_in(alone, value_set=_single(orders), skip_nulls=True))
        there: np.ndarray[Any, Any] = found.to_numpy(zero_copy_only=False)
        return there

    def ids_of(self, order: int) -> tuple[str, str]:
        """Return the customer and the id of an order."""
        first = int(self.first[order])
        return self.lines.customer_id[first].as_py(), self.lines.order_id[first].as_py()

    def _ids_of_orders(self) -> tuple[pa.Array, pa.Array]:
        first = pa.array(self.first)
        return self.lines.customer_id.take(first), self.lines.order_id.take(first)

    def _are_known(self, customer_id: pa.Array, order_id: pa.Array) -> pa.Array:
        known = pc.is_in(_joined(customer_id, order_id), value_set=_joined(*self._ids_of_orders()))
        return pc.fill_null(known, fill_value=False)


class OrdersAround:
    """Knows which order stands around a line that does not tell its own."""

    def __init__(self, sections: list[LineOrders]) -> None:
        self.sections = sections
        self._rows: np.ndarray[Any, Any] | None = None

    def refuse(self, row: int, customer: str | None) -> tuple[LineOrders, int] | None:
        """Refuse the order whose lines stand before and behind a row, if it is that customer's; say which it is."""
        if self._rows is None:
            self._sort()
        assert self._rows is not None
        of = neighbours(self._rows, self._whole, row)
        if of is None:
            return None
        line = int(np.flatnonzero(self._whole == of)[0])
        section, order = self.sections[int(self._owner[line])], int(self._group[line])
        if customer not in (None, section.ids_of(order)[0]):
            return None
        section.refused[order] = True
        return section, order

    def _sort(self) -> None:
        sections = self.sections
        rows = np.concatenate([np.zeros(0, np.int64), *(section.rows for section in sections)])
        owner = np.repeat(np.arange(len(sections)), [len(section.rows) for section in sections])
        group = np.concatenate([np.zeros(0, np.int64), *(section.group for section in sections)])
        file = np.concatenate([np.zeros(0, np.int64), *(section.file for section in sections)])
        order = np.argsort(rows, kind="stable")
        self._rows, self._owner, self._group = rows[order], owner[order], group[order]
        # An order's lines in two files do not stand around what ends the first file.
        self._whole = grouped(self._owner, self._group, file[order])


def _first(group: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the first place of each group; groups are numbered in order of it."""
    return np.flatnonzero(np.diff(np.maximum.accumulate(group), prepend=-1))


def _single(orders: pa.Array) -> pa.Array:
    """Return the ids that one order alone has."""
    counts = pc.value_counts(orders)
    return counts.field("values").filter(pc.equal(counts.field("counts"), 1))


def _joined(customers: pa.Array, orders: pa.Array) -> pa.Array:
    """Return a text for each pair of ids that is no other pair's; null where one is."""
    sizes = pc.cast(pc.binary_length(orders), pa.string())
    return pc.binary_join_element_wise(sizes, ":", orders, customers, "")
