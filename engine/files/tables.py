"""Tables that rfmstream has written, read again: tier changes, signals and snapshots of any format it writes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from rfmstream.engine.files.readers import read_arrow
from rfmstream.schemas.errors import InputError

_SUFFIXES: Final = (".parquet", ".arrow", ".csv", ".jsonl")


def read_table(path: Path, fields: Sequence[pa.Field], *, what: str, fix: str | None = None) -> pa.Table:
    """Read some columns of a .parquet, .arrow, .csv or .jsonl file.

    In      fields  wanted columns, in the order of the answer; one that may be null may be absent: it is null then.
                    Words (dictionaries) come as plain strings
            what    what the file is to hold, such as "tier changes"; fix: where it comes from
    Errors  InputError  no such file, no such columns, a damaged file, or a null where none may be
    """
    plain = pa.schema([_plain(field) for field in fields])
    with _reading(path, what, fix):
        table = _read(path, plain, what, fix)
    for field in fields:
        if not field.nullable and table[field.name].null_count:
            raise InputError(f"has no {field.name} in some rows", source=path, fix=fix)
    return table


def _read(path: Path, plain: pa.Schema, what: str, fix: str | None) -> pa.Table:
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"is not a file of {what}", source=path, fix=f"its suffix is one of {' '.join(_SUFFIXES)}"
        )
    # The types are given: a guess would turn an id such as 00042 into a number.
    convert = pyarrow.csv.ConvertOptions(
        column_types=plain, strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    form = {
        ".parquet": ds.ParquetFileFormat(),
        ".arrow": ds.IpcFileFormat(),
        ".csv": ds.CsvFileFormat(convert_options=convert),
        ".jsonl": ds.JsonFileFormat(),
    }[suffix]
    names = set(form.inspect(str(path), LocalFileSystem()).names)
    missing = [field.name for field in plain if not field.nullable and field.name not in names]
    if missing:
        raise InputError(f"is not a file of {what}: it has no {', '.join(missing)}", source=path, fix=fix)
    there = pa.schema([field.with_nullable(nullable=True) for field in plain if field.name in names])
    if suffix == ".arrow":
        # Arrow itself follows the offsets of a damaged file wherever they lead.
        batches = [batch.cast(there) for _, batch, _ in read_arrow(path, there.names)]
        table = pa.Table.from_batches(batches, schema=there)
    else:
        table = ds.dataset(path, schema=there, format=form).to_table()
    for at, field in enumerate(plain):
        if field.name not in names:
            table = table.add_column(at, field.name, pa.nulls(table.num_rows, field.type))
    return table.select(plain.names)


def _plain(field: pa.Field) -> pa.Field:
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


@contextmanager
def _reading(path: Path, what: str, fix: str | None) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:
        words = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(f"cannot be read as {what}: {words}", source=path, fix=fix) from error
