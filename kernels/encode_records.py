"""Write the rows of a table as Kafka records, by a list of steps: a piece of fixed text, then a field of the row.

Records are written one after another as a batch holds them, each with the timestamp of the batch. From its key on a
record is the same wherever it goes, so it can be taken from here to another batch (kernels/encode_batches.py). The
steps are laid out by engine/live/encode.py.

Source: Kafka's protocol guide, "Record"; schemas/changes.py and schemas/signals.py.
"""

from typing import Final

import numpy as np

from rfmstream.kernels._jit import array_at, borrow, inline, jit, keep_apart, part
from rfmstream.kernels.encode_text import (
    BEGINNING_BYTES_MAX,
    INSTANT_BYTES,
    LINE_BYTES,
    NULL_BYTES,
    copy_piece,
    copy_text,
    size_attribute,
    size_beginning,
    size_integer,
    size_json,
    size_varint,
    write_attribute,
    write_beginning,
    write_instant,
    write_integer,
    write_json,
    write_null,
    write_varint,
)

STEP: Final = np.dtype(
    (
        np.record,
        np.dtype(
            [
                ("kind", "i8"),  # of the field, see below
                ("group", "i8"),  # to whose length the step counts; 0: none's
                ("piece_start", "i8"),
                ("piece_size", "i8"),
                ("argument", "i8"),  # LENGTH: of which group; WORD: where its words begin in `words`
                ("values_at", "i8"),  # address of the column's values, or of a text's offsets
                ("valid_at", "i8"),  # address of its validity bits; 0: no nulls
                ("data_at", "i8"),  # address of a text's bytes
                ("data_size", "i8"),
                ("first", "i8"),  # place of row 0 in these buffers
            ],
            align=True,
        ),
    )
)

# Kinds of fields.
NOTHING: Final = 0  # the piece is all
LENGTH: Final = 1  # varint, the bytes of a group
TEXT: Final = 2  # the bytes of an id
JSON_TEXT: Final = 3  # a JSON string, or null
ATTRIBUTE: Final = 4  # an id as a CloudEvents attribute
JSON_ATTRIBUTE: Final = 5  # the same inside a JSON string's quotes
INTEGER: Final = 6  # i64; nothing where it is null
SMALL: Final = 7  # i16
INSTANT: Final = 8  # never null
JSON_INSTANT: Final = 9  # a JSON string, or null
WORD: Final = 10  # i8 code of a word, which is the step's piece; null: the piece before the first word's
JSON_INTEGER: Final = 11  # i64, or null

GROUPS: Final = 8
ESCAPED_BYTES_MAX: Final = 6
"""Of a byte of a text: a control character in JSON is \\u and four digits."""
_QUOTE = np.uint8(34)


@inline
def _is_null(step, place):
    if step.valid_at == 0:
        return False
    bits = array_at(step.valid_at, ((place >> 3) + 1,), np.uint8)
    return (bits[place >> 3] >> np.uint8(place & 7)) & 1 == 0


@inline
def _word_of(step, place):
    """Return where in `words` the bytes of a row's word stand."""
    if _is_null(step, place):
        return step.argument
    return step.argument + 1 + np.int64(array_at(step.values_at, (place + 1,), np.int8)[place])


@inline
def _text_of(step, place):
    """Return the start and size of a row's text; of null nothing."""
    if _is_null(step, place):
        return np.int64(0), np.int64(0)
    offsets = array_at(step.values_at, (place + 2,), np.int32)
    start = np.int64(offsets[place])
    return start, np.int64(offsets[place + 1]) - start


@inline
def _integer_of(step, place):
    if step.kind == SMALL:
        return np.int64(array_at(step.values_at, (place + 1,), np.int16)[place])
    return array_at(step.values_at, (place + 1,), np.int64)[place]


@inline
def _size_field(step, place, words):
    kind = step.kind
    if kind == WORD:
        word = _word_of(step, place)
        return words[word + 1] - words[word]
    if kind in (INTEGER, SMALL, JSON_INTEGER):
        if _is_null(step, place):
            return np.int64(NULL_BYTES) if kind == JSON_INTEGER else np.int64(0)
        return size_integer(_integer_of(step, place))
    if kind == INSTANT:
        return np.int64(INSTANT_BYTES)
    if kind == JSON_INSTANT:
        if _is_null(step, place):
            return np.int64(NULL_BYTES)
        return np.int64(INSTANT_BYTES) + 2
    if kind in (TEXT, JSON_TEXT, ATTRIBUTE, JSON_ATTRIBUTE):
        if kind == JSON_TEXT and _is_null(step, place):
            return np.int64(NULL_BYTES)
        start, size = _text_of(step, place)
        if kind == TEXT:
            return size
        data = array_at(step.data_at, (step.data_size,), np.uint8)
        if kind == JSON_TEXT:
            return size_json(data, start, size) + 2
        return size_attribute(data, start, size, kind == JSON_ATTRIBUTE)
    return np.int64(0)


@inline
def _write_field(step, place, out, at):
    kind = step.kind
    if kind in (INTEGER, SMALL, JSON_INTEGER):
        if _is_null(step, place):
            return write_null(out, at) if kind == JSON_INTEGER else at
        value = _integer_of(step, place)
        return write_integer(out, at, value, size_integer(value))
    if kind == INSTANT:
        return write_instant(out, at, _integer_of(step, place))
    if kind == JSON_INSTANT:
        if _is_null(step, place):
            return write_null(out, at)
        out[at] = _QUOTE
        at = write_instant(out, at + 1, _integer_of(step, place))
        out[at] = _QUOTE
        return at + 1
    if kind in (TEXT, JSON_TEXT, ATTRIBUTE, JSON_ATTRIBUTE):
        if kind == JSON_TEXT and _is_null(step, place):
            return write_null(out, at)
        start, size = _text_of(step, place)
        data = array_at(step.data_at, (step.data_size,), np.uint8)
        if kind == TEXT:
            return copy_text(out, at, data, start, size)
        if kind == JSON_TEXT:
            out[at] = _QUOTE
            at = write_json(out, at + 1, data, start, size, size_json(data, start, size))
            out[at] = _QUOTE
            return at + 1
        quoted = kind == JSON_ATTRIBUTE
        return write_attribute(out, at, data, start, size, quoted, size_attribute(data, start, size, quoted))
    return at


@part
def _size_row(steps, row, words, group_sizes):
    """Return the bytes of a row's record."""
    keep_apart()
    group_sizes[:] = 0
    total = np.int64(0)
    for s in range(steps.size):
        step = steps[s]
        size = step.piece_size + _size_field(step, step.first + row, words)
        group_sizes[step.group] += size
        total += size
    for s in range(steps.size):
        if steps[s].kind == LENGTH:
            total += size_varint(group_sizes[steps[s].argument])
    return total


@inline
def _bytes_max(steps, texts, row, row_bytes_max):
    """Return what a row's record takes at most: every byte of its texts escaped."""
    total = row_bytes_max
    for t in range(texts.size):
        step = steps[texts[t]]
        total += ESCAPED_BYTES_MAX * _text_of(step, step.first + row)[1]
    return total


@jit
def write_records(steps, pieces, words, row_bytes_max, first, rows, out, starts, sizes, marks):
    """Write rows [first, rows) as the records of a batch, as far as there is room.

    A length stands before what it counts. It is taken to have as many bytes as in the row before, and is filled in when
    the row is written; where it has not, the row is written once more.

    In      steps   STEP[s]; the columns they point to; a group has one length at the most
            pieces  u8[]      fixed text, LINE_BYTES to spare at the end
            words   i64[w+1]  offsets into `pieces`
            row_bytes_max     of a record without its texts
    Out     out     u8[]      LINE_BYTES to spare at the end
            starts, sizes  i64[rows]  of each record that was written: where its key begins, and the bytes from there on
            marks   i32[rows - first, s, 2]  of each step: where its piece begins, and which of its words it is
    Returns (the row to go on with, bytes written)
    Cost    O(bytes), no allocation that grows
    """
    steps, pieces, words, out, starts, sizes, marks = (
        borrow(steps),
        borrow(pieces),
        borrow(words),
        borrow(out),
        borrow(starts),
        borrow(sizes),
        borrow(marks),
    )
    texts = np.nonzero(
        (steps["kind"] == TEXT)
        | (steps["kind"] == JSON_TEXT)
        | (steps["kind"] == ATTRIBUTE)
        | (steps["kind"] == JSON_ATTRIBUTE)
    )[0]
    lengths = np.nonzero(steps["kind"] == LENGTH)[0]
    widths, places = np.ones(GROUPS, np.int64), np.zeros(GROUPS, np.int64)
    group_sizes = np.empty(GROUPS, np.int64)
    room = out.size - LINE_BYTES
    used, size = np.int64(0), np.int64(0)
    row = first
    while row < rows:
        if used + BEGINNING_BYTES_MAX + _bytes_max(steps, texts, row, row_bytes_max) > room:
            size = _size_row(steps, row, words, group_sizes)
            if used + size_beginning(row - first, size) + size > room:
                return row, used
            # Not a byte more than there is room for.
            for t in range(lengths.size):
                group = steps[lengths[t]].argument
                widths[group] = size_varint(group_sizes[group])
        group_sizes[:] = 0
        start = used + size_beginning(row - first, size)
        at = start
        for s in range(steps.size):
            step = steps[s]
            begin = at
            piece, piece_size, word = step.piece_start, step.piece_size, np.int64(0)
            if step.kind == WORD:
                word = _word_of(step, step.first + row)
                piece, piece_size = words[word], words[word + 1] - words[word]
            marks[row - first, s, 0] = at
            marks[row - first, s, 1] = word
            at = copy_piece(out, at, pieces, piece, piece_size)
            if step.kind not in (LENGTH, WORD):
                at = _write_field(step, step.first + row, out, at)
            group_sizes[step.group] += at - begin
            if step.kind == LENGTH:
                places[step.argument] = at
                at += widths[step.argument]
        size = at - start
        fits = start == used + size_beginning(row - first, size)
        for t in range(lengths.size):
            group = steps[lengths[t]].argument
            width = size_varint(group_sizes[group])
            fits &= width == widths[group]
            widths[group] = width
        if fits:
            for t in range(lengths.size):
                group = steps[lengths[t]].argument
                write_varint(out, places[group], group_sizes[group])
            write_beginning(out, used, row - first, size)
            starts[row], sizes[row] = start, size
            used = at
            row += 1
    return row, used
