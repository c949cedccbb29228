"""The formats besides Parquet in which rfmstream writes its tables.

Imported where such a file is read: with pyarrow.dataset come half a second of imports, pandas among them.
"""

from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from rfmstream.engine.files.readers import read_arrow
from rfmstream.schemas.errors import InputError

_SUFFIXES: Final = (".parquet", ".arrow", ".csv", ".jsonl")


def format_of(path: Path, what: str, plain: pa.Schema | None = None) -> ds.FileFormat:
    """Return the format that a file's suffix names.

    In      plain  the types of its columns: a guess would turn an id such as 00042 into a number
    Errors  InputError  its suffix is of none that rfmstream writes
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"is not a file of {what}", source=path, fix=f"its suffix is one of {' '.join(_SUFFIXES)}"
        )
    if suffix == ".csv":
        options = pyarrow.csv.ConvertOptions(
            column_types=plain, strings_can_be_null=True, quoted_strings_can_be_null=False
        )
        return ds.CsvFileFormat(convert_options=options)
    return {".parquet": ds.ParquetFileFormat, ".arrow": ds.IpcFileFormat, ".jsonl": ds.JsonFileFormat}[
        suffix
    ]()


def names_in(path: Path, what: str) -> list[str]:
    """Return the names of a file's columns.

    Errors  InputError  its suffix is of none that rfmstream writes
    """
    return list(format_of(path, what).inspect(str(path), LocalFileSystem()).names)


def read_rows(path: Path, plain: pa.Schema) -> pa.Table:
    """Read the columns of a schema, all of which the file has."""
    if path.suffix.lower() == ".arrow":
        # Arrow itself follows the offsets of a damaged file wherever they lead; `read_arrow` looks first.
        batches = [batch.select(plain.names).cast(plain) for _, batch, _ in read_arrow(path, plain.names)]
        return pa.Table.from_batches(batches, schema=plain)
    return ds.dataset(path, schema=plain, format=format_of(path, "", plain)).to_table()
