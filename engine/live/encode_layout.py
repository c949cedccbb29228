"""How a row of a table becomes a Kafka record: the list of steps that `kernels.encode_records` carries out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.kernels.encode_records import (
    ATTRIBUTE,
    INSTANT,
    INTEGER,
    JSON_ATTRIBUTE,
    JSON_INSTANT,
    JSON_INTEGER,
    JSON_TEXT,
    LENGTH,
    NOTHING,
    SMALL,
    STEP,
    TEXT,
    WORD,
)
from rfmstream.kernels.encode_text import INSTANT_BYTES, LINE_BYTES
from rfmstream.kernels.repeats import EARLIER, PIECE, QUOTE, WORD_PIECE
from rfmstream.schemas.columns import Column

# Parts of a record with a length before them; what is in none of them is OUTSIDE.
OUTSIDE, KEY, VALUE, ID, SUBJECT, TIME = range(6)

_TEXTS: Final = (TEXT, JSON_TEXT, ATTRIBUTE, JSON_ATTRIBUTE)
_FIELD_BYTES_MAX: Final = {
    NOTHING: 0,
    LENGTH: 5,
    TEXT: 0,
    ATTRIBUTE: 0,
    JSON_ATTRIBUTE: 0,
    JSON_TEXT: 4,
    INTEGER: 20,
    JSON_INTEGER: 20,
    SMALL: 6,
    INSTANT: INSTANT_BYTES + 3,
    JSON_INSTANT: INSTANT_BYTES + 5,
}


assert all(kind == np.int64 for kind, *_ in (STEP.fields or {}).values())
_PLACE: Final = np.array(
    [
        list(STEP.fields or {}).index(name)
        for name in ("values_at", "valid_at", "first", "data_at", "data_size")
    ]
)
"""Places among a step's words."""


class Layout:
    """Steps to be pointed at the columns of a batch.

    In      columns        of each step, "" where it reads none
            schema         of the batches
    Fields  steps          STEP[s]
            pieces         u8[], LINE_BYTES to spare
            words          i64[], where words begin in `pieces`
            repeats        i64[s, 3], what `kernels.repeats` has to know of the steps
            row_bytes_min  what a record takes at least
            row_bytes_max  what it takes at most, its texts left out
    """

    def __init__(  # noqa: PLR0913 - each by name
        self,
        *,
        steps: NDArray[Any],
        columns: tuple[str, ...],
        pieces: NDArray[np.uint8],
        words: NDArray[np.int64],
        row_bytes_max: int,
        schema: pa.Schema,
    ) -> None:
        self.steps = steps
        self.pieces = pieces
        self.words = words
        self.row_bytes_min = int(steps["piece_size"].sum())
        self.row_bytes_max = row_bytes_max
        self.repeats = _repeats_of(steps, columns)
        reading = np.array([at for at, name in enumerate(columns) if name])
        self._read_at = reading[:, None], _PLACE
        # By their place, as by name each takes a microsecond to find.
        self._column_of = np.array([schema.get_field_index(name) for name in columns if name])
        self._is_text = np.isin(steps["kind"], _TEXTS)

    def point(self, columns: Sequence[pa.Array]) -> NDArray[Any]:
        """Return the steps with the addresses of columns, those of the schema; the caller keeps them."""
        places = np.array([_place_of(column) for column in columns], dtype=np.int64)
        steps = self.steps.copy()
        words = steps.view(np.int64).reshape(steps.size, -1)
        words[self._read_at] = places[self._column_of]
        return steps

    def bytes_max(self, steps: NDArray[Any], rows: int) -> int:
        """Return what so many records take at most, as long as no text needs escapes; `steps` as of `point`."""
        texts: int = steps["data_size"][self._is_text].sum()
        return rows * self.row_bytes_max + int(texts)


def _repeats_of(steps: NDArray[Any], columns: tuple[str, ...]) -> NDArray[np.int64]:
    """Return `repeats` of `kernels.repeats.find_repeats`."""
    kinds = steps["kind"].tolist()
    repeats = np.full((len(kinds), 3), -1, dtype=np.int64)
    repeats[:, PIECE] = np.where(steps["kind"] == WORD, WORD_PIECE, steps["piece_size"])
    repeats[:, QUOTE] = np.isin(steps["kind"], (JSON_TEXT, JSON_INSTANT))
    earlier: dict[str, int] = {}
    for step, (kind, column) in enumerate(zip(kinds, columns, strict=True)):
        if kind in (*_TEXTS, INSTANT, JSON_INSTANT):
            # Many of a change's instants are when it took effect, which is the first of them.
            what = column if kind in _TEXTS else "an instant"
            repeats[step, EARLIER] = earlier.get(what, -1)
            earlier.setdefault(what, step)
    return repeats


def _place_of(column: pa.Array) -> tuple[int, ...]:
    """Return the words _PLACE of a column."""
    column = column.indices if isinstance(column, pa.DictionaryArray) else column
    valid, values, *data = column.buffers()
    return (
        values.address,
        valid.address if valid is not None and column.null_count else 0,
        column.offset,
        *((data[0].address, data[0].size) if data and data[0] is not None else (0, 0)),
    )


class LayoutBuilder:
    """Puts a layout for batches of a schema together, from a record's key to its last header."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._pieces = bytearray()
        self._words: list[int] = []
        self._steps: list[tuple[int, int, int, int, int]] = []
        self._columns: list[str] = []
        self._pending, self._pending_group = b"", OUTSIDE
        self._row_bytes_max = 0

    def text(self, text: bytes, group: int = OUTSIDE) -> None:
        """Add bytes that are the same in every record."""
        if group != self._pending_group:
            self._flush()
            self._pending_group = group
        self._pending += text

    def field(self, kind: int, column: str, group: int = OUTSIDE) -> None:
        """Add a column's value."""
        self.text(b"", group)
        self._step(kind, self._piece(self._pending), 0, column)

    def length(self, of: int) -> None:
        """Add the length of a group."""
        self.text(b"")
        self._step(LENGTH, self._piece(self._pending), of, "")

    def word(self, column: str, null: bytes, words: Iterable[bytes], group: int = OUTSIDE) -> None:
        """Add what stands for a column's word, `null` where it is null."""
        self.text(b"", group)
        argument = len(self._words)
        # The text before the word is part of every word: one copy less.
        pieces = [self._piece(self._pending + word) for word in (null, *words)]
        self._words += [start for start, _ in pieces] + [len(self._pieces)]
        self._row_bytes_max += max(size for _, size in pieces)
        self._step(WORD, (0, 0), argument, column)

    def json_object(self, columns: Sequence[Column], words: Mapping[str, Sequence[str]], group: int) -> None:
        """Add the columns as JSON's name and value, the brace before them but none behind."""
        mark = b"{"
        for column in columns:
            self.text(mark + orjson.dumps(column.name) + b":", group)
            mark = b","
            if pa.types.is_dictionary(column.type):
                self.word(column.name, b"null", map(orjson.dumps, words[column.name]), group)
            elif pa.types.is_boolean(column.type):
                self.word(column.name, b"null", (b"false", b"true"), group)
            elif column.nullable and column.type == pa.int64():
                self.field(JSON_INTEGER, column.name, group)
            else:
                self.field(_JSON_KINDS[column.type], column.name, group)

    def build(self) -> Layout:
        """Return the layout."""
        self._flush()
        steps = np.zeros(len(self._steps), dtype=STEP)
        for name, values in zip(
            ("kind", "group", "piece_start", "piece_size", "argument"),
            zip(*self._steps, strict=True),
            strict=True,
        ):
            steps[name] = values
        return Layout(
            steps=steps,
            columns=tuple(self._columns),
            pieces=np.frombuffer(bytes(self._pieces) + bytes(LINE_BYTES), dtype=np.uint8),
            words=np.array(self._words, dtype=np.int64),
            row_bytes_max=self._row_bytes_max,
            schema=self._schema,
        )

    def _flush(self) -> None:
        if self._pending:
            self._step(NOTHING, self._piece(self._pending), 0, "")

    def _piece(self, piece: bytes) -> tuple[int, int]:
        start = len(self._pieces)
        self._pieces += piece
        return start, len(piece)

    def _step(self, kind: int, piece: tuple[int, int], argument: int, column: str) -> None:
        self._steps.append((kind, self._pending_group, *piece, argument))
        self._columns.append(column)
        self._row_bytes_max += piece[1] + _FIELD_BYTES_MAX.get(kind, 0)
        self._pending = b""


_JSON_KINDS: Final = {
    pa.string(): JSON_TEXT,
    pa.int64(): INTEGER,
    pa.int16(): SMALL,
    pa.timestamp("us", tz="UTC"): JSON_INSTANT,
}


def varint(value: int) -> bytes:
    """Return the zigzag varint of a length; -1 stands for null."""
    rest = (value << 1) ^ (value >> 63)
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def sized(value: bytes | None) -> bytes:
    """Return bytes with their length before them."""
    return varint(-1) if value is None else varint(len(value)) + value
