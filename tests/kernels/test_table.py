"""The table against a dict of lists: pairs are found, stay in order, and survive growth."""

from collections import defaultdict

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels.layout import TABLE_SLACK
from kernels.table import first_of, handle_at, home_of, insert_at, is_crowded, regrow, tag_at, tag_of

TAG_MAX = 2**32 - 1


@numba.njit
def _insert(table, tags, handles):
    for i in range(tags.size):
        insert_at(table, first_of(table, tags[i]), tags[i], handles[i])


@numba.njit
def _find(table, tag, out):
    count = 0
    position = first_of(table, tag)
    while table[position] != 0 and tag_at(table, position) == tag:
        out[count] = handle_at(table, position)
        count += 1
        position += 1
    return count


@numba.njit
def _homes(table, tags, out):
    for i in range(tags.size):
        out[i] = home_of(table, tags[i])


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
    used = np.flatnonzero(table)
    assert used.size == tags.size
    in_order = (table[used] >> 32) & TAG_MAX
    homes = np.empty(used.size, dtype=np.int64)
    _homes(table, in_order, homes)
    assert (np.diff(in_order) >= 0).all()
    # A search that begins at home meets no gap before its pair.
    gaps = np.cumsum(table == 0)
    assert (homes <= used).all()
    assert (gaps[used] == gaps[homes] - (table[homes] == 0)).all()


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
@pytest.mark.parametrize("larger", [1025, 1536, 1537, 9999, 1 << 16])
def test_growth_keeps_every_pair(kind: str, larger: int) -> None:
    tags = random_tags(larger, 800, kind)
    handles = np.arange(1, 801)
    old, new = empty(1024), empty(larger)
    _insert(old, tags, handles)
    regrow(old, new)
    assert_holds(new, tags, handles)
    assert (new[new != 0] == old[old != 0]).all()  # in the same order
    more = random_tags(larger + 1, 100, "spread")
    _insert(new, more, np.arange(1001, 1101))
    assert_holds(new, np.r_[tags, more], np.r_[handles, 1001:1101])


def test_tag_is_the_top_of_the_hash() -> None:
    values = np.array([0, 2**32 - 1, 2**32, 2**63, 2**64 - 1], dtype=np.uint64)
    out = np.empty(5, dtype=np.int64)
    _tags(values, out)
    assert out.tolist() == [0, 0, 1, 2**31, TAG_MAX]


def test_homes_rise_from_the_first_slot_to_the_last() -> None:
    table = empty(1000)
    tags = np.array([0, 1, 2**31, TAG_MAX])
    homes = np.empty(4, dtype=np.int64)
    _homes(table, tags, homes)
    assert homes.tolist() == [0, 0, 500, 999]


def test_crowded_by_load() -> None:
    table = empty(1000)
    assert not is_crowded(table, 700, 100)
    assert is_crowded(table, 700, 101)


def test_crowded_when_the_last_run_gets_near_the_end() -> None:
    table = empty(4000)
    # From the home of the last tag to the middle of the slack.
    room = 1 + TABLE_SLACK // 2
    tags = np.full(room + 1, TAG_MAX)
    _insert(table, tags[:room], np.arange(1, room + 1))
    assert not is_crowded(table, room, 1)
    _insert(table, tags[room:], np.array([room + 1]))
    assert is_crowded(table, room + 1, 1)
