"""Records that are Arrow IPC streams, judged many at a time by the ordinary path."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pyarrow as pa

from engine.ingest.normalise import CONTRACT_COLUMNS, normalise
from engine.ingest.readers import STREAM_END, check_buffers
from engine.ingest.text import plain, shown_text
from engine.live.payload import ROWS_MAX
from schemas.errors import InputError

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
    """

    records: list[int]
    sizes: list[int]
    orders: pa.RecordBatch
    refused: list[RefusedRow]


def read_stream(value: bytes) -> pa.Table | None:
    """Return the contract's columns of an Arrow stream; None where it is damaged, cut off or holds too many rows.

    Damage that would lead a kernel outside a buffer is found here; whether texts are UTF-8 is judged row by row.
    """
    try:
        source = pa.BufferReader(value)
        with pa.ipc.open_stream(source) as reader:
            schema = reader.schema
            wanted = [at for at, name in enumerate(schema.names) if name in CONTRACT_COLUMNS]
            batches, count = [], 0
            for batch in reader:
                batch.validate()
                count += batch.num_rows
                if count > ROWS_MAX:
                    return None
                batches.append(batch.select(wanted))
        if source.tell() != len(value) or not value.endswith(STREAM_END):
            return None
        for batch in batches:
            check_buffers(batch)
        return pa.Table.from_batches(batches, pa.schema([schema.field(at) for at in wanted]))
    except _UNREADABLE:
        return None


def judge(tables: dict[int, pa.Table], currency: str) -> list[Judged]:
    """Judge the rows of records, given by ordinal; one that has not the contract's columns is in none of the results.

    Records of one schema are judged together, which costs hardly more than one does.
    """
    groups: dict[Any, list[int]] = {}
    before, group = None, []
    for record, table in tables.items():
        schema = table.schema
        # Names and types as objects take longer than all else here, and schemas hardly ever change.
        if before is None or not schema.equals(before):
            before = schema
            group = groups.setdefault(tuple(zip(schema.names, schema.types, strict=True)), [])
        group.append(record)
    return [done for records in groups.values() for done in _judge(records, tables, currency)]


def _judge(records: list[int], tables: dict[int, pa.Table], currency: str) -> list[Judged]:
    try:
        return [_judged(records, [tables[record] for record in records], currency)]
    except _UNREADABLE:
        # One of them may be to blame alone, such as for a dictionary that grows beyond what a column can hold.
        return [] if len(records) == 1 else [one for r in records for one in _judge([r], tables, currency)]


def _judged(records: list[int], tables: Sequence[pa.Table], currency: str) -> Judged:
    # Of one schema by names and types; what else fields say, such as never to be null, may differ.
    names = tables[0].schema.names
    schema = pa.schema(list(zip(names, tables[0].schema.types, strict=True)))
    batches = [batch for part in tables for batch in part.to_batches()]
    same = [
        batch if batch.schema.equals(schema) else pa.RecordBatch.from_arrays(batch.columns, schema=schema)
        for batch in batches
    ]
    table = pa.Table.from_batches(same, schema)
    orders, rejected = normalise(table, currency=currency)
    places = rejected.column("row")
    reasons = rejected.column("reason").to_pylist()
    refused = []
    if places:
        rows = table.take(places)
        texts = {name: shown_text(plain(rows.column(name))).to_pylist() for name in names}
        for at, (place, reason) in enumerate(zip(places.to_pylist(), reasons, strict=True)):
            shown = {name: text[at] for name, text in texts.items() if text[at] is not None}
            refused.append(RefusedRow(place, reason, json.dumps(shown, ensure_ascii=False).encode()))
    return Judged(records, [part.num_rows for part in tables], orders, refused)
