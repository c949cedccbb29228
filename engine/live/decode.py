"""Decodes a log's records to canonical orders: plain JSON by the scanner kernel, everything else by the ordinary path.

    values --split--> rows --scan--> orders
                        |              ^
                        +--not plain---+  parsed, then judged by engine.events.normalise

Source  docs/semantics.md 1
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.events.json_rows import parse_object, text_rows
from rfmstream.engine.events.json_scan import PAD, OrderScanner
from rfmstream.engine.events.normalise import CONTRACT_COLUMNS, normalise
from rfmstream.engine.live.arrow_records import Full, Judged, Streams
from rfmstream.engine.live.attributes import Attributes, Found
from rfmstream.engine.live.model import LogBatch, RawRecords
from rfmstream.engine.live.payload import ROWS_MAX, Row, ValueForm, form_of, is_arrow, row_of, rows_of, told
from rfmstream.engine.live.spans import HeaderSpans, Spans, cut_out, rejection, sizes_of
from rfmstream.kernels.json_split import ITEMS, split_records
from rfmstream.kernels.record_batches import has_byte
from rfmstream.schemas.orders import CANONICAL_SCHEMA

_BRACKET: Final = np.uint8(ord("["))
_FEED: Final = np.uint8(ord("\n"))
_COMMA: Final = np.uint8(ord(","))
_MALFORMED: Final = "malformed"
_ROW: Final = CANONICAL_SCHEMA.get_field_index("row")
_NO_ORDERS: Final = pa.RecordBatch.from_arrays(
    [pa.array([], kind.type) for kind in CANONICAL_SCHEMA], schema=CANONICAL_SCHEMA
)


_Refusal = tuple[int, str, bytes]
"""The ordinal of a refused row, the reason, its bytes."""

_Judgement = tuple[pa.RecordBatch, list[_Refusal]]
"""Orders whose `row` is the ordinal, and refused rows."""


class _Rows(NamedTuple):
    """The rows of n records, as they stand in their bytes.

    Fields  data    u8[]
            starts, ends  i64[rows]  of each row in `data`
            counts  i64[n]  rows of each record
            forms   u8[n]   of each record
            split   u8[n]   forms, with what was sniffed
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    counts: NDArray[np.int64]
    forms: NDArray[np.uint8]
    split: NDArray[np.uint8]

    def text(self, row: int) -> bytes:
        """Return the bytes of a row."""
        return self.data[self.starts[row] : self.ends[row]].tobytes()


@dataclass
class _Found:
    """What is known of n records before their rows are numbered.

    Fields  counts   i64[n] rows of each record
            scanned  the orders of the scanner; `row` counts those of `_Rows`
            record, place  i64[rows of `_Rows`]  where each of them stands
            parsed   (record, place, row) of what takes the ordinary path
            judged   Arrow records
    """

    counts: NDArray[np.int64]
    scanned: pa.RecordBatch
    record: NDArray[np.int64]
    place: NDArray[np.int64]
    parsed: list[tuple[int, int, Row]] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)


class Decoder:
    """Decodes records of orders in one currency; keeps nothing between calls, so any thread may call it.

    In      currency, time_zone  the ruleset's: what amounts are in, and where times without a zone are local
            record_bytes_max  a longer value is refused unread
            attributes  what views look at: the orders get a column `attribute.NAME` for each
    Errors  ConfigError  an unknown currency or zone
    """

    blocks = False

    def __init__(
        self,
        *,
        currency: str,
        time_zone: str = "UTC",
        record_bytes_max: int = 16 << 20,
        attributes: Sequence[str] = (),
    ) -> None:
        self._scanner = OrderScanner(currency=currency, time_zone=time_zone)
        self._time_zone = time_zone
        self._currency = currency
        self._reading = currency, time_zone
        self._record_bytes_max = record_bytes_max
        self._attributes = Attributes(attributes) if attributes else None

    def decode(self, records: RawRecords) -> LogBatch:
        """Return the orders of records, and the rows that are none, each with the first reason that holds.

        The values that are not too long are below 2 GiB together: `engine.live.spans.cut_by_bytes`.

        A value is one JSON object or an array of them, JSON lines, an Arrow stream with the contract's columns, or a
        CloudEvent in structured mode: by the content-type header, else by its first bytes. A record that cannot be
        read is one refused row; rows of the others are judged one by one. Never raises for what records hold.
        Where they hold too much to be unpacked together, the first of them are decoded: `position` says how far.
        """
        rows = self._rows(records)
        orders, accepted = self._scanner.scan(rows.data, rows.starts, rows.ends)
        n = len(rows.counts)
        if len(accepted) == n and accepted.all() and (rows.counts == 1).all():
            numbers = orders.column(_ROW).to_numpy()
            if self._attributes is not None:
                texts = self._attributes.members.scanned(rows.data, rows.starts, rows.ends, numbers)
                orders = self._attributes.of_plain(records, orders, texts, numbers)
            return LogBatch(
                records, orders, numbers, [], np.arange(n + 1), records.position, reading=self._reading
            )
        try:
            found = self._find(records, rows, orders, accepted)
        except Full as full:
            return self.decode(cut_out(records, 0, full.record))
        firsts = np.append(0, np.cumsum(found.counts))
        record_of = np.repeat(np.arange(n), found.counts)
        orders, refused = _merged(
            [
                (_numbered(found.scanned, firsts[found.record] + found.place), []),
                self._judged_rows(found, firsts),
                *(_judged_records(done, firsts) for done in found.judged),
            ]
        )
        if self._attributes is not None:
            ordinals = orders.column(_ROW).to_numpy()
            texts = self._found_attributes(self._attributes, rows, found, firsts).of(ordinals)
            orders = self._attributes.of_plain(records, orders, texts, record_of[ordinals])
        rejections = []
        for ordinal, reason, text in refused:
            record = int(record_of[ordinal])
            # Looking at a value copies it, so this is done once a value, not once a row.
            original = text or (None if records.values[record] is None else text)
            refusal = rejection(records, record, ordinal - int(firsts[record]), reason, original)
            if reason == _MALFORMED and original and (detail := told(original)):
                refusal = refusal._replace(detail=f"{detail}: read such records by a map")
            rejections.append(refusal)
        return LogBatch(
            records=records,
            orders=orders,
            record_of=record_of[orders.column(_ROW).to_numpy()],
            refused=rejections,
            firsts=firsts,
            position=records.position,
            reading=self._reading,
        )

    @staticmethod
    def _found_attributes(
        attributes: Attributes, rows: _Rows, found: _Found, firsts: NDArray[np.int64]
    ) -> Found:
        """Gather the attributes of all rows that may be orders."""
        there = Found(attributes.names)
        scanned = found.scanned.column(_ROW).to_numpy()
        if scanned.size:
            texts = attributes.members.scanned(rows.data, rows.starts, rows.ends, scanned)
            there.add(firsts[found.record[scanned]] + found.place[scanned], texts)
        if found.parsed:
            said = [attributes.members.parsed(row.record) for _, _, row in found.parsed]
            ordinals = [int(firsts[record]) + place for record, place, _ in found.parsed]
            columns = [pa.array(column, pa.string()) for column in zip(*said, strict=True)]
            there.add(np.array(ordinals, np.int64), columns)
        for done in found.judged:
            there.add(_ordinals_of(done, firsts), done.attributes)
        return there

    def _rows(self, records: RawRecords) -> _Rows:
        sizes = sizes_of(records.values)
        forms = _forms(records)
        forms[(sizes <= 0) | (sizes > self._record_bytes_max)] = ValueForm.REFUSED
        sizes = np.where(forms < ValueForm.ARROW, sizes, 0)
        ends = np.cumsum(sizes)
        return _split(_texts(records.values, sizes), ends - sizes, ends, forms)

    def _find(
        self, records: RawRecords, rows: _Rows, orders: pa.RecordBatch, accepted: NDArray[np.bool_]
    ) -> _Found:
        counts, forms, split = rows.counts, rows.forms, rows.split
        firsts = np.cumsum(counts) - counts
        record = np.repeat(np.arange(len(counts)), counts)
        found = _Found(counts, orders, record, np.arange(len(record)) - firsts[record])

        # A record is one accepted JSON text, or the items of one accepted array. It is lines if the content type says
        # so, or if its first line is an object by itself: then the whole is no JSON text.
        begins = np.append(accepted, False)[firsts]
        settled = (counts > 0) & (begins | (forms == ValueForm.LINES)) | (split == ITEMS)
        settled &= counts <= ROWS_MAX
        for r in np.flatnonzero(~settled & (split == ValueForm.LINES) & (counts <= ROWS_MAX)).tolist():
            settled[r] = counts[r] > 0 and parse_object(rows.text(firsts[r])) is not None
        kept = settled[record]
        if not kept[accepted].all():
            found.scanned = orders.filter(pa.array(kept[accepted]))
        for row in np.flatnonzero(kept & ~accepted).tolist():
            line = rows.text(row)
            found.parsed.append((int(record[row]), int(found.place[row]), row_of(line)))
        self._open(found, records.values, forms, np.flatnonzero(~settled).tolist())
        return found

    def _open(
        self, found: _Found, values: Sequence[bytes | None], forms: NDArray[np.uint8], which: list[int]
    ) -> None:
        """Read whole records by the ordinary path."""
        streams, read = Streams(() if self._attributes is None else self._attributes.names), set()
        for r in which:
            form = ValueForm(int(forms[r]))
            value, rows = values[r] or b"", None
            if is_arrow(value, form):
                if streams.add(r, value):
                    read.add(r)
                    continue
            elif form is not ValueForm.REFUSED:
                rows = rows_of(value, form)
            _add(found, r, [Row(value, None)] if rows is None else rows)
        found.judged = streams.judge(self._currency, self._time_zone)
        for done in found.judged:
            found.counts[done.records] = done.sizes
            read.difference_update(done.records)
        for r in read:
            _add(found, r, [Row(values[r] or b"", None)])

    def _judged_rows(self, found: _Found, firsts: NDArray[np.int64]) -> _Judgement:
        """Judge the rows that were parsed."""
        if not found.parsed:
            return _NO_ORDERS, []
        texts = {int(firsts[r]) + place: row.text for r, place, row in found.parsed}
        ordinals = np.fromiter(texts, np.int64, len(texts))
        batch, good = text_rows([row.record for _, _, row in found.parsed], CONTRACT_COLUMNS)
        orders, rejected = normalise(
            batch, currency=self._currency, time_zone=self._time_zone, rows=ordinals[good]
        )
        reasons = dict.fromkeys(np.delete(ordinals, good).tolist(), _MALFORMED)
        reasons |= zip(rejected.column("row").to_pylist(), rejected.column("reason").to_pylist(), strict=True)
        return orders, [(ordinal, reason, texts[ordinal]) for ordinal, reason in reasons.items()]


def _judged_records(done: Judged, firsts: NDArray[np.int64]) -> _Judgement:
    """Return what became of Arrow records, with the ordinals of their rows."""
    ordinals = _ordinals_of(done, firsts)
    return (
        _numbered(done.orders, ordinals),
        [(int(ordinals[row.place]), row.reason, row.text) for row in done.refused],
    )


def _ordinals_of(done: Judged, firsts: NDArray[np.int64]) -> NDArray[np.int64]:
    sizes = zip(done.records, done.sizes, strict=True)
    return np.concatenate([firsts[record] + np.arange(size) for record, size in sizes])


def _add(found: _Found, record: int, rows: list[Row]) -> None:
    found.counts[record] = len(rows)
    found.parsed += [(record, place, row) for place, row in enumerate(rows)]


def _texts(values: Sequence[bytes | None], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the values that have a size above 0 one after another, with PAD behind them."""
    if isinstance(values, Spans):
        data = values.gathered(len(PAD), sizes)
        # Read-only, as a view of bytes is, so that no second kernel is compiled.
        data.flags.writeable = False
    else:
        data = np.frombuffer(
            b"".join([*(value or b"" for value in compress(values, sizes > 0)), PAD]), np.uint8
        )
    assert len(data) < 1 << 31, "whoever decodes more than that does so in parts"
    return data


def _forms(records: RawRecords) -> NDArray[np.uint8]:
    if isinstance(records.headers, HeaderSpans):
        return records.headers.mapped(form_of)
    if not any(records.headers):
        return np.full(len(records.values), ValueForm.SNIFFED, np.uint8)
    return np.fromiter(map(form_of, records.headers), np.uint8, len(records.headers))


def _split(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    forms: NDArray[np.uint8],
) -> _Rows:
    """Cut values into rows."""
    has_arrays = bool((data[starts] == _BRACKET).any())
    has_lines = has_byte(data, len(data) - len(PAD), _FEED)
    if not has_lines and not has_arrays:
        is_text = forms < ValueForm.ARROW
        if is_text.all():
            return _Rows(data, starts, ends, np.ones(len(forms), np.int64), forms, forms)
        return _Rows(data, starts[is_text], ends[is_text], is_text.astype(np.int64), forms, forms)
    n, split = len(forms), forms.copy()
    capacity = n + int((data == _FEED).sum())
    capacity += int((data == _COMMA).sum()) if has_arrays else 0
    rows, firsts = np.empty((2, capacity), np.int64), np.empty(n + 1, np.int64)
    count = int(split_records(data, starts, ends, split, *rows, firsts))
    return _Rows(data, rows[0, :count], rows[1, :count], np.diff(firsts), forms, split)


def _numbered(orders: pa.RecordBatch, ordinals: NDArray[np.int64]) -> pa.RecordBatch:
    """Return orders with the ordinals of their places as `row`."""
    rows = ordinals[orders.column(_ROW).to_numpy()]
    return orders.set_column(_ROW, CANONICAL_SCHEMA.field(_ROW), pa.array(rows))


def _merged(parts: list[_Judgement]) -> _Judgement:
    """Return the orders and the refused rows of all parts, in order of `row`."""
    refused = sorted(row for _, of_part in parts for row in of_part)
    filled = [orders for orders, _ in parts if orders.num_rows]
    if not filled:
        return _NO_ORDERS, refused
    whole = filled[0] if len(filled) == 1 else pa.concat_batches(filled)
    rows = whole.column(_ROW).to_numpy()
    return whole if (rows[1:] > rows[:-1]).all() else whole.take(pa.array(np.argsort(rows))), refused
