"""Records that an input map reads: webhooks, rows of databases, what is framed by a schema registry.

    value --frame--> document --envelopes--> objects --map--> events

A record may hold several objects, and an object several events; all belong to the record's offset. Nothing of this
touches plain orders, which `engine.live.decode` reads.

Source  docs/input-maps.md, docs/live.md
"""

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from rfmstream.engine.events.attributes import with_attributes
from rfmstream.engine.events.json_rows import text_rows
from rfmstream.engine.events.normalise import NO_ORDERS
from rfmstream.engine.events.text import nulls
from rfmstream.engine.files.evaluate import SourceRows
from rfmstream.engine.files.mapping import Mapper
from rfmstream.engine.files.pages import Pages
from rfmstream.engine.live.attributes import Attributes
from rfmstream.engine.live.envelopes import Envelopes, Piece, document
from rfmstream.engine.live.model import LogBatch, RawRecords
from rfmstream.engine.live.payload import ROWS_MAX, ValueForm, form_of, frame_of, is_arrow, told
from rfmstream.engine.live.registry import FRAME_BYTES, Registry, UnknownSchemaError
from rfmstream.engine.live.spans import rejection, sizes_of
from rfmstream.schemas.errors import ConfigError, InputError
from rfmstream.schemas.mapping import Expression, InputFormat, InputMap
from rfmstream.schemas.orders import CANONICAL_SCHEMA
from rfmstream.schemas.plan import ATTRIBUTE

_log = logging.getLogger(__name__)

_KEYS_LOOKED_AT: Final = 64
_MALFORMED: Final = "malformed"
_SCHEMA_HEADERS: Final = ("__value_schema_id", "__key_schema_id")
_Refusal = tuple[int, str, str | None]
"""The place of a row, the reason, and what stands there."""


def check_map(input_map: InputMap) -> None:
    """Refuse a map that is for files alone.

    Errors  ConfigError  names what of it records do not have
    """
    form, plain = input_map.input, InputFormat()
    if input_map.sum_lines:
        raise _for_files(input_map, "lines", "sums lines of whole files, and a log never ends")
    if form.format not in (None, "jsonl"):
        raise _for_files(input_map, "input.format", f"reads {form.format}, and records are JSON")
    for name in ("delimiter", "encoding", "columns", "headerless", "skip", "fill_down", "sheet"):
        if getattr(form, name) != getattr(plain, name):
            raise _for_files(input_map, f"input.{name}", "is for files, and records are JSON")
    for at, event in enumerate(input_map.events, 1):
        parts = (
            event.customer_id,
            event.order_id,
            event.occurred_at,
            event.amount,
            event.currency,
            event.event_id,
        )
        if any(part is not None and _counts_rows(part) for part in parts):
            raise _for_files(input_map, f"event[{at}].row_number", "counts the rows of files")


def _for_files(input_map: InputMap, key: str, problem: str) -> ConfigError:
    return ConfigError(problem, file=input_map.path, key=key, fix="choose a map of JSON for the worker")


def _counts_rows(expression: Expression) -> bool:
    return expression.kind == "row_number" or any(map(_counts_rows, expression.terms))


def _plain(words: str | None) -> str | None:
    """Return words that UTF-8 can hold: they may name keys of a record."""
    return None if words is None else words.encode("utf-8", "replace").decode()


def fingerprint(input_map: InputMap) -> str:
    """Return a digest of a map: a map is part of the law of a history, as the ruleset is."""
    return sha256(Path(input_map.path).read_bytes()).hexdigest()[:16]


@dataclass
class _Rows:
    """The objects of n records.

    Fields  counts   rows of each record
            pieces   of all of them, one after another
    """

    counts: list[int] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)


class MappedDecoder:
    """Decodes records by a map; keeps nothing but the registry's schemas, so any thread may call it.

    In      input_map  None of what is for files: `check_map`
            currency, time_zone  the ruleset's
            record_bytes_max  a longer value is refused unread
            registry   None: framed records are read where they are JSON
            attributes  what views look at: the orders get a column `attribute.NAME` for each
    """

    def __init__(  # noqa: PLR0913 - options by keyword
        self,
        input_map: InputMap,
        *,
        currency: str,
        time_zone: str = "UTC",
        record_bytes_max: int = 16 << 20,
        registry: Registry | None = None,
        attributes: Sequence[str] = (),
    ) -> None:
        check_map(input_map)
        self._map = input_map
        self._attributes = Attributes(attributes) if attributes else None
        self._recipe: dict[str, Any] = {
            "currency": currency,
            "time_zone": time_zone,
            "attributes": attributes,
        }
        self._wanted = Mapper(input_map, **self._recipe).columns()
        self._no_orders = with_attributes(NO_ORDERS, {name: nulls(0) for name in attributes})
        self._record_bytes_max = record_bytes_max
        self._registry = registry
        self.checks_keys = False
        """Whether to warn where keys are not the customers' ids: there are several partitions."""
        self._envelopes = Envelopes(Pages(input_map.input.records, self._wanted, "the record"))

    @property
    def blocks(self) -> bool:
        """Whether it may wait for a registry: then it is not to be called where others wait."""
        return self._registry is not None

    def decode(self, records: RawRecords) -> LogBatch:
        """Return the events of records, and the rows that are none, each with the first reason that holds.

        A value that is missing, or says that a row is gone, has no rows. Never raises for what records hold.

        Errors  TransportError  the schema registry does not answer
        """
        rows = self._rows(records)
        firsts = np.append(0, np.cumsum(rows.counts)).astype(np.int64)
        record_of = np.repeat(np.arange(len(rows.counts)), rows.counts)
        details: dict[int, str | None] = {
            at: piece.detail for at, piece in enumerate(rows.pieces) if piece.record is None
        }
        refused: list[_Refusal] = [(at, _MALFORMED, words) for at, words in details.items()]
        left_out: list[int] = []
        orders, rejected = self._mapped(rows.pieces, left_out)
        refused += rejected
        # Of a record with one row its own bytes are the original.
        texts = [
            b"" if stop - first == 1 or piece.record is None else json.dumps(piece.record).encode()
            for first, stop in pairwise(firsts.tolist())
            for piece in rows.pieces[first:stop]
        ]
        record_of_order = record_of[orders.column("row").to_numpy()]
        if self._attributes is not None:
            texts_of = [orders.column(ATTRIBUTE + name) for name in self._attributes.names]
            orders = orders.select(CANONICAL_SCHEMA.names)
            orders = self._attributes.of_plain(records, orders, texts_of, record_of_order)
        if self.checks_keys:
            self._check_keys(records, record_of_order, orders)
        rejections = []
        for ordinal, reason, words in sorted(refused, key=lambda row: row[0]):
            record = int(record_of[ordinal])
            original = texts[ordinal] or records.values[record]
            place = ordinal - int(firsts[record])
            rejections.append(
                rejection(records, record, place, reason, original)._replace(detail=_plain(words))
            )
        return LogBatch(
            records=records,
            orders=orders,
            record_of=record_of_order,
            refused=rejections,
            firsts=firsts,
            position=records.position,
            texts=texts,
            left_out=sum(left_out),
        )

    def _check_keys(
        self, records: RawRecords, record_of: np.ndarray[Any, Any], orders: pa.RecordBatch
    ) -> None:
        """Warn, once, where a record's key is not the id of its customer."""
        customers = orders.column("customer_id")
        for place in range(0, len(record_of), 1 + len(record_of) // _KEYS_LOOKED_AT):
            key, customer = records.keys[int(record_of[place])], customers[place].as_py()
            if key != customer.encode():
                self.checks_keys = False
                _log.warning(
                    "a record's key is not its customer's id, so a customer's orders may be in several partitions: "
                    "let the producer key records by what the map reads as customer_id, or use one partition",
                    extra={"offset": int(records.offsets[int(record_of[place])]), "has_key": key is not None},
                )
                return

    def _rows(self, records: RawRecords) -> _Rows:
        sizes = sizes_of(records.values)
        rows = _Rows()
        for at, value in enumerate(records.values):
            if value is None:
                pieces = []
            elif sizes[at] > self._record_bytes_max:
                pieces = [Piece(None, f"is longer than {self._record_bytes_max:,} bytes")]
            else:
                pieces = self._opened(value, records.headers[at])
            if len(pieces) > ROWS_MAX:
                pieces = [Piece(None, f"holds more than {ROWS_MAX:,} objects")]
            rows.counts.append(len(pieces))
            rows.pieces += pieces
        return rows

    def _opened(self, value: bytes, headers: Any) -> list[Piece]:  # noqa: ANN401 - as records have them
        try:
            return list(self._envelopes.pieces(self._document(value, headers)))
        except (ValueError, UnknownSchemaError, RecursionError) as error:
            return [Piece(None, str(error))]

    def _document(self, value: bytes, headers: Any) -> Any:  # noqa: ANN401 - JSON
        """Return what a value holds, out of its frame.

        Errors  ValueError, UnknownSchemaError  it cannot be read; the text says what it is
        """
        number = frame_of(value)
        if number is not None:
            return self._framed(number, value)
        if any(name in _SCHEMA_HEADERS for name, _ in headers):
            raise ValueError("has its schema's id in a header: let the producer put it in front of the value")
        if is_arrow(value, form_of(headers)) or form_of(headers) is ValueForm.ARROW:
            raise ValueError("is an Arrow stream, and the map reads JSON")
        if not value.strip():
            raise ValueError("is empty")
        try:
            return document(value)
        except ValueError as error:
            raise ValueError(told(value) or str(error)) from None

    def _framed(self, number: int, value: bytes) -> Any:  # noqa: ANN401 - JSON
        data = value[FRAME_BYTES:]
        if self._registry is not None:
            return self._registry.reader(number)(data)
        try:
            return document(data)
        except ValueError:
            raise ValueError(f"{told(value)}: set schema_registry") from None

    def _mapped(self, pieces: list[Piece], left_out: list[int]) -> tuple[pa.RecordBatch, list[_Refusal]]:
        """Return events whose `row` is the place of their piece, and the rows that are none.

        Out  left_out  how many objects the map leaves out, in parts
        """
        there = [at for at, piece in enumerate(pieces) if piece.record is not None]
        if not there:
            return self._no_orders, []
        with suppress(InputError):  # of one record, and which one is found out below
            return self._judged([pieces[at].record for at in there], np.array(there, np.int64), left_out)
        parts: list[pa.RecordBatch] = []
        refused: list[_Refusal] = []
        for at in there:
            try:
                orders, rejected = self._judged([pieces[at].record], np.array([at], np.int64), left_out)
            except InputError as error:
                refused.append((at, _MALFORMED, error.problem))
            else:
                parts.append(orders)
                refused += rejected
        return pa.concat_batches(parts) if parts else self._no_orders, refused

    def _judged(
        self, objects: list[Any], ordinals: np.ndarray[Any, Any], left_out: list[int]
    ) -> tuple[pa.RecordBatch, list[_Refusal]]:
        """Judge objects by the map; `left_out` gets how many it leaves out.

        Errors  InputError  a path of the map leads into a list
        """
        batch, good = text_rows(objects, self._wanted)
        refused: list[_Refusal] = [
            (int(at), _MALFORMED, "has an object or a list where the map reads a value")
            for at in np.delete(ordinals, good)
        ]
        source_rows = SourceRows(
            batch, ordinals[good], None, self._wanted, absent=self._map.input.absent or ()
        )
        # One of its own for each batch: it counts what it leaves out, and threads share this decoder.
        mapper = Mapper(self._map, **self._recipe)
        orders, rejected = mapper.canonical(source_rows)
        left_out.append(sum(mapper.rows_excluded))
        reasons = rejected.column("reason").to_pylist()
        for row, reason in zip(rejected.column("row").to_pylist(), reasons, strict=True):
            refused.append((row, reason, None))
        return orders, refused
