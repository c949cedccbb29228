"""Flat JSON orders straight into columns, as long as they are plain; whatever is not plain is left to the parser.

Plain is one object whose keys and strings have no escapes and whose known values are good: ids that are text or
numbers, a time with a zone, an amount that fits the currency. Each test is at least as strict as the one of the
ordinary path (a JSON parser, then `engine.events.normalise`), so a row that is accepted here is one that is accepted
there, with the same values; a row that is not accepted here says nothing yet.

Source  docs/semantics.md 1; RFC 8259; oracle the ordinary path
"""

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit, load_word, store_word
from rfmstream.kernels.json_text import (
    BOOLEAN,
    CLOSE,
    COLON,
    COMMA,
    DAMAGED,
    NULL,
    NUMBER,
    OPEN,
    QUOTE,
    TEXT,
    end_of_text,
    find_value,
    first_bytes,
    mask,
    skip_blanks,
    words,
)
from rfmstream.kernels.json_values import read_amount, read_short_instant
from rfmstream.kernels.parse import ABSENT, NAIVE, OK, is_rounded, is_utf8
from rfmstream.schemas.codes import ID_BYTES_MAX, OrderType

_CANCELLED = int(OrderType.CANCELLED)
_MAY_BE_NEGATIVE = (1 << OrderType.CANCELLED) | (1 << OrderType.ADJUSTED)

_FIRST, _AFTER, _KIND = range(3)

# The known keys, by which the fields of a row are found. One beyond them: a key nobody asks for.
_CUSTOMER, _ORDER, _TYPE, _TIME, _AMOUNT, _MINOR, _CURRENCY, _EVENT, _OTHER = range(9)


_CUSTOMER_KEY, _ID_KEY = words("customer_id")
_OCCURRED_KEY, _AT_KEY = words("occurred_at")
_AMOUNT_M_KEY, _INOR_KEY = words("amount_minor")
_ORDER_KEY, _TYPE_KEY, _AMOUNT_KEY, _CURRENCY_KEY, _EVENT_KEY = (
    words(key)[0] for key in ("order_id", "type", "amount", "currency", "event_id")
)
_PAID_WORD, _REFUNDED_WORD = words("paid")[0], words("refunded")[0]
_CANCELLED_WORD, _CANCELLED_REST = words("cancelled")
_ADJUSTED_WORD = words("adjusted")[0]
_, _TOTAL_REST = words("refunded_total")


@inline
def _key_of(data, start, size):
    """Return which known key a key is."""
    if size < 4 or size > 12:
        return _OTHER
    low = first_bytes(data, start, size)
    if size > 8:
        high = first_bytes(data, start + 8, size - 8)
        if low == _CUSTOMER_KEY and high == _ID_KEY:
            return _CUSTOMER
        if low == _OCCURRED_KEY and high == _AT_KEY:
            return _TIME
        if low == _AMOUNT_M_KEY and high == _INOR_KEY:
            return _MINOR
        return _OTHER
    if low == _ORDER_KEY:
        return _ORDER
    if low == _AMOUNT_KEY:
        return _AMOUNT
    if low == _CURRENCY_KEY:
        return _CURRENCY
    if low == _TYPE_KEY:
        return _TYPE
    if low == _EVENT_KEY:
        return _EVENT
    return _OTHER


@inline
def _find_key(data, at, end, keys, slot):
    """Return (key, place after the colon, whether wide) of the member that begins at `at`; -1 for no key.

    State   keys u64[16, 6]  in `slot`, the text of the key that stood here in an earlier row, from quote to colon,
            where that is at most sixteen bytes: two masks, two words, its length, the key
    """
    if (
        load_word(data, at) & keys[slot, 0] == keys[slot, 2]
        and load_word(data, at + 8) & keys[slot, 1] == keys[slot, 3]
        and keys[slot, 4] != np.uint64(0)
        and at + np.int64(keys[slot, 4]) <= end
    ):
        return np.int64(keys[slot, 5]), at + np.int64(keys[slot, 4]), False
    if at >= end or data[at] != QUOTE:
        return np.int64(-1), at, False
    close, wide = end_of_text(data, at + 1, end)
    if close >= end:
        return np.int64(-1), at, False
    key = np.int64(_key_of(data, at + 1, close - at - 1))
    colon = skip_blanks(data, close + 1, end)
    if colon >= end or data[colon] != COLON:
        return np.int64(-1), at, False
    size = colon + 1 - at
    if colon == close + 1 and size <= 16 and not wide:
        keys[slot, 0], keys[slot, 1] = mask(min(size, 8)), mask(max(size - 8, 0))
        keys[slot, 2], keys[slot, 3] = (
            load_word(data, at) & keys[slot, 0],
            load_word(data, at + 8) & keys[slot, 1],
        )
        keys[slot, 4], keys[slot, 5] = np.uint64(size), np.uint64(key)
    return key, colon + 1, wide


@inline
def _find_fields(data, start, end, fields, keys):
    """Find the known values of the object data[start:end]; return whether it is plain JSON without doubled known keys.

    Out     fields i64[8, 3]  first byte, place after the last, and kind of each known value, NULL if absent
    State   keys u64[16, 6]  of the members of earlier rows, for `_find_key`: producers write them in one order
    """
    fields[:, _KIND] = NULL
    seen, wide, member = 0, False, 0
    at = skip_blanks(data, start, end)
    if at >= end or data[at] != OPEN:
        return False
    at += 1
    while True:
        key, at, wide_key = _find_key(data, skip_blanks(data, at, end), end, keys, member & 15)
        if key < 0:
            return False
        member += 1
        first, after, at, kind, wide_value = find_value(data, skip_blanks(data, at, end), end)
        if kind == DAMAGED:
            return False
        wide |= wide_key | wide_value
        if key != _OTHER:
            if seen & (1 << key):
                return False
            seen |= 1 << key
            fields[key, _FIRST], fields[key, _AFTER], fields[key, _KIND] = first, after, kind
        at = skip_blanks(data, at, end)
        if at >= end:
            return False
        if data[at] == CLOSE:
            break
        if data[at] != COMMA:
            return False
        at += 1
    return skip_blanks(data, at + 1, end) == end and (not wide or is_utf8(data, start, end))


@inline
def _type_of(data, start, size, kind):
    """Return the OrderType code, or -1; so for `erased`, whose row may lack what others need."""
    if kind == NULL or (kind == TEXT and size == 0):
        return 0
    if kind != TEXT or size > 14:
        return -1
    word = first_bytes(data, start, size)
    if size == 4 and word == _PAID_WORD:
        return 0
    if size == 8 and word == _REFUNDED_WORD:
        return 1
    if size == 9 and word == _CANCELLED_WORD and first_bytes(data, start + 8, 1) == _CANCELLED_REST:
        return 2
    if size == 8 and word == _ADJUSTED_WORD:
        return 3
    if size == 14 and word == _REFUNDED_WORD and first_bytes(data, start + 8, 6) == _TOTAL_REST:
        return 4
    return -1


@inline
def _is_word(data, start, size, word):
    same = size == len(word)
    if same:
        for i in range(len(word)):
            same &= data[start + i] == word[i]
    return same


@inline
def _copy(data, start, size, out, at):
    """Copy bytes in whole words; up to seven bytes beyond the last are written, too."""
    for i in range(0, size, 8):
        store_word(out, at + i, load_word(data, start + i))


@inline
def _is_id(size, kind):
    return kind in (TEXT, NUMBER) and 0 < size <= ID_BYTES_MAX


@jit
def scan_orders(
    data,
    starts,
    ends,
    exponent,
    currency,
    is_utc,
    fields,
    keys,
    accepted,
    rows,
    types,
    us,
    minor,
    id_offsets,
    customer_data,
    order_data,
    event_data,
    event_valid,
):
    """Read the rows that are plain, good orders into columns without gaps.

    In      data u8[], PAD_BYTES more than the last row's end;  starts, ends i64[n]  one JSON text a row  ro
            exponent  of the currency;  currency u8[3]  its code;  is_utc  whether a time without a zone is UTC
    Scratch fields i64[8, 3];  keys u64[16, 6], zero
    Out     accepted u8[n]  1 where the row was read; the others may be anything
            rows i64[n]     which row each accepted one is
            types u8[n], us i64[n], minor i64[n]  0 for cancelled
            id_offsets i32[3, n+1], customer_data, order_data, event_data u8[bytes of all rows + 8]  Arrow strings
            event_valid u8[ceil(n / 8)]  bits, zero when called: the row has an event_id
    Returns how many rows were accepted
    Cost    O(bytes), no allocation per row
    """
    data, starts, ends, fields, keys = (
        borrow(data),
        borrow(starts),
        borrow(ends),
        borrow(fields),
        borrow(keys),
    )
    customer_data, order_data, event_data = borrow(customer_data), borrow(order_data), borrow(event_data)
    currency = borrow(currency)
    count = np.int64(0)
    customer_at, order_at, event_at = np.int64(0), np.int64(0), np.int64(0)
    id_offsets[:, 0] = 0
    for i in range(len(starts)):
        accepted[i] = 0
        if not _find_fields(data, starts[i], ends[i], fields, keys):
            continue
        customer, customer_size = (
            fields[_CUSTOMER, _FIRST],
            fields[_CUSTOMER, _AFTER] - fields[_CUSTOMER, _FIRST],
        )
        order, order_size = fields[_ORDER, _FIRST], fields[_ORDER, _AFTER] - fields[_ORDER, _FIRST]
        if not _is_id(customer_size, fields[_CUSTOMER, _KIND]) or not _is_id(
            order_size, fields[_ORDER, _KIND]
        ):
            continue
        if is_rounded(data, customer, customer + customer_size) or is_rounded(
            data, order, order + order_size
        ):
            continue
        if fields[_EVENT, _KIND] != NULL and is_rounded(data, fields[_EVENT, _FIRST], fields[_EVENT, _AFTER]):
            continue
        code = _type_of(
            data, fields[_TYPE, _FIRST], fields[_TYPE, _AFTER] - fields[_TYPE, _FIRST], fields[_TYPE, _KIND]
        )
        if code < 0 or fields[_TIME, _KIND] != TEXT:
            continue
        kind, size = fields[_CURRENCY, _KIND], fields[_CURRENCY, _AFTER] - fields[_CURRENCY, _FIRST]
        if kind != NULL and not (
            kind == TEXT and (size == 0 or _is_word(data, fields[_CURRENCY, _FIRST], size, currency))
        ):
            continue
        instant, status = read_short_instant(data, fields[_TIME, _FIRST], fields[_TIME, _AFTER])
        if status != OK and not (status == NAIVE and is_utc):
            continue
        if max(fields[_AMOUNT, _KIND], fields[_MINOR, _KIND], fields[_EVENT, _KIND]) >= BOOLEAN:
            continue
        value, status = read_amount(
            data, fields[_MINOR, _FIRST], fields[_MINOR, _AFTER], fields[_MINOR, _KIND], np.int64(0)
        )
        if status == ABSENT:
            value, status = read_amount(
                data, fields[_AMOUNT, _FIRST], fields[_AMOUNT, _AFTER], fields[_AMOUNT, _KIND], exponent
            )
        if code == _CANCELLED:
            value = np.int64(0)
            if status == ABSENT:
                status = np.int64(OK)
        if status != OK or (value < 0 and not (_MAY_BE_NEGATIVE >> code) & 1):
            continue
        _copy(data, customer, customer_size, customer_data, customer_at)
        _copy(data, order, order_size, order_data, order_at)
        customer_at += customer_size
        order_at += order_size
        if fields[_EVENT, _KIND] != NULL:
            event, event_size = fields[_EVENT, _FIRST], fields[_EVENT, _AFTER] - fields[_EVENT, _FIRST]
            if event_size > 0:
                _copy(data, event, event_size, event_data, event_at)
                event_at += event_size
                event_valid[count >> 3] |= np.uint8(1 << (count & 7))
        accepted[i], rows[count], types[count], us[count], minor[count] = 1, i, code, instant, value
        count += 1
        id_offsets[0, count] = customer_at
        id_offsets[1, count] = order_at
        id_offsets[2, count] = event_at
    return count
