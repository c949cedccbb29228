"""The fuzzers' targets take their own seeds, and what hypothesis makes of them."""

import fuzz_fetches
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import some


@pytest.mark.parametrize("seed", fuzz_fetches.seeds())
def test_seeds_pass(seed: bytes) -> None:
    fuzz_fetches.take(seed)


@settings(max_examples=some(200), deadline=None)
@given(
    seed=st.sampled_from(fuzz_fetches.seeds()),
    at=st.integers(0, fuzz_fetches.BYTES_MAX),
    some=st.binary(max_size=8),
    length=st.integers(0, 8),
)
def test_changed_seeds_pass(seed: bytes, at: int, some: bytes, length: int) -> None:
    at %= len(seed)
    fuzz_fetches.take(seed[:at] + some + seed[at + length :])
