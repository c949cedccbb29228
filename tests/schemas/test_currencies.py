import pytest

from rfmstream.schemas.currencies import CURRENCY_EXPONENTS, WITHOUT_MINOR_UNIT, currency_exponent
from rfmstream.schemas.errors import ConfigError


@pytest.mark.parametrize(
    ("code", "exponent"),
    [
        ("CNY", 2),
        ("USD", 2),
        ("JPY", 0),
        ("KRW", 0),
        ("ISK", 0),
        ("BHD", 3),
        ("KWD", 3),
        ("CLF", 4),
        ("HUF", 2),
    ],
)
def test_exponents_of_iso_4217(code: str, exponent: int) -> None:
    assert currency_exponent(code) == exponent


def test_the_list_is_whole() -> None:
    # ISO 4217 list one of 2026 has 165 codes with a minor unit and 13 without; six withdrawn ones are kept.
    assert len(CURRENCY_EXPONENTS) == 165 + 6
    assert len(WITHOUT_MINOR_UNIT) == 13
    assert not WITHOUT_MINOR_UNIT & CURRENCY_EXPONENTS.keys()
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in CURRENCY_EXPONENTS)


@pytest.mark.parametrize("code", sorted(WITHOUT_MINOR_UNIT))
def test_codes_without_minor_unit_are_refused(code: str) -> None:
    with pytest.raises(ConfigError, match="no minor unit"):
        currency_exponent(code)


@pytest.mark.parametrize(("code", "near"), [("cny", "CNY"), ("EURO", "EUR"), ("GB", "GBP")])
def test_a_near_miss_is_answered_with_the_code(code: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"did you mean {near}\?") as caught:
        currency_exponent(code, file="a.toml")
    assert (caught.value.file, caught.value.key) == ("a.toml", "currency")


@pytest.mark.parametrize("code", ["", "¥¥¥", "12345678"])
def test_nonsense_is_refused(code: str) -> None:
    with pytest.raises(ConfigError, match="three-letter code"):
        currency_exponent(code)
