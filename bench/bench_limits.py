"""What the machine gives: memory, checksums and JSON, each by itself. Figures elsewhere are to be read beside these."""

import gc
import mmap

import google_crc32c
import numba
import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture
from report import Report
from scale import SCALE

from rfmstream.engine.core.arena import Arena
from rfmstream.engine.events.json_scan import PAD, OrderScanner
from rfmstream.kernels._jit import prefetch

LINE_BYTES = 64
MEMORY_BYTES = 1 << (20 if SCALE.is_quick else 30)
COPIED_BYTES = MEMORY_BYTES // 4
TOUCHES = 1_000 if SCALE.is_quick else 4_000_000
AHEAD = 64
ROWS = 100 if SCALE.is_quick else 20_000
ROUNDS = 1 if SCALE.is_quick else 5


@numba.njit
def _chase(lines, count):  # noqa: ANN001, ANN202 - numba
    """Read lines one after the other: each says where the next one is."""
    at = np.int64(0)
    for _ in range(count):
        at = lines[at, 0]
    return at


@numba.njit
def _gather(lines, order, ahead):  # noqa: ANN001, ANN202 - numba
    """Read lines in any order; none says where the next one is, so many can be on their way."""
    total = np.int64(0)
    for k in range(order.size - ahead):
        prefetch(lines, order[k + ahead], 0)
        total += lines[order[k], 0]
    return total


@pytest.fixture(scope="module")
def lines() -> NDArray[np.int64]:
    """Give i64[lines, 8] in huge pages, as the engine's tables are; the first word of each leads to another one."""
    count = MEMORY_BYTES // LINE_BYTES
    array = Arena(np.int64, 8 * count).array.reshape(count, 8)
    order = np.random.default_rng(1).permutation(count)
    array[order, 0] = np.roll(order, -1)
    return array


def _per_item(benchmark: BenchmarkFixture, report: Report, regime: str, count: int) -> None:
    if benchmark.enabled:
        report.size(benchmark, regime, 1e9 * benchmark.stats.stats.median / count, "ns")


def bench_dependent_lines(lines: NDArray[np.int64], report: Report, benchmark: BenchmarkFixture) -> None:
    _chase(lines, 1)
    benchmark.pedantic(lambda: _chase(lines, TOUCHES), rounds=ROUNDS)
    _per_item(benchmark, report, "limit: a cache line of 1 GiB, waited for", TOUCHES)


def bench_independent_lines(lines: NDArray[np.int64], report: Report, benchmark: BenchmarkFixture) -> None:
    order = np.random.default_rng(2).integers(0, len(lines), TOUCHES)
    _gather(lines, order[:AHEAD], AHEAD)
    benchmark.pedantic(lambda: _gather(lines, order, AHEAD), rounds=ROUNDS)
    _per_item(benchmark, report, "limit: a cache line of 1 GiB, asked for ahead", TOUCHES)


def bench_copy(report: Report, benchmark: BenchmarkFixture) -> None:
    source, target = np.ones((2, COPIED_BYTES // 8), np.int64)
    benchmark.pedantic(lambda: np.copyto(target, source), rounds=ROUNDS)
    _per_item(benchmark, report, "limit: copying a byte", COPIED_BYTES)


def bench_fresh_memory(report: Report, benchmark: BenchmarkFixture) -> None:
    """Touch memory the process has not had: the system clears it, and a virtual machine may have to fetch it."""

    def touch() -> None:
        with mmap.mmap(-1, COPIED_BYTES) as fresh:
            fresh.madvise(mmap.MADV_HUGEPAGE)
            np.frombuffer(fresh, np.uint8)[:: mmap.PAGESIZE] = 1
            gc.collect()

    benchmark.pedantic(touch, rounds=ROUNDS)
    _per_item(benchmark, report, "limit: the first touch of a byte", COPIED_BYTES)


def bench_checksum(report: Report, benchmark: BenchmarkFixture) -> None:
    data = np.random.default_rng(3).integers(0, 256, 1 << 20, np.uint8)
    benchmark.pedantic(lambda: google_crc32c.value(data), rounds=ROUNDS, iterations=10)
    _per_item(benchmark, report, "limit: CRC32C of a byte", data.size)


@pytest.fixture(scope="module")
def texts() -> list[bytes]:
    """Give orders as JSON, of some 150 B."""
    rng = np.random.default_rng(4)
    return [
        orjson.dumps(
            {
                "customer_id": f"c{rng.integers(10**11):011d}",
                "order_id": f"o{number:010d}",
                "type": "paid",
                "occurred_at": f"2026-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}T10:20:30.123456Z",
                "amount": f"{rng.integers(1, 10**6)}.{rng.integers(100):02d}",
                "currency": "CNY",
            }
        )
        for number in range(ROWS)
    ]


def bench_scanner(texts: list[bytes], report: Report, benchmark: BenchmarkFixture) -> None:
    """Scan JSON orders to columns: the engine's own kernel."""
    data = np.frombuffer(b"".join([*texts, PAD]), np.uint8)
    ends = np.cumsum([len(text) for text in texts])
    starts = np.concatenate([[0], ends[:-1]])
    scanner = OrderScanner(currency="CNY")
    assert scanner.scan(data, starts, ends)[1].all()
    benchmark.pedantic(lambda: scanner.scan(data, starts, ends), rounds=ROUNDS)
    _per_item(benchmark, report, "limit: a JSON order to columns", ROWS)


def bench_orjson(texts: list[bytes], report: Report, benchmark: BenchmarkFixture) -> None:
    """Parse the same texts to dicts, which is what anybody else begins with."""
    benchmark.pedantic(lambda: [orjson.loads(text) for text in texts], rounds=ROUNDS)
    _per_item(benchmark, report, "limit: a JSON order to a dict, by orjson", ROWS)
