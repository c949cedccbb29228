"""Rates of exchange: amounts in other currencies become amounts in the run's own, exactly and the same every time.

Source  docs/input-maps.md: --rates
"""

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np

from rfmstream.engine.events.zone import local_days
from rfmstream.engine.files.side_tables import read_texts
from rfmstream.schemas.currencies import CURRENCY_EXPONENTS, currency_exponent
from rfmstream.schemas.errors import InputError

_COLUMNS: Final = ("date", "currency", "rate")
_RATE: Final = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,18}))?")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DAY_US: Final = 86_400_000_000
_EPOCH: Final = date(1970, 1, 1).toordinal()

Ratio = tuple[int, int]


@dataclass(frozen=True)
class Rates:
    """What one unit of another currency is in the run's own, by day.

    Fields  ratios     (currency, days since 1970) to numerator and denominator, from minor units to minor units
            time_zone  whose days they are
    """

    ratios: dict[tuple[str, int], Ratio]
    currency: str
    time_zone: str

    def days(self, at_us: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the local days of instants, as i64[n] days since 1970."""
        return local_days(self.time_zone, at_us)


def converted(minor: int, ratio: Ratio) -> int:
    """Return an amount at a rate, half to even."""
    quotient, rest = divmod(minor * ratio[0], ratio[1])
    return quotient + (2 * rest > ratio[1] or (2 * rest == ratio[1] and quotient % 2 == 1))


def load_rates(path: Path, *, currency: str, time_zone: str) -> Rates:
    """Read a table with the columns date, currency and rate: 1 unit of the currency is `rate` units of the run's own.

    In      currency, time_zone  the ruleset's
    Errors  InputError  the table cannot be read, a cell is no date, currency or positive decimal, or a
                        day has two rates
    """
    own = currency_exponent(currency)
    ratios: dict[tuple[str, int], Ratio] = {}
    columns = (texts.to_pylist() for texts in read_texts(path, _COLUMNS))
    for row, (day, code, rate) in enumerate(zip(*columns, strict=True)):
        number = _RATE.fullmatch(rate or "")
        if not number or not int(number[1] + (number[2] or "")):
            fix = "write a positive decimal such as 1.0837"
            raise InputError(f"{rate!r} is no rate", source=path, row=row, fix=fix)
        if code not in CURRENCY_EXPONENTS:
            raise InputError(f"{code!r} is no ISO 4217 currency", source=path, row=row)
        decimals = len(number[2] or "")
        # From minor units of one currency to minor units of the other.
        shift = own - CURRENCY_EXPONENTS[code] - decimals
        ratio = int(number[1] + (number[2] or "")) * 10 ** max(shift, 0), 10 ** max(-shift, 0)
        key = code, _day(day, path, row)
        before = ratios.setdefault(key, ratio)
        if before[0] * ratio[1] != ratio[0] * before[1]:
            raise InputError(f"{code} has two rates on {day}", source=path, row=row, fix="keep one of them")
    return Rates(ratios, currency, time_zone)


def _day(text: str | None, path: Path, row: int) -> int:
    try:
        if text and _DATE.fullmatch(text):
            return date.fromisoformat(text).toordinal() - _EPOCH
    except ValueError:
        pass
    raise InputError(f"{text!r} is no date", source=path, row=row, fix="write 2024-03-31")
