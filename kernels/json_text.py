"""The words of JSON, eight bytes at a time: where strings, numbers and whole values end.

Strict as RFC 8259, and stricter: a string with an escape counts as damaged, because what it says differs from its
bytes. Bytes above 127 are passed over and told of; whoever reads a row looks whether they are UTF-8.
"""

from typing import Final

import numpy as np

from rfmstream.kernels._jit import count_trailing_zeros, inline, jit, keep_apart, load_word, part

PAD_BYTES: Final = 64
"""What must follow the last text in `data`, of whatever content: whole words are read."""

ONES: Final = np.uint64(0x0101010101010101)
HIGH: Final = np.uint64(0x8080808080808080)
"""The lowest and the highest bit of each byte of a word."""

_QUOTES = np.uint64(0x2222222222222222)
_BACKSLASHES = np.uint64(0x5C5C5C5C5C5C5C5C)
_BLANKS = np.uint64(0x2020202020202020)

QUOTE, COMMA, COLON, OPEN, CLOSE, OPEN_ARRAY, CLOSE_ARRAY = b'",:{}[]'
_BACKSLASH = 92

TEXT, NUMBER, NULL, BOOLEAN, NESTED, DAMAGED = range(6)
"""The kinds of a value."""

_DEPTH_MAX = 40  # far below what the ordinary path allows, and within the bits of a word


def words(text):
    """Return the first sixteen bytes of a text as two little-endian words, zero-padded."""
    padded = text.encode().ljust(16, b"\0")
    return np.uint64(int.from_bytes(padded[:8], "little")), np.uint64(int.from_bytes(padded[8:], "little"))


_TRUE_WORD, _FALSE_WORD, _NULL_WORD = (words(word)[0] for word in ("true", "false", "null"))


@inline
def mask(size):
    """Return the mask of a word's `size` low bytes, 0 to 8."""
    return (np.uint64(1) << np.uint64(8 * size)) - np.uint64(1) if size < 8 else ~np.uint64(0)


@inline
def first_bytes(data, start, size):
    """Return up to eight bytes as a zero-padded word."""
    return load_word(data, start) & mask(size)


@inline
def place_of_first(flags):
    """Return the place of the first byte whose high bit is set."""
    return count_trailing_zeros(np.int64(flags)) >> np.int64(3)


@inline
def skip_blanks(data, at, end):
    """Return the place of the next byte that is no blank of JSON, or `end`."""
    while at < end and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@inline
def end_of_text(data, at, end):
    """Return the place of the quote that closes a string, and whether a byte above 127 was met.

    The place is `end` where the string is not closed, or holds an escape or a control character.
    """
    wide = False
    while at < end:
        word = load_word(data, at)
        quotes, slashes = word ^ _QUOTES, word ^ _BACKSLASHES
        # A byte that is zero, or less than a blank, has its high bit set by the subtraction; what a borrow sets lies
        # above one that is meant, and only the first is looked at.
        flags = (
            ((quotes - ONES) & ~quotes) | ((slashes - ONES) & ~slashes) | ((word - _BLANKS) & ~word) | word
        ) & HIGH
        if flags == np.uint64(0):
            at += 8
            continue
        at += place_of_first(flags)
        byte = data[at]
        if byte == QUOTE:
            return min(at, end), wide
        if byte < 128:
            return end, wide
        wide = True
        at += 1
    return end, wide


@inline
def _is_digit(byte):
    return 48 <= byte <= 57


@inline
def _end_of_number(data, start, end):
    """Return the place after a JSON number, or `start` where there is none."""
    at = start
    if data[at] == 45:
        at += 1
    if at < end and data[at] == 48:
        at += 1
    else:
        first = at
        while at < end and _is_digit(data[at]):
            at += 1
        if at == first:
            return start
    if at < end and data[at] == 46:
        at += 1
        first = at
        while at < end and _is_digit(data[at]):
            at += 1
        if at == first:
            return start
    if at < end and (data[at] == 101 or data[at] == 69):
        at += 1
        if at < end and (data[at] == 43 or data[at] == 45):
            at += 1
        first = at
        while at < end and _is_digit(data[at]):
            at += 1
        if at == first:
            return start
    return at


@inline
def _find_scalar(data, at, end):
    """Return (first byte, place after the last, place to go on at, kind, whether wide) of a value that is no nest."""
    byte = data[at] if at < end else np.uint8(0)
    if byte == QUOTE:
        close, wide = end_of_text(data, at + 1, end)
        return at + 1, close, close + 1, (TEXT if close < end else DAMAGED), wide
    if byte == 45 or _is_digit(byte):
        after = _end_of_number(data, at, end)
        return at, after, after, (NUMBER if after > at else DAMAGED), False
    if first_bytes(data, at, 4) == _NULL_WORD:
        after, kind = at + 4, NULL
    elif first_bytes(data, at, 4) == _TRUE_WORD:
        after, kind = at + 4, BOOLEAN
    elif first_bytes(data, at, 5) == _FALSE_WORD:
        after, kind = at + 5, BOOLEAN
    else:
        return at, at, at, DAMAGED, False
    return at, after, after, (kind if after <= end else DAMAGED), False


@inline
def _after_key(data, at, end):
    """Return (place of what follows a key and its colon, whether wide); `end` where there is none."""
    if at >= end or data[at] != QUOTE:
        return end, False
    close, wide = end_of_text(data, at + 1, end)
    at = skip_blanks(data, close + 1, end)
    if at >= end or data[at] != COLON:
        return end, False
    return skip_blanks(data, at + 1, end), wide


@part
def end_of_value(data, start, end):
    """Return (place after any value, whether a byte above 127 was met).

    The place is `start` where the value is damaged, not plain, or nests deep.
    """
    keep_apart()
    at, depth, objects, wide = start, 0, 0, False  # bit 0 of `objects`: what we are in is no array
    while True:
        byte = data[at] if at < end else np.uint8(0)
        opened = byte in (OPEN, OPEN_ARRAY)
        if opened:
            depth += 1
            objects = objects << 1 | (byte == OPEN)
            at = skip_blanks(data, at + 1, end)
            if depth > _DEPTH_MAX or at >= end:
                return start, wide
        else:
            _, _, at, kind, wide_value = _find_scalar(data, at, end)
            wide |= wide_value
            if kind == DAMAGED:
                return start, wide
        while True:
            if depth == 0:
                return at, wide
            if not opened:
                at = skip_blanks(data, at, end)
            byte = data[at] if at < end else np.uint8(0)
            if byte == (CLOSE if objects & 1 else CLOSE_ARRAY):
                depth -= 1
                objects >>= 1
                at += 1
                opened = False
                continue
            if not opened:
                if byte != COMMA:
                    return start, wide
                at = skip_blanks(data, at + 1, end)
            if objects & 1:
                at, wide_key = _after_key(data, at, end)
                wide |= wide_key
            break


@inline
def find_value(data, at, end):
    """Return (first byte, place after the last, place to go on at, kind, whether wide) of the value at `at`."""
    if at < end and (data[at] == OPEN or data[at] == OPEN_ARRAY):
        after, wide = end_of_value(data, at, end)
        return at, after, after, (NESTED if after > at else DAMAGED), wide
    return _find_scalar(data, at, end)


@jit
def nesting(text):
    """Return how deep a JSON text, u8[n], nests; of what is no JSON any number."""
    depth, deepest = np.int64(0), np.int64(0)
    in_text, escaped = False, False
    for byte in text:
        if in_text:
            in_text = escaped or byte != QUOTE
            escaped = not escaped and byte == _BACKSLASH
        elif byte == QUOTE:
            in_text = True
        elif byte in (OPEN, OPEN_ARRAY):
            depth += 1
            deepest = max(deepest, depth)
        elif byte in (CLOSE, CLOSE_ARRAY):
            depth -= 1
    return deepest
