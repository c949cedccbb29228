"""A time zone as the two arrays the kernels search: when each offset from UTC begins, and the offset.

zoneinfo has no list of transitions, so they are found by asking it for the offset day by day and bisecting where it
differs. The Gregorian calendar and with it every rule for the future repeats after 400 years, so the table ends one
such cycle after the last year for which zones have rules of their own.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from rfmstream.kernels.local_days import local_days as kernel

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
# Before 1840 there is local mean time only; from 2038 on a rule for ever, but in Morocco, whose offset follows the moon
# and is listed until 2087.
_YEARS_WITH_HISTORY: Final = (1840, 2088)
_CYCLE_YEARS: Final = 400


@lru_cache(maxsize=16)
def zone_table(name: str) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return the table of a zone of the IANA data base.

    Returns (start_us i64[z], the first int64's minimum; offset_us i64[z]; cycle_us: instants from here on are
            looked up whole 400-year cycles earlier)
    """
    zone = ZoneInfo(name)
    first, ruled = (datetime(year, 1, 1, tzinfo=UTC) for year in _YEARS_WITH_HISTORY)
    end = ruled.replace(year=ruled.year + _CYCLE_YEARS)
    starts, offsets = [-(2**63)], [_offset_us(zone, first)]
    # The default zone has nothing to find, and looking would be a noticeable part of every start.
    moment = end if name == "UTC" else first
    while moment < end:
        # Offsets in force for less than a day are not known to history; rules for ever change twice a year.
        following = moment + timedelta(days=1 if moment < ruled else 15)
        offset = _offset_us(zone, following)
        if offset != offsets[-1]:
            starts.append(_to_us(_bisect(zone, moment, following, offset)))
            offsets.append(offset)
        elif len(starts) == 1 and moment >= ruled:
            break
        moment = following
    return np.array(starts, dtype=np.int64), np.array(offsets, dtype=np.int64), _to_us(end)


def local_days(name: str, at_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the days of instants in a zone's calendar: i64[n] days since 1970. In: at_us i64[n], µs since 1970 UTC."""
    starts, offsets, cycle_us = zone_table(name)
    days = np.empty(len(at_us), np.int64)
    at_us = np.ascontiguousarray(at_us).view()
    at_us.flags.writeable = False
    kernel(at_us, starts, offsets, cycle_us, days)
    return days


def _bisect(zone: ZoneInfo, before: datetime, after: datetime, offset_us: int) -> datetime:
    """Return the first whole second in (before, after] from which on the offset is `offset_us`."""
    while after - before > _SECOND:
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0)
        if middle <= before:
            break
        before, after = (before, middle) if _offset_us(zone, middle) == offset_us else (middle, after)
    return after


def _offset_us(zone: ZoneInfo, moment: datetime) -> int:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None  # a ZoneInfo always has one
    return _us(offset)


def _to_us(moment: datetime) -> int:
    return _us(moment - _EPOCH)


def _us(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
