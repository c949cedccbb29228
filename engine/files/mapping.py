"""Input maps at work: finding one by name, and turning source rows into order events.

Source  docs/semantics.md section 1; docs/input-maps.md
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rfmstream.engine.events.amounts import ColumnAmount
from rfmstream.engine.events.attributes import concat, no_attribute
from rfmstream.engine.events.normalise import Fields, canonicalise, type_codes
from rfmstream.engine.events.text import nulls, repeat
from rfmstream.engine.events.times import Instants, read_instants
from rfmstream.engine.events.zone_words import ZoneWords
from rfmstream.engine.files.elements import ElementRows
from rfmstream.engine.files.evaluate import SourceRows, pointed
from rfmstream.engine.files.numbers import Number, NumberAmount
from rfmstream.kernels.parse import UNKNOWN_WORD
from rfmstream.schemas.codes import OrderType
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.mapping import Event, Expression, InputMap
from rfmstream.schemas.mapping_file import read_map
from rfmstream.schemas.orders import EXCLUDED_SCHEMA, ORDER_TYPES

__all__ = ["InputMap", "Mapper", "list_maps", "load_map"]

_SHIPPED = Path(__file__).resolve().parent / "maps"


def list_maps() -> tuple[str, ...]:
    """Return the names of the shipped input maps, sorted."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.toml")))


def load_map(name_or_path: str | Path) -> InputMap:
    """Load a shipped map by its name, or a map from a file.

    Errors  ConfigError  there is neither, or the file is no valid input map
    """
    if isinstance(name_or_path, str) and name_or_path in list_maps():
        return read_map(_SHIPPED / f"{name_or_path}.toml")
    path = Path(name_or_path)
    if not os.path.isfile(path):  # noqa: PTH113 - a name too long for the system is none either
        raise ConfigError(
            "there is no such input map",
            file=path,
            fix=f"give a TOML file, or one of {', '.join(list_maps())}",
        )
    return read_map(path)


@dataclass(frozen=True)
class MappedEvent:
    """The fields of one [[event]] section over the rows it applies to, those rows, and what counts once an order."""

    fields: Fields
    rows: np.ndarray[Any, Any]
    event: Event
    source_rows: SourceRows
    once: Number | None = None


class Mapper:
    """Turns batches of source columns into order events by one input map, for one run.

    Fields  rows_excluded  how many rows each of the map's [[exclude]] sections left out so far
            keeps_foreign  see `engine.events.normalise.canonicalise`
            on_excluded    takes them, of EXCLUDED_SCHEMA; None: they are only counted
            attributes     what views look at: an expression for each
    """

    def __init__(  # noqa: PLR0913 - options by keyword
        self,
        input_map: InputMap,
        *,
        currency: str,
        time_zone: str,
        on_excluded: Callable[[pa.RecordBatch], None] | None = None,
        keeps_foreign: bool = False,
        attributes: Sequence[str] = (),
    ) -> None:
        self.input_map = input_map
        self.attributes = {name: input_map.attribute(name) for name in attributes}
        self.rows_excluded = [0] * len(input_map.exclude)
        self.keeps_foreign = keeps_foreign
        self._on_excluded = on_excluded
        self._currency = currency
        self._time_zone = time_zone

    def events(self, source_rows: SourceRows) -> Iterator[MappedEvent]:
        """Yield the fields of each [[event]] section; last, with an unknown type, the rows that have none."""
        source_rows = self._kept(source_rows)
        taken = np.zeros(source_rows.count, np.bool_)
        for event in self.input_map.events:
            if event.each:
                elements = ElementRows(source_rows, event)
                if event.when is not None:
                    elements = elements.take(elements.holds(event.when))
                if elements.count:
                    taken[elements.parents] = True
                    yield self._mapped(event, elements)
                continue
            mask = None if event.when is None else source_rows.holds(event.when)
            if mask is None or mask.all():
                taken[:] = True
                yield self._mapped(event, source_rows)
            elif mask.any():
                taken |= mask
                yield self._mapped(event, source_rows.take(mask))
        if not taken.all():
            yield self._without_event(source_rows.take(~taken))

    def _kept(self, source_rows: SourceRows) -> SourceRows:
        """Return the rows that no [[exclude]] section leaves out."""
        for at, rule in enumerate(self.input_map.exclude):
            out = source_rows.holds(rule.when)
            if out.any():
                self.rows_excluded[at] += int(out.sum())
                if self._on_excluded is not None:
                    self._on_excluded(_excluded(source_rows.take(out), rule.why))
                source_rows = source_rows.take(~out)
        return source_rows

    def _mapped(self, event: Event, rows: SourceRows) -> MappedEvent:
        once = None if event.amount_once is None else rows.number(event.amount_once)
        return MappedEvent(self._fields(event, rows), rows.rows, event, rows, once)

    def _without_event(self, rest: SourceRows) -> MappedEvent:
        """Return the rows that no section applies to, which are of an unknown type."""
        rest.lists_are_absent = True
        event = self.input_map.events[0]
        fields = self._fields(event, rest)
        shown = {name: array for name, array in fields.shown.items() if name != "type"}
        # Its time and its amount as a section that does not apply would read them are not what it is rejected for.
        fields = replace(
            fields,
            types=np.full(rest.count, UNKNOWN_WORD, np.uint8),
            occurred_at=Instants(np.zeros(rest.count, np.int64), None),
            amount=NumberAmount(Number.zeros(rest.count), event.rounding, in_minor=True),
            shown=shown,
        )
        return MappedEvent(fields, rest.rows, event, rest)

    def canonical(self, source_rows: SourceRows) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """Return the canonical events and the rejected rows, both in order of row, then of section."""
        source = source_rows.source
        parts = [
            canonicalise(
                mapped.fields,
                currency=self._currency,
                rows=mapped.rows,
                source=source,
                keeps_foreign=self.keeps_foreign,
            )
            for mapped in self.events(source_rows)
        ]
        if len(parts) == 1:
            return parts[0]
        return by_row([part[0] for part in parts]), by_row([part[1] for part in parts])

    def instants(self, source_rows: SourceRows) -> Instants:
        """Return the times of rows whose events all share one time (see `has_one_time`)."""
        return self._instants(self.input_map.events[0], source_rows)

    def has_one_time(self) -> bool:
        """Return whether all events of a row happen at the same time, told by the same expression."""
        told = {
            (e.occurred_at, e.time_formats, e.time_zone, e.zone_of_row, e.zones, e.languages, e.each)
            for e in self.input_map.events
        }
        return len(told) == 1 and not self.input_map.events[0].each

    def _instants(self, event: Event, source_rows: SourceRows) -> Instants:
        formats = event.time_formats
        if source_rows.dates_are_iso and "iso" not in formats:
            formats = (*formats, "iso")
        return read_instants(
            source_rows.value(event.occurred_at),
            time_zone=event.time_zone or self._time_zone,
            time_formats=formats,
            name=event.occurred_at.text or "occurred_at",
            languages=event.languages,
            words=ZoneWords(dict(event.zones)),
            zone_of_row=None if event.zone_of_row is None else source_rows.text(event.zone_of_row),
        )

    def _fields(self, event: Event, source_rows: SourceRows) -> Fields:
        shown = {
            "customer_id": source_rows.text(event.customer_id),
            "order_id": source_rows.text(event.order_id),
            "occurred_at": source_rows.value(event.occurred_at),
        }
        for name in ("currency", "event_id"):
            expression: Expression | None = getattr(event, name)
            if expression is not None:
                shown[name] = source_rows.text(expression)
        if isinstance(event.type, str):
            code = ORDER_TYPES.index(event.type)
            types = np.full(source_rows.count, code, np.uint8) if code != OrderType.PAID else None
            shown["type"] = repeat(event.type, source_rows.count)
        else:
            shown["type"] = source_rows.text(event.type)
            types = type_codes(shown["type"])
        amount, shown_amount = self._amount(event, source_rows)
        if shown_amount is not None:
            shown["amount"] = shown_amount
        return Fields(
            customer_id=shown["customer_id"],
            order_id=shown["order_id"],
            types=types,
            occurred_at=self._instants(event, source_rows),
            amount=amount,
            currency=shown.get("currency"),
            event_id=shown.get("event_id"),
            shown=shown,
            attributes={
                name: self._attribute(name, expression, source_rows)
                for name, expression in self.attributes.items()
            },
        )

    @property
    def lines_by(self) -> tuple[str, ...]:
        """The attributes that part the lines of an order: those of the map that views look at."""
        return tuple(name for name in self.input_map.lines_by if name in self.attributes)

    def columns(self) -> tuple[str, ...]:
        """Return the columns of the input that it reads, each once."""
        found = dict.fromkeys(self.input_map.columns())
        for expression in self.attributes.values():
            found.update(dict.fromkeys(expression.columns()))
        return tuple(found)

    def _attribute(self, name: str, expression: Expression, source_rows: SourceRows) -> pa.Array:
        is_told = any(given == name for given, _ in self.input_map.attributes)
        if not is_told and source_rows.column(name, optional=True) is None:
            raise no_attribute(name, source_rows.names, source_rows.source)
        return source_rows.told(expression)

    def _amount(
        self, event: Event, source_rows: SourceRows
    ) -> tuple[ColumnAmount | NumberAmount, pa.Array | None]:
        if event.amount is None:
            return NumberAmount(Number.zeros(source_rows.count), event.rounding, in_minor=True), None
        shown = None
        if not event.amount.is_numeric:
            shown = source_rows.value(event.amount, as_number=True)
            if event.rounding == "refuse" and not self.input_map.sum_lines:
                given = pointed(shown, event.amount.decimal)
                return (ColumnAmount(None, given) if event.in_minor else ColumnAmount(given, None)), shown
        return NumberAmount(source_rows.number(event.amount), event.rounding, event.in_minor), shown


def _excluded(rows: SourceRows, why: str) -> pa.RecordBatch:
    source = nulls(rows.count) if rows.source is None else repeat(rows.source, rows.count)
    return pa.RecordBatch.from_arrays(
        [pa.array(rows.rows), source, repeat(why, rows.count), rows.shown()], schema=EXCLUDED_SCHEMA
    )


def by_row(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Concatenate batches and sort them by row, those of one row in the order given."""
    whole = concat(batches)
    order = np.argsort(whole.column("row").to_numpy(), kind="stable")
    return whole.take(pa.array(order))
