"""Snapshots of an engine that has been through two years of orders, as of its clock."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from digest import digest
from loads import UNIFORM, Loads
from process import Stopwatch
from pytest_benchmark.fixture import BenchmarkFixture
from report import Report
from scale import SCALE, several, short

from rfmstream.engine.files.output import OutputFile

CUSTOMERS = short(SCALE.customers)
ENGINES = [("rfm8", 1), ("rfm8-annual", 1), ("rfm8", 2)]


class Timed:
    """Calls a function and keeps what it returned until the next call."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self.result: Any = None

    def clear(self) -> None:
        self.result = None

    def __call__(self) -> None:
        with Stopwatch() as watch:
            self.result = self._function()
        self.cores = watch.cores


@pytest.mark.parametrize("form", ["Arrow", "Parquet"])
@pytest.mark.parametrize(("ruleset", "threads"), ENGINES)
def bench_snapshot(  # noqa: PLR0917 - fixtures
    ruleset: str,
    threads: int,
    form: str,
    loads: Loads,
    report: Report,
    benchmark: BenchmarkFixture,
    tmp_path: Path,
) -> None:
    engine = loads.engine(ruleset, threads, UNIFORM)

    def write() -> pa.Table:
        snapshot = engine.snapshot()
        if form == "Parquet":
            with OutputFile(tmp_path / "snapshot.parquet", snapshot.schema) as out:
                for batch in snapshot.to_batches():
                    out.write(batch)
                out.publish()
        return snapshot

    run = Timed(write)
    benchmark.pedantic(run, setup=run.clear, rounds=max(SCALE.rounds, 3))
    assert run.result.num_rows == engine.customers
    report.seconds(
        benchmark,
        f"snapshot {ruleset}, {CUSTOMERS} customers, {several(threads, 'thread')}, {form}",
        at_most={"Arrow": 0.5, "Parquet": 3.0}[form] * SCALE.whole,
        cores=run.cores,
        result=digest(run.result.to_batches()),
    )
