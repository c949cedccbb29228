"""Delimited text (CSV, TSV, blank-separated columns) to the cells of the wanted columns.

Two steps: `find_cells` finds where records and cells begin and end, `copy_cells` gathers one column into
Arrow string buffers. Written here because a reader of order history must go on after a damaged line and say
which it was.
"""

from typing import Final

import numpy as np

from rfmstream.kernels._jit import inline, jit, keep_apart, part

RECORD_OK: Final = 0
RECORD_DAMAGED: Final = 1
"""Another number of cells than the header, text after a closing quote, or a quote that is never closed."""

BLANKS: Final = 0
"""As a delimiter: any run of spaces and tabs, and those at the ends of a line count for nothing."""

_LF, _CR, _QUOTE, _TAB, _SPACE = 10, 13, 34, 9, 32
_NO_QUOTE = 256


@part
def _line_end(data, start, end):
    """Return the position of the next line feed, or `end`."""
    while start < end and data[start] != _LF:
        start += 1
    return start


@jit
def find_cells(
    data, start, end, final, delimiter, slots, starts, ends, doubled, record_starts, record_ends, state
):
    """Find the records of data[start:end] until the buffer or the space for records runs out.

    In      data u8[]  ro;  final  whether the input ends at `end` (else a record cut off there is left)
            delimiter  a byte, or BLANKS (then quotes are ordinary characters)
            slots i64[columns]  ro   where a column's cells go, -1 for columns nobody asked for
    Out     starts, ends i64[wanted, capacity], doubled bool[wanted, capacity]  (it holds doubled quotes)
            record_starts, record_ends i64[capacity]  the whole record without its line end
            state u8[capacity]  RECORD_OK or RECORD_DAMAGED
    Returns (number of records, position of the first byte not consumed)
    Holds   empty lines are no records; a quote never closed damages its first line only
    """
    blanks = delimiter == BLANKS
    quote = _NO_QUOTE if blanks else _QUOTE
    count, column_count = 0, len(slots)
    while count < len(state) and start < end:
        at, column, damaged = start, 0, False
        while True:  # one cell a turn
            if blanks:
                while at < end and (data[at] == _SPACE or data[at] == _TAB):
                    at += 1
            cell_start, cell_end, twice = at, at, False
            if at < end and data[at] == quote:
                at += 1
                cell_start = at
                closed = False
                while at < end:
                    if data[at] != quote:
                        at += 1
                    elif at + 1 < end and data[at + 1] == quote:
                        twice = True
                        at += 2
                    else:
                        closed = at + 1 < end or final
                        break
                if not closed:
                    break
                cell_end = at
                at += 1
                if at < end and data[at] == _CR and (data[at + 1] == _LF if at + 1 < end else final):
                    at += 1
                if at < end and data[at] != delimiter and data[at] != _LF:
                    damaged = True
                    while at < end and data[at] != delimiter and data[at] != _LF:
                        at += 1
            else:
                if blanks:
                    while at < end and data[at] != _SPACE and data[at] != _TAB and data[at] != _LF:
                        at += 1
                else:
                    while at < end and data[at] != delimiter and data[at] != _LF:
                        at += 1
                cell_end = at
                if (at == end or data[at] == _LF) and cell_end > cell_start and data[cell_end - 1] == _CR:
                    cell_end -= 1
            trailing = blanks and cell_start == cell_end and column > 0
            if not trailing:
                if column < column_count and slots[column] >= 0:
                    slot = slots[column]
                    starts[slot, count], ends[slot, count], doubled[slot, count] = cell_start, cell_end, twice
                column += 1
            if at == end or data[at] == _LF:
                closed = True
                break
            at += 1
        if not closed or (at == end and not final):
            if not final:
                break
            at = _line_end(data, start, end)
            damaged = True
        record_end = at - (at > start and data[at - 1] == _CR)
        if record_end > start and not (blanks and column == 1 and cell_start == cell_end):
            record_starts[count], record_ends[count] = start, record_end
            state[count] = RECORD_DAMAGED if damaged or column != column_count else RECORD_OK
            count += 1
        start = min(at + 1, end)
    return count, start


@inline
def _space_after(data, first, last):
    """Return how many bytes of data[first:last] are one white space character at its beginning: 0 for none."""
    byte = data[first]
    if byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31:
        return 1
    if byte < 0xC2:
        return 0
    if byte == 0xC2:  # U+0085, U+00A0
        return 2 if last - first > 1 and data[first + 1] in (0x85, 0xA0) else 0
    return _wide_space(data, first) if last - first > 2 else 0


@part
def _wide_space(data, first):
    keep_apart()
    code = (np.int64(data[first]) << 16) | (np.int64(data[first + 1]) << 8) | np.int64(data[first + 2])
    # U+1680, U+2000 to U+200A, U+2028, U+2029, U+202F, U+205F, U+3000
    is_space = code in (0xE19A80, 0xE280A8, 0xE280A9, 0xE280AF, 0xE2819F, 0xE38080)
    return 3 if is_space or 0xE28080 <= code <= 0xE2808A else 0


@inline
def _space_before(data, first, last):
    """Return how many bytes of data[first:last] are one white space character at its end: 0 for none."""
    if data[last - 1] < 0x80:
        return _space_after(data, last - 1, last)
    for size in range(2, min(4, last - first + 1)):
        if data[last - size] >= 0xC2:
            return size if _space_after(data, last - size, last) == size else 0
    return 0


@part
def _is_absent(data, first, last, word_offsets, word_data):
    """Tell whether a cell is one of the words that stand for none."""
    keep_apart()
    for k in range(len(word_offsets) - 1):
        start = np.int64(word_offsets[k])
        size = np.int64(word_offsets[k + 1]) - start
        at = 0
        if size == last - first:
            while at < size and data[first + at] == word_data[start + at]:
                at += 1
        if size > 0 and at == size:
            return True
    return False


@jit
def copy_cells(data, records, starts, ends, doubled, words, longest, offsets, out):
    """Gather the cells of one column into Arrow string buffers: trimmed, absent ones empty, doubled quotes single.

    In      data u8[], records i64[n]  ro   which records
            starts, ends i64[capacity], doubled bool[capacity]  ro
            words  (offsets i32[w+1], u8[]) of the words that stand for no value; longest of them, in bytes
    Out     offsets i32[n+1], out u8[] of at least the cells' total length
    """
    at = 0
    offsets[0] = 0
    for i in range(len(records)):
        record = records[i]
        first, last = starts[record], ends[record]
        while first < last and (data[first] <= 32 or data[first] >= 0xC2):
            size = _space_after(data, first, last)
            if size == 0:
                break
            first += size
        while first < last and (data[last - 1] <= 32 or data[last - 1] >= 0x80):
            size = _space_before(data, first, last)
            if size == 0:
                break
            last -= size
        if last - first <= longest and _is_absent(data, first, last, words[0], words[1]):
            last = first
        if doubled[record]:
            while first < last:
                out[at] = data[first]
                at += 1
                first += 2 if data[first] == _QUOTE else 1
        else:
            for j in range(last - first):
                out[at + j] = data[first + j]
            at += last - first
        offsets[i + 1] = np.int32(at)
