"""Days, midnights and stops against zoneinfo, minute by minute where clocks change."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from rfmstream.engine.core.kernel_records import KernelRecord
from rfmstream.engine.core.rules import compile_rules
from rfmstream.kernels.calendar import day_of, is_older, leaves_us, midnight_of, stops_us
from rfmstream.kernels.layout import DAY_US
from rfmstream.schemas.codes import FOREVER_US
from rfmstream.schemas.ruleset import load_ruleset

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US

SPANS = [
    ("UTC", "2024-02-27", 3),
    ("Europe/Berlin", "2024-03-29", 4),
    ("Europe/Berlin", "2024-10-25", 4),
    ("Europe/Berlin", "2437-10-20", 10),  # beyond the table's last year
    ("America/Sao_Paulo", "2018-11-02", 4),  # 00:00 does not exist
    ("America/Sao_Paulo", "2018-02-16", 4),  # 23:00 comes twice
    ("Africa/Cairo", "2023-04-26", 4),
    ("Africa/Cairo", "2010-09-28", 5),
    ("Africa/Cairo", "2014-05-14", 3),
    ("Pacific/Apia", "2011-12-28", 5),  # the 30th was skipped
    ("America/St_Johns", "1987-04-03", 4),  # from 1987 to 2011 at 00:01
    ("America/St_Johns", "2010-11-05", 4),  # a date comes twice
    ("America/St_Johns", "2011-03-12", 3),
    ("Australia/Lord_Howe", "2024-04-05", 4),  # half an hour
    ("Australia/Lord_Howe", "2024-10-04", 4),
    ("America/Havana", "2024-11-01", 4),  # 00:00 comes twice
    ("Asia/Kathmandu", "1985-12-30", 4),
    ("Pacific/Kiritimati", "1994-12-29", 5),
]


@numba.njit
def _days(rulesets, at_us, out):
    for i in range(at_us.size):
        out[i] = day_of(rulesets[0], at_us[i])


@numba.njit
def _midnights(rulesets, days, out):
    for i in range(days.size):
        out[i] = midnight_of(rulesets[0], days[i])


@numba.njit
def _stops(rulesets, at_us, days, out):
    for i in range(at_us.size):
        out[i] = stops_us(rulesets[0], at_us[i], days)


@numba.njit
def _leaves(rulesets, at_us, out):
    for i in range(at_us.size):
        out[i] = leaves_us(rulesets[0], at_us[i])


@numba.njit
def _older(rulesets, left, right, out):
    for i in range(left.size):
        out[i] = is_older(rulesets[0], left[i], right[i])


def rules_of(zone: str, **fields: Any) -> KernelRecord:
    return compile_rules(replace(load_ruleset("rfm8", time_zone=zone), **fields))


def days_of(zone: str, at_us: list[int]) -> list[int]:
    out = np.empty(len(at_us), dtype=np.int64)
    _days(rules_of(zone).rows, np.array(at_us), out)
    return out.tolist()


def midnights_of(zone: str, days: list[int]) -> list[int]:
    out = np.empty(len(days), dtype=np.int64)
    _midnights(rules_of(zone).rows, np.array(days), out)
    return out.tolist()


def stops_of(rules: KernelRecord, at_us: list[int], days: int) -> list[int]:
    out = np.empty(len(at_us), dtype=np.int64)
    _stops(rules.rows, np.array(at_us), days, out)
    return out.tolist()


def us(text: str) -> int:
    return (datetime.fromisoformat(text).astimezone(UTC) - EPOCH) // timedelta(microseconds=1)


def day(text: str) -> int:
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


def minutes(zone: str, first: str, days: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return every minute from a day before `first` to a day after the span, and its local day by zoneinfo."""
    at_us = np.arange(day(first) * DAY_US - 2 * DAY_US, (day(first) + days) * DAY_US + 2 * DAY_US, MINUTE_US)
    info = ZoneInfo(zone)
    begin = EPOCH.date().toordinal()
    local = [
        (EPOCH + timedelta(microseconds=at)).astimezone(info).toordinal() - begin for at in at_us.tolist()
    ]
    return at_us, np.array(local)


@pytest.mark.parametrize(("zone", "first", "days"), SPANS)
def test_every_minute_has_its_local_day(zone: str, first: str, days: int) -> None:
    at_us, local = minutes(zone, first, days)
    assert days_of(zone, at_us.tolist()) == local.tolist()
    # The last microsecond of a minute belongs to it.
    assert days_of(zone, (at_us[:-1] + MINUTE_US - 1).tolist()) == local[:-1].tolist()


@pytest.mark.parametrize(("zone", "first", "days"), SPANS)
def test_midnight_is_the_first_instant_of_a_day_or_a_later_one(zone: str, first: str, days: int) -> None:
    at_us, local = minutes(zone, first, days)
    wanted = list(range(day(first), day(first) + days))
    assert midnights_of(zone, wanted) == [int(at_us[np.argmax(local >= number)]) for number in wanted]


@pytest.mark.parametrize(
    "zone", ["Asia/Tokyo", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"]
)
def test_days_all_over_history(zone: str) -> None:
    rng = np.random.default_rng(3)
    at_us = rng.integers(us("0001-01-03T00:00Z"), us("9999-12-29T00:00Z"), 2000)
    info = ZoneInfo(zone)
    expected = [
        (EPOCH + timedelta(microseconds=at)).astimezone(info).toordinal() - EPOCH.toordinal()
        for at in at_us.tolist()
    ]
    assert days_of(zone, at_us.tolist()) == expected


def test_the_ends_of_time() -> None:
    first, last = us("0001-01-01T00:00Z"), us("9999-12-31T23:59:59.999999Z")
    assert days_of("UTC", [first, last]) == [day("0001-01-01"), day("9999-12-31")]
    # Local mean time of New York: 4:56:02 behind.
    lmt_us = (4 * 3600 + 56 * 60 + 2) * 1_000_000
    assert days_of("America/New_York", [first, first + lmt_us]) == [day("0001-01-01") - 1, day("0001-01-01")]
    assert midnights_of("America/New_York", [day("0001-01-01")]) == [first + lmt_us]
    # The offsets of the rules for ever: +14 on Kiritimati, summer time in Berlin in July.
    assert days_of("Pacific/Kiritimati", [last]) == [day("9999-12-31") + 1]
    assert midnights_of("Europe/Berlin", [day("9999-07-01")]) == [us("9999-06-30T22:00Z")]
    assert midnights_of("Europe/Berlin", [day("9999-12-31") + 1]) == [us("9999-12-31T23:00Z")]


def test_within_calendar_days_stops_at_a_midnight() -> None:
    rules = rules_of("Europe/Berlin")
    at_us = [us("2024-03-01T00:00+01:00"), us("2024-03-01T23:59:59.999999+01:00")]
    # Thirty days later is the 31st, on which an hour is missing.
    assert stops_of(rules, at_us, 30) == [us("2024-04-01T00:00+02:00")] * 2
    assert stops_of(rules, at_us, 0) == [us("2024-03-02T00:00+01:00")] * 2


def test_within_durations_stops_to_the_microsecond() -> None:
    rules = rules_of("Europe/Berlin", day_unit="duration")
    at_us = [us("2024-03-01T00:00:00.000001+01:00")]
    assert stops_of(rules, at_us, 30) == [at_us[0] + 30 * DAY_US]


def test_what_stops_after_9999_stops_never() -> None:
    last = us("9999-12-31T00:00Z")
    durations = rules_of("UTC", day_unit="duration")
    assert stops_of(durations, [last - 30 * DAY_US, last - 29 * DAY_US], 30) == [last, FOREVER_US]
    assert stops_of(rules_of("UTC"), [us("9999-12-30T12:00Z")], 0) == [us("9999-12-31T00:00Z")]
    assert stops_of(rules_of("UTC"), [us("9999-12-31T12:00Z")], 0) == [FOREVER_US]
    longest = day("9999-12-31") - day("0001-01-01")
    assert stops_of(rules_of("UTC"), [us("0001-01-01T00:00Z")], longest) == [FOREVER_US]
    assert stops_of(rules_of("UTC"), [us("0001-01-01T00:00Z")], longest - 1) == [us("9999-12-31T00:00Z")]


def test_leaves_follows_the_window() -> None:
    out = np.empty(1, dtype=np.int64)
    at_us = np.array([us("2024-02-28T12:00Z")])
    for window_days, expected in (
        (None, FOREVER_US),
        (0, us("2024-02-29T00:00Z")),
        (365, us("2025-02-28T00:00Z")),
    ):
        _leaves(rules_of("UTC", window_days=window_days).rows, at_us, out)
        assert out[0] == expected


def test_order_of_the_list_is_by_local_date_first() -> None:
    # At 00:01 on 2010-11-07 clocks in St John's went back to 23:01 of the 6th.
    early, late = us("2010-11-07T02:30:30Z"), us("2010-11-07T02:31:30Z")
    left, right = np.array([early, late, early]), np.array([late, early, early])
    out = np.empty(3, dtype=np.bool_)
    _older(rules_of("America/St_Johns").rows, left, right, out)
    assert out.tolist() == [False, True, False]
    _older(rules_of("America/St_Johns", day_unit="duration").rows, left, right, out)
    assert out.tolist() == [True, False, False]
    _older(rules_of("UTC").rows, left, right, out)
    assert out.tolist() == [True, False, False]
