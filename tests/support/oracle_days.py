"""Dates and midnights of a time zone for the oracle: docs/semantics.md 2 by trial, from zoneinfo's offsets alone.

Instants are µs since 1970 UTC, days are whole days since 1970. Both may lie outside of datetime's years.
"""

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

FIRST_US = (datetime.min.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
LAST_US = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
"""9999-12-31T23:59:59.999999Z, the last instant there is: whatever would happen later happens never."""

YEAR_1800_US = (datetime(1800, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
FOUR_CENTURIES_US = 146_097 * DAY_US
"""The calendar, weekdays included, repeats after 400 years, and so does every rule for daylight saving."""


@cache
def offset_us(zone: str, second: int) -> int:
    """Offset from UTC in force in ``zone`` during one second since 1970, outside of datetime's years too."""
    at_us = second * SECOND_US
    # Near both ends datetime cannot hold local time. Offsets are constant before 1800 and repeat after 400
    # years at the end, so the offset is looked up where datetime can.
    at_us = max(at_us, YEAR_1800_US)
    while at_us > LAST_US - 366 * DAY_US:
        at_us -= FOUR_CENTURIES_US
    local = (EPOCH + timedelta(microseconds=at_us)).astimezone(ZoneInfo(zone))
    offset = local.utcoffset()
    assert offset is not None
    return offset // timedelta(microseconds=1)


def local_day(zone: str, at_us: int) -> int:
    """Date in ``zone`` at an instant."""
    return (at_us + offset_us(zone, at_us // SECOND_US)) // DAY_US


@cache
def local_midnight_us(zone: str, day: int) -> int:
    """First instant whose local date is ``day`` or later, whatever gaps and folds the clock has around it.

    Between two changes of the offset local time simply runs, so that instant is 00:00 by the offset of some
    stretch, or the begin of a stretch that starts past 00:00. The stretches near by are tried in order.
    """
    edges = [*range(day * 86_400 - 54 * 3600, day * 86_400 + 54 * 3600, 1800)]
    starts = [edges[0]]
    for left, right in pairwise(edges):
        if offset_us(zone, left) != offset_us(zone, right):
            before = offset_us(zone, left)
            low, high = left, right  # bisect: the offset is the old one at low, another one at high
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset_us(zone, middle) == before else (low, middle)
            starts.append(high)
    for start, end in zip(starts, [*starts[1:], edges[-1]], strict=True):
        midnight_us = max(start * SECOND_US, day * DAY_US - offset_us(zone, start))
        if midnight_us < end * SECOND_US:
            return midnight_us
    raise AssertionError((zone, day))
