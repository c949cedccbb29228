"""Order lines summed into orders, over the whole input.

The lines are grouped by customer, order, [[event]] section, type and currency. An order has the row, time and event id
of its first line in input order; its amount is the exact sum, rounded once at the end.

A line that cannot be read is rejected by itself and takes its order along, whatever could not be read: the sum of the
others would be wrong. Which order a line without ids belongs to is told by what is left of it, else by the lines around
it. An order whose lines stand in several files is refused, unless the map says what identifies a line: then lines that
repeat one of an earlier file count once.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.events.normalise import (
    NO_ORDERS,
    NO_REJECTED,
    Fields,
    canonicalise,
    id_faults,
    rejected_batch,
)
from rfmstream.engine.events.text import nulls, repeat
from rfmstream.engine.events.times import Instants
from rfmstream.engine.files.chunks import Chunk
from rfmstream.engine.files.evaluate import SourceRows
from rfmstream.engine.files.groups import grouped
from rfmstream.engine.files.input_files import InputFile
from rfmstream.engine.files.line_damage import guessed_ids
from rfmstream.engine.files.line_files import repeated_lines, spread_lines
from rfmstream.engine.files.line_orders import LineOrders, OrdersAround
from rfmstream.engine.files.mapping import MappedEvent, Mapper, by_row
from rfmstream.engine.files.numbers import Number, NumberAmount
from rfmstream.kernels.parse import ABSENT, OK, UNKNOWN_WORD
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.orders import ORDER_TYPES, REJECTED_SCHEMA

_WITHOUT_RAW: Final = pa.array(["missing_customer_id", "missing_order_id"])
"""Reasons that the columns shown tell; guests' lines are many."""


@dataclass(frozen=True)
class _Held:
    """Lines of one batch and section that can be read."""

    mapped: MappedEvent
    ids: tuple[pa.Array, ...]
    source: str | None
    file: int


@dataclass
class _Spoiled:
    """Orders that lines were rejected of, by section; None: of every section; and those lines as they are told."""

    section: int | None
    customer_id: pa.Array
    order_id: pa.Array
    told: pa.RecordBatch


@dataclass(frozen=True)
class _Unnamed:
    """Rejected lines without an order's id, that say something all the same; null for customers they do not name.

    They are of the order around them; `told` as for spoiled ones.
    """

    rows: np.ndarray[Any, Any]
    customer_id: pa.Array
    told: pa.RecordBatch


@dataclass(frozen=True)
class _Damaged:
    """A rejected row that could not be split into columns, and the ids its text seems to name, a pair a section."""

    rejected: pa.RecordBatch
    ids: list[tuple[pa.Array, pa.Array]]


class LineSums:
    """Gathers the lines of a run, then gives its orders.

    Fields  lines_repeated  lines that repeated one of an earlier file; known after `orders`
    """

    def __init__(self, mapper: Mapper, *, currency: str, memory_budget_bytes: int) -> None:
        self.lines_repeated = 0
        self._mapper = mapper
        self._currency = currency
        self._budget_bytes = memory_budget_bytes
        self._held_bytes = 0
        self._apart: list[pa.RecordBatch] = []
        """Events that are right without what a line needs: erasures, which need not name an order."""
        self._lines: dict[int, list[_Held]] = {}
        self._spoiled: list[_Spoiled] = []
        self._unnamed: list[_Unnamed] = []
        self._damaged: list[_Damaged] = []
        self._told: list[pa.RecordBatch] = []
        """Rejected lines of orders that views look at: told at the end, with all that they take along."""

    def add(self, source_rows: SourceRows, file: int) -> pa.RecordBatch:
        """Take the lines of a batch of the file of this number; return those that are rejected.

        Errors  InputError  the lines held exceed the memory budget
        """
        rejected = [NO_REJECTED]
        for mapped in self._mapper.events(source_rows):
            fields, section = mapped.fields, self._mapper.input_map.events.index(mapped.event)
            doubtful = _doubtful(fields)
            if doubtful.any():
                out = self._refused(mapped, doubtful, section)
                rejected.append(out)
                fields = _taken(fields, np.flatnonzero(~doubtful))
            kept = mapped.source_rows.take(~doubtful) if doubtful.any() else mapped.source_rows
            once = None if mapped.once is None else mapped.once.take(np.flatnonzero(~doubtful))
            ids = tuple(kept.told(part) for part in self._mapper.input_map.line_id)
            mapped = replace(mapped, fields=fields, rows=kept.rows, once=once)  # noqa: PLW2901
            self._hold(section, _Held(mapped, ids, kept.source, file))
        if not self._mapper.attributes:
            return by_row(rejected)
        self._told += rejected[1:]
        return NO_REJECTED

    def add_damaged(self, chunk: Chunk, file: InputFile) -> None:
        """Take the rows of a chunk that could not be split into columns: they are rejected at the end."""
        if len(chunk.damaged_rows) == 0:
            return
        raw = pa.array(chunk.damaged_raw, pa.string())
        reason = repeat("malformed", len(raw))
        rejected = rejected_batch(chunk.damaged_rows, chunk.source, reason, {}, raw)
        self._count(2 * rejected.nbytes)
        self._damaged.append(_Damaged(rejected, guessed_ids(chunk, file, self._mapper.input_map)))

    def orders(self) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """Return the orders and those rejected, both in order of their first line's row."""
        sections = {at: self._section(self._lines.pop(at)) for at in sorted(self._lines)}
        rejected = self._told
        for spoiled in self._spoiled:
            for at, section in sections.items():
                if spoiled.section in (None, at):
                    by = section.holding(spoiled.customer_id, spoiled.order_id)
                    orders = np.flatnonzero(by >= 0)
                    section.refused[orders] = True
                    if self._mapper.attributes:
                        rejected.append(section.of_parts(spoiled.told.take(pa.array(by[orders])), orders))
        around = OrdersAround(list(sections.values()))
        for unnamed in self._unnamed:
            for at, (row, customer) in enumerate(
                zip(unnamed.rows.tolist(), unnamed.customer_id.to_pylist(), strict=True)
            ):
                found = around.refuse(row, customer)
                if found is not None and self._mapper.attributes:
                    section, order = found
                    rejected.append(section.of_parts(unnamed.told.slice(at, 1), np.array([order])))
        rejected += [_attributed(damaged, around) for damaged in self._damaged]
        done = [(good, NO_REJECTED) for good in self._apart]
        for section in sections.values():
            if section.file.max(initial=0) > section.file.min(initial=0):
                rejected.append(self._across_files(section))
            done += self._summed(section)
        orders = by_row([good for good, _ in done]) if done else NO_ORDERS
        return orders, by_row([NO_REJECTED, *(bad for _, bad in done), *rejected])

    def _refused(self, mapped: MappedEvent, doubtful: np.ndarray[Any, Any], section: int) -> pa.RecordBatch:
        """Return those of the doubtful lines that are rejected, and note their orders; the others are put apart."""
        at = np.flatnonzero(doubtful)
        apart = _taken(mapped.fields, at)
        good, out, bad = self._judged(apart, mapped.rows[at], mapped.source_rows.source)
        if good.num_rows:
            self._apart.append(good)
        mask = np.zeros(len(mapped.rows), np.bool_)
        mask[at[bad]] = True
        out = _with_raw(out, mapped.source_rows.take(mask))
        types = None if apart.types is None else apart.types[bad]
        known = None if types is None or not (types == UNKNOWN_WORD).any() else types != UNKNOWN_WORD
        ids = [_sound(text.take(pa.array(bad))) for text in (apart.customer_id, apart.order_id)]
        amount = apart.amount
        assert isinstance(amount, NumberAmount), "a map that sums lines computes every amount"
        said = ids[0].is_valid().to_numpy(zero_copy_only=False) | (amount.number.status[bad] != ABSENT)
        unnamed = np.flatnonzero(said & ids[1].is_null().to_numpy(zero_copy_only=False))
        if len(unnamed):
            chosen = pa.array(unnamed)
            told = out.take(chosen) if self._mapper.attributes else NO_REJECTED
            self._unnamed.append(_Unnamed(mapped.rows[at[bad[unnamed]]], ids[0].take(chosen), told))
            self._count(8 * len(unnamed) + self._unnamed[-1].customer_id.nbytes + told.nbytes)
        for where, of_section in ((known, section), (None if known is None else ~known, None)):
            if where is None and of_section is None:
                continue
            customer, order = (text if where is None else text.filter(pa.array(where)) for text in ids)
            named = order.is_valid()
            told = NO_REJECTED
            if self._mapper.attributes:
                told = (out if where is None else out.filter(pa.array(where))).filter(named)
            spoiled = _Spoiled(of_section, customer.filter(named), order.filter(named), told)
            self._count(spoiled.customer_id.nbytes + spoiled.order_id.nbytes + told.nbytes)
            self._spoiled.append(spoiled)
        return out

    def _judged(
        self, fields: Fields, rows: np.ndarray[Any, Any], source: str | None
    ) -> tuple[pa.RecordBatch, pa.RecordBatch, np.ndarray[Any, Any]]:
        """Return the canonical events, those rejected, and the places of the latter: several may be of one row."""
        good, bad = canonicalise(
            # A discount may be a part of its own: whether an order is below zero is told where its parts are summed.
            replace(fields, are_parts=bool(self._mapper.lines_by)),
            currency=self._currency,
            rows=np.arange(len(rows)),
            source=source,
            keeps_foreign=self._mapper.keeps_foreign,
        )
        places: np.ndarray[Any, Any] = bad.column("row").to_numpy()
        return _renumbered(good, rows), _renumbered(bad, rows), places

    def _hold(self, section: int, held: _Held) -> None:
        # What a rejected order shows is put together from its sum; the lines' own texts need not be held.
        fields = replace(held.mapped.fields, shown={})
        texts = [fields.customer_id, fields.order_id, fields.currency, fields.event_id, *held.ids]
        self._count(42 * len(held.mapped.rows) + sum(text.nbytes for text in texts if text is not None))
        mapped = replace(held.mapped, fields=fields, source_rows=NO_ROWS)
        self._lines.setdefault(section, []).append(replace(held, mapped=mapped))

    def _count(self, held_bytes: int) -> None:
        self._held_bytes += held_bytes
        # Grouping needs the dictionaries of customers and orders and their codes beside the lines: about as
        # much again.
        if self._held_bytes > self._budget_bytes // 2:
            raise InputError(
                f"summing order lines needs all of them in memory, and {self._held_bytes >> 20} MiB of lines "
                f"exceed half the budget of {self._budget_bytes >> 20} MiB",
                fix="raise the memory budget, or sum the lines into orders before",
            )

    def _section(self, held: list[_Held]) -> LineOrders:
        amounts = [part.mapped.fields.amount for part in held]
        number = Number.concat([amount.number for amount in amounts if isinstance(amount, NumberAmount)])
        event = held[0].mapped.event
        lines = _concat(
            [part.mapped.fields for part in held], NumberAmount(number, event.rounding, event.in_minor)
        )
        sizes = [len(part.mapped.rows) for part in held]
        keys = [
            key for key in (lines.customer_id, lines.order_id, lines.currency, lines.types) if key is not None
        ]
        sources: list[str | None] = []
        for part in held:
            sources += [None] * (part.file + 1 - len(sources))
            sources[part.file] = part.source
        return LineOrders(
            event=event,
            lines=lines,
            number=number,
            once=None
            if event.amount_once is None
            else Number.concat([part.mapped.once for part in held if part.mapped.once is not None]),
            ids=[pa.concat_arrays(list(parts)) for parts in zip(*(part.ids for part in held), strict=True)],
            rows=np.concatenate([part.mapped.rows for part in held]),
            file=np.repeat([part.file for part in held], sizes),
            sources=sources,
            group=grouped(*keys),
            lines_by=self._mapper.lines_by,
        )

    def _across_files(self, section: LineOrders) -> pa.RecordBatch:
        """Drop the lines that repeat lines of earlier files; reject the orders that are none of one file."""
        if section.ids:
            identity = grouped(*section.ids)
            whole = section.number.shortest()
            content = grouped(
                identity, section.group, section.lines.occurred_at.us, whole.mantissa, whole.scale
            )
            repeats, contradicting = repeated_lines(section.group, identity, content, section.file)
            self.lines_repeated += int(repeats.sum())
            # A line that adds nothing: the sum of its order is that of the others.
            section.number.mantissa[repeats] = 0
        else:
            contradicting = spread_lines(section.group, section.file)
        contradicting = contradicting[~section.refused[section.group[contradicting]]]
        section.refused[section.group[contradicting]] = True
        out = [NO_REJECTED]
        for at in np.unique(section.file[contradicting]):
            chosen = contradicting[section.file[contradicting] == at]
            told = _contradiction(section, chosen, section.sources[at])
            out.append(section.of_parts(told, section.group[chosen]))
        return by_row(out)

    def _summed(self, section: LineOrders) -> list[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """Sum the lines of one section; one pair of batches a source file."""
        total = section.number.summed(section.part, len(section.part_first))
        if section.once is not None:
            total.add(section.once_of_parts(), 1)
        event, lines, order = section.event, section.lines, section.part_order
        # All parts of an order have the row, the time and the event id of its first line.
        whole = section.first[order]
        done = []
        for file, source in enumerate(section.sources):
            of_file = np.flatnonzero((section.file[whole] == file) & ~section.refused[order])
            chosen = whole[of_file]
            sums = total.take(of_file)
            fields = lines.take(chosen, NumberAmount(sums, event.rounding, event.in_minor))
            fields = replace(fields, attributes=section.attributes(of_file))
            shown = {"customer_id": fields.customer_id, "order_id": fields.order_id, "amount": sums.text()}
            optional = {"currency": fields.currency, "event_id": fields.event_id}
            shown |= {name: text for name, text in optional.items() if text is not None}
            good, bad, places = self._judged(replace(fields, shown=shown), section.rows[chosen], source)
            if bad.num_rows:
                at = chosen[places]
                for name, text in (("type", _types(section, at)), ("occurred_at", _times(section, at))):
                    place = bad.schema.get_field_index(name)
                    bad = bad.set_column(place, REJECTED_SCHEMA.field(place), text)
                # An order of which one part is wrong is not applied in part.
                wrong = order[of_file[places]]
                right = np.ones(len(of_file), np.bool_)
                right[places] = False
                good = good.filter(pa.array(~np.isin(order[of_file], wrong)[right]))
                bad = section.of_parts(bad, wrong)
            done.append((good, bad))
        return done


NO_ROWS: Final = SourceRows(pa.RecordBatch.from_pydict({}), np.zeros(0, np.int64), None, ())
"""What a held line has in place of the columns it came from."""


def _doubtful(fields: Fields) -> np.ndarray[Any, Any]:
    """Return bool[n]: lines with something that cannot be read."""
    amount = fields.amount
    assert isinstance(amount, NumberAmount), "a map that sums lines computes every amount"
    doubtful: np.ndarray[Any, Any] = amount.number.status != OK
    if fields.types is not None:
        doubtful |= fields.types == UNKNOWN_WORD
    if fields.occurred_at.status is not None:
        doubtful |= fields.occurred_at.status != OK
    for faults in (id_faults(fields.customer_id), id_faults(fields.order_id)):
        if faults is not None:
            doubtful |= faults != 0
    return doubtful


def _sound(ids: pa.Array) -> pa.Array:
    """Return ids with null where there is none that could be one."""
    faults = id_faults(ids)
    return ids if faults is None else pc.if_else(pa.array(faults == 0), ids, pa.scalar(None, pa.string()))


def _renumbered(batch: pa.RecordBatch, rows: np.ndarray[Any, Any]) -> pa.RecordBatch:
    """Return a batch whose `row` is a place in `rows`, with those."""
    at = batch.schema.get_field_index("row")
    return batch.set_column(
        at, batch.schema.field(at), pa.array(rows[batch.column(at).to_numpy()], pa.int64())
    )


def _with_raw(out: pa.RecordBatch, source_rows: SourceRows) -> pa.RecordBatch:
    """Add the columns that the map reads to the rejected lines whose fault is in one of them."""
    told = ~pc.is_in(out.column("reason"), value_set=_WITHOUT_RAW).to_numpy(zero_copy_only=False)
    if not told.any():
        return out
    texts = np.full(out.num_rows, None, object)
    texts[told] = source_rows.take(told).shown().to_pylist()
    place = out.schema.get_field_index("raw")
    return out.set_column(place, REJECTED_SCHEMA.field(place), pa.array(texts, pa.string()))


def _attributed(damaged: _Damaged, around: OrdersAround) -> pa.RecordBatch:
    """Refuse the orders that damaged rows belong to; return those rows, naming the ids they were found by."""
    count = damaged.rejected.num_rows
    found = np.zeros(count, np.bool_)
    customers, orders = nulls(count), nulls(count)
    for customer_id, order_id in damaged.ids:
        ids = _sound(customer_id), _sound(order_id)
        for section in around.sections:
            section.refused |= section.holding(*ids) >= 0
            there = section.held(*ids)
            fresh = pa.array(there & ~found)
            customers = pc.if_else(fresh, customer_id, customers)
            orders = pc.if_else(fresh, order_id, orders)
            found |= there
    names = {"customer_id": customers.to_pylist(), "order_id": orders.to_pylist()}
    for at in np.flatnonzero(~found):
        refused = around.refuse(damaged.rejected.column("row")[int(at)].as_py(), None)
        if refused is not None:
            section, order = refused
            names["customer_id"][at], names["order_id"][at] = section.ids_of(order)
    out = damaged.rejected
    for name, texts in names.items():
        place = out.schema.get_field_index(name)
        out = out.set_column(place, REJECTED_SCHEMA.field(place), pa.array(texts, pa.string()))
    return out


def _contradiction(section: LineOrders, at: np.ndarray[Any, Any], source: str | None) -> pa.RecordBatch:
    """Reject orders by the first of their lines that another file contradicts; the text names the files."""
    where = pa.array(at)
    texts = []
    for line in at:
        files = np.unique(section.file[section.group == section.group[line]])
        names = ", ".join(str(section.sources[file]) for file in files)
        texts.append(f"its lines stand in several files: {names}")
    shown = {
        "customer_id": section.lines.customer_id.take(where),
        "order_id": section.lines.order_id.take(where),
        "type": _types(section, at),
        "occurred_at": _times(section, at),
        "amount": section.number.take(at).text(),
    }
    reason = repeat("conflicting_duplicate", len(at))
    return rejected_batch(section.rows[at], source, reason, shown, pa.array(texts, pa.string()))


def _types(section: LineOrders, at: np.ndarray[Any, Any]) -> pa.Array:
    types = section.lines.types
    codes = np.zeros(len(at), np.int64) if types is None else types[at].astype(np.int64)
    return pa.array(ORDER_TYPES, pa.string()).take(pa.array(codes))


def _times(section: LineOrders, at: np.ndarray[Any, Any]) -> pa.Array:
    times = pa.array(section.lines.occurred_at.us[at]).cast(pa.timestamp("us")).cast(pa.string())
    return pc.binary_join_element_wise(pc.replace_substring(times, " ", "T"), "Z", "")


def _taken(fields: Fields, at: np.ndarray[Any, Any]) -> Fields:
    amount = fields.amount
    assert isinstance(amount, NumberAmount), "a map that sums lines computes every amount"
    return fields.take(at, replace(amount, number=amount.number.take(at)))


def _concat(parts: list[Fields], amount: NumberAmount) -> Fields:
    """Return the rows of several batches of one section: they have the same fields."""
    types = [
        np.zeros(len(part.customer_id), np.uint8) if part.types is None else part.types for part in parts
    ]
    return Fields(
        pa.concat_arrays([part.customer_id for part in parts]),
        pa.concat_arrays([part.order_id for part in parts]),
        np.concatenate(types),
        Instants(np.concatenate([part.occurred_at.us for part in parts]), None),
        amount,
        _concat_optional([part.currency for part in parts]),
        _concat_optional([part.event_id for part in parts]),
        {},
        attributes={
            name: pa.concat_arrays([part.attributes[name] for part in parts]) for name in parts[0].attributes
        },
    )


def _concat_optional(parts: list[pa.Array | None]) -> pa.Array | None:
    return pa.concat_arrays(parts) if parts[0] is not None else None
