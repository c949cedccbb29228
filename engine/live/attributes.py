"""Attributes of the orders in records: what a plan of views looks at, wherever a record says it.

An attribute is a member of the JSON object or a column of the Arrow stream beside the order's own; where a row has no
value there, a header of its record of that name, or with `ce_` before it, as an extension of a CloudEvent is written.

Source  docs/semantics.md 10; docs/views.md
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rfmstream.engine.events.json_members import Members
from rfmstream.engine.live.model import Headers, RawRecords
from rfmstream.engine.live.spans import HeaderSpans
from rfmstream.schemas.plan import ATTRIBUTE

_PREFIXES: Final = ("", "ce_")
_CODES_MAX: Final = 250


class Attributes:
    """Attaches the attributes of some names to the orders of records; keeps nothing between calls."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.members = Members(names)

    def of_plain(
        self,
        records: RawRecords,
        orders: pa.RecordBatch,
        texts: Sequence[pa.StringArray],
        record_of: NDArray[np.int64],
    ) -> pa.RecordBatch:
        """Return orders with their attributes.

        In      texts      by name, of each order
                record_of  i64[orders], the ordinal of the record of each
        """
        known = self.of_headers(records)
        for name, text, in_headers in zip(self.names, texts, known, strict=True):
            column = text
            if in_headers is not None and text.null_count:
                column = pc.coalesce(text, in_headers.take(pa.array(record_of)))
            orders = orders.append_column(ATTRIBUTE + name, column)
        return orders

    def of_headers(self, records: RawRecords) -> list[pa.StringArray | None]:
        """Return, by name, what each record's headers say, string[records]; None where none says anything."""
        headers = records.headers
        if isinstance(headers, HeaderSpans):
            found: list[tuple[str | None, ...]] = []
            codes = headers.mapped(self._coded(found))
            if len(found) < _CODES_MAX:
                rows = [found[code] for code in range(len(found))]
                return [
                    None
                    if all(row[at] is None for row in rows)
                    else pa.array([row[at] for row in rows], pa.string()).take(pa.array(codes))
                    for at in range(len(self.names))
                ]
        elif not any(headers):
            return [None] * len(self.names)
        each = [self._said(one) for one in headers]
        return [pa.array([row[at] for row in each], pa.string()) for at in range(len(self.names))]

    def _coded(self, found: list[tuple[str | None, ...]]) -> Callable[[Headers], int]:
        """Return a function that numbers what headers say, in the list it fills."""

        def code(headers: Headers) -> int:
            said = self._said(headers)
            if said not in found:
                if len(found) >= _CODES_MAX:
                    return _CODES_MAX
                found.append(said)
            return found.index(said)

        return code

    def _said(self, headers: Headers) -> tuple[str | None, ...]:
        texts = {name: value for name, value in headers if value}
        return tuple(
            next((text for each in _PREFIXES if (text := _text(texts.get(each + name)))), None)
            for name in self.names
        )


class Found:
    """Gathers attributes of rows by their ordinals, in whatever order they are found."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._ordinals: list[NDArray[np.int64]] = []
        self._texts: list[Sequence[pa.Array]] = []

    def add(self, ordinals: NDArray[np.int64], texts: Sequence[pa.Array]) -> None:
        """Take the attributes, by name, of rows."""
        self._ordinals.append(ordinals)
        self._texts.append(texts)

    def of(self, ordinals: NDArray[np.int64]) -> list[pa.StringArray]:
        """Return, by name, the attributes of rows, all of which were found."""
        if not self._ordinals:
            return [pa.nulls(0, pa.string()) for _ in self._names]
        there = np.concatenate(self._ordinals)
        order = np.argsort(there, kind="stable")
        places = pa.array(order[np.searchsorted(there[order], ordinals)])
        return [
            pa.chunked_array([texts[at] for texts in self._texts], pa.string()).combine_chunks().take(places)
            for at in range(len(self._names))
        ]


def _text(value: bytes | None) -> str | None:
    """Return what a header says; None: nothing, or no text."""
    try:
        return (value or b"").decode() or None
    except UnicodeDecodeError:
        return None
