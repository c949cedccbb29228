"""Which order a line belongs to that cannot be read: its order's sum would be wrong without it."""

import csv
from typing import Any

import numpy as np
import pyarrow as pa

from rfmstream.engine.events.json_rows import parse_object
from rfmstream.engine.files.chunks import Chunk
from rfmstream.engine.files.evaluate import SourceRows
from rfmstream.engine.files.input_files import InputFile
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import InputMap


def guessed_ids(chunk: Chunk, file: InputFile, input_map: InputMap) -> list[tuple[pa.Array, pa.Array]]:
    """Return customer and order ids of the damaged rows of a chunk, as far as their text tells; a pair a section.

    They only serve to find the order that the line belongs to; nothing is applied by them.
    """
    wanted = chunk.batch.schema.names
    records = guessed_cells(chunk, file)
    batch = pa.RecordBatch.from_arrays(
        [pa.array([record.get(name) for record in records], pa.string()) for name in wanted],
        names=list(wanted),
    )
    absent = input_map.input.absent or ()
    rows = SourceRows(batch, chunk.damaged_rows, chunk.source, chunk.names, absent=absent)
    found = []
    for event in input_map.events:
        try:
            found.append((rows.text(event.customer_id), rows.text(event.order_id)))
        except InputError:  # a column that is not there: no reason to refuse the file here
            continue
    return found


def guessed_cells(chunk: Chunk, file: InputFile) -> list[dict[str, str | None]]:
    """Return what the damaged rows of a chunk seem to hold in the columns of the file."""
    wanted = chunk.batch.schema.names
    return [_record(raw, file, chunk.names, wanted) for raw in chunk.damaged_raw]


def _record(raw: str, file: InputFile, names: tuple[str, ...], wanted: list[str]) -> dict[str, str | None]:
    if file.format == "jsonl":
        return _reached(parse_object(raw.encode(errors="replace")) or {}, wanted)
    cells = _cells(raw, file.delimiter, len(names))
    # A column that stands there twice is refused elsewhere.
    return dict(zip(names, cells, strict=False))


def _cells(raw: str, delimiter: str, count: int) -> list[str | None]:
    if delimiter == "whitespace":
        return list(raw.split())
    split: list[str] = []
    try:
        split = next(csv.reader([raw], delimiter=delimiter), [])
    except csv.Error:
        split = []
    if len(split) != count:
        # A stray quote has taken cells in: the quotes count as text, and what stands before the fault is right.
        split = [cell.strip().strip('"') for cell in raw.rstrip("\r\n").split(delimiter)]
    return [cell.strip() or None for cell in split]


def _reached(record: dict[str, Any], wanted: list[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in wanted:
        value: Any = record.get(name)
        if value is None:
            value = record
            for step in name.split("."):
                value = value.get(step) if isinstance(value, dict) else None
        found[name] = None if value is None or isinstance(value, dict | list) else _text(value)
    return found


def _text(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.encode(errors="replace").decode()


def neighbours(rows: np.ndarray[Any, Any], order: np.ndarray[Any, Any], damaged: int) -> int | None:
    """Return the order whose lines stand both before and behind a damaged row; None if there is none.

    In      rows   i64[n] ordinals of the lines that were read, ascending
            order  i64[n] the order of each
    """
    at = int(np.searchsorted(rows, damaged))
    if 0 < at < len(rows) and order[at - 1] == order[at]:
        return int(order[at])
    return None
