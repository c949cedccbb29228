"""Tier changes, signals and rejected rows as Kafka records: CloudEvents 1.0, in bulk.

A tier change or signal becomes a record with the customer id as its key. In binary mode the value is its columns as
JSON and the headers are the event's attributes; in structured mode the value is the whole event as JSON. See
`engine.live.encode_events`.

Source  docs/semantics.md sections 6 and 9; CloudEvents 1.0.2, its JSON format and its Kafka protocol binding
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import offsets_and_data
from rfmstream.engine.core.columns import Absent
from rfmstream.engine.core.shard import new_seeds
from rfmstream.engine.events.text import plain
from rfmstream.engine.live.encode_events import EventLayouts, Words
from rfmstream.engine.live.encode_layout import Layout, sized, varint
from rfmstream.engine.live.model import Forgotten, Rejection, Source
from rfmstream.kernels import deflate, lz4
from rfmstream.kernels.encode_latest import mark_latest
from rfmstream.kernels.encode_records import write_records
from rfmstream.kernels.encode_text import BEGINNING_BYTES_MAX, LINE_BYTES
from rfmstream.kernels.record_batches import HEADER_BYTES
from rfmstream.schemas.changes import CHANGE_SCHEMA
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.signals import SIGNAL_SCHEMA

BATCH_BYTES_MAX: Final = 1 << 20
"""Bytes of a batch: below `message.max.bytes` of a broker and `max.request.size` of a producer as they come."""

OVERTAKEN_MAX: Final = 0.5
"""Share of a part's changes that a later one has overtaken, up to which they go to the topic of the last ones, too:
compaction removes them, and one batch for two topics is put together and compressed once."""

REJECTED_BYTES_MAX: Final = 1_000_000
"""Longest rejected record: a broker's default limit of 1 MiB a batch leaves room for its headers."""

_REFERENCE: Final = re.compile(r"[!#$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]+")
_HEADERS_ROOM: Final = 1024
_DETAIL_MAX: Final = 160


class Record(NamedTuple):
    """One record as a consumer sees it."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True)
class EncodedRecords:
    """Records ready for a batch: from the length of the key to the last header, as Kafka's v2 format has them.

    Fields  data    u8[]    LINE_BYTES to spare at the end; may be shared with other records
            starts  i64[n]  where each record begins in it
            sizes   i64[n]
            batch   of `data`: the records with their beginnings, as a batch of them has them; None: they do not stand
                    like that
            repeats where these repeat one another: `marks` and `repeats` of `kernels.repeats.find_repeats`
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    batch: NDArray[np.uint8] | None = None
    repeats: tuple[NDArray[np.int32], NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return int(self.starts.size)

    def __iter__(self) -> Iterator[Record]:
        for start, size in zip(self.starts.tolist(), self.sizes.tolist(), strict=True):
            yield _decode(self.data[start : start + size].tobytes())

    def take(self, rows: NDArray[np.bool_]) -> "EncodedRecords":
        """Return the records where `rows`, bool[n], holds; they share the data."""
        return EncodedRecords(self.data, self.starts[rows], self.sizes[rows])

    def lz4_block(self) -> memoryview:
        """Return the whole batch as a block of LZ4; only where it is known how it repeats itself."""
        return self._packed(lz4.bytes_max, lz4.pack_records)

    def deflated(self) -> memoryview:
        """Return the whole batch as a DEFLATE stream; only where it is known how it repeats itself."""
        return self._packed(deflate.bytes_max, deflate.deflate_records)

    def _packed(self, bytes_max: Callable[[int], int], pack: Callable[..., int]) -> memoryview:
        assert self.batch is not None
        assert self.repeats is not None
        marks, repeats = self.repeats
        out = np.empty(bytes_max(self.batch.size), dtype=np.uint8)
        return out[: pack(self.data, self.batch.size, marks, len(self), repeats, out)].data


class Encoder:
    """Encodes what the worker sends, by one ruleset. Safe to use from several threads.

    source              of the events; with the id it identifies an event for ever. Name the input's partition in it
                        where one customer may occur in several
    structured          the whole event in the value instead of attributes in headers
    view                whose events they are, where there are several views or populations
    rejected_bytes_max  longest record of a rejected row; what is longer is cut, see `rejections`
    """

    def __init__(
        self,
        ruleset: Ruleset,
        *,
        source: str,
        structured: bool = False,
        view: str | None = None,
        rejected_bytes_max: int = REJECTED_BYTES_MAX,
    ) -> None:
        if not _REFERENCE.fullmatch(source):
            raise ConfigError(
                f"{source!r} is no URI reference", key="ce_source", fix="write it as in /rfmstream/shop"
            )
        self._tells_signals = ruleset.asks_signals
        self._rejected_bytes_max = rejected_bytes_max
        self._seeds = new_seeds()
        self._view = view
        layouts = EventLayouts(ruleset, source=source, structured=structured, parted=view is not None)
        self._changes = TableEncoder(CHANGE_SCHEMA, layouts.change)
        self._newest = TableEncoder(CHANGE_SCHEMA, layouts.newest)
        self._signals = TableEncoder(SIGNAL_SCHEMA, layouts.signal)

    @property
    def tells_signals(self) -> bool:
        """Whether the ruleset asks for signals."""
        return self._tells_signals

    def changes(self, table: pa.Table) -> Iterator[Record]:
        """Yield the records of a table of changes as a consumer sees them."""
        for records, _ in self.parts(table):
            yield from records

    def parts(
        self, table: pa.Table, forgotten: Sequence[Forgotten] = ()
    ) -> Iterator[tuple[EncodedRecords, EncodedRecords]]:
        """Yield the records of a table of schemas.changes.CHANGE_SCHEMA, one a row and in order, a batch at a time.

        With them, those that go to the topic of the last ones. Where few of a part have been overtaken by a later
        change both are the same object; else it gets the last of each customer. So a step with a change of every
        customer needs no memory for all of their records. At the end that topic gets a tombstone for each customer
        that is forgotten and has not come back.
        """
        assert table.schema.equals(CHANGE_SCHEMA)
        # A step in which much time passes consists of many small tables.
        table = table.combine_chunks()
        latest = self._latest(table)
        gone = _gone(table, latest, forgotten)
        if self._view is not None:
            for records in self._changes.encode(table):
                yield records, _encoded([])
            for records in self._newest.encode(table.filter(pa.array(latest)).combine_chunks()):
                yield _encoded([]), records
            if gone:
                keys = [orjson.dumps([self._view, one.population, one.customer_id]) for one in gone]
                yield _encoded([]), _encoded([sized(key) + sized(None) + varint(0) for key in keys])
            return
        done = 0
        for records in self._changes.encode(table):
            last = latest[done : done + len(records)]
            few_overtaken = np.count_nonzero(last) >= (1 - OVERTAKEN_MAX) * len(records)
            # The current topic gets no change of an erased customer, which it would have to lose again.
            yield records, records if few_overtaken and not forgotten else records.take(last)
            done += len(records)
        if gone:
            yield (
                _encoded([]),
                _encoded([sized(one.customer_id.encode()) + sized(None) + varint(0) for one in gone]),
            )

    def signals(self, table: pa.Table) -> Iterator[EncodedRecords]:
        """Yield the records of a table of schemas.signals.SIGNAL_SCHEMA, one a row and in order, a batch at a time."""
        assert table.schema.equals(SIGNAL_SCHEMA)
        return self._signals.encode(table.combine_chunks())

    def rejections(self, rows: Sequence[Rejection], source: Source) -> EncodedRecords:
        """Return one record a rejected row: its record's key, its own bytes, and where it came from in the headers.

        rfm-reason, rfm-topic and rfm-partition; rfm-offset, of the record; rfm-row, the row's place in it;
        rfm-timestamp, the record's, µs since 1970 UTC; rfm-detail, what stands there, where the reason alone does not
        tell; rfm-views, who rejects it, where there are several views. Numbers are decimal. What exceeds the limit of a
        record is cut off at its end and rfm-value-bytes tells how long the value was; a key of more than a quarter of
        the limit is left out and rfm-key-bytes tells how long it was.
        """
        return _encoded([self._rejection(row, source) for row in rows])

    def _rejection(self, row: Rejection, source: Source) -> bytes:
        key, value = row.key, row.original
        headers = [
            ("rfm-reason", row.reason),
            ("rfm-topic", source.topic),
            ("rfm-partition", source.partition),
            ("rfm-offset", row.offset),
            ("rfm-row", row.row),
            ("rfm-timestamp", row.log_us),
        ]
        if row.views:
            headers.append(("rfm-views", ",".join(row.views)))
        if key is not None and len(key) > self._rejected_bytes_max // 4:
            headers.append(("rfm-key-bytes", len(key)))
            key = None
        if row.detail:
            headers.append(("rfm-detail", row.detail[:_DETAIL_MAX]))
        room = self._rejected_bytes_max - len(key or b"") - _HEADERS_ROOM
        if value is not None and len(value) > room:
            headers.append(("rfm-value-bytes", len(value)))
            value = value[:room]
        named = b"".join(sized(name.encode()) + sized(str(text).encode()) for name, text in headers)
        return sized(key) + sized(value) + varint(len(headers)) + named

    def _latest(self, table: pa.Table) -> NDArray[np.bool_]:
        ids = plain(table["customer_id"])
        populations = plain(table["population"])
        if populations.null_count < len(populations):
            # A number in place of the name, so that no name and id together look like others.
            numbers = populations.dictionary_encode().indices.cast(pa.string()).fill_null("")
            ids = pc.binary_join_element_wise(numbers, ids, ":")
        out = np.empty(len(ids), dtype=np.bool_)
        if out.size:
            scratch = np.zeros(1 << (2 * out.size).bit_length(), dtype=np.int32)
            mark_latest(*offsets_and_data(ids), self._seeds, scratch, out)
        return out


class TableEncoder:
    """Encodes tables of one schema.

    build  the layout for the words of its columns of words
    """

    def __init__(self, schema: pa.Schema, build: Callable[[Words], Layout]) -> None:
        types = [(place, field.name, field.type) for place, field in enumerate(schema)]
        words = [(place, name) for place, name, kind in types if pa.types.is_dictionary(kind)]
        names = [name for _, name in words]
        self._word_places = [place for place, _ in words]
        self._flag_places = [place for place, _, kind in types if pa.types.is_boolean(kind)]
        self._built = lru_cache(maxsize=64)(lambda *words: build(dict(zip(names, words, strict=True))))
        self._last: tuple[list[pa.Array], Layout] | None = None
        self._no_flags = Absent(pa.int8())

    def encode(self, table: pa.Table) -> Iterator[EncodedRecords]:
        """Yield its records, one a row and in order, a batch at a time."""
        for batch in table.to_batches():
            columns, rows = batch.columns, batch.num_rows
            layout = self._layout_of(columns)
            for place in self._flag_places:
                columns[place] = self._codes_of(columns[place])
            steps = layout.point(columns)
            starts, sizes = np.empty((2, rows), dtype=np.int64)
            bytes_max = min(
                rows * BEGINNING_BYTES_MAX + layout.bytes_max(steps, rows), BATCH_BYTES_MAX - HEADER_BYTES
            )
            row, room, end = 0, bytes_max, rows
            while row < rows:
                out = np.empty(room + LINE_BYTES, dtype=np.uint8)
                marks = np.empty(
                    (min(end - row, room // layout.row_bytes_min), steps.size, 2), dtype=np.int32
                )
                first = row
                row, used = write_records(
                    steps,
                    layout.pieces,
                    layout.words,
                    layout.row_bytes_max,
                    first,
                    end,
                    out,
                    starts,
                    sizes,
                    marks,
                )
                if row == first:
                    # A record longer than a batch, or with ids full of escapes: it is a batch of its own.
                    room, end = 2 * room, first + 1
                    continue
                room, end = bytes_max, rows
                part = slice(first, row)
                yield EncodedRecords(out, starts[part], sizes[part], out[:used], (marks, layout.repeats))

    def _layout_of(self, columns: Sequence[pa.Array]) -> Layout:
        """Return the layout for the dictionaries of columns, hardly ever others than those of the last batch."""
        dictionaries = [columns[place].dictionary for place in self._word_places]
        last = self._last  # once, as another thread may change it
        if last is not None and all(map(pa.Array.equals, dictionaries, last[0])):
            return last[1]
        layout = self._built(*(tuple(dictionary.to_pylist()) for dictionary in dictionaries))
        self._last = dictionaries, layout
        return layout

    def _codes_of(self, flags: pa.BooleanArray) -> pa.Array:
        """Return codes in place of flags, which are then written as words; most columns have none."""
        if flags.null_count == len(flags):
            return self._no_flags(len(flags))
        return flags.cast(pa.int8())


def _gone(table: pa.Table, latest: NDArray[np.bool_], forgotten: Sequence[Forgotten]) -> list[Forgotten]:
    """Return the forgotten customers that no later change of the table brings back.

    Out     latest  bool[n], which changes are their customers' last: those of the customers returned no more
    """
    if not forgotten:
        return []
    erased = {(one.population, one.customer_id): one for one in forgotten}
    is_one = pc.is_in(table["customer_id"], pa.array([one.customer_id for one in forgotten], pa.string()))
    rows = np.flatnonzero(latest & is_one.to_numpy())
    told = table.select(["population", "customer_id"]).take(pa.array(rows)).to_pylist()
    for row, each in zip(rows.tolist(), told, strict=True):
        key = each["population"], each["customer_id"]
        if key not in erased:
            continue
        if row >= erased[key].before:
            del erased[key]
        else:
            latest[row] = False
    return list(erased.values())


def _encoded(records: Sequence[bytes]) -> EncodedRecords:
    sizes = np.fromiter(map(len, records), dtype=np.int64, count=len(records))
    data = np.frombuffer(b"".join(records) + bytes(LINE_BYTES), dtype=np.uint8)
    return EncodedRecords(data, np.cumsum(sizes) - sizes, sizes)


def _decode(record: bytes) -> Record:
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = record[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)

    def field() -> bytes | None:
        nonlocal at
        size = number()
        if size < 0:
            return None
        at += size
        return record[at - size : at]

    key, value = field(), field()
    headers = [((field() or b"").decode(), field() or b"") for _ in range(number())]
    assert at == len(record)
    return Record(key, value, headers)
