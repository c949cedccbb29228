"""Days and the instants at which they begin, in a zone given as a table of offsets.

Source: docs/semantics.md 2. "Within D days of `at`" stops being true at one instant: for calendar days the first
instant whose local date is date(at) + D + 1 (found from the calendar, so a day of 23 or 25 hours is a day), for
durations at + D * 24 h.
"""

import numpy as np

from rfmstream.kernels._jit import inline, keep_apart, part
from rfmstream.kernels.layout import DAY_US
from rfmstream.kernels.memory import zone_offset_us_of, zone_start_us_of
from rfmstream.schemas.codes import FOREVER_US

CYCLE_US = 146_097 * DAY_US
"""The Gregorian calendar, and with it every daylight-saving rule, repeats after 400 years."""

END_OF_TIME_US = 253_402_300_800_000_000
"""10000-01-01: no instant from here on can be written as a date."""

OFFSET_MAX_US = 26 * 3_600_000_000


@part
def _segment_of(rules, at_us):
    keep_apart()
    low, high = np.int64(0), np.int64(rules.zone_start_us_size)
    while high - low > 1:
        middle = (low + high) >> 1
        if zone_start_us_of(rules)[middle] <= at_us:
            low = middle
        else:
            high = middle
    return low


@inline
def _cycles_beyond(rules, at_us):
    """Return the whole 400-year cycles to take off so that the zone's table covers the instant."""
    if at_us < rules.zone_cycle_us:
        return np.int64(0)
    return (at_us - rules.zone_cycle_us) // CYCLE_US + 1


@inline
def day_of(rules, at_us):
    """Return the local day number (0 is 1970-01-01) of an instant in us."""
    if rules.zone_start_us_size == 1:
        return (at_us + zone_offset_us_of(rules)[0]) // DAY_US
    inside = at_us - _cycles_beyond(rules, at_us) * CYCLE_US
    return (at_us + zone_offset_us_of(rules)[_segment_of(rules, inside)]) // DAY_US


@part
def _midnight_in_table(rules, local_us):
    keep_apart()
    segment = _segment_of(rules, local_us - OFFSET_MAX_US)
    while segment + 1 < rules.zone_start_us_size and (
        zone_start_us_of(rules)[segment + 1] + zone_offset_us_of(rules)[segment] <= local_us
    ):
        segment += 1
    return max(zone_start_us_of(rules)[segment], local_us - zone_offset_us_of(rules)[segment])


@inline
def midnight_of(rules, day):
    """Return the first instant, in us, whose local date is `day` or later."""
    local_us = day * DAY_US
    if rules.zone_start_us_size == 1:
        return local_us - zone_offset_us_of(rules)[0]
    beyond = _cycles_beyond(rules, local_us) * CYCLE_US
    return _midnight_in_table(rules, local_us - beyond) + beyond


@inline
def stops_after(rules, at_us, day, days):
    """Return what `stops_us` does, given the local day of `at_us` (of no matter for durations)."""
    stop_us = midnight_of(rules, day + days + 1) if rules.calendar else at_us + days * DAY_US
    return stop_us if stop_us < END_OF_TIME_US else FOREVER_US


@inline
def stops_us(rules, at_us, days):
    """Return the instant at which something of `at_us` is no longer within `days` days; FOREVER_US: after 9999."""
    return stops_after(rules, at_us, day_of(rules, at_us) if rules.calendar else np.int64(0), days)


@inline
def leaves_us(rules, at_us):
    """Return the instant at which an order of `at_us` leaves the window; FOREVER_US for a lifetime window."""
    if rules.window_days < 0:
        return FOREVER_US
    return stops_us(rules, at_us, rules.window_days)


@inline
def is_older(rules, left_us, right_us):
    """Tell whether an entry of `left_us` comes before one of `right_us` in its customer's list.

    The list is in the order in which entries leave the window. That is the order of time except where a clock was
    set back across midnight, when the later instant has the earlier date.
    """
    if rules.day_can_fall:
        left_day, right_day = day_of(rules, left_us), day_of(rules, right_us)
        if left_day != right_day:
            return left_day < right_day
    return left_us < right_us
