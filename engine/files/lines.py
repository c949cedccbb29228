"""Order lines summed into orders, over the whole input.

The lines are grouped by customer, order, [[event]] section, type and currency. An order has the row, time and event id
of its first line in input order; its amount is the exact sum, rounded once at the end.

A line that cannot be read is rejected by itself and takes its order along, whatever could not be read: the sum of the
others would be wrong. Which order a line without ids belongs to is told by what is left of it, else by the lines around
it. An order whose lines stand in several files is refused, unless the map says what identifies a line: then lines that
repeat one of an earlier file count once.
"""

from dataclasses import dataclass, field, replace
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
from rfmstream.engine.files.line_damage import guessed_ids, neighbours
from rfmstream.engine.files.line_files import repeated_lines, spread_lines
from rfmstream.engine.files.mapping import MappedEvent, Mapper, by_row
from rfmstream.engine.files.numbers import Number, NumberAmount
from rfmstream.kernels.parse import ABSENT, OK, UNKNOWN_WORD
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import Event
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
    """Orders that lines were rejected of, by section; None: of every section."""

    section: int | None
    customer_id: pa.Array
    order_id: pa.Array


@dataclass(frozen=True)
class _Unnamed:
    """Rejected lines without an order's id, that say something all the same; null for customers they do not name."""

    rows: np.ndarray[Any, Any]
    customer_id: pa.Array


@dataclass(frozen=True)
class _Damaged:
    """A rejected row that could not be split into columns, and the ids its text seems to name, a pair a section."""

    rejected: pa.RecordBatch
    ids: list[tuple[pa.Array, pa.Array]]


@dataclass
class _Section:
    """All lines of one [[event]] section, grouped into orders; `refused` are orders that do not count."""

    event: Event
    lines: Fields
    number: Number
    once: Number | None
    ids: list[pa.Array]
    rows: np.ndarray[Any, Any]
    file: np.ndarray[Any, Any]
    sources: list[str | None]
    group: np.ndarray[Any, Any]
    first: np.ndarray[Any, Any]
    refused: np.ndarray[Any, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.refused = np.zeros(len(self.first), np.bool_)


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
        return by_row(rejected)

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
        for spoiled in self._spoiled:
            for at, section in sections.items():
                if spoiled.section in (None, at):
                    section.refused |= _holds(section, spoiled.customer_id, spoiled.order_id)[0]
        around = _Around(list(sections.values()))
        for unnamed in self._unnamed:
            for row, customer in zip(unnamed.rows.tolist(), unnamed.customer_id.to_pylist(), strict=True):
                around.refuse(row, customer)
        rejected = [_attributed(damaged, around) for damaged in self._damaged]
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
        types = None if apart.types is None else apart.types[bad]
        known = None if types is None or not (types == UNKNOWN_WORD).any() else types != UNKNOWN_WORD
        ids = [_sound(text.take(pa.array(bad))) for text in (apart.customer_id, apart.order_id)]
        amount = apart.amount
        assert isinstance(amount, NumberAmount), "a map that sums lines computes every amount"
        said = ids[0].is_valid().to_numpy(zero_copy_only=False) | (amount.number.status[bad] != ABSENT)
        unnamed = np.flatnonzero(said & ids[1].is_null().to_numpy(zero_copy_only=False))
        if len(unnamed):
            self._unnamed.append(_Unnamed(mapped.rows[at[bad[unnamed]]], ids[0].take(pa.array(unnamed))))
            self._count(self._unnamed[-1].rows.nbytes + self._unnamed[-1].customer_id.nbytes)
        for where, of_section in ((known, section), (None if known is None else ~known, None)):
            if where is None and of_section is None:
                continue
            customer, order = (text if where is None else text.filter(pa.array(where)) for text in ids)
            named = order.is_valid()
            spoiled = _Spoiled(of_section, customer.filter(named), order.filter(named))
            self._count(spoiled.customer_id.nbytes + spoiled.order_id.nbytes)
            self._spoiled.append(spoiled)
        mask = np.zeros(len(mapped.rows), np.bool_)
        mask[at[bad]] = True
        return _with_raw(out, mapped.source_rows.take(mask))

    def _judged(
        self, fields: Fields, rows: np.ndarray[Any, Any], source: str | None
    ) -> tuple[pa.RecordBatch, pa.RecordBatch, np.ndarray[Any, Any]]:
        """Return the canonical events, those rejected, and the places of the latter: several may be of one row."""
        good, bad = canonicalise(
            fields,
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

    def _section(self, held: list[_Held]) -> _Section:
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
        group = grouped(*keys)
        sources: list[str | None] = []
        for part in held:
            sources += [None] * (part.file + 1 - len(sources))
            sources[part.file] = part.source
        return _Section(
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
            group=group,
            first=np.flatnonzero(np.diff(np.maximum.accumulate(group), prepend=-1)),
        )

    def _across_files(self, section: _Section) -> pa.RecordBatch:
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
            out.append(_contradiction(section, chosen, section.sources[at]))
        return by_row(out)

    def _summed(self, section: _Section) -> list[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """Sum the lines of one section; one pair of batches a source file."""
        part, first = self._parts(section)
        total = section.number.summed(part, len(first))
        if section.once is not None:
            total.add(_once(section, first), 1)
        event, lines = section.event, section.lines
        # All parts of an order have the row, the time and the event id of its first line.
        whole = section.first[section.group[first]]
        done = []
        for file, source in enumerate(section.sources):
            of_file = np.flatnonzero((section.file[whole] == file) & ~section.refused[section.group[first]])
            chosen = whole[of_file]
            sums = total.take(of_file)
            fields = lines.take(chosen, NumberAmount(sums, event.rounding, event.in_minor))
            if self._mapper.lines_by:
                at = pa.array(first[of_file])
                told = {name: lines.attributes[name].take(at) for name in lines.attributes}
                fields = replace(fields, attributes=told)
            shown = {"customer_id": fields.customer_id, "order_id": fields.order_id, "amount": sums.text()}
            optional = {"currency": fields.currency, "event_id": fields.event_id}
            shown |= {name: text for name, text in optional.items() if text is not None}
            good, bad, places = self._judged(replace(fields, shown=shown), section.rows[chosen], source)
            if bad.num_rows and self._mapper.lines_by:
                # An order of which one part is wrong is not applied in part.
                order = section.group[first[of_file]]
                right = np.ones(len(of_file), np.bool_)
                right[places] = False
                good = good.filter(pa.array(~np.isin(order, order[places])[right]))
            if bad.num_rows:
                at = chosen[places]
                for name, text in (("type", _types(section, at)), ("occurred_at", _times(section, at))):
                    place = bad.schema.get_field_index(name)
                    bad = bad.set_column(place, REJECTED_SCHEMA.field(place), text)
            done.append((good, bad))
        return done

    def _parts(self, section: _Section) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return which part of an order each line is of, and the first line of each part; mostly orders have one."""
        if not self._mapper.lines_by:
            return section.group, section.first
        part = grouped(section.group, *(section.lines.attributes[name] for name in self._mapper.lines_by))
        return part, np.flatnonzero(np.diff(np.maximum.accumulate(part), prepend=-1))


def _once(section: _Section, first: np.ndarray[Any, Any]) -> Number:
    """Return what counts once an order, for its parts: it belongs to the part with the order's first line."""
    assert section.once is not None, "the event says what counts once"
    of_order = section.once.once(section.group, len(section.first))
    of_part = of_order.take(section.group[first])
    others = (section.first[section.group[first]] != first) & (of_part.status == OK)
    of_part.mantissa[others], of_part.status[others] = 0, ABSENT
    return of_part


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


def _holds(
    section: _Section, customer_id: pa.Array, order_id: pa.Array
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Find the orders of a section that ids belong to: by both, or by the order id where only one customer has it.

    Out     (bool[orders], bool[ids] whether an order was found)
    """
    first = pa.array(section.first)
    customers, orders = section.lines.customer_id.take(first), section.lines.order_id.take(first)
    whole = pc.is_in(_joined(customers, orders), value_set=_joined(customer_id, order_id))
    found = pc.is_in(_joined(customer_id, order_id), value_set=_joined(customers, orders))
    alone = pc.if_else(pc.fill_null(found, fill_value=False), pa.scalar(None, pa.string()), order_id)
    counts = pc.value_counts(orders)
    single = counts.field("values").filter(pc.equal(counts.field("counts"), 1))
    by_order = pc.and_(pc.is_in(orders, value_set=alone.drop_null()), pc.is_in(orders, value_set=single))
    found_alone = pc.is_in(alone, value_set=single, skip_nulls=True)
    groups: np.ndarray[Any, Any] = pc.or_(whole, by_order).to_numpy(zero_copy_only=False)
    there: np.ndarray[Any, Any] = pc.or_(pc.fill_null(found, fill_value=False), found_alone).to_numpy(
        zero_copy_only=False
    )
    return groups, there


def _joined(customers: pa.Array, orders: pa.Array) -> pa.Array:
    """Return a text for each pair of ids that is no other pair's; null where one is."""
    sizes = pc.cast(pc.binary_length(orders), pa.string())
    return pc.binary_join_element_wise(sizes, ":", orders, customers, "")


class _Around:
    """Knows which order stands around a line."""

    def __init__(self, sections: list[_Section]) -> None:
        self.sections = sections
        self._rows: np.ndarray[Any, Any] | None = None

    def refuse(self, row: int, customer: str | None) -> tuple[str, str] | None:
        """Refuse the order whose lines stand both before and behind a row, if it is that customer's; return its ids."""
        if self._rows is None:
            self._sort()
        assert self._rows is not None
        of = neighbours(self._rows, self._whole, row)
        if of is None:
            return None
        line = int(np.flatnonzero(self._whole == of)[0])
        section, group = self.sections[int(self._owner[line])], int(self._group[line])
        first = int(section.first[group])
        ids = section.lines.customer_id[first].as_py(), section.lines.order_id[first].as_py()
        if customer not in (None, ids[0]):
            return None
        section.refused[group] = True
        return ids

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


def _attributed(damaged: _Damaged, around: _Around) -> pa.RecordBatch:
    """Refuse the orders that damaged rows belong to; return those rows, naming the ids they were found by."""
    count = damaged.rejected.num_rows
    found = np.zeros(count, np.bool_)
    customers, orders = nulls(count), nulls(count)
    for customer_id, order_id in damaged.ids:
        for section in around.sections:
            refused, there = _holds(section, _sound(customer_id), _sound(order_id))
            section.refused |= refused
            fresh = pa.array(there & ~found)
            customers = pc.if_else(fresh, customer_id, customers)
            orders = pc.if_else(fresh, order_id, orders)
            found |= there
    names = {"customer_id": customers.to_pylist(), "order_id": orders.to_pylist()}
    for at in np.flatnonzero(~found):
        ids = around.refuse(damaged.rejected.column("row")[int(at)].as_py(), None)
        if ids is not None:
            names["customer_id"][at], names["order_id"][at] = ids
    out = damaged.rejected
    for name, texts in names.items():
        place = out.schema.get_field_index(name)
        out = out.set_column(place, REJECTED_SCHEMA.field(place), pa.array(texts, pa.string()))
    return out


def _contradiction(section: _Section, at: np.ndarray[Any, Any], source: str | None) -> pa.RecordBatch:
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


def _types(section: _Section, at: np.ndarray[Any, Any]) -> pa.Array:
    types = section.lines.types
    codes = np.zeros(len(at), np.int64) if types is None else types[at].astype(np.int64)
    return pa.array(ORDER_TYPES, pa.string()).take(pa.array(codes))


def _times(section: _Section, at: np.ndarray[Any, Any]) -> pa.Array:
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
