"""The list of a customer's entries against a sorted Python list, and entries found by what they are known by."""

from itertools import pairwise
from typing import Any

import numba
import numpy as np
import pytest
from kernel_shards import SEEDS, shard_by
from numpy.typing import NDArray
from oracle_days import DAY_US, local_day

from rfmstream.engine.core.shard import Shard
from rfmstream.kernels.entries import (
    append_entry,
    complete_list,
    find_adjustment,
    find_by_id,
    hash_instant,
    link,
    newest_order_us,
    oldest_order_us,
    put,
    unlink,
)
from rfmstream.kernels.layout import ADJUSTMENT, EVENT, GROUP, HAS_EVENT_ID, ORDER
from rfmstream.kernels.memory import customers_of, entries_of
from rfmstream.schemas.codes import FOREVER_US, NEVER_US

FALL_BACK_US = 1_289_097_060_000_000
"""2010-11-07T02:31:00Z: St John's sets its clocks from 00:01 back to 23:01, and has the 6th once more."""


@numba.njit
def _add(states, values, kinds, customers, at_us, data, offset):  # noqa: PLR0917
    for i in range(values.size):
        size = offset[i + 1] - offset[i]
        handle = append_entry(states[0], kinds[i], customers[i], at_us[i], i, data, offset[i], size)
        if not kinds[i] & HAS_EVENT_ID:
            put(states[0], values[i], handle)


@numba.njit
def _link(states, rulesets, customer, handles, in_window):
    for i in range(handles.size):
        record = customers_of(states[0])[customer]
        link(states[0], rulesets[0], record, handles[i], in_window)
        record.last_paid_us = max(record.last_paid_us, entries_of(states[0])[handles[i]].at_us)


@numba.njit
def _unlink(states, rulesets, customer, handle, oldest_us):
    """Take an entry out; return the oldest instant of an order then, if it was `oldest_us` before."""
    entry = entries_of(states[0])[handle]
    complete_list(states[0], customers_of(states[0])[customer])
    older, newer = np.int64(entry.previous), np.int64(entry.next)
    unlink(states[0], customers_of(states[0])[customer], handle)
    if entry.at_us == oldest_us:
        oldest_us = oldest_order_us(states[0], rulesets[0], older, newer, entry.at_us)
    return oldest_us


@numba.njit
def _walk(states, customer, out):
    """Write the list, oldest first; return its length, or -1 where the links back do not mirror those forth."""
    entries = entries_of(states[0])
    complete_list(states[0], customers_of(states[0])[customer])
    count = 0
    after = np.int64(0)
    handle = np.int64(customers_of(states[0])[customer].tail)
    while handle != 0:
        if np.int64(entries[handle].next) != after:
            return -1
        count += 1
        out[out.size - count] = handle
        after = handle
        handle = np.int64(entries[handle].previous)
    return count


@numba.njit
def _newest(states, rulesets, customer):
    return newest_order_us(states[0], rulesets[0], customers_of(states[0])[customer])


@numba.njit
def _find(states, values, customer, data, offset, kind, known_us, out):  # noqa: PLR0917
    for i in range(values.size):
        size = offset[i + 1] - offset[i]
        out[i] = find_by_id(states[0], values[i], customer, data, offset[i], size, kind, known_us)


@numba.njit
def _hash_instant(value, at_us, seeds):
    return hash_instant(value, ADJUSTMENT, at_us, seeds)


@numba.njit
def _find_adjustment(states, value, customer, at_us, data):
    return find_adjustment(states[0], value, customer, at_us, data, 0, data.size)


def column(ids: list[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return np.frombuffer(b"".join(ids), np.uint8), np.cumsum([0, *map(len, ids)], dtype=np.int64)


def add(  # noqa: PLR0917
    shard: Shard, ids: list[bytes], values: Any, kind: int, at_us: Any, customer: int = 1
) -> None:
    n = len(ids)
    shard._make_room_for(1, n, 0, sum(map(len, ids)) + 8)
    kinds, customers = np.full(n, kind), np.full(n, customer)
    _add(shard.state.rows, np.asarray(values, np.uint64), kinds, customers, np.asarray(at_us), *column(ids))


def listed(shard: Shard) -> list[int]:
    out = np.zeros(5000, dtype=np.int64)
    count = _walk(shard.state.rows, 1, out)
    assert count >= 0
    return out[out.size - count :].tolist()


def instants(kind: str, size: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(size)
    match kind:
        case "rising":
            return np.arange(size, dtype=np.int64)
        case "falling":
            return np.arange(size, dtype=np.int64)[::-1].copy()
        case "equal":
            return np.zeros(size, dtype=np.int64)
        case "days":
            return rng.integers(-3, 3, size) * DAY_US // 2
        case _:  # around a date that comes twice
            return FALL_BACK_US + rng.integers(-90, 90, size) * 60_000_000


@pytest.mark.parametrize("ruleset", ["rfm8", "rfm8-annual"])
@pytest.mark.parametrize("zone", ["UTC", "America/St_Johns"])
@pytest.mark.parametrize("kind", ["rising", "falling", "equal", "days", "twice"])
def test_list_is_in_order_of_date_instant_and_arrival(ruleset: str, zone: str, kind: str) -> None:
    shard = shard_by(ruleset, time_zone=zone)
    at_us = instants(kind, 300)
    handles = np.arange(1, 301)
    add(shard, [b"o"] * 300, handles, ORDER, at_us)
    _link(shard.state.rows, shard.rules.rows, 1, handles, True)  # noqa: FBT003
    expected = sorted(
        handles.tolist(), key=lambda handle: (local_day(zone, int(at_us[handle - 1])), at_us[handle - 1])
    )
    customer = shard.customer_records()[0][1]
    assert listed(shard) == expected
    assert (customer["head"], customer["tail"]) == (expected[0], expected[-1])
    oldest_us = min(at_us)
    for handle in np.random.default_rng(5).permutation(expected).tolist():
        assert oldest_us == min(at_us[other - 1] for other in expected)
        assert _newest(shard.state.rows, shard.rules.rows, 1) == max(at_us[other - 1] for other in expected)
        oldest_us = _unlink(shard.state.rows, shard.rules.rows, 1, handle, oldest_us)
        expected.remove(handle)
        assert listed(shard) == expected
    assert (customer["head"], customer["tail"]) == (0, 0)
    assert (oldest_us, _newest(shard.state.rows, shard.rules.rows, 1)) == (FOREVER_US, NEVER_US)


def test_head_is_the_oldest_in_the_window() -> None:
    shard = shard_by("rfm8-annual")
    customer = shard.customer_records()[0][1]
    add(shard, [b"o"] * 5, range(1, 6), ORDER, [50, 10, 60, 40, 5])

    def link_one(handle: int, *, in_window: bool) -> int:
        _link(shard.state.rows, shard.rules.rows, 1, np.array([handle]), in_window)
        return int(customer["head"])

    assert link_one(2, in_window=False) == 0  # it had left before it came
    assert link_one(1, in_window=True) == 1
    assert link_one(3, in_window=True) == 1
    assert link_one(4, in_window=True) == 4  # late, and now the oldest inside
    assert link_one(5, in_window=False) == 4
    assert listed(shard) == [5, 2, 4, 1, 3]
    _unlink(shard.state.rows, shard.rules.rows, 1, 4, 10)
    assert customer["head"] == 1


def test_adjustments_are_no_orders_when_the_ends_are_asked_for() -> None:
    shard = shard_by()
    add(shard, [b"o"] * 2, [1, 2], ORDER, [20, 30])
    add(shard, [b"o"] * 2, [3, 4], ADJUSTMENT, [10, 40])
    _link(shard.state.rows, shard.rules.rows, 1, np.arange(1, 5), True)  # noqa: FBT003
    assert listed(shard) == [3, 1, 2, 4]
    assert _newest(shard.state.rows, shard.rules.rows, 1) == 30
    assert _unlink(shard.state.rows, shard.rules.rows, 1, 1, 20) == 30
    assert _unlink(shard.state.rows, shard.rules.rows, 1, 2, 30) == FOREVER_US


def test_entries_are_found_by_customer_kind_and_id() -> None:
    shard = shard_by()
    ids = [b"a" * size for size in range(1, 257)] + [b"a\0", b"\0", b"a" * 255 + b"b"]
    values = np.arange(len(ids)) % 7  # the tag of a small hash is 0: all of them stand in one run
    add(shard, ids, values, ORDER, np.zeros(len(ids), np.int64))
    add(shard, ids, values, EVENT, np.zeros(len(ids), np.int64))
    add(shard, ids, values, ORDER, np.zeros(len(ids), np.int64), customer=2)
    first = {(ORDER, 1): 1, (EVENT, 1): 1 + len(ids), (ORDER, 2): 1 + 2 * len(ids)}
    out = np.empty(len(ids), dtype=np.int64)
    for (kind, customer), handle in first.items():
        _find(shard.state.rows, values.astype(np.uint64), customer, *column(ids), kind, NEVER_US, out)
        assert out.tolist() == list(range(handle, handle + len(ids)))
    for kind, customer in ((EVENT, 2), (ORDER, 3), (ADJUSTMENT, 1)):
        _find(shard.state.rows, values.astype(np.uint64), customer, *column(ids), kind, NEVER_US, out)
        assert not out.any()


def test_adjustments_are_found_by_their_instant_unless_they_had_an_id_of_their_own() -> None:
    shard = shard_by()
    value = np.uint64(99)
    known_as = {at_us: np.uint64(_hash_instant(value, np.int64(at_us), SEEDS)) for at_us in (0, 1, -1)}
    assert len(set(known_as.values())) == 3
    add(shard, [b"credit"], [known_as[0]], ADJUSTMENT, [0])
    add(shard, [b"credit"], [known_as[1]], ADJUSTMENT | HAS_EVENT_ID, [1])
    data = column([b"credit"])[0]
    assert _find_adjustment(shard.state.rows, known_as[0], 1, 0, data) == 1
    assert _find_adjustment(shard.state.rows, known_as[1], 1, 1, data) == 0
    assert _find_adjustment(shard.state.rows, known_as[-1], 1, -1, data) == 0
    assert _find_adjustment(shard.state.rows, known_as[0], 2, 0, data) == 0


@pytest.mark.parametrize("size", [1, 255, 256])
def test_ids_of_a_whole_group_have_room(size: int) -> None:
    shard = shard_by()
    ids = [b"%03d" % i + b"x" * (size - 3) if size > 3 else bytes([i]) for i in range(3 * GROUP)]
    add(shard, ids, range(len(ids)), ORDER, np.zeros(len(ids), np.int64))
    handles = np.arange(1, len(ids) + 1)
    offset, data = shard.entry_ids(handles)
    assert [data[a:b].tobytes() for a, b in pairwise(offset)] == ids
    # None among them, and the same one twice.
    offset, data = shard.entry_ids(np.array([0, 7, 0, 7, 0]))
    assert [data[a:b].tobytes() for a, b in pairwise(offset)] == [
        b"",
        ids[6],
        b"",
        ids[6],
        b"",
    ]
