"""Values of any named members of plain JSON objects: what a plan of views looks at beside the order itself.

Source  RFC 8259; oracle a JSON parser
"""

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit
from rfmstream.kernels.ids import same_bytes
from rfmstream.kernels.json_text import (
    COLON,
    COMMA,
    DAMAGED,
    NULL,
    OPEN,
    QUOTE,
    end_of_text,
    find_value,
    skip_blanks,
)

SPARE_BYTES = 8
"""What must follow the last name, of whatever content: whole words are compared."""


@inline
def _find_name(data, start, size, names, edges):
    """Return the number of the name that a key is; -1: it is none of them."""
    for k in range(len(edges) - 1):
        if edges[k + 1] - edges[k] == size and same_bytes(data, start, names, np.int64(edges[k]), size):
            return k
    return -1


@jit
def find_members(data, starts, ends, rows, names, edges, spans, kinds):
    """Find the values of named members of objects, of one that is there twice the last.

    In      data u8[]  with PAD_BYTES more than the last row's end;  starts, ends i64[n]  one JSON text a row  ro
            rows i64[m]  those to look at: objects that `json_orders.scan_orders` has accepted  ro
            names u8[]  UTF-8, SPARE_BYTES behind the last;  edges i64[k + 1]  where each begins  ro
    Out     spans i64[k, m, 2]  first byte, and bytes, of each value;  kinds u8[k, m]  of `json_text`
    Cost    O(bytes)
    """
    data, names, edges, rows = borrow(data), borrow(names), borrow(edges), borrow(rows)
    spans, kinds = borrow(spans), borrow(kinds)
    for i in range(len(rows)):
        for k in range(len(edges) - 1):
            kinds[k, i] = NULL
            spans[k, i, 0] = 0
            spans[k, i, 1] = 0
        end = ends[rows[i]]
        at = skip_blanks(data, starts[rows[i]], end)
        if at >= end or data[at] != OPEN:
            continue
        at = skip_blanks(data, at + 1, end)
        while at < end and data[at] == QUOTE:
            close, _ = end_of_text(data, at + 1, end)
            name = _find_name(data, at + 1, close - at - 1, names, edges)
            at = skip_blanks(data, close + 1, end)
            if at >= end or data[at] != COLON:
                break
            first, after, at, kind, _ = find_value(data, skip_blanks(data, at + 1, end), end)
            if kind == DAMAGED:
                break
            if name >= 0:
                kinds[name, i] = kind
                spans[name, i, 0] = first
                spans[name, i, 1] = after - first
            at = skip_blanks(data, at, end)
            if at >= end or data[at] != COMMA:
                break
            at = skip_blanks(data, at + 1, end)
