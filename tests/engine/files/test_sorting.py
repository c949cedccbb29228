"""The order of places is that of a stable sort, however they are spread over the scale."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rfmstream.engine.files import sorting
from rfmstream.engine.files.sorting import ascending

WHOLE = 6 * 10**17  # the years 1 to 9999, doubled


def spread() -> Iterator[tuple[str, NDArray[np.int64]]]:
    rng = np.random.default_rng(11)
    yield "even", rng.integers(-WHOLE, WHOLE, 50_000)
    yield "ties", rng.integers(0, 40, 50_000)
    yield "all one", np.full(5_000, -7)
    yield "falling", np.arange(50_000)[::-1] * 10**9
    yield "far ones", np.concatenate([[-WHOLE, WHOLE], rng.integers(10**15, 10**15 + 10**6, 50_000)])
    yield "one", np.array([3])


@pytest.mark.parametrize(
    ("name", "place"), list(spread()), ids=lambda given: given if isinstance(given, str) else ""
)
@pytest.mark.parametrize("rows", [7, 1_000, 1 << 17])
def test_the_order_is_stable(
    name: str, place: NDArray[np.int64], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorting, "_STRETCH_ROWS", rows)
    assert (ascending(place) == np.argsort(place, kind="stable")).all(), name


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-WHOLE, WHOLE) | st.integers(-3, 3) | st.integers(65_530, 65_540), min_size=1))
def test_any_places(places: list[int]) -> None:
    place = np.array(places, np.int64)
    assert ascending(place).tolist() == sorted(range(len(places)), key=places.__getitem__)
