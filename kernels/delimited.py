"""Delimited text (CSV, TSV, blank-separated columns) to the cells of the wanted columns.

Two steps: `find_cells` finds where records and cells begin and end, `copy_cells` gathers one column into
Arrow string buffers. Written here because a reader of order history must go on after a damaged line and say
which it was.
"""

from typing import Final

import numpy as np

from rfmstream.kernels._jit import jit, part

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


@jit
def copy_cells(data, records, starts, ends, doubled, offsets, out):
    """Gather the cells of one column into Arrow string buffers, doubled quotes made single.

    In      data u8[], records i64[n]  ro   which records
            starts, ends i64[capacity], doubled bool[capacity]  ro
    Out     offsets i32[n+1], out u8[] of at least the cells' total length
    """
    at = 0
    offsets[0] = 0
    for i in range(len(records)):
        record = records[i]
        first, last = starts[record], ends[record]
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
