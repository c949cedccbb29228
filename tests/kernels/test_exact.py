"""Exact arithmetic against Python's decimal."""

from decimal import Decimal, localcontext

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rfmstream.engine.files.numbers import Number, NumberAmount
from rfmstream.kernels.parse import ABSENT, BAD, OK

DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**7), max_value=10**7, places=4)


def number(*texts: str | None) -> Number:
    return Number.of(pa.array(texts, pa.string()), "x")


@settings(deadline=None)
@given(st.lists(st.tuples(DECIMALS, DECIMALS), min_size=1, max_size=20))
@example([(Decimal("8176.0035"), Decimal("7927679.9382")), (Decimal("-7927679.9382"), Decimal("8176.0035"))])
def test_sum_difference_and_product(pairs: list[tuple[Decimal, Decimal]]) -> None:
    lefts, rights = [str(a) for a, _ in pairs], number(*(str(b) for _, b in pairs))
    with localcontext(prec=60):
        for change, expected in (
            (lambda left: left.add(rights, 1), [a + b for a, b in pairs]),
            (lambda left: left.add(rights, -1), [a - b for a, b in pairs]),
        ):
            left = number(*lefts)
            change(left)
            assert [Decimal(text) for text in left.text().to_pylist()] == expected
        left = number(*lefts)
        left.multiply(rights)
        for text, status, (a, b) in zip(left.text().to_pylist(), left.status, pairs, strict=True):
            digits = len((a * b).normalize().as_tuple().digits)
            assert digits > 18 or status == OK
            assert status == BAD or Decimal(text) == a * b


BOUNDS = st.builds(
    lambda digits, scale: format(Decimal(digits).scaleb(-scale), "f"),
    st.integers(-(10**18) + 1, 10**18 - 1) | st.integers(-20, 20),
    st.integers(0, 17),
).filter(lambda text: sum(map(str.isdigit, text)) <= 18)


@settings(deadline=None)
@given(st.lists(BOUNDS, min_size=1), BOUNDS)
@example(["0.5", "999999999999999999", "0.00000000000000001", "0", "1.0"], "999999999999999999")
@example(["0.5", "-0.5", "-0.00000000000000001", "0"], "-999999999999999999")
def test_a_comparison_is_exact_at_any_number_of_decimals(texts: list[str], bound: str) -> None:
    with localcontext(prec=60):
        expected = [int(Decimal(text).compare(Decimal(bound))) for text in texts]
    assert number(*texts, None, "x").compared(bound).tolist() == [*expected, 0, 0]


def test_absent_and_bad_terms() -> None:
    left = number("1", None, "1", None, "x")
    left.add(number(None, "2", "x", None, "1"), 1)
    assert left.text().to_pylist() == ["1", "2", None, None, None]
    assert left.status.tolist() == [OK, OK, BAD, ABSENT, BAD]
    left = number("2", "2", "2")
    left.multiply(number(None, "x", "3"))
    assert left.status.tolist() == [ABSENT, BAD, OK]


def test_overflow_is_bad_and_never_wraps() -> None:
    left = number("999999999999999999", "999999999999999999", "1000000000")
    left.add(number("1", "0.1", "0.000000001"), 1)
    assert left.status.tolist() == [BAD, BAD, BAD]
    left = number("999999999", "9999999999")
    left.multiply(number("999999999", "9999999999"))
    assert left.status.tolist() == [OK, BAD]


def test_groups_are_summed_exactly_and_one_bad_row_spoils_its_group() -> None:
    lines = number("0.1", "0.2", "0.001", "x", "5", None)
    total = lines.summed(np.array([0, 0, 1, 2, 2, 3]), 4)
    assert total.text().to_pylist() == ["0.3", "0.001", None, None]
    assert total.status.tolist() == [OK, OK, BAD, BAD]


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [("refuse", [(0, BAD), (0, BAD)]), ("half_even", [(2, OK), (-2, OK)]), ("half_up", [(3, OK), (-3, OK)])],
)
def test_rounding_of_an_amount(rounding: str, expected: list[tuple[int, int]]) -> None:
    read = NumberAmount(number("0.025", "-0.025"), rounding, in_minor=False).minor(2)  # type: ignore[arg-type]
    status = [OK, OK] if read.status is None else read.status.tolist()
    assert list(zip(read.minor.tolist(), status, strict=True)) == expected
