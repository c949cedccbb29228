"""Records that are Arrow IPC streams: read one by one, judged many at a time by the ordinary path."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from rfmstream.engine.events.arrow_buffers import STREAM_END, check_buffers, check_types
from rfmstream.engine.events.attributes import attribute_text
from rfmstream.engine.events.normalise import CONTRACT_COLUMNS, normalise
from rfmstream.engine.events.text import plain, shown_text
from rfmstream.engine.live.arrow_sizes import is_wrapped, unwrapped_bytes
from rfmstream.engine.live.payload import ROWS_MAX
from rfmstream.kernels.arrow_streams import DAMAGED, unpacked_bytes
from rfmstream.schemas.errors import InputError

HELD_BYTES_MAX: Final = 1 << 27
"""What the streams that are decoded together may take once they are unpacked. One that takes more is refused: no honest
one of 16 MiB does, and one of some kilobytes can take all the memory there is."""

_ROW_BYTES: Final = 64
"""What a canonical order takes besides its texts, however it came."""

_UNREADABLE: Final = (pa.ArrowException, InputError, OSError, ValueError, TypeError, MemoryError)


class RefusedRow(NamedTuple):
    """A refused row: its place in what was judged, the reason, and its columns as JSON."""

    place: int
    reason: str
    text: bytes


@dataclass(frozen=True)
class Judged:
    """Records of one schema.

    Fields  records  ordinals of the records
            sizes    how many rows each holds
            orders   of CANONICAL_SCHEMA; `row` counts the rows of these records from 0
            refused  the others
            attributes  of all rows, by name
    """

    records: list[int]
    sizes: list[int]
    orders: pa.RecordBatch
    refused: list[RefusedRow]
    attributes: list[pa.Array] = field(default_factory=list)


class Full(Exception):  # noqa: N818 - says where to stop, and is no error
    """The streams read so far leave no room for another one: `record`."""

    def __init__(self, record: int) -> None:
        super().__init__(record)
        self.record = record


class Streams:
    """Records that are Arrow streams, to be judged together.

    In      attributes  columns that views look at
    """

    def __init__(self, attributes: Sequence[str] = ()) -> None:
        self._attributes = tuple(attributes)
        self._groups: dict[tuple[pa.Field, ...], _Group] = {}
        self._group = _Group(pa.schema([]))
        self._held = 0

    def add(self, record: int, value: bytes) -> bool:
        """Read a record; False: it is damaged, cut off, or holds too much. Whether texts are UTF-8 is judged later.

        Errors  Full  it holds too much beside the others, though not by itself
        """
        try:
            unpacked = int(unpacked_bytes(np.frombuffer(value, np.uint8)))
            if unpacked == DAMAGED:
                return False
            self._make_room(record, unpacked)
            table = read_stream(value)
            group = self._group_of(table.schema)
            held = unpacked + _ROW_BYTES * table.num_rows + group.unwrapped_bytes(table)
            self._make_room(record, held)
        except _UNREADABLE:
            return False
        self._held += held
        group.tables[record] = table
        return True

    def judge(self, currency: str, time_zone: str) -> list[Judged]:
        """Judge the rows of all records, those of one schema together, which costs hardly more than one does.

        In none of the results is a record that lacks a column of the contract, or has one of another kind or one that
        would lead a kernel outside its buffers.
        """
        return [done for group in self._groups.values() for done in group.judge(currency, time_zone)]

    def _make_room(self, record: int, size: int) -> None:
        if size > HELD_BYTES_MAX:
            raise InputError(f"takes more than {HELD_BYTES_MAX:,} bytes")
        if self._held and self._held + size > HELD_BYTES_MAX:
            raise Full(record)

    def _group_of(self, schema: pa.Schema) -> "_Group":
        # Building field objects is the slowest part of this, and schemas hardly ever change.
        if not schema.equals(self._group.schema):
            self._group = self._groups.setdefault(tuple(schema), _Group(schema, self._attributes))
        return self._group


@dataclass
class _Group:
    """Records of one schema.

    Fields  tables  of each record, by its ordinal
    """

    schema: pa.Schema
    attributes: tuple[str, ...] = ()
    tables: dict[int, pa.Table] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names, types = self.schema.names, self.schema.types
        known = {*CONTRACT_COLUMNS, *self.attributes}
        self._wanted = [at for at, name in enumerate(names) if name in known]
        check_types(self.schema.field(at) for at in self._wanted)
        self._wrapped = [at for at in self._wanted if is_wrapped(types[at])]

    def unwrapped_bytes(self, table: pa.Table) -> int:
        return sum(unwrapped_bytes(chunk) for at in self._wrapped for chunk in table.column(at).chunks)

    def judge(self, currency: str, time_zone: str) -> list[Judged]:
        records = list(self.tables)
        try:
            self._whole(records).validate(full=True)
        except pa.ArrowException:
            # A record is damaged, or a row holds text that is not UTF-8, for which only that row is rejected.
            records = [record for record in records if self._is_sound(record)]
        return self._judge(records, currency, time_zone)

    def _judge(self, records: list[int], currency: str, time_zone: str) -> list[Judged]:
        if not records:
            return []
        try:
            sizes = [self.tables[record].num_rows for record in records]
            table = self._whole(records).select(self._wanted)
            return [_judged(records, sizes, table, currency, time_zone, self.attributes)]
        except _UNREADABLE:
            # One record alone may be at fault, for example with a dictionary larger than a column can hold.
            return (
                []
                if len(records) == 1
                else [one for r in records for one in self._judge([r], currency, time_zone)]
            )

    def _whole(self, records: Sequence[int]) -> pa.Table:
        return pa.concat_tables([self.tables[record] for record in records])

    def _is_sound(self, record: int) -> bool:
        try:
            for batch in self.tables[record].to_batches():
                batch.validate()
                check_buffers(batch.select(self._wanted))
        except _UNREADABLE:
            return False
        return True


def read_stream(value: bytes) -> pa.Table:
    """Return an Arrow stream, whose offsets may still lead anywhere.

    Errors  InputError, pa.ArrowException, OSError and others that pyarrow knows: it is damaged, cut off or too long
    """
    source = pa.BufferReader(value)
    with pa.ipc.open_stream(source) as reader:
        table = reader.read_all()
    if source.tell() != len(value) or not value.endswith(STREAM_END):
        raise InputError("is cut off, or goes on behind its end")
    if table.num_rows > ROWS_MAX:
        raise InputError(f"holds more than {ROWS_MAX:,} rows")
    return table


def _judged(  # noqa: PLR0913, PLR0917 - a record's
    records: list[int],
    sizes: list[int],
    table: pa.Table,
    currency: str,
    time_zone: str,
    attributes: Sequence[str] = (),
) -> Judged:
    orders, rejected = normalise(table, currency=currency, time_zone=time_zone)
    places = rejected.column("row")
    reasons = rejected.column("reason").to_pylist()
    refused = []
    if places:
        texts = row_texts(table.take(places), attributes)
        refused = [RefusedRow(*row) for row in zip(places.to_pylist(), reasons, texts, strict=True)]
    return Judged(records, sizes, orders, refused, [_texts(table, name) for name in attributes])


def _texts(table: pa.Table, name: str) -> pa.Array:
    """Return an attribute as text; of a column that is not there, or is there twice, nothing."""
    at = table.schema.get_all_field_indices(name)
    if len(at) != 1:
        return pa.nulls(table.num_rows, pa.string())
    return attribute_text(plain(table.column(at[0])))


def row_texts(table: pa.Table, attributes: Sequence[str] = ()) -> list[bytes]:
    """Return each row's columns of the contract, and attributes, as a JSON object, without those that are null."""
    names = [name for name in table.column_names if name in CONTRACT_COLUMNS or name in attributes]
    columns = [shown_text(plain(table.column(name))).to_pylist() for name in names]
    return [
        json.dumps(
            {name: text for name, text in zip(names, row, strict=True) if text is not None},
            ensure_ascii=False,
        ).encode()
        for row in zip(*columns, strict=True)
    ]
