"""Kafka's record batches, format v2, as they come in a fetch: where each record's key, value and headers are.

Nothing is read outside the bytes of a batch, whatever they hold. What no client writes is not told apart here: the one
answer is UNUSUAL, and the ordinary reader then finds the words for it.

Source  Kafka's protocol guide, "Record Batch"; oracle aiokafka's reader
"""

from typing import Final

import numpy as np

from rfmstream.kernels._jit import borrow, copy_line, inline, jit

HEADER_BYTES: Final = 61
RECORD_BYTES_MIN: Final = 7
"""A length, attributes, two deltas, no key, no value, no headers: a byte each."""

OFFSET, TIME_MS, KEY, KEY_BYTES, VALUE, VALUE_BYTES, HEADERS, HEADERS_BYTES = range(8)
"""Columns of a record. Headers begin with their number and reach to the record's end: one byte where there are none."""

COLUMNS: Final = 8
UNUSUAL: Final = -1
LINE_BYTES: Final = 32

_ATTRIBUTES_AT, _LAST_DELTA_AT, _FIRST_TIME_AT, _NEWEST_TIME_AT, _COUNT_AT = 21, 23, 27, 35, 57
_LOG_APPEND_TIME: Final = 0x0008
_VARINT_BYTES_MAX: Final = 9
_FAR: Final = 1 << 62


@inline
def _big_endian(data, at, size):
    """Return the signed integer of some bytes."""
    value = np.int64(data[at])
    if value > 127:
        value -= 256
    for k in range(1, size):
        value = (value << 8) | np.int64(data[at + k])
    return value


@inline
def _varint(data, at, end):
    """Return a zigzag integer of at most 63 bits and the place after it; -1 for that where it does not end."""
    if at < end and data[at] < 128:
        value = np.int64(data[at])
        return (value >> 1) ^ -(value & 1), at + 1
    value, stop = np.int64(0), min(at + _VARINT_BYTES_MAX, end)
    shift = 0
    while at < stop:
        byte = np.int64(data[at])
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
    return np.int64(0), np.int64(-1)


@inline
def _after_bytes(data, at, end):
    """Return the size of bytes with a length before them (below 0: none), where they begin, and the place after them.

    The place after is -1 where they are not within the record.
    """
    size, start = _varint(data, at, end)
    if start < 0 or size > end - start:
        return size, start, np.int64(-1)
    return size, start, start + max(size, np.int64(0))


@inline
def _are_headers(data, at, end):
    """Return whether headers are whole and end where the record does."""
    count, at = _varint(data, at, end)
    if at < 0 or count < 0 or count > end - at:
        return False
    for _ in range(count):
        size, _start, at = _after_bytes(data, at, end)
        if at < 0 or size < 0:
            return False
        size, _start, at = _after_bytes(data, at, end)
        if at < 0:
            return False
    return at == end


@jit
def count_records(data, starts, ends):
    """Return how many records batches say they hold; UNUSUAL where one has no room for them.

    In      data u8[]  ro;  starts, ends i64[n]  of batches, at least HEADER_BYTES each  ro
    """
    count = np.int64(0)
    for i in range(len(starts)):
        records = _big_endian(data, starts[i] + _COUNT_AT, 4)
        if records < 0 or records * RECORD_BYTES_MIN > ends[i] - starts[i] - HEADER_BYTES:
            return np.int64(UNUSUAL)
        count += records
    return count


@jit
def index_records(data, starts, ends, first_offset, columns):
    """Find the records of batches from an offset on.

    In      data u8[]  ro;  starts, ends i64[n]  of batches, at least HEADER_BYTES each, none compressed  ro
            first_offset  records before it are left out
    Out     columns i64[COLUMNS, count_records]  of each record; a size is -1 where the log holds null
    Returns how many records there are; UNUSUAL where anything about one is, and columns hold nothing of use
    Holds   offsets ascend, from one batch to the next, too
    Cost    O(bytes of headers and of lengths), no allocation
    """
    data, columns = borrow(data), borrow(columns)
    found, offset = np.int64(0), np.int64(-1)
    for i in range(len(starts)):
        start, end = starts[i], ends[i]
        base = _big_endian(data, start, 8)
        last_delta = _big_endian(data, start + _LAST_DELTA_AT, 4)
        is_log_time = data[start + _ATTRIBUTES_AT + 1] & _LOG_APPEND_TIME != 0
        first_ms = _big_endian(data, start + _FIRST_TIME_AT, 8)
        newest_ms = _big_endian(data, start + _NEWEST_TIME_AT, 8)
        if base <= offset or base > _FAR or last_delta < 0 or first_ms > _FAR or first_ms < -_FAR:
            return np.int64(UNUSUAL)
        at = start + HEADER_BYTES
        for _ in range(_big_endian(data, start + _COUNT_AT, 4)):
            size, at = _varint(data, at, end)
            if at < 0 or size < 0 or size > end - at:
                return np.int64(UNUSUAL)
            stop = at + size
            _attributes, at = _varint(data, at, stop)
            if at < 0:
                return np.int64(UNUSUAL)
            time_delta, at = _varint(data, at, stop)
            if at < 0:
                return np.int64(UNUSUAL)
            delta, at = _varint(data, at, stop)
            if at < 0 or delta < 0 or delta > last_delta or base + delta <= offset:
                return np.int64(UNUSUAL)
            offset = base + delta
            key_size, key, at = _after_bytes(data, at, stop)
            if at < 0:
                return np.int64(UNUSUAL)
            value_size, value, at = _after_bytes(data, at, stop)
            if at < 0:
                return np.int64(UNUSUAL)
            # The usual record has no headers.
            if not (stop - at == 1 and data[at] == 0) and not _are_headers(data, at, stop):
                return np.int64(UNUSUAL)
            if offset >= first_offset:
                columns[OFFSET, found] = offset
                columns[TIME_MS, found] = newest_ms if is_log_time else first_ms + time_delta
                columns[KEY, found] = key
                columns[KEY_BYTES, found] = max(key_size, np.int64(-1))
                columns[VALUE, found] = value
                columns[VALUE_BYTES, found] = max(value_size, np.int64(-1))
                columns[HEADERS, found] = at
                columns[HEADERS_BYTES, found] = stop - at
                found += 1
            at = stop
        if at != end:
            return np.int64(UNUSUAL)
        offset = base + last_delta
    return found


@jit
def gather(data, starts, sizes, out, at):
    """Copy byte strings one after another.

    In      data u8[]  ro;  starts, sizes i64[n], a size below 0 for none  ro;  at  where in `out` the first one goes
    Out     out u8[]  with LINE_BYTES more than the last one's end, which are overwritten
    Returns where the last one ends in `out`
    """
    data, out = borrow(data), borrow(out)
    for i in range(len(starts)):
        start, size = starts[i], sizes[i]
        if size <= 0:
            continue
        stop = start + size
        # By lines, which may reach behind the string but not behind the data.
        by_lines = min(stop, len(data) - LINE_BYTES + 1)
        place = at
        while start < by_lines:
            copy_line(out, place, data, start)
            start += LINE_BYTES
            place += LINE_BYTES
        while start < stop:
            out[place] = data[start]
            start += 1
            place += 1
        at += size
    return at


@jit
def number_runs(data, starts, sizes, runs):
    """Tell apart the runs of equal byte strings.

    In      data u8[]  ro;  starts, sizes i64[n], not below 0  ro
    Out     runs i64[n]  of each string, the ordinal of the first one of its run
    """
    data = borrow(data)
    for i in range(len(starts)):
        is_same = i > 0 and sizes[i] == sizes[i - 1]
        if is_same:
            start, before = starts[i], starts[i - 1]
            for k in range(sizes[i]):
                if data[start + k] != data[before + k]:
                    is_same = False
                    break
        runs[i] = runs[i - 1] if is_same else i


@jit
def has_byte(data, end, byte):
    """Return whether the first `end` of some bytes hold a byte."""
    block = 4096
    for start in range(0, end, block):
        found = False
        for each in data[start : min(start + block, end)]:
            found |= each == byte
        if found:
            return True
    return False
