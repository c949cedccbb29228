"""Tables that rfmstream itself wrote, read back: tier changes and snapshots, some columns of them.

A file may hold more columns than are asked for: later versions add some.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from rfmstream.engine.files.readers import read_arrow
from rfmstream.schemas.changes import CHANGE_SCHEMA
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.snapshots import SNAPSHOT_SCHEMA

CHANGES: Final = "tier changes"
SNAPSHOT: Final = "a snapshot"

_OPTIONAL: Final = pa.schema([("view", pa.string()), ("population", pa.string())])
_SCHEMAS: Final = {CHANGES: CHANGE_SCHEMA, SNAPSHOT: SNAPSHOT_SCHEMA}
_MADE_BY: Final = {CHANGES: "replay --changes", SNAPSHOT: "replay --snapshot or snapshot --out"}
_SUFFIXES: Final = (".parquet", ".arrow", ".csv", ".jsonl")


def read_table(path: Path, columns: Sequence[str], *, kind: str) -> pa.Table:
    """Read columns of a .parquet, .arrow, .csv or .jsonl file that rfmstream wrote.

    In      columns  `view` and `population` are left out where the file has none
            kind     CHANGES or SNAPSHOT
    Returns the columns in that order; words of a small set as dictionaries of strings, all chunks' the same
    Errors  InputError  no such file, not of that kind, or damaged
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"is not a file of {kind}", source=path, fix=f"its suffix is one of {' '.join(_SUFFIXES)}"
        )
    with _reading(path, kind):
        names = _names(path, suffix)
        missing = [name for name in _SCHEMAS[kind].names if name not in (*names, *_OPTIONAL.names)]
        if missing or (kind == CHANGES and "tier" in names):
            problem = f"is not a file of {kind}" + (f": it has no column {missing[0]}" if missing else "")
            raise InputError(problem, source=path, fix=f"name one of {_MADE_BY[kind]}")
        wanted = [name for name in columns if name in names]
        types = {name: _type_of(name, kind) for name in wanted}
        table = _READERS[suffix](path, wanted, types)
        schema = pa.schema([(name, types[name]) for name in wanted])
        table = table.select(wanted).cast(schema) if table.schema != schema else table
        table.validate(full=suffix == ".arrow")
    return table.unify_dictionaries()


def _type_of(name: str, kind: str) -> pa.DataType:
    """Return what a column is read as: dictionaries with indices of 32 bits, which every reader can make."""
    if name in _OPTIONAL.names:
        return pa.dictionary(pa.int32(), pa.string())
    form = _SCHEMAS[kind].field(name).type
    return pa.dictionary(pa.int32(), pa.string()) if pa.types.is_dictionary(form) else form


def _names(path: Path, suffix: str) -> Sequence[str]:
    names: Sequence[str]
    if suffix == ".parquet":
        names = pq.read_schema(path).names
    else:
        forms = {".arrow": ds.IpcFileFormat(), ".csv": ds.CsvFileFormat(), ".jsonl": ds.JsonFileFormat()}
        names = forms[suffix].inspect(str(path), LocalFileSystem()).names
    return names


def _read_parquet(path: Path, wanted: Sequence[str], types: Mapping[str, pa.DataType]) -> pa.Table:
    words = [name for name in wanted if pa.types.is_dictionary(types[name])]
    with pq.ParquetFile(path, read_dictionary=words) as file:
        return file.read(list(wanted))


def _read_arrow(path: Path, wanted: Sequence[str], types: Mapping[str, pa.DataType]) -> pa.Table:
    # Arrow itself follows the offsets of a damaged file wherever they lead; `read_arrow` looks first.
    schema = pa.schema([(name, _plain(types[name])) for name in wanted])
    batches = [batch.select(list(wanted)).cast(schema) for _, batch, _ in read_arrow(path, list(wanted))]
    return pa.Table.from_batches(batches, schema=schema)


def _read_text(path: Path, wanted: Sequence[str], types: Mapping[str, pa.DataType]) -> pa.Table:
    plain = pa.schema([(name, _plain(types[name])) for name in wanted])
    if path.suffix.lower() == ".csv":
        # The types are given: a guess would turn an id such as 00042 into a number.
        options = pyarrow.csv.ConvertOptions(
            column_types=plain, strings_can_be_null=True, quoted_strings_can_be_null=False
        )
        form: ds.FileFormat = ds.CsvFileFormat(convert_options=options)
    else:
        form = ds.JsonFileFormat()
    return ds.dataset(path, schema=plain, format=form).to_table()


def _plain(form: pa.DataType) -> pa.DataType:
    return form.value_type if pa.types.is_dictionary(form) else form


_READERS: Final = {
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".csv": _read_text,
    ".jsonl": _read_text,
}


@contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, ValueError, OverflowError) as error:
        words = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(
            f"cannot be read as {kind}: {words}", source=path, fix=f"name a file of {_MADE_BY[kind]}"
        ) from error
