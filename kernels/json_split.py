"""Values of records cut into rows: one text, lines, or the items of an array."""

from typing import Final

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit, load_word
from rfmstream.kernels.json_text import (
    CLOSE,
    CLOSE_ARRAY,
    COMMA,
    HIGH,
    ONES,
    OPEN,
    OPEN_ARRAY,
    end_of_value,
    place_of_first,
    skip_blanks,
)
from rfmstream.kernels.parse import is_utf8

WHOLE: Final = 0
LINES: Final = 1
ITEMS: Final = 2
EITHER: Final = 3
NEITHER: Final = 4
"""What a record's value is: one row, a row a line, an array of rows, to be found out; from NEITHER on nothing that
is looked at here."""

_FEEDS = np.uint64(0x0A0A0A0A0A0A0A0A)


@inline
def _end_of_line(data, at, end):
    """Return the place of the next line feed, or `end`."""
    while at < end:
        feeds = load_word(data, at) ^ _FEEDS
        flags = (feeds - ONES) & ~feeds & HIGH
        if flags != np.uint64(0):
            return min(at + place_of_first(flags), end)
        at += 8
    return end


@inline
def _is_space(byte):
    return byte == 32 or 9 <= byte <= 13


@inline
def _is_blank(data, start, end):
    while start < end and _is_space(data[start]):
        start += 1
    return start >= end


@inline
def _looks_like_lines(data, start, end):
    """Return whether the first line has the form {...} and is followed by more than blanks."""
    feed = _end_of_line(data, start, end)
    if feed == end or data[start] != OPEN or _is_blank(data, feed, end):
        return False
    last = feed - 1
    while _is_space(data[last]):
        last -= 1
    return data[last] == CLOSE


@inline
def _cut_items(data, start, end, row_starts, row_ends, count):
    """Cut a JSON array into its items; return how many rows there are then, or -1: it is damaged or not plain."""
    at = skip_blanks(data, start + 1, end)
    wide, more = False, at >= end or data[at] != CLOSE_ARRAY
    while more:
        after, wide_item = end_of_value(data, at, end)
        if after == at:
            return np.int64(-1)
        wide |= wide_item
        row_starts[count], row_ends[count] = at, after
        count += 1
        at = skip_blanks(data, after, end)
        more = at < end and data[at] == COMMA
        if more:
            at = skip_blanks(data, at + 1, end)
    if at >= end or data[at] != CLOSE_ARRAY or skip_blanks(data, at + 1, end) < end:
        return np.int64(-1)
    if wide and not is_utf8(data, start, end):
        return np.int64(-1)
    return count


@jit
def split_records(data, starts, ends, forms, row_starts, row_ends, firsts):
    """Cut the values of records into rows.

    In      data u8[]  with PAD_BYTES more than the last value's end;  starts, ends i64[n], not empty;  forms u8[n]  ro
    Out     row_starts, row_ends i64[at least n + line feeds + commas in data]
            firsts i64[n+1]  of each record, the ordinal of its first row
    State   forms  EITHER becomes LINES where the value looks like lines, else WHOLE, which becomes ITEMS where it
            is an array: then it is JSON throughout
    Holds   lines that are blank are no rows; a record that is NEITHER has none
    """
    data, row_starts, row_ends = borrow(data), borrow(row_starts), borrow(row_ends)
    count = np.int64(0)
    for i in range(len(starts)):
        firsts[i] = count
        start, end = starts[i], ends[i]
        if forms[i] == EITHER:
            forms[i] = LINES if _looks_like_lines(data, start, end) else WHOLE
        if forms[i] == WHOLE and data[start] == OPEN_ARRAY:
            after = _cut_items(data, start, end, row_starts, row_ends, count)
            if after >= 0:
                forms[i], count = ITEMS, after
                continue
        if forms[i] == WHOLE:
            row_starts[count], row_ends[count] = start, end
            count += 1
        elif forms[i] == LINES:
            while start < end:
                feed = _end_of_line(data, start, end)
                if not _is_blank(data, start, feed):
                    row_starts[count], row_ends[count] = start, feed
                    count += 1
                start = feed + 1
    firsts[len(starts)] = count
    return count
