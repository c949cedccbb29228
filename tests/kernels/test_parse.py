"""Parsers against Python's decimal and datetime."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmstream.engine.events.text import text_buffers
from rfmstream.kernels import parse

LIMIT = 10**12


def integers(
    texts: list[str | None], exponent: int = 2, rounding: int = parse.REFUSE
) -> list[tuple[int, int]]:
    out, status = np.empty(len(texts), np.int64), np.empty(len(texts), np.uint8)
    parse.parse_integers(*text_buffers(pa.array(texts, pa.string())), exponent, LIMIT, rounding, out, status)
    return list(zip(out.tolist(), status.tolist(), strict=True))


def instants(texts: list[str | None]) -> list[tuple[int, int]]:
    out, status = np.empty(len(texts), np.int64), np.empty(len(texts), np.uint8)
    parse.parse_instants(*text_buffers(pa.array(texts, pa.string())), out, status)
    return list(zip(out.tolist(), status.tolist(), strict=True))


def us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "minor"),
    [
        ("0", 0),
        ("-0", 0),
        ("1", 100),
        ("+1.2", 120),
        ("-1.23", -123),
        (".5", 50),
        ("5.", 500),
        ("1e2", 10_000),
        ("1E-2", 1),
        ("12.3400000000000000000000000000", 1234),
        ("1000000000000000000000000000e-20", 1_000_000_000),
        ("0e999999999999", 0),
        ("\t 7 \n", 700),
        ("10000000000", LIMIT),
        ("-10000000000.00", -LIMIT),
        ("000000000000000000000000000000000001", 100),
    ],
)
def test_decimal_text_is_exact(text: str, minor: int) -> None:
    assert integers([text]) == [(minor, parse.OK)]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "1.234",
            "1e-3",
            "10000000000.01",
            "1e11",
            "1e99999999999999999999",
            "99999999999999999999999",
            "-1e18",
        ),
        *(".", "+", "1e", "1e+", "--1", "1.1.1", "1,000", "12x", "1 2", "NaN", "inf", "0x10", "\u0661"),
    ],
)
def test_what_is_no_exact_amount_is_bad(text: str) -> None:
    assert integers([text]) == [(0, parse.BAD)]


def test_blank_and_null_are_absent() -> None:
    assert integers([None, "", "  ", "1"]) == [(0, parse.ABSENT)] * 3 + [(100, parse.OK)]


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        (parse.HALF_EVEN, [0, 2, 2, -2, 1, 0, 0]),
        (parse.HALF_UP, [1, 2, 3, -3, 1, 0, 0]),
        (parse.FLOOR, [0, 1, 2, -3, 0, 0, -1]),
    ],
)
def test_rounding(rounding: int, expected: list[int]) -> None:
    texts = ["0.005", "0.015", "0.025", "-0.025", "0.0050001", "1e-300", "-1e-300"]
    assert [value for value, _ in integers(texts, rounding=rounding)] == expected


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=None), st.integers(0, 4))
def test_decimals_as_decimal_reads_them(value: Decimal, exponent: int) -> None:
    digits = len(value.normalize().as_tuple().digits)
    scaled = value.scaleb(exponent) if abs(value) < Decimal(10) ** 20 else Decimal(10) ** 20
    fits = digits <= 18 and scaled == scaled.to_integral_value() and abs(scaled) <= LIMIT
    assert integers([str(value)], exponent) == [(int(scaled), parse.OK) if fits else (0, parse.BAD)]


@settings(deadline=None)
@given(st.text(alphabet="0123456789.eE+- ", max_size=12))
def test_accepts_just_what_decimal_accepts(text: str) -> None:
    try:
        Decimal(text)
        is_decimal = True
    except InvalidOperation:
        is_decimal = False
    status = integers([text], rounding=parse.FLOOR)[0][1]
    assert status != parse.OK or is_decimal


@settings(deadline=None)
@given(st.integers(-LIMIT, LIMIT), st.integers(0, 4))
def test_doubles_by_their_shortest_decimal(minor: int, exponent: int) -> None:
    values = np.array([float(Decimal(minor).scaleb(-exponent))])
    values.flags.writeable = False
    valid = text_buffers(pa.array([], pa.string()))[2]
    out, status = np.empty(1, np.int64), np.empty(1, np.uint8)
    parse.integers_of_doubles(values, valid, exponent, LIMIT, out, status)
    assert (out[0], status[0]) == (minor, parse.OK)
    beside = np.nextafter(values, np.inf)
    beside.flags.writeable = False
    parse.integers_of_doubles(beside, valid, exponent, LIMIT, out, status)
    wanted = Decimal(repr(float(beside[0]))).scaleb(exponent)
    assert (status[0] == parse.OK) == (wanted == wanted.to_integral_value() and abs(wanted) <= LIMIT)


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2024-02-29T12:34:56Z", "2024-02-29T12:34:56+00:00"),
        ("2024-02-29 12:34:56.5 +0530", "2024-02-29T12:34:56.5+05:30"),
        ("2024-02-29t12:34z", "2024-02-29T12:34:00+00:00"),
        ("2024-02-29T12:34:56,000001-08", "2024-02-29T12:34:56.000001-08:00"),
        ("2024-02-29T12:34:56.123456999Z", "2024-02-29T12:34:56.123456+00:00"),
        (" 2024-02-29 12:34:56 UTC ", "2024-02-29T12:34:56+00:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999+00:00"),
    ],
)
def test_iso_instants(text: str, iso: str) -> None:
    assert instants([text]) == [(us(datetime.fromisoformat(iso)), parse.OK)]


@pytest.mark.parametrize("text", ["2024-01-02", "2024-01-02T03:04", "2024-01-02 03:04:05.123"])
def test_an_instant_without_zone_is_naive(text: str) -> None:
    assert instants([text]) == [(us(datetime.fromisoformat(text).replace(tzinfo=UTC)), parse.NAIVE)]


@pytest.mark.parametrize(
    "text",
    [
        *("2023-02-29", "1900-02-29", "2024-00-01", "2024-13-01", "2024-01-00", "2024-04-31", "0000-01-01"),
        *(
            "2024-01-02T24:00",
            "2024-01-02T03:60",
            "2024-01-02T03:04:60Z",
            "2024-01-02T",
            "2024-01-02T03",
            "24-01-02",
        ),
        *(
            "2024-01-02T03:04:05.Z",
            "2024-01-02T03:04:05+2",
            "2024-01-02T03:04:05+24:00",
            "2024-01-02T03:04:05+02:60",
        ),
        *("2024-01-02T03:04:05ZZ", "2024/01/02", "20240102", "12024-01-02", "now", "1700000000"),
        *("0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59.999999-00:01"),
    ],
)
def test_what_is_no_instant_is_bad(text: str) -> None:
    assert instants([text]) == [(0, parse.BAD)]


@settings(deadline=None)
@given(st.datetimes(timezones=st.timezones().map(lambda _: UTC)), st.integers(-1439, 1439))
def test_instants_as_datetime_reads_them(moment: datetime, offset_minutes: int) -> None:
    hours, minutes = divmod(abs(offset_minutes), 60)
    offset = f"{'-' if offset_minutes < 0 else '+'}{hours:02}:{minutes:02}"
    text = moment.replace(tzinfo=None).isoformat() + offset
    expected = us(moment) - offset_minutes * 60_000_000
    inside = parse.INSTANT_MIN_US <= expected <= parse.INSTANT_MAX_US
    assert instants([text]) == [(expected, parse.OK) if inside else (0, parse.BAD)]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=6), max_size=20))
def test_utf8_as_python_reads_it(values: list[bytes]) -> None:
    raw = pa.array(values, pa.binary())
    text = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    status = np.empty(len(values), np.uint8)
    parse.check_text(*text_buffers(text), 4, status)

    def expected(value: bytes) -> int:
        try:
            value.decode()
        except UnicodeDecodeError:
            return parse.BAD
        return parse.ABSENT if not value else parse.BAD if len(value) > 4 else parse.OK

    assert status.tolist() == [expected(value) for value in values]
