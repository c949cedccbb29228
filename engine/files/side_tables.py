"""Small tables beside the orders: ids that belong together, rates of exchange."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from rfmstream.engine.events.text import plain, to_text
from rfmstream.engine.files.input_files import find_files, naming
from rfmstream.engine.files.readers import read_chunks
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import InputFormat


def read_texts(path: Path, names: Sequence[str]) -> list[pa.Array]:
    """Read columns of a table of any input format as text, in the order of `names`.

    Errors  InputError  the file is missing or damaged, lacks a column, or a column is no text
    """
    parts: list[list[pa.Array]] = [[] for _ in names]
    for file in find_files([path], InputFormat()):
        for chunk in read_chunks(file, names, first_row=0, tick=lambda _: None):
            if len(chunk.damaged_rows):
                raise InputError(
                    f"cannot be split into columns: {chunk.damaged_raw[0]!r}",
                    source=file.path,
                    row=int(chunk.damaged_rows[0]),
                )
            there = chunk.batch.schema.names
            if missing := [name for name in names if name not in there]:
                raise InputError(
                    f"no column {missing[0]}; the columns are {', '.join(chunk.names) or 'none'}",
                    source=file.path,
                    fix=f"name the columns {', '.join(names)}",
                )
            with naming(file.path):
                for part, name in zip(parts, names, strict=True):
                    part.append(to_text(plain(chunk.batch.column(name)), name))
    return [pa.concat_arrays(part) if part else pa.array([], pa.string()) for part in parts]
