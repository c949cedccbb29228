"""What a replay from Parquet to Parquet spends its time on, stage by stage.

    python -m bench.budget orders.parquet --ruleset rfm8

The stages are gone through one after the other, a batch at a time, on one core: the processor time of each. "start" is
a whole `rfmstream replay` of one order; "time" lets deadlines pass behind the fold; "columns" makes Arrow columns of
changes. Below stands the whole command on one core and on two. Each figure is the least of several runs: where others
use the machine, too, processor time tells more than wall time.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.process import RFMSTREAM, confined
from bench.scale import several
from rfmstream.engine.core.kernel_batch import kernel_batch
from rfmstream.engine.core.machine import STEP_ROWS, Machine
from rfmstream.engine.events.normalise import CONTRACT_COLUMNS, normalise
from rfmstream.engine.files.input_files import find_files
from rfmstream.engine.files.output import write_table
from rfmstream.engine.files.readers import read_chunks
from rfmstream.engine.files.sorting import Sorter
from rfmstream.schemas.changes import CHANGE_REASONS
from rfmstream.schemas.mapping import InputFormat
from rfmstream.schemas.ruleset import Ruleset, load_ruleset

STAGES = ("decode", "judge", "sort", "hash", "fold", "time", "columns", "encode", "snapshot")
_BUDGET_BYTES = 2 << 30

_T = TypeVar("_T")


class Spent:
    """Adds up the processor time of stages."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = defaultdict(float)

    @contextmanager
    def on(self, stage: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.cpu_s[stage] += time.process_time() - began

    def drawn(self, stage: str, items: Iterator[_T]) -> Iterator[_T]:
        """Yield items; what drawing them takes is the stage's."""
        while True:
            with self.on(stage):
                item = next(items, None)
            if item is None:
                return
            yield item


def stages(orders: Path, ruleset: Ruleset, out: Path) -> dict[str, float]:
    """Replay a Parquet file of orders to one of changes; return the processor time of each stage."""
    spent = Spent()
    machine = Machine(ruleset, threads=1, mode="replay")
    shard = machine.shards[0]
    shard.touches_ahead = False
    made, counts = [], np.zeros(len(CHANGE_REASONS), np.int64)
    for batch in _in_order(orders, ruleset, spent):
        for start in range(0, batch.num_rows, STEP_ROWS):
            part = batch.slice(start, STEP_ROWS)
            outcome = np.zeros(part.num_rows, np.uint8)
            with spent.on("hash"):
                columns = kernel_batch(part, machine.shards, machine.threads)
            with spent.on("fold"):
                shard.fold(columns, outcome)
            with spent.on("time"):
                shard.advance(machine.clock_us)
            with spent.on("columns"):
                made.append(machine.columns.changes(shard, shard.take_changes(), part.column(1), counts))
    with spent.on("encode"):
        write_table(out, pa.Table.from_batches(made))
    with spent.on("snapshot"):
        machine.snapshot(machine.clock_us)
    return spent.cpu_s


def _in_order(orders: Path, ruleset: Ruleset, spent: Spent) -> Iterator[pa.RecordBatch]:
    file = find_files([orders], InputFormat())[0]
    chunks = read_chunks(file, CONTRACT_COLUMNS, first_row=0, tick=lambda _: None)
    with Sorter(memory_budget_bytes=_BUDGET_BYTES) as sorter:
        for chunk in spent.drawn("decode", chunks):
            with spent.on("judge"):
                batch, _ = normalise(
                    chunk.batch,
                    currency=ruleset.currency,
                    time_zone=ruleset.time_zone,
                    source=chunk.source,
                    rows=chunk.rows,
                    names=chunk.names,
                )
            with spent.on("sort"):
                sorter.add(batch)
        yield from spent.drawn("sort", sorter.batches())


def whole(orders: Path, ruleset: str, cores: int, out: Path) -> tuple[float, float]:
    """Run the command; return its processor time and its wall time."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with confined(cores):
        subprocess.run(  # noqa: S603 - ours
            [RFMSTREAM, "replay", orders, "--ruleset", ruleset, "--changes", out],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s


def lines(orders: Path, name: str, rounds: int) -> Iterator[str]:
    """Measure, and yield a table in Markdown."""
    ruleset, rows = load_ruleset(name).without_signals(), pq.read_metadata(orders).num_rows
    cpu_s: dict[str, list[float]] = defaultdict(list)
    runs: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with TemporaryDirectory() as folder:
        out, one = Path(folder) / "changes.parquet", Path(folder) / "one.parquet"
        pq.write_table(pa.Table.from_batches([next(pq.ParquetFile(orders).iter_batches(1))]), one)
        for _ in range(rounds):
            cpu_s["start"].append(whole(one, name, 1, out)[0])
            with confined(1):
                for stage, seconds in stages(orders, ruleset, out).items():
                    cpu_s[stage].append(seconds)
            for cores, measured in runs.items():
                measured.append(whole(orders, name, cores, out))
    yield f"| {name}, {rows:,} orders | processor s | ns an order |"
    yield "| --- | --- | --- |"
    least = {stage: min(cpu_s[stage]) for stage in ("start", *STAGES)}
    for stage, seconds in least.items():
        yield f"| {stage} | {seconds:.2f} | {seconds / rows * 1e9:,.0f} |"
    yield f"| sum | {sum(least.values()):.2f} | {sum(least.values()) / rows * 1e9:,.0f} |"
    for cores, measured in runs.items():
        cpu, wall = (min(seconds) for seconds in zip(*measured, strict=True))
        yield f"| the command, {several(cores, 'core')}: wall {wall:.2f} s | {cpu:.2f} | {cpu / rows * 1e9:,.0f} |"
    ratio = min(wall for _, wall in runs[1]) / min(wall for _, wall in runs[2])
    yield f"| one core's wall time over that of two | {ratio:.2f}x | |"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.budget",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("orders", type=Path, help="a Parquet file of the contract's columns")
    parser.add_argument("--ruleset", default="rfm8")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(arguments)
    for line in lines(asked.orders, asked.ruleset, asked.rounds):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
