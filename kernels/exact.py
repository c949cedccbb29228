"""Exact decimal arithmetic over columns: each row is mantissa / 10**scale with a status, in int64.

A product that needs more than 18 digits, or a sum that does with the decimals its terms have, is BAD, never rounded and
never wrapped around. That leaves five decimals to spare on the largest amount the contract knows.
"""

from typing import Final

import numpy as np

from rfmstream.kernels._jit import inline, jit, keep_apart, part
from rfmstream.kernels.parse import ABSENT, BAD, OK, read_number, scale_to_integer

MANTISSA_MAX: Final = 10**18 - 1
_POWERS = 10 ** np.arange(19, dtype=np.int64)


@jit
def parse_numbers(offsets, data, valid, mantissa, scale, status):
    """Parse decimal text into exact numbers: `kernels.parse.parse_integers` before any rounding.

    In      offsets i32[n+1], data u8[], valid bool[n] or [0]  ro
    Out     mantissa i64[n], scale i64[n], status u8[n]  OK, ABSENT or BAD
    """
    for i in range(len(mantissa)):
        if len(valid) and not valid[i]:
            mantissa[i], scale[i], status[i] = 0, 0, ABSENT
        else:
            mantissa[i], scale[i], status[i] = read_number(
                data, np.int64(offsets[i]), np.int64(offsets[i + 1])
            )


@inline
def _add(mantissa_a, scale_a, mantissa_b, scale_b):
    """Return (mantissa, scale, status) of a + b."""
    if mantissa_a == 0:
        return mantissa_b, scale_b, OK
    if mantissa_b == 0:
        return mantissa_a, scale_a, OK
    if scale_a < scale_b:
        mantissa_a, mantissa_b, scale_a, scale_b = mantissa_b, mantissa_a, scale_b, scale_a
    shift = scale_a - scale_b
    if shift > 18 or abs(mantissa_b) > MANTISSA_MAX // _POWERS[shift]:
        return np.int64(0), np.int64(0), BAD
    total = mantissa_a + mantissa_b * _POWERS[shift]
    if abs(total) > MANTISSA_MAX:
        return np.int64(0), np.int64(0), BAD
    return total, scale_a, OK


@inline
def _scaled(mantissa, shift):
    """Return mantissa * 10**shift, or 2 * 10**18 of its sign where that lies beyond MANTISSA_MAX."""
    if mantissa != 0 and (shift > 18 or abs(mantissa) > MANTISSA_MAX // _POWERS[shift]):
        return 2 * 10**18 * np.sign(mantissa)
    return mantissa * _POWERS[min(shift, 18)]


@jit
def compare_numbers(mantissa, scale, status, bound, bound_scale, sign):
    """Compare each row with bound / 10**bound_scale, exactly at any number of decimals.

    In      mantissa i64[n], scale i64[n], status u8[n], |bound| <= MANTISSA_MAX  ro
    Out     sign i8[n]  -1 below, 1 above, 0 equal, or no number
    """
    for i in range(len(sign)):
        a, b = mantissa[i], bound
        shift = scale[i] - bound_scale
        if status[i] != OK:
            a, b = np.int64(0), np.int64(0)
        elif shift > 0:
            b = _scaled(b, shift)
        else:
            a = _scaled(a, -shift)
        sign[i] = np.sign(a - b)


@jit
def fold_sum(mantissa, scale, status, other_mantissa, other_scale, other_status, sign):
    """Add `sign` times another column in place. An absent number adds nothing; two absent ones stay absent.

    State   mantissa i64[n], scale i64[n], status u8[n];  the other three alike, ro;  sign  1 or -1
    """
    for i in range(len(mantissa)):
        if status[i] == BAD or other_status[i] == ABSENT:
            continue
        if other_status[i] == BAD:
            mantissa[i], scale[i], status[i] = 0, 0, BAD
            continue
        mantissa[i], scale[i], status[i] = _add(
            mantissa[i], scale[i], sign * other_mantissa[i], other_scale[i]
        )


@part
def _reduced(a, b, scale):
    """Take tens out of the factors of a product with so many decimals, so that it ends in no zero behind the point."""
    keep_apart()
    while scale > 0:
        if a % 10 == 0:
            a //= 10
        elif b % 10 == 0:
            b //= 10
        elif a % 5 == 0 and b % 2 == 0:
            a, b = a // 5, b // 2
        elif a % 2 == 0 and b % 5 == 0:
            a, b = a // 2, b // 5
        else:
            break
        scale -= 1
    return a, b, scale


@jit
def fold_product(mantissa, scale, status, other_mantissa, other_scale, other_status):
    """Multiply by another column in place; anything times an absent number is absent.

    State   mantissa i64[n], scale i64[n], status u8[n];  the other three alike, ro
    """
    for i in range(len(mantissa)):
        code = max(status[i], other_status[i])
        a, b, decimals = mantissa[i], other_mantissa[i], scale[i] + other_scale[i]
        if code == OK and a != 0 and abs(b) > MANTISSA_MAX // abs(a):
            a, b, decimals = _reduced(a, b, decimals)
            if abs(b) > MANTISSA_MAX // abs(a):
                code = BAD
        status[i] = code
        mantissa[i] = a * b if code == OK else 0
        scale[i] = decimals if code == OK else 0


@jit
def sum_groups(group, mantissa, scale, status, out_mantissa, out_scale, out_status):
    """Sum the rows of each group. One row that is absent or bad makes its group BAD: no partial sums.

    In      group i64[n] in 0..g-1, mantissa i64[n], scale i64[n], status u8[n]  ro
    Out     out_mantissa i64[g], out_scale i64[g], out_status u8[g], zeros when called
    """
    for i in range(len(group)):
        slot = group[i]
        if out_status[slot] == BAD:
            continue
        if status[i] != OK:
            out_status[slot] = BAD
            continue
        total, at, code = _add(out_mantissa[slot], out_scale[slot], mantissa[i], scale[i])
        out_mantissa[slot], out_scale[slot], out_status[slot] = total, at, code


@jit
def round_numbers(mantissa, scale, status, exponent, limit, rounding, out, out_status):
    """Turn exact numbers into integers of value * 10**exponent, as `kernels.parse.parse_integers` does.

    In      mantissa i64[n], scale i64[n], status u8[n]  ro
    Out     out i64[n], out_status u8[n]
    """
    for i in range(len(out)):
        value, code = np.int64(0), np.int64(status[i])
        if code == OK:
            value, code = scale_to_integer(mantissa[i], scale[i], exponent, limit, rounding)
        out[i], out_status[i] = value, code
