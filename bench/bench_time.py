"""The passing of time: many customers that age out at one midnight, and a tick at which nothing happens."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from digest import digest
from loads import FIRST_DAY, Loads, day_of_orders
from process import Stopwatch
from pytest_benchmark.fixture import BenchmarkFixture
from report import Report
from scale import SCALE, SCALES, short

from rfmstream import Engine
from rfmstream.engine.events.instants import to_us

RECENT_DAYS = 30
SECOND_DAY = 20
TICKS = 1_000
TICK_US = 1_000_000
EMPTY = pa.table({})


class Drain:
    """All customers order on one day and some of them, in another order, once more: those age out on their own."""

    def __init__(self, ruleset: str) -> None:
        self.ruleset = ruleset
        self.engine: Engine | None = None
        self.changes = EMPTY

    def prepare(self) -> None:
        self.engine, self.changes = None, EMPTY
        self.engine = Engine(self.ruleset)
        chosen = np.random.default_rng(1).permutation(SCALE.customers)[: SCALE.drained]
        for customers, day in ((np.arange(SCALE.customers), 0), (chosen, SECOND_DAY)):
            for batch in day_of_orders(customers, day):
                self.engine.step(batch)
        self.engine.advance(FIRST_DAY + timedelta(days=SECOND_DAY + RECENT_DAYS))

    def __call__(self) -> None:
        assert self.engine is not None
        with Stopwatch() as watch:
            self.changes = self.engine.advance(FIRST_DAY + timedelta(days=SECOND_DAY + RECENT_DAYS + 1))
        self.cores = watch.cores


@pytest.mark.parametrize("ruleset", ["rfm8", "rfm8-annual"])
def bench_drain(ruleset: str, loads: Loads, report: Report, benchmark: BenchmarkFixture) -> None:
    loads.forget()
    run = Drain(ruleset)
    benchmark.pedantic(run, setup=run.prepare, rounds=SCALE.rounds)
    assert run.changes.num_rows == SCALE.drained
    assert run.changes["reason"].unique().to_pylist() == ["recency_expired"]
    report.seconds(
        benchmark,
        f"drain {ruleset}, {short(SCALE.drained)} of {short(SCALE.customers)} customers at one midnight",
        at_most=0.5 * SCALE.drained / SCALES["full"].drained,
        cores=run.cores,
        result=digest(run.changes.to_batches()),
    )


@pytest.mark.parametrize("customers", SCALE.ticked)
def bench_quiet_tick(customers: int, loads: Loads, report: Report, benchmark: BenchmarkFixture) -> None:
    """Time passes in steps of a second, some days before the first customer is due."""
    loads.forget()
    engine = Engine("rfm8")
    for batch in day_of_orders(np.arange(customers), 0):
        engine.step(batch)
    now_us = to_us(FIRST_DAY + timedelta(days=2))
    engine.advance(now_us)

    def tick() -> None:
        nonlocal now_us
        now_us += TICK_US
        assert engine.advance(now_us).num_rows == 0

    benchmark.pedantic(tick, rounds=20, iterations=TICKS)
    regime = "quiet tick, {} customers"
    report.micros(benchmark, regime.format(short(customers)))
    few = SCALE.ticked[0]
    if customers != few:
        report.ratio(
            benchmark,
            f"quiet tick, {short(customers)} over {short(few)} customers",
            regime.format(short(customers)),
            regime.format(short(few)),
            at_most=2,
        )
