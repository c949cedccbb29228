"""Instants as days and months of a time zone's calendar, a column at a time."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.events.zone import zone_table

Ints = NDArray[np.int64]

DAY_US: Final = 86_400_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def local_days(instant_us: Ints, time_zone: str) -> Ints:
    """Return the local days of instants, counted from 1970-01-01."""
    starts, offsets, cycle_us = zone_table(time_zone)
    if len(starts) == 1:
        plain: Ints = (instant_us + offsets[0]) // DAY_US
        return plain
    # From `cycle_us` on the calendar repeats; reports of the years after 2488 may be an hour out at midnight.
    at = np.searchsorted(starts, np.minimum(instant_us, cycle_us - 1), side="right") - 1
    days: Ints = (instant_us + offsets[at]) // DAY_US
    return days


def months_of(days: Ints) -> Ints:
    """Return the months of days, counted from 1970-01."""
    months: Any = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    result: Ints = months
    return result


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
