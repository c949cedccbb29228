"""What the benches found, beside what it should be: extra_info of the JSON, and a table at the end.

A figure is taken from the median of the rounds; the best round stands beside it, because the machine may be noisy.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pytest_benchmark.fixture import BenchmarkFixture

HEADINGS: Final = ("regime", "figure", "best", "kept run", "target", "met", "cores", "result")
MEMORY_HEADINGS: Final = (
    "memory",
    "bytes a customer",
    "bytes an order",
    "of the bound",
    "resident, of the bound",
)


WORSE: Final = 1.1
MORE_IS_BETTER: Final = ("M orders/s",)


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Fields  best      of all rounds, where there are several
            at_least, at_most  the target, if there is one
            cores     processor time over wall time of the last round
            result    digest of what was computed
            kept      the value in the run that is kept for comparison
    """

    regime: str
    value: float
    unit: str
    best: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    cores: float | None = None
    result: str = ""
    kept: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    @property
    def is_worse(self) -> bool:
        """Whether it is more than a tenth worse than in the kept run: slower, larger, or less where more is better."""
        if not self.kept:
            return False
        ratio = self.value / self.kept
        if self.unit in MORE_IS_BETTER or self.at_least is not None:
            return ratio < 1 / WORSE
        # A ratio without a target is neither good nor bad.
        return ratio > WORSE and (self.unit != "times" or self.at_most is not None)

    @property
    def target(self) -> str:
        """The target as text."""
        if self.at_least is not None:
            return f"≥ {self.at_least:.3g}"
        return "" if self.at_most is None else f"≤ {self.at_most:.3g}"

    @property
    def flag(self) -> str:
        """What says so in the table."""
        return ", WORSE" if self.is_worse else ""

    def cells(self) -> tuple[str, ...]:
        """Return the line's cells in the order of HEADINGS."""
        return (
            self.regime,
            f"{self.value:.3g} {self.unit}",
            "" if self.best is None else f"{self.best:.3g}",
            "" if not self.kept else f"{self.kept:.3g} ({self.value / self.kept:.2f}x{self.flag})",
            self.target,
            {True: "yes", False: "NO", None: ""}[self.is_met],
            "" if self.cores is None else f"{self.cores:.1f}",
            self.result,
        )


@dataclass(frozen=True)
class Memory:
    """What the state of an engine takes.

    Fields  customer_bytes  record, index and timer of a customer
            order_bytes     record and index of a retained order
            of_bound        all it says it uses, ids included, as a share of the bound
            resident_of_bound  what the process grew by, which is what the system really gave
    """

    regime: str
    customer_bytes: float
    order_bytes: float
    of_bound: float
    resident_of_bound: float

    def cells(self) -> tuple[str, ...]:
        """Return the line's cells in the order of MEMORY_HEADINGS."""
        sizes = (f"{self.customer_bytes:.0f}", f"{self.order_bytes:.1f}")
        return (self.regime, *sizes, f"{self.of_bound:.0%}", f"{self.resident_of_bound:.0%}")


@dataclass
class Report:
    """Collects figures. With --benchmark-disable nothing is timed, and nothing collected."""

    kept: Mapping[str, float] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    memories: list[Memory] = field(default_factory=list)

    def seconds(self, benchmark: BenchmarkFixture, regime: str, **more: Any) -> None:  # noqa: ANN401 - pytest-benchmark is untyped
        """Report how long a round took; `more` are fields of Figure."""
        if benchmark.enabled:
            stats = benchmark.stats.stats
            self._add(benchmark, Figure(regime, stats.median, "s", stats.min, **more))

    def micros(self, benchmark: BenchmarkFixture, regime: str, **more: Any) -> None:  # noqa: ANN401
        """Report how long an iteration took, in µs."""
        if benchmark.enabled:
            stats = benchmark.stats.stats
            self._add(benchmark, Figure(regime, 1e6 * stats.median, "µs", 1e6 * stats.min, **more))

    def rate(self, benchmark: BenchmarkFixture, regime: str, orders: int, **more: Any) -> None:  # noqa: ANN401
        """Report how many million orders a second a round did."""
        if benchmark.enabled:
            stats, millions = benchmark.stats.stats, orders / 1e6
            figure = Figure(regime, millions / stats.median, "M orders/s", millions / stats.min, **more)
            self._add(benchmark, figure)

    def size(self, benchmark: BenchmarkFixture, regime: str, value: float, unit: str, **more: Any) -> None:  # noqa: ANN401
        """Report something that is not a time."""
        if benchmark.enabled:
            self._add(benchmark, Figure(regime, value, unit, **more))

    def ratio(self, benchmark: BenchmarkFixture, regime: str, over: str, under: str, **more: Any) -> None:  # noqa: ANN401
        """Report how many times the figure of regime `under` that of `over` is, if both were measured."""
        if over in self.figures and under in self.figures:
            value = self.figures[over].value / self.figures[under].value
            self._add(benchmark, Figure(regime, value, "times", **more))

    def memory(self, benchmark: BenchmarkFixture, memory: Memory) -> None:
        """Report what an engine takes."""
        if benchmark.enabled:
            self.memories.append(memory)
            benchmark.extra_info["memory"] = vars(memory)

    def _add(self, benchmark: BenchmarkFixture, figure: Figure) -> None:
        assert figure.regime not in self.figures, figure.regime
        figure = replace(figure, kept=self.kept.get(figure.regime))
        self.figures[figure.regime] = figure
        benchmark.extra_info[figure.regime] = {
            **vars(figure),
            "is_met": figure.is_met,
            "is_worse": figure.is_worse,
        }

    def lines(self) -> Iterator[str]:
        """Yield the tables."""
        yield from _table(HEADINGS, self.figures.values())
        worse = [figure.regime for figure in self.figures.values() if figure.is_worse]
        if self.kept:
            yield ""
            yield f"more than a tenth worse than the kept run: {'; '.join(worse) or 'nothing'}"
        if self.memories:
            yield ""
            yield from _table(MEMORY_HEADINGS, self.memories)


def kept_figures(path: Path) -> dict[str, float]:
    """Return the figures of a run that was kept, by regime; none where there is no such file."""
    if not path.exists():
        return {}
    run = json.loads(path.read_text())
    return {
        name: figure["value"]
        for bench in run["benchmarks"]
        for name, figure in bench["extra_info"].items()
        if "value" in figure
    }


def _table(headings: tuple[str, ...], entries: Iterable[Figure | Memory]) -> Iterator[str]:
    rows = [headings, *(entry.cells() for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(headings))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
