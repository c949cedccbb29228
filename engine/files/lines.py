"""Order lines summed into orders, over the whole input.

A line whose customer or order id is missing or malformed cannot belong to an order and is rejected by itself.
The others are grouped by customer, order, [[event]] section, type and currency. An order has the row, time
and event id of its first line in input order; its amount is the exact sum, rounded once at the end. One line
with an unreadable amount makes its order bad_amount: the sum of the others would be wrong.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from rfmstream.engine.events.normalise import NO_REJECTED, Fields, canonicalise, id_faults
from rfmstream.engine.events.times import Instants
from rfmstream.engine.files.evaluate import SourceRows
from rfmstream.engine.files.mapping import MappedEvent, Mapper, by_row
from rfmstream.engine.files.numbers import Number, NumberAmount
from rfmstream.kernels.parse import UNKNOWN_WORD
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.orders import CANONICAL_SCHEMA


class LineSums:
    """Gathers the lines of a run, then gives its orders."""

    def __init__(self, mapper: Mapper, *, currency: str, memory_budget_bytes: int) -> None:
        self._mapper = mapper
        self._currency = currency
        self._budget_bytes = memory_budget_bytes
        self._held_bytes = 0
        self._erasures: list[pa.RecordBatch] = []
        self._lines: dict[int, list[tuple[MappedEvent, str | None]]] = {}

    def add(self, source_rows: SourceRows) -> pa.RecordBatch:
        """Take the lines of a batch; return those rejected by themselves.

        Errors  InputError  the lines held exceed the memory budget
        """
        rejected = [NO_REJECTED]
        for mapped in self._mapper.events(source_rows):
            fields, amount = mapped.fields, mapped.fields.amount
            assert isinstance(amount, NumberAmount), "a map that sums lines computes every amount"
            alone = np.zeros(len(mapped.rows), np.bool_)
            if fields.types is not None:
                alone |= fields.types == UNKNOWN_WORD
            for faults in (id_faults(fields.customer_id), id_faults(fields.order_id)):
                if faults is not None:
                    alone |= faults != 0
            if alone.any():
                apart = _taken(fields, np.flatnonzero(alone))
                # Good by itself is only an erasure, which need not name an order.
                good, out = canonicalise(
                    apart, currency=self._currency, rows=mapped.rows[alone], source=source_rows.source
                )
                self._erasures.append(good)
                rejected.append(out)
                fields = _taken(fields, np.flatnonzero(~alone))
            self._hold(replace(mapped, fields=fields, rows=mapped.rows[~alone]), source_rows.source)
        return by_row(rejected)

    def _hold(self, mapped: MappedEvent, source: str | None) -> None:
        # What a rejected order shows is put together from its sum; the lines' own texts need not be held.
        fields = replace(mapped.fields, shown={})
        texts = [fields.customer_id, fields.order_id, fields.currency, fields.event_id]
        self._held_bytes += 42 * len(mapped.rows) + sum(text.nbytes for text in texts if text is not None)
        # Grouping needs the dictionaries of customers and orders and their codes beside the lines: about as
        # much again.
        if self._held_bytes > self._budget_bytes // 2:
            raise InputError(
                f"summing order lines needs all of them in memory, and {self._held_bytes >> 20} MiB of lines "
                f"exceed half the budget of {self._budget_bytes >> 20} MiB",
                source=source,
                fix="raise the memory budget, or sum the lines into orders before",
            )
        section = self._mapper.input_map.events.index(mapped.event)
        self._lines.setdefault(section, []).append((replace(mapped, fields=fields), source))

    def orders(self) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """Return the orders and those rejected, both in order of their first line's row."""
        done = [(good, NO_REJECTED) for good in self._erasures if good.num_rows]
        for section in sorted(self._lines):
            done += self._section(self._lines.pop(section))
        if not done:
            return CANONICAL_SCHEMA.empty_table().combine_chunks().to_batches()[0], NO_REJECTED
        return by_row([good for good, _ in done]), by_row([bad for _, bad in done])

    def _section(
        self, held: list[tuple[MappedEvent, str | None]]
    ) -> list[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """Sum the lines of one [[event]] section; one pair of batches a source file."""
        amounts = [mapped.fields.amount for mapped, _ in held]
        number = Number.concat([amount.number for amount in amounts if isinstance(amount, NumberAmount)])
        event = held[0][0].event
        lines = _concat(
            [mapped.fields for mapped, _ in held], NumberAmount(number, event.rounding, event.in_minor)
        )
        rows = np.concatenate([mapped.rows for mapped, _ in held])
        sources = list(dict.fromkeys(source for _, source in held))
        origin = np.repeat(
            [sources.index(source) for _, source in held], [len(mapped.rows) for mapped, _ in held]
        )
        group = _groups([lines.customer_id, lines.order_id, lines.currency], lines.types)
        newest = np.maximum.accumulate(group)
        first = np.flatnonzero(np.diff(newest, prepend=-1))
        total = number.summed(group, len(first))
        done = []
        for at, source in enumerate(sources):
            of_source = np.flatnonzero(origin[first] == at)
            chosen = first[of_source]
            sums = total.take(of_source)
            fields = lines.take(chosen, NumberAmount(sums, event.rounding, event.in_minor))
            shown = {"customer_id": fields.customer_id, "order_id": fields.order_id, "amount": sums.text()}
            optional = {"currency": fields.currency, "event_id": fields.event_id}
            shown |= {name: text for name, text in optional.items() if text is not None}
            done.append(
                canonicalise(
                    replace(fields, shown=shown), currency=self._currency, rows=rows[chosen], source=source
                )
            )
        return done


def _taken(fields: Fields, at: np.ndarray[Any, Any]) -> Fields:
    amount = fields.amount
    assert isinstance(amount, NumberAmount), "a map that sums lines computes every amount"
    return fields.take(at, replace(amount, number=amount.number.take(at)))


def _concat(parts: list[Fields], amount: NumberAmount) -> Fields:
    """Return the rows of several batches of one section: they have the same fields."""
    types = [
        np.zeros(len(part.customer_id), np.uint8) if part.types is None else part.types for part in parts
    ]
    statuses = [
        np.zeros(len(part.customer_id), np.uint8)
        if part.occurred_at.status is None
        else part.occurred_at.status
        for part in parts
    ]
    return Fields(
        pa.concat_arrays([part.customer_id for part in parts]),
        pa.concat_arrays([part.order_id for part in parts]),
        np.concatenate(types),
        Instants(np.concatenate([part.occurred_at.us for part in parts]), np.concatenate(statuses)),
        amount,
        _concat_optional([part.currency for part in parts]),
        _concat_optional([part.event_id for part in parts]),
        {},
    )


def _concat_optional(parts: list[pa.Array | None]) -> pa.Array | None:
    return pa.concat_arrays(parts) if parts[0] is not None else None


def _groups(keys: list[pa.Array | None], types: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any]:
    """Return i64[n]: the group of each row, numbered in order of first appearance."""
    codes = [_codes(key) for key in keys if key is not None]
    if types is not None:
        codes.append(types.astype(np.int64))
    group = codes[0]
    for code in codes[1:]:
        # Compressed after each step, so that the product of two counts stays far inside int64.
        group = _codes(pa.array(group * (int(code.max(initial=0)) + 1) + code))
    return group


def _codes(array: pa.Array) -> np.ndarray[Any, Any]:
    encoded = array.dictionary_encode(null_encoding="encode")
    codes: np.ndarray[Any, Any] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes
