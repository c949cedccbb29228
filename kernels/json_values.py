"""Amounts and instants in their usual spellings, read at once; every other spelling by `kernels.parse`.

Both return what `kernels.parse` would: they are that, made quick where it is plain.
"""

import numpy as np

from rfmstream.kernels._jit import inline, keep_apart, load_word, part
from rfmstream.kernels.json_text import HIGH, NULL, mask, words
from rfmstream.kernels.parse import (
    ABSENT,
    BAD,
    DAY_US,
    OK,
    REFUSE,
    days_of_civil,
    read_instant,
    read_number,
    scale_to_integer,
)
from rfmstream.schemas.codes import AMOUNT_MINOR_MAX

_POWERS = 10 ** np.arange(5, dtype=np.int64)
_SHORT = 13  # so many digits times any power above fit an int64

_TO_HIGH = np.uint64(0x7676767676767676)  # lifts a byte above 9 to its highest bit
_DATE_FORM, _TIME_FORM, _SECONDS_FORM = words("0000-00-")[0], words("00T00:00")[0], words(":00")[0]
_DATE_APART, _TIME_APART, _SECONDS_APART = (
    np.uint64(value) for value in (0xFF0000FF00000000, 0x0000FF0000FF0000, 0x00000000000000FF)
)


@part
def _read_any_amount(data, first, after, exponent):
    keep_apart()
    mantissa, scale, status = read_number(data, first, after)
    value = np.int64(0)
    if status == OK:
        value, status = scale_to_integer(
            np.int64(mantissa), np.int64(scale), exponent, AMOUNT_MINOR_MAX, REFUSE
        )
    return np.int64(value), np.int64(status)


@inline
def read_amount(data, first, after, kind, exponent):
    """Return (integer of 10**-exponent, status) as `kernels.parse.parse_integers` has it."""
    if kind == NULL:
        return np.int64(0), np.int64(ABSENT)
    # Short decimals with no more digits than the currency has; whatever else comes is read with care.
    at, value, digits, fraction, pointed = first, np.int64(0), 0, 0, False
    negative = data[at] == 45
    at += negative
    while at < after:
        digit = np.int64(data[at]) - 48
        if 0 <= digit <= 9:
            value = value * 10 + digit
            digits += 1
            fraction += pointed
        elif digit == -2 and not pointed:
            pointed = True
        else:
            break
        at += 1
    if at < after or digits == 0 or after - first > _SHORT or fraction > exponent:
        return _read_any_amount(data, first, after, exponent)
    value *= _POWERS[exponent - fraction]
    if value > AMOUNT_MINOR_MAX:
        return np.int64(0), np.int64(BAD)
    return (-value if negative else value), np.int64(OK)


@part
def _read_any_instant(data, first, after):
    keep_apart()
    us, status = read_instant(data, first, after)
    return np.int64(us), np.int64(status)


@inline
def _numbers_of(word, form, apart):
    """Return a word whose byte i is the two-digit number at i, and whether the word has the form.

    In      form  the word with all digits 0;  apart  255 at each byte of it that is no digit
    """
    digits = word ^ form
    fits = (((digits + _TO_HIGH) | digits) & HIGH) | (digits & apart) == np.uint64(0)
    return digits * np.uint64(10) + (digits >> np.uint64(8)), fits


@inline
def _byte(word, at):
    return np.int64(word >> np.uint64(8 * at) & np.uint64(255))


@inline
def read_short_instant(data, first, after):
    """Return (µs, status) as `kernels.parse.read_instant` does."""
    size = after - first
    # 2024-02-29T12:34:56Z, or with up to six digits of a fraction; whatever else comes is read with care.
    if not 20 <= size <= 27 or data[after - 1] != 90:
        return _read_any_instant(data, first, after)
    date, is_date = _numbers_of(load_word(data, first), _DATE_FORM, _DATE_APART)
    time, is_time = _numbers_of(load_word(data, first + 8), _TIME_FORM, _TIME_APART)
    seconds, is_seconds = _numbers_of(load_word(data, first + 16) & mask(3), _SECONDS_FORM, _SECONDS_APART)
    year, month, day = _byte(date, 0) * 100 + _byte(date, 2), _byte(date, 5), _byte(time, 0)
    hour, minute, second = _byte(time, 3), _byte(time, 6), _byte(seconds, 1)
    good = is_date and is_time and is_seconds and year >= 1 and 1 <= month <= 12 and 1 <= day <= 28
    good = good and hour <= 23 and minute <= 59 and second <= 59
    us = np.int64(0)
    if size > 20:
        good = good and size > 21 and data[first + 19] == 46
        unit = np.int64(1_000_000)
        for at in range(first + 20, after - 1):
            digit = np.int64(data[at]) - 48
            good = good and 0 <= digit <= 9
            unit //= 10
            us += digit * unit
    if not good:
        return _read_any_instant(data, first, after)
    us += ((hour * 60 + minute) * 60 + second) * 1_000_000
    return days_of_civil(year, month, day) * DAY_US + us, np.int64(OK)
