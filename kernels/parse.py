"""Text and foreign numbers to exact integers: decimals to minor units, ISO 8601 to µs; and the id checks.

Text comes as Arrow string buffers: `offsets` i32[n+1] and `data` u8[], row i being
data[offsets[i]:offsets[i+1]]; `valid` is bool[n], or empty when there are no nulls. A status says per row
what became of it.

Source  docs/semantics.md section 1
"""

from typing import Final

import numpy as np

from rfmstream.kernels._jit import inline, jit, load_word, part
from rfmstream.schemas.codes import ID_BYTES_MAX

OK: Final = 0
ABSENT: Final = 1
"""Null, empty, or nothing but blanks."""
BAD: Final = 2
NAIVE: Final = 3
"""An instant without a zone: the value counts microseconds of local time."""

REFUSE: Final = 0
HALF_EVEN: Final = 1
HALF_UP: Final = 2
"""Ties go away from zero, as in trade."""
FLOOR: Final = 3

DAY_US: Final = 86_400_000_000
INSTANT_MIN_US: Final = -719_162 * DAY_US
"""0001-01-01T00:00:00Z."""
INSTANT_MAX_US: Final = 2_932_897 * DAY_US - 1
"""9999-12-31T23:59:59.999999Z."""

UNKNOWN_WORD: Final = 255

_DIGITS_MAX = 18  # every integer of 18 digits fits an int64
_POWERS = 10 ** np.arange(19, dtype=np.int64)
_EXPONENT_MAX = 100_000  # beyond this an exponent says nothing a money amount could mean


@inline
def _is_blank(byte):
    return byte == 32 or (9 <= byte <= 13)


@inline
def _is_digit(byte):
    return 48 <= byte <= 57


@inline
def read_number(data, start, end):
    """Read one decimal: (mantissa, scale, status), value = mantissa / 10**scale, no trailing zeros."""
    while start < end and _is_blank(data[start]):
        start += 1
    while end > start and _is_blank(data[end - 1]):
        end -= 1
    if start == end:
        return 0, 0, ABSENT
    negative = data[start] == 45
    if negative or data[start] == 43:
        start += 1
    mantissa, digit_count, digits_kept, zeros, fraction = 0, 0, 0, 0, 0
    pointed = False
    while start < end:
        byte = data[start]
        if _is_digit(byte):
            digit_count += 1
            fraction += pointed
            if byte == 48:
                zeros += mantissa != 0
            else:
                digits_kept += zeros + 1
                if digits_kept > _DIGITS_MAX:
                    return 0, 0, BAD
                mantissa = mantissa * _POWERS[zeros + 1] + (np.int64(byte) - 48)
                zeros = 0
        elif byte == 46 and not pointed:
            pointed = True
        else:
            break
        start += 1
    if digit_count == 0:
        return 0, 0, BAD
    exponent = 0
    if start < end:
        if data[start] != 101 and data[start] != 69:  # e, E
            return 0, 0, BAD
        start += 1
        exponent_negative = start < end and data[start] == 45
        if exponent_negative or (start < end and data[start] == 43):
            start += 1
        if start == end:
            return 0, 0, BAD
        while start < end:
            if not _is_digit(data[start]):
                return 0, 0, BAD
            exponent = min(exponent * 10 + (np.int64(data[start]) - 48), _EXPONENT_MAX)
            start += 1
        if exponent_negative:
            exponent = -exponent
    if mantissa == 0:
        return 0, 0, OK
    return (-mantissa if negative else mantissa), fraction - zeros - exponent, OK


@inline
def scale_to_integer(mantissa, scale, exponent, limit, rounding):
    """Return mantissa / 10**scale * 10**exponent as an integer within +-`limit`, and a status."""
    shift = exponent - scale
    if mantissa == 0:
        return 0, OK
    if shift >= 0:
        if shift > 18 or abs(mantissa) > limit // _POWERS[shift]:
            return 0, BAD
        return mantissa * _POWERS[shift], OK
    if shift < -18:
        quotient, remainder, half = 0, abs(mantissa), np.int64(2**62)
    else:
        unit = _POWERS[-shift]
        quotient, remainder, half = abs(mantissa) // unit, abs(mantissa) % unit, unit // 2
    if remainder != 0:
        if rounding == REFUSE:
            return 0, BAD
        if rounding == FLOOR:
            quotient += mantissa < 0
        elif remainder > half or (remainder == half and (rounding == HALF_UP or quotient % 2 == 1)):
            quotient += 1
    if quotient > limit:
        return 0, BAD
    return (-quotient if mantissa < 0 else quotient), OK


@jit
def parse_integers(offsets, data, valid, exponent, limit, rounding, out, status):
    """Parse decimal text into value * 10**exponent, exactly unless `rounding` says otherwise.

    In      offsets i32[n+1], data u8[], valid bool[n] or [0]  ro
            exponent  0..18;  limit  largest absolute result;  rounding  REFUSE, HALF_EVEN, HALF_UP or FLOOR
    Out     out i64[n], 0 unless OK;  status u8[n]  OK, ABSENT or BAD
    Errors  none: no decimal, more decimals than `exponent` (unless zeros) or beyond the limit is BAD
    Cost    O(bytes), no allocation
    Source  docs/semantics.md 1; oracle decimal.Decimal
    """
    for i in range(len(out)):
        if len(valid) and not valid[i]:
            out[i], status[i] = 0, ABSENT
            continue
        mantissa, scale, code = read_number(data, np.int64(offsets[i]), np.int64(offsets[i + 1]))
        value = np.int64(0)
        if code == OK:
            value, code = scale_to_integer(np.int64(mantissa), np.int64(scale), exponent, limit, rounding)
        out[i], status[i] = value, code


@jit
def integers_of_doubles(values, valid, exponent, limit, out, status):
    """Turn doubles into value * 10**exponent, by the shortest decimal that reads back as the double.

    Exact because the quotient below is correctly rounded: x == minor / 10**exponent holds just when x is the
    double nearest to that decimal, and up to 15 digits no shorter decimal can be another one.

    In      values f64[n], valid bool[n] or [0]  ro; NaN counts as ABSENT;  limit <= 10**15
    Out     out i64[n], status u8[n]
    """
    factor = float(_POWERS[exponent])
    for i in range(len(values)):
        value = values[i]
        out[i] = 0
        if (len(valid) and not valid[i]) or value != value:  # noqa: PLR0124 - numba's isnan, without an import
            status[i] = ABSENT
            continue
        scaled = np.rint(value * factor)
        if abs(scaled) <= limit and scaled / factor == value:
            out[i], status[i] = np.int64(scaled), OK
        else:
            status[i] = BAD


@jit
def integers_of_decimals(words, valid, scale, exponent, limit, out, status):
    """Turn decimal128 values into value * 10**exponent, exactly.

    In      words i64[2n]  ro   low and high half of each value;  scale  of the decimal type
    Out     out i64[n], status u8[n];  a value whose unscaled integer needs more than 64 bits is BAD
    Returns whether such a value was met: the caller then takes the way over text
    """
    wide = False
    for i in range(len(out)):
        out[i] = 0
        if len(valid) and not valid[i]:
            status[i] = ABSENT
            continue
        low, high = words[2 * i], words[2 * i + 1]
        if high != low >> 63 or low == np.int64(-(2**63)):
            wide = True
            status[i] = BAD
            continue
        out[i], status[i] = scale_to_integer(low, scale, exponent, limit, REFUSE)
    return wide


@inline
def _pair(data, at):
    """Read two digits, or return -1."""
    if _is_digit(data[at]) and _is_digit(data[at + 1]):
        return (np.int64(data[at]) - 48) * 10 + (np.int64(data[at + 1]) - 48)
    return -1


@inline
def days_of_civil(year, month, day):
    """Return the days from 1970-01-01 to a date of the proleptic Gregorian calendar."""
    shifted = year - (month <= 2)
    era = shifted // 400
    year_of_era = shifted - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468


@inline
def _days_in_month(year, month):
    if month == 2:
        return 29 if (year % 4 == 0 and year % 100 != 0) or year % 400 == 0 else 28
    return 30 if month in (4, 6, 9, 11) else 31


@part
def read_instant(data, start, end):
    """Read one ISO 8601 instant: (µs, status).

    Accepts YYYY-MM-DD, then after a T or a blank HH:MM[:SS[.fraction]], then Z, UTC or an offset of +-HH[:]MM
    or +-HH, with or without a blank before it. Fraction digits beyond the sixth are cut off, as timestamps in
    ns are.
    """
    while start < end and _is_blank(data[start]):
        start += 1
    while end > start and _is_blank(data[end - 1]):
        end -= 1
    if start == end:
        return np.int64(0), ABSENT
    bad = (np.int64(0), BAD)
    if end - start < 10 or data[start + 4] != 45 or data[start + 7] != 45:
        return bad
    century, years, month, day = (
        _pair(data, start),
        _pair(data, start + 2),
        _pair(data, start + 5),
        _pair(data, start + 8),
    )
    if century < 0 or years < 0 or not 1 <= month <= 12:
        return bad
    year = century * 100 + years
    if year < 1 or not 1 <= day <= _days_in_month(year, month):
        return bad
    value = days_of_civil(year, month, day) * DAY_US
    start += 10
    if start == end:
        return value, NAIVE
    if data[start] not in (84, 116, 32) or end - start < 6 or data[start + 3] != 58:  # T, t, blank; colon
        return bad
    hour, minute, second = _pair(data, start + 1), _pair(data, start + 4), np.int64(0)
    start += 6
    if start < end and data[start] == 58:
        if end - start < 3:
            return bad
        second = _pair(data, start + 1)
        start += 3
        if start < end and data[start] in (46, 44):
            start += 1
            unit = np.int64(1_000_000)
            digits = 0
            while start < end and _is_digit(data[start]):
                unit //= 10
                value += (np.int64(data[start]) - 48) * unit
                digits += 1
                start += 1
            if digits == 0:
                return bad
    if not (0 <= hour <= 23 and 0 <= minute <= 59 and 0 <= second <= 59):
        return bad
    value += ((hour * 60 + minute) * 60 + second) * 1_000_000
    if start < end and data[start] == 32:
        start += 1
    if start == end:
        return value, NAIVE
    if data[start] in (90, 122):  # Z, z
        status = OK if end - start == 1 else BAD
    elif end - start == 3 and data[start] == 85 and data[start + 1] == 84 and data[start + 2] == 67:  # UTC
        status = OK
    else:
        offset_us = _read_offset(data, start, end)
        status = BAD if offset_us == DAY_US else OK
        value -= offset_us
    if status == BAD or not INSTANT_MIN_US <= value <= INSTANT_MAX_US:
        return bad
    return value, OK


@part
def _read_offset(data, start, end):
    """Read +-HH, +-HHMM or +-HH:MM as microseconds east of UTC; DAY_US when it is none of them."""
    length = end - start
    colon = length == 6 and data[start + 3] == 58
    if data[start] not in (43, 45) or not (length in (3, 5) or colon):
        return DAY_US
    hours, minutes = _pair(data, start + 1), np.int64(0)
    if length > 3:
        minutes = _pair(data, start + (4 if colon else 3))
    if not (0 <= hours <= 23 and 0 <= minutes <= 59):
        return DAY_US
    offset_us = (hours * 60 + minutes) * 60_000_000
    return -offset_us if data[start] == 45 else offset_us


@jit
def parse_instants(offsets, data, valid, out, status):
    """Parse ISO 8601 text into microseconds since 1970.

    In      offsets i32[n+1], data u8[], valid bool[n] or [0]  ro
    Out     out i64[n]  UTC where status is OK, local time where it is NAIVE
            status u8[n]  OK, NAIVE, ABSENT or BAD (also outside the years 1..9999 in UTC)
    """
    for i in range(len(out)):
        if len(valid) and not valid[i]:
            out[i], status[i] = 0, ABSENT
        else:
            out[i], status[i] = read_instant(data, np.int64(offsets[i]), np.int64(offsets[i + 1]))


@jit
def is_ascii(data, start, end):
    """Return whether data[start:end] holds no byte above 127: then any cut of it is valid UTF-8."""
    seen = np.uint64(0)
    words = (end - start) // 8
    for i in range(words):
        seen |= load_word(data, start + i * 8)
    for i in range(start + words * 8, end):
        seen |= np.uint64(data[i])
    return seen & np.uint64(0x8080808080808080) == 0


@jit
def lengths_within(offsets, lowest, highest):
    """Return whether every row's length in bytes lies within lowest..highest."""
    outside = 0
    for i in range(len(offsets) - 1):
        length = offsets[i + 1] - offsets[i]
        outside += (length < lowest) | (length > highest)
    return outside == 0


@part
def is_utf8(data, start, end):
    """Return whether data[start:end] is well-formed UTF-8: no overlong forms, no surrogates."""
    while start < end:
        lead = data[start]
        if lead < 0x80:
            start += 1
            continue
        if 0xC2 <= lead <= 0xDF:
            length, low, high = 2, 0x80, 0xBF
        elif 0xE0 <= lead <= 0xEF:
            length, low, high = 3, (0xA0 if lead == 0xE0 else 0x80), (0x9F if lead == 0xED else 0xBF)
        elif 0xF0 <= lead <= 0xF4:
            length, low, high = 4, (0x90 if lead == 0xF0 else 0x80), (0x8F if lead == 0xF4 else 0xBF)
        else:
            return False
        if end - start < length or not low <= data[start + 1] <= high:
            return False
        for i in range(2, length):
            if data[start + i] & 0xC0 != 0x80:
                return False
        start += length
    return True


@jit
def check_text(offsets, data, valid, bytes_max, status):
    """Say per row whether text is there, is UTF-8 and at most `bytes_max` bytes long.

    Out     status u8[n]  OK, ABSENT (null or empty) or BAD
    """
    for i in range(len(status)):
        start, end = np.int64(offsets[i]), np.int64(offsets[i + 1])
        if (len(valid) and not valid[i]) or start == end:
            status[i] = ABSENT
        elif end - start > bytes_max or not is_utf8(data, start, end):
            status[i] = BAD
        else:
            status[i] = OK


@inline
def is_rounded(data, start, end):
    """Tell whether an id is one that a spreadsheet has rounded: digits, a point, digits, `E+` and digits."""
    if end - start < 6 or not _is_digit(data[start]) or not _is_digit(data[end - 1]):
        return False
    at = start
    while at < end and _is_digit(data[at]):
        at += 1
    if at == end or data[at] != 46:
        return False
    fraction = at + 1
    at = fraction
    while at < end and _is_digit(data[at]):
        at += 1
    if at == fraction or end - at < 3 or data[at] != 69 or data[at + 1] != 43:
        return False
    at += 2
    while at < end and _is_digit(data[at]):
        at += 1
    return at == end


@jit
def mark_rounded(offsets, data, valid, out):
    """Mark the ids that a spreadsheet has rounded.

    In      offsets i32[n+1], data u8[], valid bool[n] or [0]  ro
    Out     out bool[n]
    Returns whether there are any
    Cost    O(n) and the digits at the beginning of ids
    """
    found = False
    for i in range(len(offsets) - 1):
        out[i] = (len(valid) == 0 or valid[i]) and is_rounded(
            data, np.int64(offsets[i]), np.int64(offsets[i + 1])
        )
        found |= out[i]
    return found


def ids_are_clean(offsets, data):
    """Return whether every row passes the cheap tests of an id: 1..ID_BYTES_MAX bytes, all ASCII."""
    return lengths_within(offsets, 1, ID_BYTES_MAX) and is_ascii(
        data, np.int64(offsets[0]), np.int64(offsets[-1])
    )


@inline
def _rows_are_equal(offsets, data):
    """Return whether all rows hold the same text: one currency, only paid orders."""
    start, length = np.int64(offsets[0]), np.int64(offsets[1] - offsets[0])
    different = 0
    for i in range(1, len(offsets)):
        different |= offsets[i] - offsets[i - 1] - length
    if different != 0:
        return False
    for i in range(start + length, np.int64(offsets[-1])):
        different |= data[i] ^ data[i - length]
    return different == 0


@jit
def match_words(offsets, data, valid, word_offsets, word_data, absent, out):
    """Find each row's text among a few words.

    In      word_offsets i32[w+1], word_data u8[]  ro;  absent  the code of a null or empty row
    Out     out u8[n]  position of the word, or UNKNOWN_WORD
    Returns whether every row was found
    """
    unknown = 0
    all_equal = len(out) > 1 and len(valid) == 0 and _rows_are_equal(offsets, data)
    for i in range(len(out)):
        start = offsets[i]
        length = offsets[i + 1] - start
        if all_equal and i > 0:
            out[i:] = out[0]
            unknown *= len(out)
            break
        if length == 0 or (len(valid) and not valid[i]):
            out[i] = absent
            unknown += absent == UNKNOWN_WORD
            continue
        code = UNKNOWN_WORD
        for word in range(len(word_offsets) - 1):
            first = word_offsets[word]
            if word_offsets[word + 1] - first != length or data[start] != word_data[first]:
                continue
            same = True
            for j in range(length):
                same &= data[start + j] == word_data[first + j]
            if same:
                code = word
                break
        out[i] = code
        unknown += code == UNKNOWN_WORD
    return unknown == 0


@jit
def within(values, lowest, highest):
    """Return whether every i64 lies within lowest..highest."""
    outside = 0
    for i in range(len(values)):
        outside += (values[i] < lowest) | (values[i] > highest)
    return outside == 0
