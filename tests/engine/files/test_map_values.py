"""Input maps: what expressions make of cells: texts, amounts, times, conditions."""

from pathlib import Path

import pyarrow as pa
import pytest
from mapped_rows import EVENT, IDS, amounts, held, run, texts

from rfmstream.engine.files.mapping import load_map
from rfmstream.schemas.errors import ConfigError


def test_a_cell_that_is_no_utf8_is_malformed_and_the_others_are_read(tmp_path: Path) -> None:
    value = '{ column = "s", strip_prefix = "x", case = "upper", suffix = "!" }'
    raw = pa.array([b"xab", b"x\xe9", b"us\xe9", None, "\u00e9".encode()], pa.binary())
    columns = {"s": pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())}
    good, bad = run(tmp_path, f'{EVENT}amount = "a"\nevent_id = {value}\n', columns)
    assert [row["event_id"] for row in good] == ["AB!", None, "\u00c9!"]
    assert [(row["row"], row["reason"]) for row in bad] == [(1, "malformed"), (2, "malformed")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,249.00", "1249.00"),
        ("1,234,567", "1234567"),
        ("-1,249.00", "-1249.00"),
        ("12,49", "12,49"),
        ("1,234,5", "1,234,5"),
        ("1,234,50", "1,234,50"),
        ("$1,234.50 USD", "$1234.50 USD"),
        ("1,23,456", "1,23,456"),
        ("1.249,000", "1.249,000"),
        ("0,100.5", "0100.5"),
        ("249.00", "249.00"),
    ],
)
def test_thousands_go_where_their_groups_are_whole(tmp_path: Path, text: str, expected: str) -> None:
    assert texts(tmp_path, '{ column = "s", thousands = "," }', {"s": [text]}) == [expected]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"s"', ["17850.0", "Ab", None, None]),
        ('{ column = "s", strip_suffix = ".0" }', ["17850", "Ab", None, None]),
        ('{ column = "s", strip_prefix = "A" }', ["17850.0", "b", None, None]),
        ('{ column = "s", remove = ["1", "0"] }', ["785.", "Ab", None, None]),
        ('{ column = "s", case = "upper", prefix = "<", suffix = ">" }', ["<17850.0>", "<AB>", None, None]),
        ('{ constant = "k" }', ["k"] * 4),
        ("{ constant = 5 }", ["5"] * 4),
        ('{ row_number = true, prefix = "line-" }', ["line-0", "line-1", "line-2", "line-3"]),
        ('{ first_of = ["s", "i"] }', ["17850.0", "Ab", "3", None]),
        ('{ first_of = ["nowhere", { column = "i", prefix = "n" }] }', ["n1", "n2", "n3", None]),
        ('{ column = "nowhere", optional = true }', [None] * 4),
        ('{ first_of = ["nowhere"], optional = true }', [None] * 4),
    ],
)
def test_values(tmp_path: Path, value: str, expected: list[str | None]) -> None:
    assert texts(tmp_path, value, {"s": ["17850.0", "Ab", "", None], "i": [1, 2, 3, None]}) == expected


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ('"p"', [10, 255, "bad_amount", "bad_amount", "bad_amount"]),
        ('{ product = ["q", "p"] }', [30, -255, "bad_amount", "bad_amount", "bad_amount"]),
        ('{ product = ["q", "p"], rounding = "half_even" }', [30, -255, 0, "bad_amount", "bad_amount"]),
        ('{ product = ["q", "p"], rounding = "half_up" }', [30, -255, 1, "bad_amount", "bad_amount"]),
        ('{ sum = ["p", "q"] }', [310, 155, "bad_amount", 700, "bad_amount"]),
        ('{ difference = ["q", "p"] }', [290, -355, "bad_amount", 700, "bad_amount"]),
        ('{ difference = ["p", "q"] }', [-290, 355, "bad_amount", "bad_amount", "bad_amount"]),
        (
            '{ product = ["q", { sum = ["p", { constant = "0.01" }] }] }',
            [33, -256, "bad_amount", 7, "bad_amount"],
        ),
        ('{ column = "q", negate = true }', [-300, 100, -100, -700, -800]),
        ('{ column = "q", absolute = true }', [300, 100, 100, 700, 800]),
        ('{ column = "q", absolute = true, negate = true }', [-300, -100, -100, -700, -800]),
        ('{ column = "p", round_to = 2 }', [10, 255, 0, "bad_amount", "bad_amount"]),
    ],
)
def test_amounts_are_exact(tmp_path: Path, amount: str, expected: list) -> None:
    columns = {"q": pa.array([3, -1, 1, 7, 8], pa.int32()), "p": ["0.10", "2.55", "0.005", None, "x"]}
    assert amounts(tmp_path, amount, columns) == expected


def test_doubles_by_their_shortest_decimal(tmp_path: Path) -> None:
    columns = {"q": [3, 1, 1, 1], "p": [0.1, 1.1, 0.1 + 0.2, float("nan")]}
    assert amounts(tmp_path, '{ product = ["q", "p"] }', columns) == [30, 110, "bad_amount", "bad_amount"]


def test_amount_minor(tmp_path: Path) -> None:
    good, bad = run(tmp_path, EVENT + 'amount_minor = "m"\n', {"m": ["150", "1.5", "2e2"]})
    assert [row["amount_minor"] for row in good] == [150, 200]
    assert [(row["row"], row["reason"], row["amount"]) for row in bad] == [(1, "bad_amount", "1.5")]


@pytest.mark.parametrize(
    ("time", "values", "expected"),
    [
        ('"t"', ["2024-01-02T03:04:05+01:00"], "2024-01-02 02:04:05"),
        ('{ column = "t", time_zone = "Europe/Paris" }', ["2024-07-02T03:04:05"], "2024-07-02 01:04:05"),
        ('{ column = "t", format = "%d/%m/%Y %H:%M" }', ["02/01/2024 03:04"], "2024-01-02 03:04:00"),
        (
            '{ column = "t", format = "%Y%m%d", time_zone = "Asia/Shanghai" }',
            ["20240102"],
            "2024-01-01 16:00:00",
        ),
        ('{ column = "t", format = "%Y%m%d" }', [20240102], "2024-01-02 00:00:00"),
        ('{ column = "t", format = "%d %b %Y" }', [" 2 jan 2024 "], "2024-01-02 00:00:00"),
        ('{ column = "t", format = "%Y-%m-%d %H.%M%z" }', ["2024-01-02 03.04+01:00"], "2024-01-02 02:04:00"),
        ('{ column = "t", format = "%Y%j %I%p %f" }', ["2024002 03PM 5"], "2024-01-02 15:00:00.500000"),
        ('{ column = "t", format = "%G-W%V-%u" }', ["2024-W01-2"], "2024-01-02 00:00:00"),
        ('{ column = "t", format = "unix_s" }', [1704164645], "2024-01-02 03:04:05"),
        ('{ column = "t", format = "unix_s" }', ["1704164645.9999999"], "2024-01-02 03:04:05.999999"),
        ('{ column = "t", format = "unix_ms" }', [1704164645000.0], "2024-01-02 03:04:05"),
        ('{ column = "t", format = "unix_us" }', ["1704164645000000"], "2024-01-02 03:04:05"),
    ],
)
def test_times(tmp_path: Path, time: str, values: list, expected: str) -> None:
    toml = f'[[event]]\n{IDS}occurred_at = {time}\namount = "a"\n'
    ((order,), _) = run(tmp_path, toml, {"t": values})
    assert str(order["occurred_at"]).removesuffix("+00:00") == expected


@pytest.mark.parametrize(
    ("time_format", "text"),
    [
        ("%d.%m.%Y", "31.04.2024"),
        ("%d.%m.%Y", "29.02.2023"),
        ("%Y%m%d", "19970230"),
        ("%Y-%m-%d %H:%M:%S", "2024-01-05 23:59:60"),
        ("%m/%d/%Y", "1/5/97"),
        ("%Y-%m-%d %z", "0001-01-01 +0100"),
    ],
)
def test_a_time_that_does_not_exist_is_bad(tmp_path: Path, time_format: str, text: str) -> None:
    toml = f'[[event]]\n{IDS}occurred_at = {{ column = "t", format = "{time_format}" }}\namount = "a"\n'
    good, bad = run(tmp_path, toml, {"t": [text, text]})
    assert (good, [row["reason"] for row in bad]) == ([], ["bad_time", "bad_time"])


def test_unreadable_times_show_their_text(tmp_path: Path) -> None:
    toml = f'[[event]]\n{IDS}occurred_at = {{ column = "t", format = "%d.%m.%Y" }}\namount = "a"\n'
    good, bad = run(tmp_path, toml, {"t": ["31.12.2024", "2024-12-31", "", None]})
    assert len(good) == 1
    assert [(row["reason"], row["occurred_at"]) for row in bad] == [
        ("bad_time", "2024-12-31"),
        ("bad_time", ""),
        ("bad_time", None),
    ]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('{ column = "s", equals = "paid" }', [0]),
        ('{ column = "s", case = "lower", equals = "paid" }', [0, 1]),
        ('{ column = "s", one_of = ["paid", "C12"] }', [0, 2]),
        ('{ column = "s", starts_with = "C" }', [2]),
        ('{ column = "s", starts_with = ["C", "PA"] }', [1, 2]),
        ('{ column = "s", contains = "a" }', [0]),
        ('{ column = "s", contains = ["12", "AI", "."] }', [1, 2]),
        ('{ column = "s", is_null = true }', [3, 4]),
        ('{ column = "s", is_null = false }', [0, 1, 2]),
        ('{ column = "n", greater_than = 0 }', [0, 2]),
        ('{ column = "n", less_than = "0.01" }', [1, 3]),
        ('{ column = "n", greater_than = "-0.005" }', [0, 1, 2]),
        ('{ column = "n", greater_than = "-999999999999999999" }', [0, 1, 2, 3]),
        ('{ sum = ["n", "n"], greater_than = 2 }', [2]),
        ('{ not = { column = "s", equals = "paid" } }', [1, 2, 3, 4]),
        ('{ any = [{ column = "s", equals = "paid" }, { column = "n", less_than = 0 }] }', [0, 3]),
        ('{ all = [{ column = "s", is_null = true }, { column = "n", less_than = 0 }] }', [3]),
        ('{ column = "nowhere", optional = true, equals = "x" }', []),
    ],
)
def test_conditions(tmp_path: Path, condition: str, expected: list[int]) -> None:
    columns = {"s": ["paid", "PAID", "C12", "", None], "n": ["0.01", "0", "1e2", "-1", "x"]}
    assert held(tmp_path, condition, columns) == expected


def test_a_decimal_sign_is_never_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text(
        'name = "test"\n[[event]]\ncustomer_id = "c"\norder_id = "o"\noccurred_at = "t"\n'
        'amount_minor = { column = "a", remove = [".", ","] }\n'
    )
    with pytest.raises(ConfigError, match=r"event\[1\].amount_minor.remove: takes the decimal sign away"):
        load_map(path)
