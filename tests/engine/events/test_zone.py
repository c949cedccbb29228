"""The table of a zone says at every transition what zoneinfo says, on both sides of it."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from rfmstream.engine.events.zone import zone_table

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = [
    "UTC",
    "Europe/Berlin",
    "Europe/Dublin",  # winter time is the negative one
    "America/Sao_Paulo",
    "America/St_Johns",
    "Africa/Cairo",
    "Africa/Casablanca",  # suspends summer time in Ramadan, a list of dates until 2087
    "Antarctica/Troll",  # two hours
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "Asia/Manila",  # left out the last day of 1844
    "Europe/London",  # Greenwich time since 1847
]


def offset_us(zone: ZoneInfo, at_us: int) -> int:
    offset = (EPOCH + timedelta(microseconds=at_us)).astimezone(zone).utcoffset()
    assert offset is not None
    return offset // timedelta(microseconds=1)


@pytest.mark.parametrize("name", ZONES)
def test_table_follows_zoneinfo(name: str) -> None:
    starts, offsets, cycle_us = zone_table(name)
    zone = ZoneInfo(name)
    assert starts[0] == -(2**63)
    assert (np.diff(starts.astype(object)) > 0).all()
    assert (np.diff(offsets) != 0).all()
    for start, before, after in zip(starts[1:].tolist(), offsets, offsets[1:], strict=False):
        assert (offset_us(zone, start - 1), offset_us(zone, start)) == (before, after)
    rng = np.random.default_rng(4)
    for at_us in rng.integers(-5_000_000_000_000_000, cycle_us, 3000).tolist():
        assert offset_us(zone, at_us) == offsets[np.searchsorted(starts, at_us, side="right") - 1]


def test_a_zone_without_transitions_is_one_offset() -> None:
    starts, offsets, _ = zone_table("UTC")
    assert (starts.tolist(), offsets.tolist()) == ([-(2**63)], [0])
    assert zone_table("Etc/GMT-14")[1].tolist() == [14 * 3_600_000_000]


@pytest.mark.parametrize("name", ZONES)
def test_the_rules_repeat_after_the_table(name: str) -> None:
    # What kernels do with an instant from `cycle_us` on: take off whole cycles of 400 years.
    starts, offsets, cycle_us = zone_table(name)
    zone = ZoneInfo(name)
    cycle = timedelta(days=146_097) // timedelta(microseconds=1)
    for at_us in np.random.default_rng(5).integers(cycle_us, cycle_us + cycle, 3000).tolist():
        known = offsets[np.searchsorted(starts, at_us - cycle, side="right") - 1]
        assert offset_us(zone, at_us) == known
