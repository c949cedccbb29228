from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.toml_table import TomlTable, read_toml, show_decimal


@pytest.mark.parametrize(
    ("text", "shown"),
    [("0", "0"), ("-0.50", "-0.5"), ("1000", "1000"), ("99.90", "99.9"), ("0.001", "0.001")],
)
def test_show_decimal_writes_the_digits(text: str, shown: str) -> None:
    assert show_decimal(Fraction(text)) == shown


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=6))
def test_show_decimal_loses_nothing(number: Decimal) -> None:
    assert Fraction(show_decimal(Fraction(number))) == Fraction(number)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=6))
def test_decimals_are_exact(number: Decimal) -> None:
    assert TomlTable({"x": f"{number:f}"}, "f").decimal("x") == Fraction(number)


@pytest.mark.parametrize("value", [1.5, True, "1e3", "", " 1", "1.", ".5", "0x10", "nan", [], {}])
def test_what_is_no_decimal_is_refused(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        TomlTable({"x": value}, "f.toml", "weights").decimal("x")
    assert (caught.value.file, caught.value.key) == ("f.toml", "weights.x")
    assert caught.value.fix


@pytest.mark.parametrize("escape", ["\\u001b[31m", "\\u0000", "\\u009b", "\\u007f"])
def test_a_text_that_would_command_a_terminal_is_refused(tmp_path: Path, escape: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f'a = {{ b = ["red{escape}"] }}\n')
    with pytest.raises(ConfigError, match=r"a\.toml: holds the control character U\+00"):
        read_toml(path)


def test_tabs_and_line_ends_in_a_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('a = "one\\ttwo\\r\\nthree"\n')
    assert read_toml(path) == {"a": "one\ttwo\r\nthree"}
