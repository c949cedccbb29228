"""A column of amounts to int64 minor units, exactly, with a status a row.

Source  docs/semantics.md section 1: from the digits by the currency's exponent, never rounded
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from rfmstream.engine.events.text import fixed_width, text_buffers, to_text, validity
from rfmstream.kernels.parse import (
    ABSENT,
    BAD,
    OK,
    REFUSE,
    integers_of_decimals,
    integers_of_doubles,
    parse_integers,
    within,
)
from rfmstream.schemas.codes import AMOUNT_MINOR_MAX
from rfmstream.schemas.errors import InputError


@dataclass(frozen=True)
class Minor:
    """Amounts of n rows in minor units.

    Fields  minor   i64[n], 0 where the status is not OK
            status  u8[n] OK, ABSENT or BAD; None: all OK
    """

    minor: np.ndarray[Any, Any]
    status: np.ndarray[Any, Any] | None


class Amount(Protocol):
    """Amounts whose minor units depend on the currency, which may differ from row to row."""

    def minor(self, exponent: int) -> Minor:
        """Return the amounts as integers of 10**-exponent."""


@dataclass(frozen=True)
class ColumnAmount:
    """The contract's amount columns; where both are there, `in_minor` counts unless it is null."""

    in_major: pa.Array | None
    in_minor: pa.Array | None

    def minor(self, exponent: int) -> Minor:
        """Return the amounts as integers of 10**-exponent."""
        if self.in_minor is None:
            assert self.in_major is not None, "a batch without amounts is refused before"
            return read_minor(self.in_major, exponent)
        given = read_minor(self.in_minor, 0, name="amount_minor")
        if self.in_major is None or given.status is None:
            return given
        other = read_minor(self.in_major, exponent)
        absent = given.status == ABSENT
        other_status = np.zeros_like(given.status) if other.status is None else other.status
        status = np.where(absent, other_status, given.status)
        return Minor(np.where(absent, other.minor, given.minor), status)


def read_minor(array: pa.Array, exponent: int, *, name: str = "amount") -> Minor:
    """Turn a plain column of integers, decimals, floats or text into integers of 10**-exponent.

    Errors  InputError  a column type that is no amount
    """
    kind, count = array.type, len(array)
    valid = validity(array)
    if pa.types.is_integer(kind):
        return _integers(array, kind, exponent, valid)
    minor, status = np.empty(count, np.int64), np.empty(count, np.uint8)
    if pa.types.is_float64(kind):
        integers_of_doubles(fixed_width(array, "f8"), valid, exponent, AMOUNT_MINOR_MAX, minor, status)
        return Minor(minor, status if status.any() else None)
    if pa.types.is_decimal128(kind) and kind.scale >= 0:
        words = fixed_width(array, "V16").view("<i8")
        if not integers_of_decimals(words, valid, kind.scale, exponent, AMOUNT_MINOR_MAX, minor, status):
            return Minor(minor, status if status.any() else None)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        text = _absent_nan(array).cast(pa.string())
    elif pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
        raise InputError(
            f"column {name} is {kind}, which is no amount", fix=f"write {name} as a decimal or as text"
        )
    else:
        text = to_text(array, name)
    parse_integers(*text_buffers(text), exponent, AMOUNT_MINOR_MAX, REFUSE, minor, status)
    return Minor(minor, status if status.any() else None)


def _integers(array: pa.Array, kind: pa.DataType, exponent: int, valid: np.ndarray[Any, Any]) -> Minor:
    prefix = "i" if pa.types.is_signed_integer(kind) else "u"
    values = fixed_width(array, f"{prefix}{kind.bit_width // 8}")
    if kind == pa.uint64():
        values = np.minimum(values, np.uint64(2**62))
    values = values.astype(np.int64, copy=False)
    values.flags.writeable = False
    factor = 10**exponent
    highest = AMOUNT_MINOR_MAX // factor
    if len(valid) == 0 and within(values, -highest, highest):
        return Minor(values if exponent == 0 else values * factor, None)
    status = np.where((values < -highest) | (values > highest), BAD, OK).astype(np.uint8)
    if len(valid):
        status[~valid] = ABSENT
    return Minor(np.where(status == OK, values, 0) * factor, status)


def _absent_nan(array: pa.Array) -> pa.Array:
    """Return the column with NaN as null: it is how pandas writes a missing number."""
    if not pa.types.is_floating(array.type):
        return array
    values = array.to_numpy(zero_copy_only=False)
    return pa.array(values, array.type, mask=np.isnan(values))
