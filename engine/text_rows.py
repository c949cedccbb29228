"""Record batches as lines of text, CSV or JSON, column by column: nothing happens once per row in Python.

Instants are ISO 8601 in UTC with microseconds and Z, integers keep all their digits, words are plain strings. A null
is an empty CSV field and `null` in JSON; an empty string in CSV is `""`, so that it stays one.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.buffers import offsets_and_data

ROWS_AT_ONCE: Final = 1 << 16
"""Lines joined at a time: their bytes must fit the 2 GiB of one string array, whatever the ids are."""

_CSV_SPECIAL: Final = np.array([chr(byte) in '",\r\n' for byte in range(256)])
_JSON_SPECIAL: Final = np.array([byte < 0x20 or chr(byte) in '"\\' for byte in range(256)])


def csv_header(schema: pa.Schema) -> bytes:
    """Return the first line of a CSV file."""
    return (",".join(schema.names) + "\n").encode()


def csv_lines(batch: pa.RecordBatch) -> pa.Buffer:
    """Return the rows (at most ROWS_AT_ONCE) as CSV lines of UTF-8, RFC 4180 but for the plain line feed."""
    marks = ["", *[","] * (batch.num_columns - 1), "\n"]
    return _join(marks, [_csv_text(column) for column in batch.columns])


def json_lines(batch: pa.RecordBatch) -> pa.Buffer:
    """Return the rows (at most ROWS_AT_ONCE) as one JSON object a line, every column in each."""
    keys = [orjson.dumps(name).decode() + ":" for name in batch.schema.names]
    marks = ["{" + keys[0], *["," + key for key in keys[1:]], "}\n"]
    return _join(marks, [_json_text(column) for column in batch.columns])


def _join(marks: list[str], columns: list[pa.Array]) -> pa.Buffer:
    parts = [part for pair in zip(marks, columns, strict=False) for part in pair]
    lines = pc.binary_join_element_wise(*parts, marks[-1], "")
    offsets, _ = offsets_and_data(lines)
    return lines.buffers()[2].slice(0, int(offsets[-1]))


def _csv_text(column: pa.Array) -> pa.Array:
    return _text(column, _csv_quoted, ("", "Z"), "")


def _json_text(column: pa.Array) -> pa.Array:
    return _text(column, _json_quoted, ('"', 'Z"'), "null")


def _text(
    column: pa.Array, quoted: Callable[[pa.Array], pa.Array], around: tuple[str, str], null: str
) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        text = quoted(column.dictionary).take(column.indices)
    elif pa.types.is_timestamp(kind):
        # Through the naive time: the cast of a zoned one asks the time zone database, row by row.
        naive = column.cast(pa.timestamp("us")).cast(pa.string())
        iso = pc.replace_substring(naive, " ", "T", max_replacements=1)
        text = pc.binary_join_element_wise(around[0], iso, around[1], "")
    elif pa.types.is_string(kind):
        text = quoted(column)
    else:
        text = column.cast(pa.string())
    return text.fill_null(null) if text.null_count else text


def _csv_quoted(text: pa.Array) -> pa.Array:
    if not (_holds(text, _CSV_SPECIAL) or pc.any(pc.equal(pc.binary_length(text), 0)).as_py()):
        return text
    special = pc.match_substring_regex(text, '[",\r\n]|^$')
    doubled = pc.replace_substring(text, '"', '""')
    return pc.if_else(special, pc.binary_join_element_wise('"', doubled, '"', ""), text)


def _json_quoted(text: pa.Array) -> pa.Array:
    if _holds(text, _JSON_SPECIAL):
        # Rare, so row by row; everything else of JSON's text is the text itself.
        values = [None if value is None else orjson.dumps(value).decode() for value in text.to_pylist()]
        return pa.array(values, pa.string())
    return pc.binary_join_element_wise('"', text, '"', "")


def _holds(text: pa.Array, special: NDArray[np.bool_]) -> bool:
    """Tell whether any of the bytes of a string column is special; those of null rows may count too."""
    offsets, data = offsets_and_data(text)
    return bool(special[data[offsets[0] : offsets[-1]]].any())
