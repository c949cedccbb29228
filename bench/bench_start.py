"""Starting: whole processes, from the command line to the exit."""

from pathlib import Path

import pytest
from process import RFMSTREAM, run
from pytest_benchmark.fixture import BenchmarkFixture
from report import Report
from scale import SCALE

from rfmstream.engine.replay.generate import generate

ROUNDS = 1 if SCALE.is_quick else 5
FORMATS = ["csv"] if SCALE.is_quick else ["csv", "parquet"]


@pytest.fixture(scope="module", params=FORMATS)
def orders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / f"orders.{request.param}"
    generate(customers=100, orders=1_000, seed=1, out=path)
    return path


def _replay(orders: Path, folder: Path, cache: Path | None = None) -> None:
    environment = {} if cache is None else {"NUMBA_CACHE_DIR": str(cache)}
    run([RFMSTREAM, "replay", orders, "--changes", folder / "changes.parquet"], environment)


def bench_help(report: Report, benchmark: BenchmarkFixture) -> None:
    benchmark.pedantic(lambda: run([RFMSTREAM, "--help"]), rounds=ROUNDS, warmup_rounds=1)
    report.seconds(benchmark, "rfmstream --help", at_most=0.3)


def bench_first_run(orders: Path, report: Report, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Begin with an empty cache: every kernel that a replay needs is compiled."""
    if orders.suffix not in SCALE.first_runs:
        pytest.skip("compiling takes long, and nearly as long for each format")
    benchmark.pedantic(lambda: _replay(orders, tmp_path, tmp_path / "cache"), rounds=1)
    report.seconds(benchmark, f"first replay of 1,000 orders, {orders.suffix}", at_most=30)


def bench_later_run(orders: Path, report: Report, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Kernels come from the cache; the replay itself takes next to nothing."""
    benchmark.pedantic(lambda: _replay(orders, tmp_path), rounds=ROUNDS, warmup_rounds=1)
    report.seconds(benchmark, f"later replay of 1,000 orders, {orders.suffix}", at_most=1.5)
