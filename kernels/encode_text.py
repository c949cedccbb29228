"""Sizes and bytes of the fields of a record: numbers, instants, and ids as JSON strings or CloudEvents attributes.

Every field has a function that returns its size and one that writes it; a writer may write up to LINE_BYTES beyond its
field's end, because what follows is written later.

Source: RFC 8259 (JSON; the shortest escapes, as orjson writes them), RFC 3339 (instants), CloudEvents 1.0.2 "Type
System" (an attribute holds no control characters and no noncharacters), Kafka's protocol guide (varints).
"""

import numpy as np

from rfmstream.kernels._jit import copy_line, inline, keep_apart, part, store_word
from rfmstream.kernels.ids import word_at
from rfmstream.kernels.layout import DAY_US

LINE_BYTES = 32
"""What `copy_line` copies, so what buffers it reads from and writes to have to spare at their ends."""

INSTANT_BYTES = 27
"""2026-01-31T00:00:00.000000Z"""

NULL_BYTES = 4

BEGINNING_BYTES_MAX = 12
"""Length (5), attributes (1), timestamp delta (1) and offset delta (5) of a record."""

_U = np.uint64
_NULL = np.uint64(int.from_bytes(b"null", "little"))
_ONES = 0x0101010101010101
_HIGH = np.uint64(0x80 * _ONES)
_LOW = np.uint64(0x7F * _ONES)
_TO_SPACE = np.uint64(0x60 * _ONES)
_SPACES = 0x20 * _ONES
_QUOTES = np.uint64(0x22 * _ONES)
_PERCENTS = np.uint64(0x25 * _ONES)
_BACKSLASHES = np.uint64(0x5C * _ONES)
_DELETES = np.uint64(0x7F * _ONES)

# What stands behind the backslash of a control character; u stands for u00 and two digits.
_SHORT = np.full(32, ord("u"), np.uint8)
for _character, _letter in zip("\b\t\n\f\r", "btnfr", strict=True):
    _SHORT[ord(_character)] = ord(_letter)
_SHORT.flags.writeable = False

_LOWER = np.frombuffer(b"0123456789abcdef", np.uint8)
_UPPER = np.frombuffer(b"0123456789ABCDEF", np.uint8)
_PADS = np.array([_SPACES >> (8 * count) << (8 * count) for count in range(8)] + [0], np.uint64)
_PADS.flags.writeable = False


@inline
def _is_byte(word, repeated):
    """Return the high bit of every byte of `word` that is the byte repeated in `repeated`."""
    different = word ^ repeated
    return ~(((different & _LOW) + _LOW) | different) & _HIGH


@inline
def _is_control(word):
    """Return the high bit of every byte of `word` below the space."""
    return ~(((word & _LOW) + _TO_SPACE) | word) & _HIGH


@inline
def copy_text(out, at, data, start, size):
    """Write `size` bytes of a column; return the end."""
    done = np.int64(0)
    while done < size:
        store_word(out, at + done, word_at(data, start + done, min(size - done, np.int64(8))))
        done += 8
    return at + size


@inline
def copy_piece(out, at, pieces, start, size):
    """Write `size` bytes of `pieces`, which has LINE_BYTES to spare; return the end."""
    done = np.int64(0)
    while done < size:
        copy_line(out, at + done, pieces, start + done)
        done += LINE_BYTES
    return at + size


@inline
def size_varint(value):
    """Return the bytes of the zigzag varint of a number that is not negative."""
    rest = value >> 6
    size = np.int64(1)
    while rest > 0:
        rest >>= 7
        size += 1
    return size


@inline
def write_varint(out, at, value):
    """Write the zigzag varint of a number that is not negative; return the end."""
    rest = value << 1
    while rest > 0x7F:
        out[at] = (rest & 0x7F) | 0x80
        rest >>= 7
        at += 1
    out[at] = rest
    return at + 1


@inline
def size_beginning(delta, size):
    """Return the bytes of a record before its key, of which it has `size` from there on."""
    delta_bytes = size_varint(delta)
    return size_varint(2 + delta_bytes + size) + 2 + delta_bytes


@inline
def write_beginning(out, at, delta, size):
    """Write what a record has before its key: no attributes, and the timestamp of the batch; return the end."""
    at = write_varint(out, at, 2 + size_varint(delta) + size)
    out[at] = 0
    out[at + 1] = 0
    return write_varint(out, at + 2, delta)


@inline
def _magnitude(value):
    """Return |value| as u64, the lowest i64 included."""
    if value < 0:
        return np.uint64(-(value + 1)) + np.uint64(1)
    return np.uint64(value)


@inline
def size_integer(value):
    """Return the digits of an i64, its sign included."""
    rest = _magnitude(value)
    size = np.int64(2 if value < 0 else 1)
    while rest >= np.uint64(10):
        rest //= np.uint64(10)
        size += 1
    return size


@inline
def write_integer(out, at, value, size):
    """Write an i64 in decimal; return the end."""
    rest = _magnitude(value)
    if value < 0:
        out[at] = ord("-")
    place = at + size - 1
    while rest >= np.uint64(10):
        quotient = rest // np.uint64(10)
        out[place] = 48 + np.int64(rest - quotient * np.uint64(10))
        rest = quotient
        place -= 1
    out[place] = 48 + np.int64(rest)
    return at + size


@inline
def _civil_of(day):
    """Return year, month and day, u64 each, of the day number u64 of which 0 is 0000-03-01.

    In the proleptic Gregorian calendar. The years begin in March here, so that the day that comes and goes is the last
    of one.
    """
    era = day // _U(146_097)
    of_era = day - era * _U(146_097)
    years = (of_era - of_era // _U(1_460) + of_era // _U(36_524) - of_era // _U(146_096)) // _U(365)
    of_year = of_era - (_U(365) * years + years // _U(4) - years // _U(100))
    march_month = (_U(5) * of_year + _U(2)) // _U(153)
    day_of_month = of_year - (_U(153) * march_month + _U(2)) // _U(5) + _U(1)
    turn = _U(march_month >= _U(10))
    return years + era * _U(400) + turn, march_month + _U(3) - _U(12) * turn, day_of_month


@inline
def _eight_digits(pairs):
    """Return four numbers below 100, 16 bits each, as their eight digits."""
    tens = ((pairs * _U(103)) >> _U(10)) & _U(0x000F_000F_000F_000F)
    return (tens | ((pairs - _U(10) * tens) << _U(8))) + _U(0x30 * _ONES)


@inline
def write_instant(out, at, at_us):
    """Write an instant of the years 1 to 9999 as RFC 3339 has it, in UTC with microseconds; return the end."""
    shifted = _U(at_us + 719_468 * DAY_US)
    day_number = shifted // _U(DAY_US)
    micros = shifted - day_number * _U(DAY_US)
    year, month, day = _civil_of(day_number)
    century = year // _U(100)
    date = _eight_digits(
        century | ((year - century * _U(100)) << _U(16)) | (month << _U(32)) | (day << _U(48))
    )
    seconds = micros // _U(1_000_000)
    micros -= seconds * _U(1_000_000)
    minutes = seconds // _U(60)
    hours = minutes // _U(60)
    front = micros // _U(10_000)
    time = _eight_digits(
        hours
        | ((minutes - hours * _U(60)) << _U(16))
        | ((seconds - minutes * _U(60)) << _U(32))
        | (front << _U(48))
    )
    micros -= front * _U(10_000)
    middle = micros // _U(100)
    last = _eight_digits(middle | ((micros - middle * _U(100)) << _U(16)))
    store_word(
        out,
        at,
        (date & _U(0xFFFF_FFFF)) | ((date & _U(0xFFFF_0000_0000)) << _U(8)) | _U(0x2D00_002D_0000_0000),
    )
    store_word(
        out,
        at + 8,
        (date >> _U(48))
        | ((time & _U(0xFFFF)) << _U(24))
        | ((time & _U(0xFFFF_0000)) << _U(32))
        | _U(0x0000_3A00_0054_0000),
    )
    store_word(
        out,
        at + 16,
        ((time >> _U(24)) & _U(0xFF_FF00))
        | ((time >> _U(48)) << _U(32))
        | (last << _U(48))
        | _U(0x0000_0000_2E00_003A),
    )
    store_word(out, at + 24, ((last >> _U(16)) & _U(0xFFFF)) | _U(0x5A_0000))
    return at + INSTANT_BYTES


@inline
def write_null(out, at):
    """Write JSON's null; return the end."""
    store_word(out, at, _NULL)
    return at + NULL_BYTES


@inline
def _size_escaped(byte):
    if byte >= 0x20:
        return np.int64(2 if byte in (0x22, 0x5C) else 1)
    return np.int64(6 if _SHORT[byte] == ord("u") else 2)


@part
def _size_json_bytewise(data, start, size):
    keep_apart()
    total = np.int64(0)
    for i in range(start, start + size):
        total += _size_escaped(data[i])
    return total


@inline
def size_json(data, start, size):
    """Return the bytes of a text inside the quotes of a JSON string."""
    special = np.uint64(0)
    done = np.int64(0)
    while done < size:
        count = min(size - done, np.int64(8))
        word = word_at(data, start + done, count) | _PADS[count]
        special |= _is_control(word) | _is_byte(word, _QUOTES) | _is_byte(word, _BACKSLASHES)
        done += 8
    if special == 0:
        return size
    return _size_json_bytewise(data, start, size)


@inline
def _write_escaped(out, at, byte):
    """Write one byte of a JSON string; return the end."""
    if byte >= 0x20:
        if byte in (0x22, 0x5C):
            out[at] = 0x5C
            at += 1
        out[at] = byte
        return at + 1
    out[at] = 0x5C
    out[at + 1] = _SHORT[byte]
    if _SHORT[byte] != ord("u"):
        return at + 2
    out[at + 2] = 48
    out[at + 3] = 48
    out[at + 4] = _LOWER[byte >> 4]
    out[at + 5] = _LOWER[byte & 15]
    return at + 6


@part
def _write_json_bytewise(out, at, data, start, size):
    keep_apart()
    for i in range(start, start + size):
        at = _write_escaped(out, at, data[i])
    return at


@inline
def write_json(out, at, data, start, size, written):
    """Write a text inside the quotes of a JSON string, `written` bytes; return the end."""
    if written == size:
        return copy_text(out, at, data, start, size)
    return _write_json_bytewise(out, at, data, start, size)


@inline
def _character(data, start, end):
    """Return the bytes of the character at `start` and whether a CloudEvents attribute may hold it as it is.

    A percent sign may not, so that what is written can be read back.
    """
    lead = data[start]
    if lead < 0x80:
        return np.int64(1), 0x20 <= lead < 0x7F and lead != 0x25
    length = np.int64(2 if lead < 0xE0 else 3 if lead < 0xF0 else 4)
    if end - start < length:
        return np.int64(1), False
    second = data[start + 1]
    if length == 2:
        return length, not (lead == 0xC2 and second < 0xA0)  # U+0080-009F
    third = data[start + 2]
    if length == 3:
        if lead != 0xEF:
            return length, True
        if second == 0xB7:
            return length, not 0x90 <= third <= 0xAF  # U+FDD0-FDEF
        return length, not (second == 0xBF and third >= 0xBE)  # U+FFFE, U+FFFF
    return length, not (
        second & 0x0F == 0x0F and third == 0xBF and data[start + 3] >= 0xBE
    )  # U+xFFFE, U+xFFFF


@part
def _size_attribute_bytewise(data, start, size, quoted):
    keep_apart()
    total = np.int64(0)
    end = start + size
    while start < end:
        length, allowed = _character(data, start, end)
        total += length if allowed else 3 * length
        if quoted and data[start] in (0x22, 0x5C):
            total += 1
        start += length
    return total


@inline
def size_attribute(data, start, size, quoted):
    """Return the bytes of a text as a CloudEvents attribute, `quoted`: inside the quotes of a JSON string."""
    special = np.uint64(0)
    done = np.int64(0)
    while done < size:
        count = min(size - done, np.int64(8))
        word = word_at(data, start + done, count) | _PADS[count]
        special |= (word & _HIGH) | _is_control(word) | _is_byte(word, _DELETES) | _is_byte(word, _PERCENTS)
        if quoted:
            special |= _is_byte(word, _QUOTES) | _is_byte(word, _BACKSLASHES)
        done += 8
    if special == 0:
        return size
    return _size_attribute_bytewise(data, start, size, quoted)


@part
def _write_attribute_bytewise(out, at, data, start, size, quoted):
    keep_apart()
    end = start + size
    while start < end:
        length, allowed = _character(data, start, end)
        for i in range(start, start + length):
            byte = data[i]
            if not allowed:
                out[at] = 0x25
                out[at + 1] = _UPPER[byte >> 4]
                out[at + 2] = _UPPER[byte & 15]
                at += 3
            elif quoted:
                at = _write_escaped(out, at, byte)
            else:
                out[at] = byte
                at += 1
        start += length
    return at


@inline
def write_attribute(out, at, data, start, size, quoted, written):
    """Write a text as a CloudEvents attribute, `written` bytes; return the end.

    Characters that no attribute may hold, and the percent sign, become the percent-encoding of their UTF-8.
    """
    if written == size:
        return copy_text(out, at, data, start, size)
    return _write_attribute_bytewise(out, at, data, start, size, quoted)
