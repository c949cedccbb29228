"""Tables that rfmstream itself wrote, read back: tier changes, signals and snapshots, some columns of them.

A file may hold more columns than are asked for: later versions add some.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rfmstream.engine.core.processors import usable_cores
from rfmstream.schemas.changes import CHANGE_SCHEMA
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.snapshots import SNAPSHOT_SCHEMA

_T = TypeVar("_T")

CHANGES: Final = "tier changes"
SNAPSHOT: Final = "a snapshot"

_OPTIONAL: Final = pa.schema([("view", pa.string()), ("population", pa.string())])
_SCHEMAS: Final = {CHANGES: CHANGE_SCHEMA, SNAPSHOT: SNAPSHOT_SCHEMA}
_MADE_BY: Final = {CHANGES: "replay --changes", SNAPSHOT: "replay --snapshot or snapshot --out"}


def read_table(path: Path, columns: Sequence[str], *, kind: str) -> pa.Table:
    """Read columns of a .parquet, .arrow, .csv or .jsonl file of one kind.

    In      columns  `view` and `population` are left out where the file has none
            kind     CHANGES or SNAPSHOT
    Returns the columns in that order; words of a small set as dictionaries of strings, all chunks' the same
    Errors  InputError  no such file, not of that kind, or damaged
    """
    path = Path(path)
    with reading(path, kind, _fix(kind)):
        table = _read(path, _schema_of(path, columns, kind))
        table.validate(full=path.suffix.lower() == ".arrow")
    return table.unify_dictionaries()


def read_pieces(path: Path, columns: Sequence[str], then: Callable[[pa.Table], _T], *, kind: str) -> list[_T]:
    """Read a file as `read_table` does, piece by piece, several at the same time, and do something with each.

    In      then  what is done, in any thread; a piece's memory is free again after it
    Returns what it returned, in the order of the rows
    Errors  as of `read_table`
    """
    path = Path(path)
    count = 1
    if path.suffix.lower() == ".parquet":
        with reading(path, kind, _fix(kind)):
            schema = _schema_of(path, columns, kind)
            metadata = pq.read_metadata(path)
            count = metadata.num_row_groups
    if count == 1:
        return [then(read_table(path, columns, kind=kind))]

    def piece(number: int) -> _T:
        with reading(path, kind, _fix(kind)):
            table = _read_parquet(path, schema, metadata=metadata, row_group=number)
            table.validate()
        return then(table)

    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="read") as pool:
        return list(pool.map(piece, range(count)))


def read_fields(path: Path, fields: Sequence[pa.Field], *, what: str, fix: str | None = None) -> pa.Table:
    """Read some columns of a .parquet, .arrow, .csv or .jsonl file.

    In      fields  wanted columns, in the order of the answer; one that may be null may be absent: it is null then.
                    Words (dictionaries) come as plain strings
            what    what the file is to hold, such as "tier changes"; fix: where it comes from
    Errors  InputError  no such file, no such columns, a damaged file, or a null where none may be
    """
    with reading(path, what, fix):
        names = names_of(path, what)
        missing = [field.name for field in fields if not field.nullable and field.name not in names]
        if missing:
            raise InputError(f"is not a file of {what}: it has no {', '.join(missing)}", source=path, fix=fix)
        wanted = plain_schema(field.with_nullable(nullable=True) for field in fields)
        table = _read(path, pa.schema([field for field in wanted if field.name in names]))
        for at, field in enumerate(wanted):
            if field.name not in names:
                table = table.add_column(at, field.name, pa.nulls(table.num_rows, field.type))
    for field in fields:
        if not field.nullable and table[field.name].null_count:
            raise InputError(f"has no {field.name} in some rows", source=path, fix=fix)
    return table


def names_of(path: Path, what: str) -> list[str]:
    """Return the names of a file's columns.

    Errors  InputError  its suffix is of none that rfmstream writes
    """
    if path.suffix.lower() == ".parquet":
        return list(pq.read_schema(path).names)
    names: list[str] = _other_formats().names_in(path, what)
    return names


def plain_schema(fields: Iterable[pa.Field]) -> pa.Schema:
    """Return fields whose words of a small set are plain strings."""
    return pa.schema([field.with_type(_plain(field.type)) for field in fields])


@contextmanager
def reading(path: Path, what: str, fix: str | None) -> Iterator[None]:
    """Say of whatever goes wrong meanwhile that the file cannot be read.

    Errors  InputError  names the file and the fix
    """
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:
        words = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(f"cannot be read as {what}: {words}", source=path, fix=fix) from error


def _fix(kind: str) -> str:
    return f"name a file of {_MADE_BY[kind]}"


def _schema_of(path: Path, columns: Sequence[str], kind: str) -> pa.Schema:
    """Return how the columns are read that a file has.

    Errors  InputError  it is not of the kind
    """
    names = names_of(path, kind)
    missing = [name for name in _SCHEMAS[kind].names if name not in (*names, *_OPTIONAL.names)]
    if missing or (kind == CHANGES and "tier" in names):
        problem = f"is not a file of {kind}" + (f": it has no column {missing[0]}" if missing else "")
        raise InputError(problem, source=path, fix=f"name one of {_MADE_BY[kind]}")
    return pa.schema([(name, _type_of(name, kind)) for name in columns if name in names])


def _type_of(name: str, kind: str) -> pa.DataType:
    """Return what a column is read as: dictionaries with indices of 32 bits, which every reader can make."""
    if name in _OPTIONAL.names:
        return pa.dictionary(pa.int32(), pa.string())
    form = _SCHEMAS[kind].field(name).type
    return pa.dictionary(pa.int32(), pa.string()) if pa.types.is_dictionary(form) else form


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    """Read the columns of a schema, all of which the file has."""
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path, schema)
    table = _other_formats().read_rows(path, plain_schema(schema))
    return table.cast(schema) if table.schema != schema else table


def _other_formats() -> ModuleType:
    from rfmstream.engine.files import dataset_formats  # noqa: PLC0415 - see there

    return dataset_formats


def _read_parquet(
    path: Path, schema: pa.Schema, *, metadata: pq.FileMetaData | None = None, row_group: int | None = None
) -> pa.Table:
    """Read columns of a Parquet file, or of one of its row groups, which takes one thread."""
    words = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    with pq.ParquetFile(path, read_dictionary=words, metadata=metadata) as file:
        if row_group is None:
            table = file.read(schema.names)
        else:
            table = file.read_row_group(row_group, schema.names, use_threads=False)
    table = table.select(schema.names)
    return table.cast(schema) if table.schema != schema else table


def _plain(form: pa.DataType) -> pa.DataType:
    return form.value_type if pa.types.is_dictionary(form) else form
