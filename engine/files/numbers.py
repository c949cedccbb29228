"""A column of exact decimal numbers, for the arithmetic an input map asks for.

`Number` holds each row as mantissa / 10**scale with a status; see `kernels.exact`.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.events.amounts import Minor
from rfmstream.engine.events.text import text_buffers, to_text
from rfmstream.kernels.exact import (
    MANTISSA_MAX,
    compare_numbers,
    fold_product,
    fold_sum,
    parse_numbers,
    round_numbers,
    sum_groups,
)
from rfmstream.kernels.parse import ABSENT, BAD, HALF_EVEN, HALF_UP, OK, REFUSE
from rfmstream.schemas.codes import AMOUNT_MINOR_MAX
from rfmstream.schemas.mapping import Rounding

_ROUNDING_CODES = {"refuse": REFUSE, "half_even": HALF_EVEN, "half_up": HALF_UP}


@dataclass(frozen=True)
class Number:
    """Exact decimals of n rows: mantissa i64[n], scale i64[n], status u8[n] (OK, ABSENT, BAD)."""

    mantissa: np.ndarray[Any, Any]
    scale: np.ndarray[Any, Any]
    status: np.ndarray[Any, Any]

    @classmethod
    def of(cls, array: pa.Array, name: str) -> "Number":
        """Read a plain column; a float is its shortest round-trip decimal."""
        if pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
            array = array.cast(pa.string())
            array = pc.if_else(pc.equal(array, "nan"), pa.scalar(None, pa.string()), array)
        text = to_text(array, name)
        count = len(text)
        number = cls(np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.uint8))
        parse_numbers(*text_buffers(text), number.mantissa, number.scale, number.status)
        return number

    @classmethod
    def zeros(cls, count: int) -> "Number":
        """Return `count` zeros."""
        return cls(np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.uint8))

    @classmethod
    def concat(cls, parts: list["Number"]) -> "Number":
        """Return the rows of all parts, in order."""
        return cls(
            np.concatenate([part.mantissa for part in parts]),
            np.concatenate([part.scale for part in parts]),
            np.concatenate([part.status for part in parts]),
        )

    def take(self, at: np.ndarray[Any, Any]) -> "Number":
        """Return the rows at these positions."""
        return Number(self.mantissa[at], self.scale[at], self.status[at])

    def add(self, other: "Number", sign: int) -> None:
        """Add `sign` times the other column in place."""
        fold_sum(self.mantissa, self.scale, self.status, other.mantissa, other.scale, other.status, sign)

    def multiply(self, other: "Number") -> None:
        """Multiply by the other column in place."""
        fold_product(self.mantissa, self.scale, self.status, other.mantissa, other.scale, other.status)

    def compared(self, bound: str) -> np.ndarray[Any, Any]:
        """Return i8[n]: -1 below the decimal `bound`, 1 above it, 0 equal or no number."""
        limit = Number.of(pa.array([bound]), "bound")
        sign = np.empty(len(self.status), np.int8)
        compare_numbers(self.mantissa, self.scale, self.status, limit.mantissa[0], limit.scale[0], sign)
        return sign

    def signed(self, *, absolute: bool, negate: bool) -> "Number":
        """Return the absolute value, the negation, or the negative absolute value."""
        mantissa = np.abs(self.mantissa) if absolute else self.mantissa
        return Number(-mantissa if negate else mantissa, self.scale, self.status)

    def rounded(self, decimals: int) -> "Number":
        """Return the numbers rounded to so many decimals, half to even."""
        mantissa, status = np.empty_like(self.mantissa), np.empty_like(self.status)
        round_numbers(
            self.mantissa, self.scale, self.status, decimals, MANTISSA_MAX, HALF_EVEN, mantissa, status
        )
        return Number(mantissa, np.full_like(self.scale, decimals), status)

    def shortest(self) -> "Number":
        """Return the numbers without zeros at the end of their decimals: equal ones are then the same integers."""
        mantissa, scale = self.mantissa.copy(), self.scale.copy()
        while (more := (scale > 0) & (mantissa % 10 == 0)).any():
            mantissa[more] //= 10
            scale[more] -= 1
        return Number(mantissa, scale, self.status)

    def summed(self, group: np.ndarray[Any, Any], group_count: int) -> "Number":
        """Return the sum of each group (i64[n] in 0..group_count-1); one bad row makes its group bad."""
        total = Number.zeros(group_count)
        sum_groups(group, self.mantissa, self.scale, self.status, total.mantissa, total.scale, total.status)
        return total

    def once(self, group: np.ndarray[Any, Any], group_count: int) -> "Number":
        """Return the one number that the rows of each group state, if any; two different ones make it bad.

        A zero beside another number says no more than an empty cell.
        """
        single = Number.zeros(group_count)
        single.status[:] = ABSENT
        for given in ((self.status == OK) & (self.mantissa == 0), (self.status == OK) & (self.mantissa != 0)):
            at = np.flatnonzero(given)
            groups, first = np.unique(group[at], return_index=True)
            single.mantissa[groups] = self.mantissa[at[first]]
            single.scale[groups] = self.scale[at[first]]
            single.status[groups] = OK
        differs = (self.mantissa != single.mantissa[group]) | (self.scale != single.scale[group])
        bad = group[((self.status == OK) & (self.mantissa != 0) & differs) | (self.status == BAD)]
        single.mantissa[bad], single.status[bad] = 0, BAD
        return single

    def text(self) -> pa.Array:
        """Return the numbers as decimal text, row by row; null where there is none."""
        return pa.array(
            [
                decimal_text(int(mantissa), int(scale)) if code == OK else None
                for mantissa, scale, code in zip(self.mantissa, self.scale, self.status, strict=True)
            ],
            pa.string(),
        )


def decimal_text(mantissa: int, scale: int) -> str:
    """Return mantissa / 10**scale as digits and a point."""
    return format(Decimal(mantissa).scaleb(-scale), "f")


@dataclass(frozen=True)
class NumberAmount:
    """Amounts computed by an input map."""

    number: Number
    rounding: Rounding
    in_minor: bool

    def minor(self, exponent: int) -> Minor:
        """Return the amounts as integers of 10**-exponent, rounded as the map says."""
        number = self.number
        minor, status = np.empty(len(number.status), np.int64), np.empty(len(number.status), np.uint8)
        round_numbers(
            number.mantissa,
            number.scale,
            number.status,
            0 if self.in_minor else exponent,
            AMOUNT_MINOR_MAX,
            _ROUNDING_CODES[self.rounding],
            minor,
            status,
        )
        return Minor(minor, status if status.any() else None)
