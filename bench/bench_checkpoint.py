"""Checkpoints: the whole state to a directory, forced to the disk, and an engine built from it again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from digest import digest
from loads import UNIFORM, Loads, day_of_orders
from pytest_benchmark.fixture import BenchmarkFixture
from report import Report
from scale import SCALE, several, short

from rfmstream import Engine

SECONDS_MAX = 2.0 * SCALE.whole
CUSTOMERS = f"{short(SCALE.customers)} customers"


def _one_order_each(loads: Loads, threads: int) -> Engine:
    loads.forget()
    engine = Engine("rfm8", threads=threads)
    for batch in day_of_orders(np.random.default_rng(1).permutation(SCALE.customers), 0):
        engine.step(batch)
    return engine


def _two_years(loads: Loads, threads: int) -> Engine:
    return loads.engine("rfm8", threads, UNIFORM)


STATES: dict[str, Callable[[Loads, int], Engine]] = {
    f"{CUSTOMERS}, an order each": _one_order_each,
    f"{CUSTOMERS}, {short(SCALE.orders)} orders": _two_years,
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("state", STATES)
def bench_checkpoint(  # noqa: PLR0917 - fixtures
    state: str, threads: int, loads: Loads, report: Report, benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    """Over the checkpoint of the round before, as a service would."""
    engine = STATES[state](loads, threads)
    benchmark.pedantic(lambda: engine.checkpoint(tmp_path / "state"), rounds=SCALE.rounds, warmup_rounds=1)
    bytes_written = sum(path.stat().st_size for path in (tmp_path / "state").iterdir())
    regime = f"checkpoint {state}, {several(threads, 'thread')}"
    report.seconds(benchmark, regime, at_most=SECONDS_MAX)
    report.size(benchmark, f"{regime}: on disk", bytes_written / 1e6, "MB")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("state", STATES)
def bench_restore(  # noqa: PLR0917 - fixtures
    state: str, threads: int, loads: Loads, report: Report, benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    engine = STATES[state](loads, threads)
    engine.checkpoint(tmp_path / "state")
    expected = digest(engine.snapshot().to_batches())
    del engine
    loads.forget()
    restored: list[Engine] = []
    benchmark.pedantic(
        lambda: restored.append(Engine.restore(tmp_path / "state")),
        setup=restored.clear,
        rounds=SCALE.rounds,
    )
    assert digest(restored[-1].snapshot().to_batches()) == expected
    report.seconds(
        benchmark, f"restore {state}, {several(threads, 'thread')}", at_most=SECONDS_MAX, result=expected
    )
