"""What all benches share. `pytest bench` finds bench_*.py and the functions bench_* in them."""

import gc
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from loads import Loads
from machine import machine, told
from report import Report, kept_figures
from scale import SCALE

from rfmstream import Engine
from rfmstream.engine.replay.generate import generate_batches

KEPT = Path(__file__).parent / "kept" / f"{SCALE.name}.json"
"""The run to compare with; `make bench-keep` puts the last one there."""

_REPORT = pytest.StashKey[Report]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")
    config.addinivalue_line("python_functions", "bench_*")
    config.stash[_REPORT] = Report(kept_figures(KEPT))


def pytest_benchmark_update_machine_info(machine_info: dict[str, object]) -> None:
    """Leave the machine's name out, as a run may be kept for others to compare with, and say what ran on it."""
    machine_info.pop("node", None)
    machine_info["run"] = machine()


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Report:
    return request.config.stash[_REPORT]


@pytest.fixture(scope="session")
def loads() -> Iterator[Loads]:
    with TemporaryDirectory(prefix="rfm-bench-") as folder:
        yield Loads(Path(folder))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Give a folder that goes at once: pytest would keep gigabytes of the last three runs."""
    with TemporaryDirectory(prefix="rfm-bench-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compile every kernel, or load it from the cache: that is measured apart, in bench_start."""
    folder = tmp_path_factory.mktemp("warm") / "state"
    for ruleset in ("rfm8", "rfm8-annual"):
        engine = Engine(ruleset, threads=2)
        for batch in generate_batches(customers=500, orders=2_000, seed=1):
            engine.step(batch)
        engine.advance("2030-01-01")
        engine.snapshot()
        engine.checkpoint(folder)
        Engine.restore(folder)
        for path in folder.iterdir():
            path.unlink()
    # What the compiler keeps is large and stays: each collection below would go through it.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Begin with what the bench before left behind given back."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    yield
    gc.collect()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report = config.stash[_REPORT]
    if report.figures:
        terminalreporter.section(f"figures, scale {SCALE.name}")
        terminalreporter.write_line(told(machine()))
        for line in report.lines():
            terminalreporter.write_line(line)
        terminalreporter.write_line(
            "Figures are medians. Targets are stated for scale full; those in seconds shrink with the scale. "
            "kept run: the figure of the run in bench/kept, this one over it, and what is more than a tenth worse. "
            "cores: processor time over wall time. result: digest of the rows, whatever their order."
        )
