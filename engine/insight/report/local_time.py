"""Instants as days and months of a time zone's calendar, a column at a time."""

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

DAY_US: Final = 86_400_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def months_of(days: Ints) -> Ints:
    """Return the months of days, counted from 1970-01."""
    if len(days) == 0:
        return days
    # The calendar is asked for each day once: there are fewer of them than customers.
    first, last = int(days.min()), int(days.max())
    if last - first >= len(days):
        return _months(days)
    return _months(np.arange(first, last + 1)).take(days - first)


def _months(days: Ints) -> Ints:
    months: Ints = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    return months


def month_text(month: int) -> str:
    """Return 2017-03 for the month so many months after 1970-01."""
    return f"{1970 + month // 12:04d}-{month % 12 + 1:02d}"


def day_text(day: int) -> str:
    """Return 2017-03-31 for the day so many days after 1970-01-01."""
    return str(np.datetime64(int(day), "D"))


def local_text(instant: str, time_zone: str) -> str:
    """Return 2017-03-31 23:01 for an instant in ISO 8601, as the zone's clocks show it."""
    return datetime.fromisoformat(instant).astimezone(ZoneInfo(time_zone)).strftime("%Y-%m-%d %H:%M")


def midnight_us(day: int, time_zone: str) -> int:
    """Return the instant at which a local day begins, µs since 1970 UTC."""
    local = datetime(1970, 1, 1) + timedelta(days=int(day))  # noqa: DTZ001 - the zone follows
    return (local.replace(tzinfo=ZoneInfo(time_zone)) - _EPOCH) // timedelta(microseconds=1)
