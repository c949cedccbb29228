"""A column of times to instants: microseconds since 1970 UTC with a status a row.

Source  docs/semantics.md section 1: a naive time is read in the given zone; years 1..9999
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from rfmstream.engine.events.text import fixed_width, text_buffers, to_text, validity
from rfmstream.engine.events.written_times import moment_reader
from rfmstream.engine.events.zone_words import ZoneWords
from rfmstream.kernels.parse import (
    ABSENT,
    BAD,
    DAY_US,
    FLOOR,
    INSTANT_MAX_US,
    INSTANT_MIN_US,
    NAIVE,
    OK,
    parse_instants,
    parse_integers,
    within,
)
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.zones import zone_of

_UNIX_EXPONENTS = {"unix_s": 6, "unix_ms": 3, "unix_us": 0}
_UNIT_US = {"s": 1_000_000, "ms": 1000, "us": 1}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - local time by intent
_US = timedelta(microseconds=1)
_FIXED = re.compile(r"([+-])(\d{2}):(\d{2})")


@dataclass(frozen=True)
class Instants:
    """Instants of n rows.

    Fields  us      i64[n], 0 where the status is not OK
            status  u8[n] OK, ABSENT or BAD; None: all OK
    """

    us: np.ndarray[Any, Any]
    status: np.ndarray[Any, Any] | None


def read_instants(  # noqa: PLR0913 - options by keyword
    array: pa.Array,
    *,
    time_zone: str,
    time_formats: Sequence[str] = ("iso",),
    name: str = "occurred_at",
    languages: tuple[str, ...] = (),
    words: ZoneWords | None = None,
    zone_of_row: pa.Array | None = None,
) -> Instants:
    """Turn a plain column (see `engine.events.text.plain`) into instants.

    Timestamps of any unit and zone and dates are taken as they are (below a microsecond: floored); text is
    read by the first of `time_formats` that fits it: one of `schemas.mapping.TIME_FORMATS` or a format of Python's
    strptime; integers need a format other than "iso".

    In      languages    of the words of strptime's formats, beside English
            words        what zone words mean; None: what is no ISO 8601 has no zone behind it
            zone_of_row  such words, one a row, for times that have no zone; where it is null `time_zone` counts
    Errors  InputError   a column type that is no time;  ConfigError  an unknown zone or language
    """
    if zone_of_row is not None and words is not None:
        parts = _by_zone(zone_of_row, words, time_zone)
        us, status = np.zeros(len(array), np.int64), np.full(len(array), BAD, np.uint8)
        for zone, at in parts:
            part = read_instants(
                array.take(pa.array(at)),
                time_zone=zone,
                time_formats=time_formats,
                name=name,
                languages=languages,
                words=words,
            )
            us[at], status[at] = part.us, OK if part.status is None else part.status
        return Instants(us, status if status.any() else None)
    found = _read_by_any(array, time_zone, time_formats, name, languages)
    if words is None or found.status is None or not (bad := found.status == BAD).any():
        return found
    if pa.types.is_temporal(array.type):
        return found
    # What has a zone behind it is read again without, in that zone.
    texts = to_text(array, name).filter(pa.array(bad)).cast(pa.binary()).to_pylist()
    parted = [words.parted(text.decode(errors="replace")) for text in texts]
    zones = pa.array([zone for _, zone in parted], pa.string())
    us, status = found.us.copy(), found.status.copy()
    us_bad, status_bad = us[bad], status[bad]
    for zone, at in _by_zone(zones, words, None):
        rest = pa.array([parted[place][0] for place in at], pa.string())
        part = _read_by_any(rest, zone, time_formats, name, languages)
        us_bad[at], status_bad[at] = part.us, OK if part.status is None else part.status
    us[bad], status[bad] = us_bad, status_bad
    return Instants(us, status if status.any() else None)


def _by_zone(
    zone_of_row: pa.Array, words: ZoneWords, default: str | None
) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """Return the zones of a column of words, each with the rows it holds for; those without one have none."""
    coded = zone_of_row.dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    rows: dict[str, list[np.ndarray[Any, Any]]] = {}
    found: list[tuple[str | None, int]] = [(default, -1)]
    for code, word in enumerate(coded.dictionary.to_pylist()):
        found.append((words.zone(word) if word.strip() else default, code))
    for zone, code in found:
        if zone is not None:
            rows.setdefault(zone, []).append(np.flatnonzero(codes == code))
    return [(zone, np.sort(np.concatenate(at))) for zone, at in rows.items()]


def _read_by_any(
    array: pa.Array, time_zone: str, time_formats: Sequence[str], name: str, languages: tuple[str, ...]
) -> Instants:
    first, *others = time_formats
    found = _read_by(array, time_zone, first, name, languages)
    for other in others:
        if found.status is None or not (bad := found.status == BAD).any():
            break
        again = _read_by(array.filter(pa.array(bad)), time_zone, other, name, languages)
        us, status = found.us.copy(), found.status.copy()
        us[bad], status[bad] = again.us, OK if again.status is None else again.status
        found = Instants(us, status if status.any() else None)
    return found


def _read_by(
    array: pa.Array, time_zone: str, time_format: str, name: str, languages: tuple[str, ...]
) -> Instants:
    kind = array.type
    if time_format in _UNIX_EXPONENTS and not pa.types.is_temporal(kind):
        return _unix(array, _UNIX_EXPONENTS[time_format])
    if pa.types.is_timestamp(kind):
        return _timestamps(array, kind, time_zone)
    if pa.types.is_date(kind):
        days_or_ms = fixed_width(array, "i4" if pa.types.is_date32(kind) else "i8").astype(np.int64)
        unit_us = DAY_US if pa.types.is_date32(kind) else 1000
        return _localised(*_scaled(days_or_ms, unit_us, validity(array)), time_zone)
    if time_format.startswith("excel") and (pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        array, kind = array.cast(pa.string()), pa.string()
    if pa.types.is_floating(kind) or (pa.types.is_integer(kind) and time_format == "iso"):
        raise InputError(
            f"column {name} is {kind}: a number does not say what it counts",
            fix="write times as timestamps or ISO 8601 text, or use an input map with format = "
            '"unix_s", "unix_ms" or "unix_us"',
        )
    text = to_text(array, name)
    if time_format != "iso":
        return _by_format(text, time_format, time_zone, languages)
    us, status = np.empty(len(text), np.int64), np.empty(len(text), np.uint8)
    parse_instants(*text_buffers(text), us, status)
    naive = status == NAIVE
    if naive.any():
        us[naive], local_ok = _to_utc(us[naive], time_zone)
        status[naive] = np.where(local_ok, OK, BAD)
    return Instants(us, status if status.any() else None)


def _timestamps(array: pa.Array, kind: pa.DataType, time_zone: str) -> Instants:
    values, valid = fixed_width(array, "i8"), validity(array)
    if kind.unit == "ns":
        values = np.floor_divide(values, 1000)
        values.flags.writeable = False
    us, status = _scaled(values, _UNIT_US.get(kind.unit, 1), valid)
    return Instants(us, status) if kind.tz is not None else _localised(us, status, time_zone)


def _scaled(
    values: np.ndarray[Any, Any], unit_us: int, valid: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Return values * unit_us and the status of rows outside the years 1..9999, if there are any."""
    values.flags.writeable = False
    lowest, highest = -(-INSTANT_MIN_US // unit_us), INSTANT_MAX_US // unit_us
    if len(valid) == 0 and within(values, lowest, highest):
        return (values if unit_us == 1 else values * unit_us), None
    status = np.where((values < lowest) | (values > highest), BAD, OK).astype(np.uint8)
    if len(valid):
        status[~valid] = ABSENT
    return np.where(status == OK, values, 0) * unit_us, status


def _unix(array: pa.Array, exponent: int) -> Instants:
    text = array.cast(pa.string()) if pa.types.is_floating(array.type) else to_text(array, "occurred_at")
    us, status = np.empty(len(text), np.int64), np.empty(len(text), np.uint8)
    parse_integers(*text_buffers(text), exponent, INSTANT_MAX_US, FLOOR, us, status)
    before = (status == OK) & (us < INSTANT_MIN_US)
    us[before], status[before] = 0, BAD
    return Instants(us, status if status.any() else None)


def _by_format(text: pa.Array, time_format: str, time_zone: str, languages: tuple[str, ...]) -> Instants:
    # Python's own strptime, once for each text: the system's, which Arrow calls, takes 30 February for 2 March.
    read = moment_reader(time_format, languages)
    raw = pa.Array.from_buffers(
        pa.binary(), len(text), text.buffers(), offset=text.offset
    ).dictionary_encode()
    moments = [read(value.decode(errors="replace")) for value in raw.dictionary.to_pylist()]
    us = np.array([at_us for at_us, _ in moments] + [0], np.int64)
    status = np.array([code for _, code in moments] + [ABSENT], np.uint8)
    naive = status == NAIVE
    if naive.any():
        us[naive], local_ok = _to_utc(us[naive], time_zone)
        status[naive] = np.where(local_ok, OK, BAD)
    at = raw.indices.fill_null(len(moments)).to_numpy(zero_copy_only=False)
    return Instants(us[at], status[at] if status[at].any() else None)


def _localised(
    local_us: np.ndarray[Any, Any], status: np.ndarray[Any, Any] | None, time_zone: str
) -> Instants:
    us, in_range = _to_utc(local_us, time_zone)
    if in_range.all():
        return Instants(us, status)
    status = np.zeros(len(us), np.uint8) if status is None else status
    status[~in_range & (status == OK)] = BAD
    return Instants(np.where(status == OK, us, 0), status)


def _to_utc(
    local_us: np.ndarray[Any, Any], time_zone: str
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return UTC of local times, and where it stays within the years 1..9999.

    Where clocks go back the earlier of the two instants is meant, and in the gap where they go forward the
    offset before it holds, as `datetime` does with fold=0. A day whose ends have one offset has it
    throughout; only the rows of the other days are asked for one by one.
    """
    if time_zone in ("UTC", "Etc/UTC", "Z"):
        return local_us, np.ones(len(local_us), np.bool_)
    if fixed := _FIXED.fullmatch(time_zone):
        minutes = int(f"{fixed[1]}1") * (60 * int(fixed[2]) + int(fixed[3]))
        us = local_us - minutes * 60_000_000
        in_range = (us >= INSTANT_MIN_US) & (us <= INSTANT_MAX_US)
        return np.where(in_range, us, 0), in_range
    zone = zone_of(time_zone)
    days, at = np.unique(local_us // DAY_US, return_inverse=True)
    first = np.array([_offset_us(int(day) * DAY_US, zone) for day in days], np.int64)
    last = np.array([_offset_us(int(day) * DAY_US + DAY_US - 1, zone) for day in days], np.int64)
    offset_us = first[at]
    turning = np.flatnonzero((first != last)[at])
    if len(turning):
        moments, position = np.unique(local_us[turning], return_inverse=True)
        offset_us[turning] = np.array([_offset_us(int(us), zone) for us in moments], np.int64)[position]
    us = local_us - offset_us
    in_range = (us >= INSTANT_MIN_US) & (us <= INSTANT_MAX_US)
    return np.where(in_range, us, 0), in_range


def _offset_us(local_us: int, zone: ZoneInfo) -> int:
    offset = (_EPOCH + timedelta(microseconds=local_us)).replace(tzinfo=zone).utcoffset()
    assert offset is not None, "a ZoneInfo always has an offset"
    return offset // _US
