from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.toml_table import TomlTable, show_decimal


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
