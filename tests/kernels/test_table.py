"""The table against a dict of sets: pairs are found while segments split, and memory stays in proportion."""

from collections import defaultdict

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from rfmstream.engine.core.table import Table
from rfmstream.kernels.layout import SEGMENT
from rfmstream.kernels.table import LINE, find_next, first_hit, insert, probe, settle, tag_of, turn_of

TAG_MAX = 2**32 - 1
BLOCK = 256

needs_compiler = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="takes minutes as plain Python")


@numba.njit
def _fill(tables, tags, handles, first):
    """Put pairs in, from `first` on, until there is no room for a segment; return where to go on."""
    for i in range(first, tags.size):
        if i % BLOCK == 0 and not settle(tables[0]):
            return i
        insert(tables[0], tags[i], handles[i])
    settle(tables[0])
    return tags.size


@numba.njit
def _find(tables, tag, out):
    """Write the handles of a tag in the order found; return how many there are, -1 where the others disagree."""
    count = 0
    handle, cursor = find_next(tables[0], tag, 0)
    while handle != 0:
        out[count] = handle
        count += 1
        handle, cursor = find_next(tables[0], tag, cursor)
    hit = first_hit(tables[0], tag)  # does not look at the spare segment
    if hit != 0 and not np.any(out[:count] == hit):
        return -1
    return count if (probe(tables[0], tag)[0] != 0) == (count > 0) else -1


@numba.njit
def _first_hits(tables, tags, out):
    for i in range(tags.size):
        out[i] = first_hit(tables[0], tags[i])


@numba.njit
def _is_found(tables, tags, handles):
    for i in range(tags.size):
        handle, cursor = find_next(tables[0], tags[i], 0)
        while handle not in (0, handles[i]):
            handle, cursor = find_next(tables[0], tags[i], cursor)
        if handle == 0:
            return False
    return True


@numba.njit
def _free_slot(tables, tag):
    return probe(tables[0], tag)[1]


@numba.njit
def _turns(tags, out):
    for i in range(tags.size):
        out[i] = turn_of(tags[i])


@numba.njit
def _tags(values, out):
    for i in range(values.size):
        out[i] = tag_of(values[i])


def fill(table: Table, tags: NDArray[np.int64], handles: NDArray[np.int64]) -> None:
    done = 0
    while (done := _fill(table.record.rows, tags, handles, done)) < tags.size:
        table.make_room(BLOCK)


def assert_holds(table: Table, tags: NDArray[np.int64], handles: NDArray[np.int64]) -> None:
    expected = defaultdict(set)
    for tag, handle in zip(tags.tolist(), handles.tolist(), strict=True):
        expected[tag].add(handle)
    rows, out = table.record.rows, np.empty(2 * tags.size + 1, dtype=np.int64)
    for tag, those in expected.items():
        assert set(out[: _find(rows, tag, out)].tolist()) == those
        assert table.pairs[_free_slot(rows, tag)] == 0
    for tag in {0, TAG_MAX, *((tag + 1) & TAG_MAX for tag in expected)} - set(expected):
        assert _find(rows, tag, out) == 0
    assert np.count_nonzero(table.pairs) == tags.size
    lines = table.pairs.reshape(-1, LINE) != 0
    assert (np.diff(lines.astype(int), axis=1) <= 0).all()  # a line fills from the left


def random_tags(seed: int, count: int, kind: str) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    match kind:
        case "spread":
            return rng.integers(0, 2**32, count)
        case "equal":
            return np.full(count, rng.integers(0, 2**32))
        case "few":
            return rng.choice(np.array([0, 1, 2**31 - 1, 2**31, TAG_MAX - 1, TAG_MAX]), count)
        case "first":
            return rng.integers(0, 64, count)
        case _:
            return TAG_MAX - rng.integers(0, 64, count)


@pytest.mark.parametrize("kind", ["spread", "equal", "few", "first", "last"])
@pytest.mark.parametrize("count", [1, 100, 800])
def test_against_a_dict(kind: str, count: int) -> None:
    tags = random_tags(count, count, kind)
    # Handles up to the largest there can be; 0 means none.
    handles = np.random.default_rng(7).permutation(np.r_[1 : count + 1, TAG_MAX - count : TAG_MAX])[:count]
    table = Table()
    fill(table, tags, handles)
    assert_holds(table, tags, handles)


@needs_compiler
@pytest.mark.parametrize("kind", ["equal", "few", "first", "last"])
def test_splits_keep_every_pair(kind: str) -> None:
    # Tags that no split parts stand among such as are parted many times.
    tags = np.r_[
        random_tags(1, 40_000, "spread"), random_tags(2, 500, kind), random_tags(3, 40_000, "spread")
    ]
    handles = np.arange(1, tags.size + 1)
    table = Table()
    for first in range(0, tags.size, 27_000):
        these = slice(first, first + 27_000)
        fill(table, tags[these], handles[these])
        assert_holds(table, tags[: these.stop], handles[: these.stop])
    assert table.record.row.n_segments > 8


@needs_compiler
def test_tags_alike_split_nothing() -> None:
    table = Table()
    fill(table, random_tags(1, SEGMENT // 3, "equal"), np.arange(1, SEGMENT // 3 + 1))
    assert table.record.row.n_segments == 2


@needs_compiler
def test_a_broken_hash_is_told_before_memory_is_overrun() -> None:
    with pytest.raises(AssertionError):
        fill(Table(), random_tags(1, SEGMENT, "equal"), np.arange(1, SEGMENT + 1))


@needs_compiler
def test_memory_stays_in_proportion_at_every_size() -> None:
    # 48 bytes an order are 32 of its entry, 1/8 of its id's place and 15.8 here: a load of 0.505.
    tags = random_tags(1, 3_000_000, "spread")
    handles = np.arange(1, tags.size + 1)
    table = Table()
    step = 50_000
    for end in range(step, tags.size + 1, step):
        fill(table, tags[end - step : end], handles[end - step : end])
        if end >= tags.size // 4:
            assert end / table.pairs.size >= 0.505
    assert _is_found(table.record.rows, tags, handles)
    assert not table.pairs[:SEGMENT].any()


def test_first_hit_finds_what_is_at_home() -> None:
    table, tags, handles = Table(), np.arange(1, 201, dtype=np.int64) * 21_000_000, np.arange(1, 201)
    assert _fill(table.record.rows, tags, handles, 0) == tags.size
    out = np.empty_like(tags)
    _first_hits(table.record.rows, tags, out)
    assert (out == handles).all()
    _first_hits(table.record.rows, tags + 1, out)
    assert not out.any()


def test_turns_rise_with_the_logarithm_of_the_tag() -> None:
    tags = np.sort(np.r_[0, 1, TAG_MAX - 1, TAG_MAX, random_tags(1, 10_000, "spread")])
    turns = np.empty(tags.size, dtype=np.int64)
    _turns(tags, turns)
    assert (turns[0], turns[-1]) == (0, TAG_MAX)
    assert (np.diff(turns) >= 0).all()
    assert np.abs(turns / 2**32 - np.log2(1 + tags / 2**32)).max() < 0.01


def test_tag_is_the_top_of_the_hash() -> None:
    values = np.array([0, 2**32 - 1, 2**32, 2**63, 2**64 - 1], dtype=np.uint64)
    out = np.empty(5, dtype=np.int64)
    _tags(values, out)
    assert out.tolist() == [0, 0, 1, 2**31, TAG_MAX]
