from datetime import UTC, datetime

import pytest

from rfmstream.engine.events.instants import parse_instant
from rfmstream.schemas.errors import ConfigError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def shown(text: str, time_zone: str = "UTC") -> str:
    us = parse_instant(text, time_zone, key="--as-of")
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat()


def test_offsets_are_heeded_and_others_are_local() -> None:
    assert shown("2026-01-31T18:30:00+08:00", "America/New_York") == "2026-01-31T10:30:00+00:00"
    assert shown("2026-01-31T18:30:00Z", "America/New_York") == "2026-01-31T18:30:00+00:00"
    assert shown("2026-01-31T18:30", "America/New_York") == "2026-01-31T23:30:00+00:00"
    assert shown("2026-07-31", "Europe/London") == "2026-07-30T23:00:00+00:00"


def test_daylight_saving_is_read_as_in_inputs() -> None:
    assert (
        shown("2026-03-29T01:30", "Europe/London") == "2026-03-29T01:30:00+00:00"
    )  # in the gap: offset before it
    assert shown("2026-10-25T01:30", "Europe/London") == "2026-10-25T00:30:00+00:00"  # twice: the earlier


def test_the_limits_of_time() -> None:
    assert parse_instant("0001-01-01", "UTC", key="") == -62_135_596_800_000_000
    assert parse_instant("9999-12-31T23:59:59.999999Z", "UTC", key="") == 253_402_300_799_999_999
    for text, zone in (("0001-01-01", "Asia/Shanghai"), ("9999-12-31T23:59", "America/New_York")):
        with pytest.raises(ConfigError, match="out of range"):
            parse_instant(text, zone, key="--as-of")


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-02-30", "10000-01-01", "1767225600"])
def test_what_is_no_instant(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--as-of: .* is not an instant"):
        parse_instant(text, "UTC", key="--as-of")
