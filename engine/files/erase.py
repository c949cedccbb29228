"""Files without some customers: an output that was written earlier is written anew, whole or not at all.

A file that holds none of them stays as it is, byte for byte. Of CSV and JSON lines every other line keeps its bytes.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rfmstream.engine.core.checkpoint.created import create
from rfmstream.engine.files.input_files import find_files, reading
from rfmstream.engine.files.output import OutputFile, part_of, target_of
from rfmstream.engine.files.readers import read_arrow, read_chunks
from rfmstream.schemas.errors import ConfigError, InputError, TransportError
from rfmstream.schemas.mapping import InputFormat

SUFFIXES: Final = (".parquet", ".arrow", ".csv", ".jsonl")
_ID: Final = "customer_id"


def read_ids(path: Path) -> pa.Array:
    """Read customer ids: a .txt file has one a line; any other one a column customer_id, as orders have.

    Returns string[k], distinct
    Errors  InputError  no such file, no such column, no id in it, or a damaged row
    """
    if path.suffix.lower() == ".txt":
        with reading(path):
            try:
                lines = path.read_text(encoding="utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise InputError("is not UTF-8 text", source=path, fix="save it as UTF-8") from error
        ids = pa.array([line.strip() for line in lines if line.strip()], pa.string())
    else:
        ids = _column_of_ids(path)
    if not len(ids):
        raise InputError("holds no customer id", source=path, fix="write one a line, or a column customer_id")
    return ids.unique()


def files_below(paths: tuple[Path, ...]) -> list[Path]:
    """Return the files to look through: those that are named, and all below directories but those of checkpoints.

    Errors  ConfigError  a file of another format;  InputError: there is none of the name
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(inner for inner in path.rglob("*") if _is_output(inner))
        elif not os.path.exists(path):  # noqa: PTH110 - a name too long for the system is none
            raise InputError("there is no such file or directory", source=path)
        elif path.suffix.lower() not in SUFFIXES:
            raise ConfigError("cannot be written anew", file=path, fix=f"name files of {' '.join(SUFFIXES)}")
        else:
            found.append(path)
    return found


def erase_customers(path: Path, ids: pa.Array) -> int:
    """Write a file anew without the rows of some customers, and return how many there were.

    In      ids  string[k]
    Errors  InputError      no column customer_id, or a damaged file; it stays as it was
            TransportError  the disk is full or failed; it stays as it was
    """
    with reading(path):
        return _ERASERS[path.suffix.lower()](path, ids)


def _is_output(path: Path) -> bool:
    # A checkpoint's files belong together: they are erased by what knows them.
    is_of_checkpoint = (path.parent / "manifest.json").is_file()
    return path.suffix.lower() in SUFFIXES and path.is_file() and not is_of_checkpoint


def _column_of_ids(path: Path) -> pa.Array:
    (file, *_) = find_files([path], InputFormat())
    parts = []
    for chunk in read_chunks(file, (_ID,), first_row=0, tick=lambda _: None):
        if len(chunk.damaged_rows):
            raise InputError(f"row {chunk.damaged_rows[0]} is damaged", source=path, fix="mend or remove it")
        if _ID not in chunk.batch.schema.names:
            raise InputError(
                f"has no column {_ID}", source=path, fix="name one so, or write a .txt of one a line"
            )
        parts.append(chunk.batch[_ID].cast(pa.string()))
    return pa.chunked_array(parts, pa.string()).drop_null().combine_chunks()


def _erase_parquet(path: Path, ids: pa.Array) -> int:
    with pq.ParquetFile(path) as file:
        _require_column(file.schema_arrow.names, path)
        groups = range(file.num_row_groups)
        count = sum(_count(file.read_row_group(at, columns=[_ID])[_ID], ids) for at in groups)
        if count:
            _rewrite(path, file.schema_arrow, (file.read_row_group(at) for at in groups), ids)
    return count


def _erase_arrow(path: Path, ids: pa.Array) -> int:
    with pa.OSFile(str(path)) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        schema = pa.ipc.open_file(source).schema if is_file else pa.ipc.open_stream(source).schema
    _require_column(schema.names, path)

    def tables() -> Iterator[pa.Table]:
        for _, batch, _ in read_arrow(path, schema.names):
            yield pa.Table.from_batches([batch])

    count = sum(_count(table[_ID], ids) for table in tables())
    if count:
        _rewrite(path, schema, tables(), ids)
    return count


def _rewrite(path: Path, schema: pa.Schema, tables: Iterator[pa.Table], ids: pa.Array) -> None:
    with OutputFile(path, schema) as out:
        for table in tables:
            kept = table.filter(pc.invert(_is_of(table[_ID], ids)))
            for at, field in enumerate(schema):
                if pa.types.is_dictionary(field.type):
                    # A dictionary keeps the words of rows that went.
                    words = pa.chunked_array(
                        [chunk.dictionary_decode() for chunk in kept.column(at).chunks], field.type.value_type
                    )
                    kept = kept.set_column(at, field, words.dictionary_encode().cast(field.type))
            for batch in kept.unify_dictionaries().combine_chunks().to_batches():
                out.write(batch)
        out.publish()


def _erase_csv(path: Path, ids: pa.Array) -> int:
    """Drop the lines of the rows; a cell in quotes may hold line feeds."""
    wanted = {text.encode() for text in ids.to_pylist()}
    place: int | None = None

    def is_kept(record: bytes) -> bool:
        nonlocal place
        cells = _cells(record)
        if place is None:
            names = [cell.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace") for cell in cells]
            _require_column(names, path)
            place = names.index(_ID)
            return True
        return place >= len(cells) or cells[place].strip() not in wanted

    return _erase_lines(path, _csv_records, is_kept)


def _erase_jsonl(path: Path, ids: pa.Array) -> int:
    wanted = set(ids.to_pylist())

    def is_kept(record: bytes) -> bool:
        if not record.strip():
            return True
        try:
            row = orjson.loads(record)
        except orjson.JSONDecodeError as error:
            raise InputError(f"holds a line that is no JSON: {error}", source=path) from error
        if not isinstance(row, dict) or _ID not in row:
            raise InputError(f"holds a line without {_ID}", source=path, fix="name a file of rfmstream")
        value = row[_ID]
        return value is None or str(value) not in wanted

    return _erase_lines(path, iter, is_kept)


def _erase_lines(
    path: Path, records_of: Callable[[IO[bytes]], Iterator[bytes]], is_kept: Callable[[bytes], bool]
) -> int:
    target = target_of(path)
    part = part_of(target)
    count = 0
    try:
        create(part, like=target)
        with path.open("rb") as source, part.open("wb") as out:
            for record in records_of(source):
                if is_kept(record):
                    out.write(record)
                else:
                    count += 1
            out.flush()
            os.fsync(out.fileno())
        if count:
            part.replace(target)
    except OSError as error:
        raise TransportError(
            f"writing broke off: {error.strerror or error}",
            endpoint=str(path),
            fix="make room; it stays as it was",
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return count


def _csv_records(source: IO[bytes]) -> Iterator[bytes]:
    """Yield the records of a CSV file with their line ends: one whose quotes are not closed goes on."""
    pending, quotes = [], 0
    for line in source:
        pending.append(line)
        quotes += line.count(b'"')
        if quotes % 2 == 0:
            yield b"".join(pending)
            pending, quotes = [], 0
    if pending:
        yield b"".join(pending)


def _cells(record: bytes) -> list[bytes]:
    """Split a CSV record at its commas outside of quotes, and unquote the cells."""
    if b'"' not in record:
        return record.rstrip(b"\r\n").split(b",")
    cells: list[bytes] = []
    open_cell: list[bytes] = []
    for piece in record.rstrip(b"\r\n").split(b","):
        open_cell.append(piece)
        whole = b",".join(open_cell)
        if whole.count(b'"') % 2 == 0:
            text = whole.strip()
            is_quoted = text[:1] == b'"' and text[-1:] == b'"' and len(text) > 1
            cells.append(text[1:-1].replace(b'""', b'"') if is_quoted else whole)
            open_cell = []
    return cells


def _require_column(names: list[str], path: Path) -> None:
    if _ID not in names:
        raise InputError(f"has no column {_ID}", source=path, fix="name a file of rfmstream's, or of orders")


def _is_of(column: pa.ChunkedArray, ids: pa.Array) -> Any:  # noqa: ANN401 - Arrow's, of either kind
    return pc.is_in(column.cast(pa.string()), value_set=ids)


def _count(column: pa.ChunkedArray, ids: pa.Array) -> int:
    return int(pc.sum(_is_of(column, ids)).as_py() or 0)


_ERASERS: Final[dict[str, Callable[[Path, pa.Array], int]]] = {
    ".parquet": _erase_parquet,
    ".arrow": _erase_arrow,
    ".csv": _erase_csv,
    ".jsonl": _erase_jsonl,
}
