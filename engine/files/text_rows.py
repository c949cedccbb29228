"""Record batches as lines of text, CSV or JSON, column by column: nothing happens once per row in Python.

Instants are ISO 8601 in UTC with microseconds and Z, integers keep all their digits, words are plain strings. A null
is an empty CSV field and `null` in JSON; an empty string in CSV is `""`, so that it stays one.
"""

from collections.abc import Callable
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import offsets_and_data

ROWS_AT_ONCE: Final = 1 << 16
"""Lines joined at a time: their bytes must fit the 2 GiB of one string array, whatever the ids are."""

_CSV_SPECIAL: Final = np.array([chr(byte) in '",\r\n' for byte in range(256)])
_JSON_SPECIAL: Final = np.array([byte < 0x20 or chr(byte) in '"\\' for byte in range(256)])

_RUN_BY_SPREADSHEETS: Final = "^[\\s\\x00-\\x1f]*[=+\\-@\uff1d\uff0b\uff0d\uff20\\t\\r]"
"""The signs that begin a formula, those of full width included, which some spreadsheets take for the same."""
_PLAIN_NUMBER: Final = r"^[+-]?[0-9]+([.,][0-9]+)*$"


def csv_header(schema: pa.Schema) -> bytes:
    """Return the first line of a CSV file."""
    return (",".join(schema.names) + "\n").encode()


def csv_lines(batch: pa.RecordBatch) -> pa.Buffer:
    """Return the rows (at most ROWS_AT_ONCE) as CSV lines of UTF-8, RFC 4180 but for the plain line feed."""
    return _csv_lines(batch, _csv_quoted)


def safe_csv_lines(batch: pa.RecordBatch) -> pa.Buffer:
    """Return them with an apostrophe before each text that a spreadsheet would run as a formula."""
    return _csv_lines(batch, lambda text: _csv_quoted(_guarded(text)))


def _csv_lines(batch: pa.RecordBatch, quoted: "Callable[[pa.Array], _Texts]") -> pa.Buffer:
    marks = ["", *[","] * (batch.num_columns - 1), "\n"]
    return _join(marks, [_text(column, quoted, ("", "Z"), "") for column in batch.columns])


def json_lines(batch: pa.RecordBatch) -> pa.Buffer:
    """Return the rows (at most ROWS_AT_ONCE) as one JSON object a line, every column in each."""
    keys = [orjson.dumps(name).decode() + ":" for name in batch.schema.names]
    marks = ["{" + keys[0], *["," + key for key in keys[1:]], "}\n"]
    return _join(marks, [_text(column, _json_quoted, ('"', 'Z"'), "null") for column in batch.columns])


class _Texts(NamedTuple):
    """A column's values as text, and what stands around each of them: text that a join adds at no cost."""

    before: str
    values: pa.Array
    after: str

    def whole(self) -> pa.Array:
        """Return the values with what stands around them; nulls stay."""
        if not (self.before or self.after):
            return self.values
        return pc.binary_join_element_wise(self.before, self.values, self.after, "")


def _join(marks: list[str], columns: list[_Texts]) -> pa.Buffer:
    before = ["", *(texts.after for texts in columns)]
    after = [*(texts.before for texts in columns), ""]
    first, *rest = map("".join, zip(before, marks, after, strict=True))
    values = [texts.values for texts in columns]
    lines = pc.binary_join_element_wise(first, *chain.from_iterable(zip(values, rest, strict=True)), "")
    offsets, _ = offsets_and_data(lines)
    return lines.buffers()[2].slice(0, int(offsets[-1]))


def _text(
    column: pa.Array, quoted: Callable[[pa.Array], _Texts], around: tuple[str, str], null: str
) -> _Texts:
    kind = column.type
    if pa.types.is_dictionary(kind):
        texts = _Texts("", quoted(column.dictionary).whole().take(column.indices), "")
    elif pa.types.is_timestamp(kind):
        # Through the naive time: the cast of a zoned one asks the time zone database, row by row.
        naive = column.cast(pa.timestamp("us")).cast(pa.string())
        # Not by its place: a deadline may lie in a year of five digits.
        texts = _Texts(around[0], pc.replace_substring(naive, " ", "T", max_replacements=1), around[1])
    elif pa.types.is_string(kind):
        texts = quoted(column)
    else:
        texts = _Texts("", column.cast(pa.string()), "")
    return _Texts("", texts.whole().fill_null(null), "") if texts.values.null_count else texts


def _guarded(text: pa.Array) -> pa.Array:
    runs = pc.match_substring_regex(text, _RUN_BY_SPREADSHEETS)
    if not pc.any(runs).as_py():
        return text
    runs = pc.and_(runs, pc.invert(pc.match_substring_regex(text, _PLAIN_NUMBER)))
    return pc.if_else(runs, pc.binary_join_element_wise("'", text, ""), text)


def _csv_quoted(text: pa.Array) -> _Texts:
    if _holds(text, _CSV_SPECIAL) or pc.any(pc.equal(pc.binary_length(text), 0)).as_py():
        special = pc.match_substring_regex(text, '[",\r\n]|^$')
        doubled = pc.replace_substring(text, '"', '""')
        text = pc.if_else(special, pc.binary_join_element_wise('"', doubled, '"', ""), text)
    return _Texts("", text, "")


def _json_quoted(text: pa.Array) -> _Texts:
    if _holds(text, _JSON_SPECIAL):
        # Rare, so row by row; everything else of JSON's text is the text itself.
        values = [None if value is None else orjson.dumps(value).decode() for value in text.to_pylist()]
        return _Texts("", pa.array(values, pa.string()), "")
    return _Texts('"', text, '"')


def _holds(text: pa.Array, special: NDArray[np.bool_]) -> bool:
    """Tell whether any of the bytes of a string column is special; those of null rows may count too."""
    offsets, data = offsets_and_data(text)
    return bool(special[data[offsets[0] : offsets[-1]]].any())
