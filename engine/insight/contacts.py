"""Contacts: a file of which campaign reached which customer when, as a mailing system exports it."""

import os
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.events.text import nulls, to_text
from rfmstream.engine.events.times import read_instants
from rfmstream.engine.files.chunks import Chunk
from rfmstream.engine.files.evaluate import find_column
from rfmstream.engine.files.input_files import find_files
from rfmstream.engine.files.readers import read_chunks
from rfmstream.kernels.parse import ABSENT, OK
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import InputFormat

_TEXTS: Final = ("customer_id", "campaign")
_TIMES: Final = ("contacted_at", "responded_at")
_INSTANT: Final = pa.timestamp("us", "UTC")
_SCHEMA: Final = pa.schema(
    [*((name, pa.string()) for name in _TEXTS), *((name, _INSTANT) for name in _TIMES)]
)
_FIX: Final = "give it the columns customer_id, campaign, contacted_at and, where it is known, responded_at"


def read_contacts(path: Path, *, time_zone: str = "UTC") -> pa.Table:
    """Read contacts from Parquet, Arrow, CSV or JSON lines, plain or compressed.

    In      time_zone  of times without one
    Returns columns customer_id, campaign, contacted_at, responded_at (null: no response, or none is known)
    Errors  InputError  no such file, a column is missing, or a row lacks its customer, campaign or time
    """
    if os.path.isdir(path):  # noqa: PTH112 - a name too long for the system is none
        raise InputError("is a directory", source=path, fix="name a file of contacts")
    (file,) = find_files([path], InputFormat())
    chunks = read_chunks(file, (*_TEXTS, *_TIMES), first_row=0, tick=lambda _: None)
    return pa.Table.from_batches([_batch(chunk, path, time_zone) for chunk in chunks], schema=_SCHEMA)


def _batch(chunk: Chunk, path: Path, time_zone: str) -> pa.RecordBatch:
    if len(chunk.damaged_rows):
        raise InputError(f"row {chunk.damaged_rows[0]} is damaged", source=path, fix="mend or remove it")
    columns = []
    for name in _TEXTS:
        text = to_text(_column(chunk, name, path), name)
        text.validate(full=True)
        _require(pc.greater(pc.binary_length(text), 0).fill_null(False), chunk, name, path)  # noqa: FBT003
        columns.append(text)
    for name in _TIMES:
        is_known = name in chunk.batch.schema.names or name == "contacted_at"
        array = _column(chunk, name, path) if is_known else nulls(chunk.batch.num_rows)
        found = read_instants(array, time_zone=time_zone, name=name)
        status = np.full(len(array), OK, np.uint8) if found.status is None else found.status
        allowed = (OK,) if name == "contacted_at" else (OK, ABSENT)
        _require(pa.array(np.isin(status, allowed)), chunk, name, path)
        columns.append(pa.array(found.us, mask=status != OK).cast(_INSTANT))
    return pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)


def _column(chunk: Chunk, name: str, path: Path) -> pa.Array:
    array = find_column(chunk.batch, name)
    if array is None:
        raise InputError(f"is not a file of contacts: it has no {name}", source=path, fix=_FIX)
    return array


def _require(is_good: pa.Array, chunk: Chunk, name: str, path: Path) -> None:
    at = pc.index(is_good, pa.scalar(False)).as_py()  # noqa: FBT003
    if at >= 0:
        raise InputError(
            f"row {chunk.rows[at]} has no {name} that can be read", source=path, fix="mend or remove the row"
        )
