"""Codes of bounded length: whole trees, and the shortest where nothing bounds them."""

import heapq
from fractions import Fraction

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rfmstream.kernels._jit import jit
from rfmstream.kernels.huffman import make_code


@jit
def made(counts, sizes, codes, longest):
    make_code(counts, sizes, codes, longest)


def shortest(counts):
    """Return how many bits the shortest code takes in all: the sum of all inner weights."""
    heap = [count for count in counts if count]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        total += both
        heapq.heappush(heap, both)
    return total


def fibonacci(count):
    numbers = [1, 1]
    while len(numbers) < count:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 10) | st.integers(0, 10**9), min_size=2, max_size=120), st.sampled_from([7, 15])
)
@example([0, 0, 0], 7)
@example([0, 5, 0], 7)
@example([5, 0], 7)
@example(fibonacci(40), 15)
@example([1] * 128, 7)
def test_a_code_is_a_whole_tree_within_its_bound_and_no_word_begins_another(counts, longest):
    given_counts = np.array(counts, dtype=np.int64)
    sizes, codes = np.zeros((2, len(counts)), dtype=np.int64)
    made(given_counts, sizes, codes, np.int64(longest))
    assert sizes.max() <= longest
    assert all(size > 0 for size, count in zip(sizes.tolist(), counts, strict=True) if count)
    assert sum(Fraction(1, 1 << size) for size in sizes.tolist() if size) == 1
    words = [
        f"{code:0{size}b}"[::-1] for code, size in zip(codes.tolist(), sizes.tolist(), strict=True) if size
    ]
    assert not any(b.startswith(a) for a, b in zip(sorted(words), sorted(words)[1:], strict=False))
    used = np.count_nonzero(counts)
    bits = int((sizes * np.array(counts)).sum())
    if used > 1:
        assert bits >= shortest(counts)
        if max(sizes) < longest:
            assert bits == shortest(counts)
