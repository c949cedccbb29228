"""The table against a dict of lists: pairs are found, stay in order, and survive growth."""

from collections import defaultdict

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels._jit import count_trailing_zeros, match_line
from kernels.layout import TABLE_SLACK
from kernels.table import (
    FULL,
    LINE,
    handle_at,
    home_of,
    insert,
    is_crowded,
    next_line,
    probe,
    regrow,
    second_home_of,
    tag_of,
)

TAG_MAX = 2**32 - 1


@numba.njit
def _insert(table, tags, handles):
    for i in range(tags.size):
        insert(table, tags[i], handles[i])


@numba.njit
def _find(table, tag, out):
    """Write the handles of a tag as the kernels search them; return how many there are."""
    count = 0
    line, nth, used = home_of(table, tag), 0, FULL
    seen = line
    while nth < 2 or used == FULL:
        hits, used = match_line(table, line, tag)
        while hits != 0:
            if nth != 1 or line != seen:  # the second home may be the first one
                out[count] = handle_at(table, line + count_trailing_zeros(hits))
                count += 1
            hits &= hits - 1
        line, nth = next_line(table, tag, line, nth), nth + 1
    like, free = probe(table, tag)
    return count if table[free] == 0 and (like != 0) == (count > 0) else -1


@numba.njit
def _homes(table, tags, out):
    for i in range(tags.size):
        out[i] = home_of(table, tags[i])


@numba.njit
def _first_with_second_home(table, home):
    tag = 0
    while second_home_of(table, tag) != home:
        tag += 1
    return tag


@numba.njit
def _tags(values, out):
    for i in range(values.size):
        out[i] = tag_of(values[i])


def empty(capacity: int) -> NDArray[np.int64]:
    return np.zeros(capacity + TABLE_SLACK, dtype=np.int64)


def assert_holds(table: NDArray[np.int64], tags: NDArray[np.int64], handles: NDArray[np.int64]) -> None:
    expected = defaultdict(set)
    for tag, handle in zip(tags.tolist(), handles.tolist(), strict=True):
        expected[tag].add(handle)
    out = np.empty(table.size, dtype=np.int64)
    for tag, those in expected.items():
        assert set(out[: _find(table, tag, out)].tolist()) == those
    for tag in {0, TAG_MAX, *(tag + 1 for tag in expected)} - set(expected):
        assert _find(table, tag, out) == 0
    assert np.count_nonzero(table) == tags.size
    lines = table.reshape(-1, LINE) != 0
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
    table = empty(1024)
    _insert(table, tags, handles)
    assert_holds(table, tags, handles)


@pytest.mark.parametrize("kind", ["spread", "equal", "few", "first", "last"])
@pytest.mark.parametrize("larger", [1032, 1536, 1544, 9992, 1 << 16])
def test_growth_keeps_every_pair(kind: str, larger: int) -> None:
    tags = random_tags(larger, 800, kind)
    handles = np.arange(1, 801)
    old, new = empty(1024), empty(larger)
    _insert(old, tags, handles)
    regrow(old, new)
    assert_holds(new, tags, handles)
    more = random_tags(larger + 1, 100, "spread")
    _insert(new, more, np.arange(1001, 1101))
    assert_holds(new, np.r_[tags, more], np.r_[handles, 1001:1101])


def test_tag_is_the_top_of_the_hash() -> None:
    values = np.array([0, 2**32 - 1, 2**32, 2**63, 2**64 - 1], dtype=np.uint64)
    out = np.empty(5, dtype=np.int64)
    _tags(values, out)
    assert out.tolist() == [0, 0, 1, 2**31, TAG_MAX]


def test_homes_rise_from_the_first_line_to_the_last() -> None:
    table = empty(1000)
    tags = np.array([0, 1, 2**31, TAG_MAX])
    homes = np.empty(4, dtype=np.int64)
    _homes(table, tags, homes)
    assert homes.tolist() == [0, 0, 496, 992]


def test_lines_stay_even_up_to_the_load_at_which_a_table_grows() -> None:
    table = empty(80_000)
    _insert(table, random_tags(1, 68_000, "spread"), np.arange(1, 68_001))
    assert np.count_nonzero(table[: table.size - TABLE_SLACK]) >= 67_990


def test_crowded_by_load() -> None:
    table = empty(1000)
    assert not is_crowded(table, 750, 100)
    assert is_crowded(table, 750, 101)


def test_crowded_when_the_last_run_gets_near_the_end() -> None:
    table = empty(4000)
    tag = _first_with_second_home(table, 4000 - LINE)
    added = 0
    while not is_crowded(table, 0, 1):
        _insert(table, np.full(LINE, tag), np.arange(added + 1, added + 1 + LINE))
        added += LINE
        assert added < TABLE_SLACK
    assert_holds(table, np.full(added, tag), np.arange(1, added + 1))
