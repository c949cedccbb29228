"""The fuzzers' targets take their own seeds, and what chance makes of them."""

import random
from pathlib import Path

import fuzz
import fuzz_fetches
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import some

TARGETS = fuzz.targets()
COUNTS = {"http": 20, "checkpoint": 60, "arrow": 150}


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_pass(name: str) -> None:
    take, seeds = TARGETS[name]
    for seed in seeds():
        take(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_that_chance_has_changed_pass(name: str, tmp_path: Path) -> None:
    take, seeds = TARGETS[name]
    chance, made = random.Random(1), seeds()  # noqa: S311 - a test
    for _ in range(some(COUNTS.get(name, 300))):
        data = fuzz.changed(chance, made)
        (tmp_path / "input").write_bytes(data)  # kept where it fails
        take(data)


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
