"""Instants: µs since 1970 UTC, from whatever a caller holds or a person writes, and back."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np

from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError

Instant = datetime | np.datetime64 | str | int | np.integer[Any]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_US: Final = (datetime.min.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
LAST_US: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def to_us(instant: Instant) -> int:
    """Return an instant in µs since 1970 UTC; a naive datetime or text is UTC.

    Raises  ConfigError where text is no instant
    """
    if isinstance(instant, (int, np.integer)):
        return _checked(int(instant))
    if isinstance(instant, np.datetime64):
        return _checked(int(instant.astype("datetime64[us]").astype(np.int64)))
    if isinstance(instant, str):
        try:
            instant = datetime.fromisoformat(instant)
        except ValueError as error:
            raise ConfigError(
                f"{instant!r} is no instant", fix="write it as in 2026-01-31T00:00:00Z"
            ) from error
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return (instant - EPOCH) // timedelta(microseconds=1)


def _checked(instant_us: int) -> int:
    """Return an instant between the years 1 and 9999.

    Raises  ConfigError
    """
    if not FIRST_US <= instant_us <= LAST_US:
        raise ConfigError(
            f"the instant {instant_us} µs lies outside the years 1 to 9999", fix="give µs since 1970 UTC"
        )
    return instant_us


def to_datetime(instant_us: int) -> datetime:
    """Return an instant of µs since 1970 UTC as a datetime."""
    return EPOCH + timedelta(microseconds=instant_us)


def to_text(instant_us: int) -> str:
    """Return an instant of µs since 1970 UTC in ISO 8601."""
    return "never" if instant_us == NEVER_US else to_datetime(instant_us).isoformat().replace("+00:00", "Z")


def parse_instant(text: str, time_zone: str, *, key: str) -> int:
    """Return an instant in µs since 1970 UTC.

    In      text       ISO 8601; a date alone is its midnight, and what names no offset is local in `time_zone`.
                       Where clocks go back the earlier of two instants is meant; in the gap where they go
                       forward the offset before it holds
            key        the option, for errors
    Errors  ConfigError  no instant, or outside the years 1 to 9999 UTC
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not an instant", key=key, fix="write 2026-01-31 or 2026-01-31T18:30:00+08:00"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(time_zone))
    instant_us = (moment - EPOCH) // timedelta(microseconds=1)
    if not FIRST_US <= instant_us <= LAST_US:
        raise ConfigError(f"{text!r} is out of range", key=key, fix="stay within the years 1 to 9999, UTC")
    return instant_us
