"""The same job by rfmstream, DuckDB and Polars: whole processes, from the same Parquet file to a Parquet file.

Each is given the same cores, which it cannot leave, and as many threads. A time counts only when the rows are the same.
"rfmstream" is its Python API writing the same columns; "rfmstream replay" is the command, which writes all columns.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from digest import digest
from loads import Load, Loads
from process import RFMSTREAM, confined, run
from pytest_benchmark.fixture import BenchmarkFixture
from report import Report
from scale import SCALE, several, short

AS_OF = "2026-01-01T00:00:00Z"
"""After the last order: the two years begin with 2024."""

ORDERS = Load(SCALE.peer_customers, SCALE.peer_orders)
COLUMNS = {
    "changes": ("customer_id", "seq", "effective_at", "from_tier", "to_tier", "reason"),
    "snapshot": (
        *("customer_id", "tier", "last_paid_at", "recency_days", "frequency", "monetary_minor"),
        *("first_paid_at", "lifetime_orders", "lifetime_monetary_minor", "average_order_minor"),
    ),
}
JOBS = [("changes", "rfm8"), ("changes", "rfm8-annual"), ("snapshot", "rfm8-annual")]
PROGRAMS = ["rfmstream", "duckdb", "polars", "rfmstream replay"]
if SCALE.is_quick:
    JOBS = JOBS[1:]
    PROGRAMS = PROGRAMS[:3]
CHANGES_TIMES_MIN = 5
"""How many times faster the change log must be; for the snapshot alone there is no target."""


def _by_command(orders: Path, kind: str, ruleset: str, threads: int, out: Path) -> list[object]:
    return [
        *(RFMSTREAM, "replay", orders, "--ruleset", ruleset, "--as-of", AS_OF),
        *(f"--{kind}", out, "--threads", threads),
    ]


def _by_program(name: str) -> Callable[[Path, str, str, int, Path], list[object]]:
    program = Path(__file__).parent / "peers" / f"change_log_{name}.py"

    def command(orders: Path, kind: str, ruleset: str, threads: int, out: Path) -> list[object]:
        option = ["--snapshot"] if kind == "snapshot" else []
        return [sys.executable, program, orders, ruleset, AS_OF, out, "--threads", threads, *option]

    return command


@pytest.fixture(scope="module")
def results() -> dict[tuple[str, str], str]:
    """Digest of each job's rows, by whoever did it first."""
    return {}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("cores", SCALE.cores)
@pytest.mark.parametrize(("kind", "ruleset"), JOBS)
def bench_peers(  # noqa: PLR0917 - fixtures
    kind: str,
    ruleset: str,
    cores: int,
    program: str,
    results: dict[tuple[str, str], str],
    loads: Loads,
    report: Report,
    benchmark: BenchmarkFixture,
    tmp_path: Path,
) -> None:
    if program in {"duckdb", "polars"}:
        pytest.importorskip(program)
    loads.forget()
    command = (_by_command if program == "rfmstream replay" else _by_program(program))(
        loads.file(ORDERS, ".parquet"), kind, ruleset, cores, tmp_path / "out.parquet"
    )
    with confined(cores):
        benchmark.pedantic(lambda: run(command), rounds=SCALE.peer_rounds)
    result = digest(pq.ParquetFile(tmp_path / "out.parquet").iter_batches(), COLUMNS[kind])
    assert result == results.setdefault((kind, ruleset), result)
    regime = f"{kind} {ruleset}, {short(SCALE.peer_orders)} orders, {several(cores, 'core')}, {{}}"
    report.seconds(benchmark, regime.format(program), result=result)
    if program in {"duckdb", "polars"}:
        report.ratio(
            benchmark,
            f"{kind} {ruleset}, {several(cores, 'core')}: {program} over rfmstream",
            regime.format(program),
            regime.format("rfmstream"),
            at_least=CHANGES_TIMES_MIN if kind == "changes" else None,
        )
