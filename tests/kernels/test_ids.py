"""Ids are bytes: every length, every byte, and the ends of buffers."""

from itertools import pairwise

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from rfmstream.kernels.ids import (
    SPARE_BYTES,
    copy_id,
    gather_customer_ids,
    hash_ids,
    is_customer,
    set_customer_id,
    size_customer_ids,
)
from rfmstream.kernels.layout import CUSTOMER

SEEDS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x2545F4914F6CDD1D], np.uint64)

LENGTHS = [bytes([65 + size % 26]) * size for size in range(1, 257)]
LAST_BYTE = [
    b"x" * size + last for size in (0, 6, 7, 8, 14, 15, 16, 17, 23, 255) for last in (b"a", b"b", b"\xff")
]
ZEROS_BEHIND = [b"a" + b"\0" * size for size in (*range(20), 255)] + [b"\0" * size for size in range(1, 20)]
ANY_BYTE = [bytes([byte]) for byte in range(256)] + [
    b"customer-0123456" + bytes([byte]) for byte in range(256)
]
IDS = list(dict.fromkeys(LENGTHS + LAST_BYTE + ZEROS_BEHIND + ANY_BYTE))


def column(ids: list[bytes]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Lay ids out as Arrow does; nothing stands behind the last one."""
    offset = np.cumsum([0, *map(len, ids)], dtype=np.int32)
    return offset, np.frombuffer(b"".join(ids), dtype=np.uint8)


def hashes(ids: list[bytes], seeds: NDArray[np.uint64] = SEEDS) -> NDArray[np.uint64]:
    out = np.empty(len(ids), dtype=np.uint64)
    hash_ids(*column(ids), seeds, out)
    return out


@numba.njit
def _store(customers, key_data, offset, data):
    end = 0
    for i in range(offset.size - 1):
        end = set_customer_id(customers[i], key_data, end, data, offset[i], offset[i + 1] - offset[i])
    return end


@numba.njit
def _compare(customers, key_data, offset, data, out):
    for i in range(customers.size):
        for k in range(offset.size - 1):
            out[i, k] = is_customer(customers[i], key_data, data, offset[k], offset[k + 1] - offset[k])


def stored(ids: list[bytes]) -> tuple[NDArray[np.void], NDArray[np.uint8]]:
    customers = np.zeros(len(ids), dtype=CUSTOMER)
    key_data = np.zeros(sum(map(len, ids)) + SPARE_BYTES, dtype=np.uint8)
    assert _store(customers, key_data, *column(ids)) == sum(len(name) for name in ids if len(name) > 16)
    return customers, key_data


def test_different_ids_have_different_hashes() -> None:
    assert len(set(hashes(IDS).tolist())) == len(IDS)


def test_hash_does_not_depend_on_where_an_id_stands() -> None:
    expected = hashes(IDS)
    for before in range(1, 9):
        # Every alignment; and other bytes behind each id than before, at last none at all.
        shifted = hashes([b"\xa5" * before, *reversed(IDS)])[1:]
        assert (shifted[::-1] == expected).all()


def test_hash_of_a_slice_that_begins_inside_a_buffer() -> None:
    offset, data = column(IDS)
    out = np.empty(3, dtype=np.uint64)
    hash_ids(offset[-4:], data, SEEDS, out)
    assert (out == hashes(IDS[-3:])).all()


@pytest.mark.parametrize("word", range(4))
def test_hash_depends_on_every_key(word: int) -> None:
    other = SEEDS.copy()
    other[word] ^= np.uint64(1)
    differs = hashes(IDS) != hashes(IDS, other)
    # The word of a long id may be multiplied by a key that happens not to matter; of a thousand ids hardly any.
    assert differs.mean() > 0.99


def test_both_ends_of_the_hash_are_spread_evenly() -> None:
    # The table's order is the high bits, the shard is the low ones.
    values = hashes([b"customer-%07d" % i for i in range(1 << 14)])
    for bits in (values >> np.uint64(60), values & np.uint64(15)):
        counts = np.bincount(bits.astype(np.int64), minlength=16)
        assert abs(counts - 1024).max() < 6 * 32  # six standard deviations


def test_a_customer_is_found_by_its_own_id_only() -> None:
    out = np.empty((len(IDS), len(IDS)), dtype=np.bool_)
    _compare(*stored(IDS), *column(IDS), out)
    assert (out == np.eye(len(IDS), dtype=np.bool_)).all()


def test_customer_ids_come_back() -> None:
    customers, key_data = stored(IDS)
    handles = np.random.default_rng(1).permutation(len(IDS)).astype(np.uint32)
    offset = np.empty(len(IDS) + 1, dtype=np.int32)
    total = size_customer_ids(customers, handles, offset)
    out = np.empty(total + SPARE_BYTES, dtype=np.uint8)
    gather_customer_ids(customers, key_data, handles, offset, out)
    assert total == sum(map(len, IDS))
    assert [out[a:b].tobytes() for a, b in pairwise(offset)] == [IDS[i] for i in handles]


@numba.njit
def _copy_all(offset, data, out):
    end = np.int64(0)
    for i in range(offset.size - 1):
        start = np.int64(offset[i])
        copy_id(data, start, np.int64(offset[i + 1]) - start, out, end)
        end += np.int64(offset[i + 1]) - start
    return end


def test_ids_are_copied_one_behind_the_other() -> None:
    ids = [*IDS, b"", *reversed(IDS)]
    offset, data = column(ids)
    whole = b"".join(ids)
    out = np.empty(len(whole) + SPARE_BYTES, dtype=np.uint8)
    assert _copy_all(offset, data, out) == len(whole)
    assert out[: len(whole)].tobytes() == whole
