"""Readers: a file in, batches of its wanted columns out, in order and in bounded memory."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rfmstream.engine.events.arrow_buffers import STREAM_END, check_buffers, check_types
from rfmstream.engine.files.asked import check_arrow
from rfmstream.engine.files.chunks import Chunk
from rfmstream.engine.files.input_files import HEAD_BYTES, InputFile, byte_stream, naming, reading, unpacked
from rfmstream.engine.files.parquet import bounded, open_parquet
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import EACH

if TYPE_CHECKING:
    from rfmstream.engine.events.json_scan import OrderScanner

__all__ = ["Chunk", "read_arrow", "read_chunks"]

CHUNK_ROWS: Final = 1 << 17


def read_chunks(
    file: InputFile,
    wanted: Sequence[str],
    *,
    first_row: int,
    tick: Callable[[int], None],
    scanner: "OrderScanner | None" = None,
) -> Iterator[Chunk]:
    """Yield the wanted columns of a file (those it has), with the ordinals of its rows from `first_row` on.

    The first chunk may have no rows: so a file without any is found out, too, if it has the wrong columns.

    In      wanted  column names; a dotted path reaches into JSON objects and struct columns
            scanner  reads the JSON lines that are plain, good orders: they come as such, not as columns
            tick    called with the bytes of the file consumed so far
    Errors  InputError  the file is damaged or cannot be read
    """
    # A run has files of one format or two: the readers of the others need not be loaded.
    with reading(file.name), naming(file.name):
        if file.format == "csv":
            from rfmstream.engine.files.delimited import read_delimited

            yield from read_delimited(file, wanted, first_row=first_row, tick=tick)
        elif file.format == "jsonl":
            from rfmstream.engine.files.jsonlines import read_json_lines

            yield from read_json_lines(file, wanted, first_row=first_row, tick=tick, scanner=scanner)
        elif file.format == "html":
            from rfmstream.engine.files.html_tables import read_html

            with byte_stream(file) as stream:
                head = stream.read(HEAD_BYTES)
            yield from read_html(file, wanted, first_row=first_row, tick=tick, head=head)
        elif file.format == "xml":
            from rfmstream.engine.files.xml_tables import read_xml

            yield from read_xml(file, wanted, first_row=first_row, tick=tick)
        elif file.format == "xlsx":
            from rfmstream.engine.files.workbooks import read_workbook

            with unpacked(file) as path:
                yield from read_workbook(file, path, wanted, first_row=first_row, tick=tick)
        else:
            with unpacked(file) as path:
                batches = _parquet if file.format == "parquet" else read_arrow
                for names, batch, share in batches(path, wanted):
                    rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
                    first_row += batch.num_rows
                    tick(int(file.size * share))
                    yield Chunk(file.name, names, batch, rows)
    tick(file.size)


_BATCH_ROWS_MAX: Final = 2**31 - 1
"""What Arrow's format advises at most. Nulls and runs stand for any number of rows in no bytes at all."""

_Read = Iterator[tuple[tuple[str, ...], pa.RecordBatch, float]]


def _heads(wanted: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the top-level columns that hold the wanted ones."""
    there = set(names)
    heads = (name if name in there else name.split(".")[0].partition(EACH)[0] for name in wanted)
    return list(dict.fromkeys(head for head in heads if head in there))


def _places(wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return where those columns are; several of one name are refused further on."""
    heads = _heads(wanted, names)
    return [place for place, name in enumerate(names) if name in heads]


def _no_rows(schema: pa.Schema, wanted: Sequence[str]) -> pa.RecordBatch:
    fields = [schema.field(place) for place in _places(wanted, schema.names)]
    check_types(fields)
    for field in fields:
        getattr(field.type, "tz", None)  # a zone whose name is no UTF-8 raises here, where a file is refused
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in fields], schema=pa.schema(fields))


def _parquet(path: Path, wanted: Sequence[str]) -> _Read:
    heads = _heads(wanted, pq.read_schema(path).names)
    file, rows = open_parquet(path, heads, CHUNK_ROWS)
    with file:
        names = tuple(file.schema_arrow.names)
        row_count, done = file.metadata.num_rows, 0
        yield names, _no_rows(file.schema_arrow, wanted), 0.0
        for whole in file.iter_batches(rows, columns=heads):
            for batch in bounded(whole):
                done += batch.num_rows
                yield names, batch, done / row_count


def read_arrow(path: Path, wanted: Sequence[str]) -> _Read:
    """Yield the names of all columns, a batch of the wanted ones, checked, and which share of the file is read."""
    # Not mapped into memory: a file that another process cuts meanwhile would end this one by a signal.
    with pa.OSFile(str(path)) as source:
        is_file = source.read(6) == b"ARROW1"
        check_arrow(source, path, is_file=is_file)
        source.seek(0)
        if is_file:
            yield from _arrow_file(source, wanted)
        else:
            yield from _arrow_stream(source, wanted)


def _arrow_file(source: pa.NativeFile, wanted: Sequence[str]) -> _Read:
    schema = pa.ipc.open_file(source).schema
    names = tuple(schema.names)
    yield names, _no_rows(schema, wanted), 0.0
    reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=_places(wanted, names)))
    for at in range(reader.num_record_batches):
        for batch in _sliced(reader.get_batch(at)):
            yield names, batch, (at + 1) / reader.num_record_batches


def _arrow_stream(source: pa.NativeFile, wanted: Sequence[str]) -> _Read:
    size = source.size()
    with pa.ipc.open_stream(source) as reader:
        names = tuple(reader.schema.names)
        places = _places(wanted, names)
        yield names, _no_rows(reader.schema, wanted), 0.0
        for whole in reader:
            for batch in _sliced(whole.select(places)):
                yield names, batch, source.tell() / size
    source.seek(size - len(STREAM_END))
    if source.read() != STREAM_END:
        raise InputError("is an Arrow stream without its end: rows may be missing", fix="write it anew")


def _sliced(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a batch into ones of at most CHUNK_ROWS, without a copy; refuse one whose buffers are damaged."""
    batch.validate()
    check_buffers(batch)
    if batch.num_rows > _BATCH_ROWS_MAX:
        raise InputError(
            f"is damaged: a batch says it has {batch.num_rows:,} rows",
            fix="write it anew, in smaller batches",
        )
    if not batch.num_columns:
        # Of rows that have none of the columns there is nothing to tell, however many a few bytes say there are.
        yield batch.slice(0, 0)
        return
    for start in range(0, max(batch.num_rows, 1), CHUNK_ROWS):
        yield batch.slice(start, CHUNK_ROWS)
