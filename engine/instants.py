"""Instants as people write them on a command line: ISO 8601, in a time zone unless they name one."""

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from schemas.errors import ConfigError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = datetime.min.replace(tzinfo=UTC) - _EPOCH
_LAST: Final = datetime.max.replace(tzinfo=UTC) - _EPOCH


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
    since = moment - _EPOCH
    if not _FIRST <= since <= _LAST:
        raise ConfigError(f"{text!r} is out of range", key=key, fix="stay within the years 1 to 9999, UTC")
    return since // timedelta(microseconds=1)
