"""Replay: orders in, every tier change kept as Arrow; deduplication, deadlines and emission included.

Source of the targets: one core of a 2-core machine, 5 M customers chosen uniformly, 50 M orders over two years.
"""

import gc
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from digest import digest
from loads import CUSTOMER_ID_BYTES, LATE, MANY, ORDER_ID_BYTES, UNIFORM, ZIPF, Load, Loads
from process import Stopwatch, confined, rss_bytes
from pytest_benchmark.fixture import BenchmarkFixture
from report import Memory, Report
from scale import SCALE, several, short

from rfmstream import Engine
from rfmstream.engine.files.background import read_ahead
from rfmstream.engine.files.source import open_orders
from rfmstream.engine.replay.replay import Outputs, replay

CUSTOMER_BYTES_MAX = 120
EXTRA_BYTES_MAX = 40
"""What signals may add to a customer, where a ruleset asks for some."""
ORDER_BYTES_MAX = 48
FIXED_BYTES_MAX = 1 << 20
"""What an engine may take for each thread before its first customer."""


class Replay:
    """One replay into a new engine; what it made stays until the next one begins."""

    def __init__(self, ruleset: str, threads: int, orders: list[pa.RecordBatch] | Path) -> None:
        self.ruleset, self.threads, self.orders = ruleset, threads, orders
        self.engine: Engine | None = None
        self.changes: list[pa.RecordBatch] = []

    def clear(self) -> None:
        self.engine, self.changes = None, []
        gc.collect()
        pa.default_memory_pool().release_unused()
        self.rss_before_bytes = rss_bytes()

    def __call__(self) -> None:
        with Stopwatch() as watch:
            self.engine = Engine(self.ruleset, threads=self.threads)
            if isinstance(self.orders, Path):
                opened = open_orders([self.orders], currency=self.engine.ruleset.currency)
                for batch, _ in read_ahead(opened, lambda: None):
                    self.changes += self.engine.step_canonical(batch).changes.to_batches()
            else:
                for batch in self.orders:
                    self.changes += self.engine.step(batch).changes.to_batches()
        self.cores = watch.cores

    def take_digest(self) -> str:
        """Return the digest of the changes, and let go of them."""
        result = digest(self.changes)
        self.changes = []
        pa.default_memory_pool().release_unused()
        return result


@dataclass(frozen=True)
class Regime:
    """A line of the table: orders of `load` in memory.

    Fields  is_alone  one core for everything: without, memory is asked for ahead on another one
    """

    ruleset: str
    keys: str
    load: Load
    threads: int
    at_least: float | None = None
    is_alone: bool = False

    def __str__(self) -> str:
        alone = " that has a core and no more" if self.is_alone else ""
        return f"replay {self.ruleset}, {self.keys}, {several(self.threads, 'thread')}{alone}"


ONE = {
    ruleset: Regime(ruleset, f"uniform {short(SCALE.customers)}", UNIFORM, 1, at_least)
    for ruleset, at_least in (("rfm8", 4.0), ("rfm8-annual", 2.5))
}
ALONE = {ruleset: Regime(ruleset, one.keys, UNIFORM, 1, is_alone=True) for ruleset, one in ONE.items()}
TWO = {ruleset: Regime(ruleset, one.keys, UNIFORM, 2) for ruleset, one in ONE.items()}
SKEWED = {ruleset: Regime(ruleset, f"zipf 1.2 {short(SCALE.customers)}", ZIPF, 1) for ruleset in ONE}
BELATED = {
    ruleset: Regime(ruleset, f"uniform {short(SCALE.customers)} with 5 % late", LATE, 1) for ruleset in ONE
}
WIDE = {ruleset: Regime(ruleset, f"uniform {short(SCALE.customers_many)}", MANY, 1) for ruleset in ONE}
# Those of one load stand together: it is drawn once.
REGIMES = [regime for group in (ONE, ALONE, TWO, SKEWED, BELATED, WIDE) for regime in group.values()]


@pytest.mark.parametrize("regime", REGIMES, ids=str)
def bench_arrow(regime: Regime, loads: Loads, report: Report, benchmark: BenchmarkFixture) -> None:
    run = Replay(regime.ruleset, regime.threads, loads.batches(regime.load))
    with confined(1) if regime.is_alone else nullcontext():
        # Of those that have a target the median of several; the others are compared with them.
        rounds = SCALE.long_rounds if regime.load in (ZIPF, LATE, MANY) else SCALE.rounds
        benchmark.pedantic(run, setup=run.clear, rounds=rounds)
    assert run.engine is not None
    assert run.engine.counters.applied == SCALE.orders
    result = run.take_digest()
    report.rate(
        benchmark, str(regime), SCALE.orders, at_least=regime.at_least, cores=run.cores, result=result
    )
    one = str(ONE[regime.ruleset])
    for group, word, at_least in (
        (TWO, "two threads over one", 1.7),
        (SKEWED, "zipf over uniform", 1.6),
        (BELATED, "5 % late over in order", None),
        (WIDE, f"{short(SCALE.customers_many)} over {short(SCALE.customers)} customers", 0.5),
    ):
        if group[regime.ruleset] is regime:
            report.ratio(benchmark, f"{regime.ruleset}: {word}", str(regime), one, at_least=at_least)
    if TWO[regime.ruleset] is regime:
        alone = str(ALONE[regime.ruleset])
        report.ratio(benchmark, f"{regime.ruleset}: two threads over one core", str(regime), alone)
    _check_memory(run, regime, report, benchmark)


def _check_memory(run: Replay, regime: Regime, report: Report, benchmark: BenchmarkFixture) -> None:
    """Compare what the engine says it uses, and what the process holds, with the bound."""
    assert run.engine is not None
    used, customers, orders = run.engine.memory, run.engine.customers, run.engine.orders
    id_bytes = customers * CUSTOMER_ID_BYTES + orders * ORDER_ID_BYTES
    assert used["ids"] <= id_bytes
    customer_bytes_max = CUSTOMER_BYTES_MAX + EXTRA_BYTES_MAX * run.engine.ruleset.asks_signals
    bound = customers * customer_bytes_max + orders * ORDER_BYTES_MAX + used["ids"]
    report.memory(
        benchmark,
        Memory(
            regime=str(regime),
            customer_bytes=(used["customers"] + used["customer_index"] + used["timers"]) / customers,
            order_bytes=(used["orders"] + used["order_index"]) / orders,
            of_bound=sum(used.values()) / bound,
            # What grew while the engine was built and stayed when the changes had gone.
            resident_of_bound=(rss_bytes() - run.rss_before_bytes) / bound,
        ),
    )
    assert sum(used.values()) <= bound + FIXED_BYTES_MAX * regime.threads


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("ruleset", ONE)
def bench_parquet(
    ruleset: str, threads: int, loads: Loads, report: Report, benchmark: BenchmarkFixture
) -> None:
    """Read a file: decoding has a thread of its own beside those that fold."""
    loads.forget()
    memory = str((ONE if threads == 1 else TWO)[ruleset])
    run = Replay(ruleset, threads, loads.file(UNIFORM, ".parquet"))
    benchmark.pedantic(run, setup=run.clear, rounds=SCALE.long_rounds)
    regime = memory.replace("replay", "replay from Parquet")
    report.rate(benchmark, regime, SCALE.orders, cores=run.cores, result=run.take_digest())
    report.ratio(
        benchmark,
        f"{ruleset}, {several(threads, 'thread')}: Parquet over memory",
        regime,
        memory,
        at_least=0.6,
    )


@pytest.mark.parametrize("ruleset", ONE)
def bench_json_lines(ruleset: str, loads: Loads, report: Report, benchmark: BenchmarkFixture) -> None:
    """Read JSON lines of some 130 B that the system has in memory; reading has a thread of its own."""
    loads.forget()
    run = Replay(ruleset, 1, loads.file(ZIPF, ".jsonl"))
    benchmark.pedantic(run, setup=run.clear, rounds=SCALE.rounds)
    regime = str(SKEWED[ruleset]).replace("replay", "replay from JSON lines")
    report.rate(benchmark, regime, SCALE.orders, cores=run.cores, result=run.take_digest())


@pytest.mark.parametrize("ruleset", ONE)
def bench_files(
    ruleset: str, loads: Loads, report: Report, benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    """Do all that a user asks for: Parquet in, changes and snapshot as Parquet out."""
    loads.forget()
    orders = loads.file(UNIFORM, ".parquet")
    outputs = Outputs(changes=tmp_path / "changes.parquet", snapshot=tmp_path / "snapshot.parquet")

    def run() -> None:
        assert replay(Engine(ruleset, threads=2), [orders], outputs=outputs).counters.applied == SCALE.orders

    benchmark.pedantic(run, rounds=SCALE.long_rounds)
    regime = f"replay {ruleset}, uniform {short(SCALE.customers)}, 2 threads, Parquet to Parquet"
    report.rate(benchmark, regime, SCALE.orders)
