"""Reading, sorting, folding and encoding overlap: whatever ends one of them ends all, and leaves no half file."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfmstream.engine.core.machine import Machine
from rfmstream.engine.files import output, parquet_sink, readers, sorting
from rfmstream.engine.replay.generate import generate
from rfmstream.engine.replay.replay import Outputs, open_engine, replay
from rfmstream.schemas.ruleset import load_ruleset

STAGES = ("read-ahead", "write-behind", "encode", "ahead")
SCRIPT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
from rfmstream.engine.cli import main
main()
"""


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the same orders twice: as they happened, and in no order."""
    folder = tmp_path_factory.mktemp("orders")
    paths = {name: folder / f"{name}.parquet" for name in ("sorted", "unsorted")}
    generate(customers=1_000, orders=15_000, seed=5, keys="uniform", out=paths["sorted"])
    table = pq.read_table(paths["sorted"])
    mixed = np.random.default_rng(6).permutation(table.num_rows)
    pq.write_table(table.take(pa.array(mixed)), paths["unsorted"], row_group_size=7_000)
    return paths


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (parquet_sink, "GROUP_ROWS"),
        (readers, "CHUNK_ROWS"),
        (sorting, "BATCH_ROWS"),
        (sorting, "_STRETCH_ROWS"),
    ):
        monkeypatch.setattr(module, name, 1_000)


def run(orders: Path, out: Path, threads: int = 1) -> None:
    engine = open_engine(load_ruleset("rfm8").without_signals(), threads=threads)
    replay(engine, [orders], outputs=Outputs(changes=out))


def at_work() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(STAGES)]


def test_sorted_and_unsorted_rows_give_the_same_file(orders: dict[str, Path], tmp_path: Path) -> None:
    for name, path in orders.items():
        run(path, tmp_path / f"{name}.parquet")
    assert (tmp_path / "sorted.parquet").read_bytes() == (tmp_path / "unsorted.parquet").read_bytes()
    assert pq.ParquetFile(tmp_path / "sorted.parquet").num_row_groups > 10


@pytest.mark.parametrize("threads", [1, 2])
def test_the_file_does_not_depend_on_how_many_encode_or_when(
    orders: dict[str, Path], tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = set()
    for cores in (1, 2, 3):
        monkeypatch.setattr(parquet_sink, "usable_cores", lambda cores=cores: cores)
        run(orders["unsorted"], tmp_path / "out.parquet", threads)
        made.add((tmp_path / "out.parquet").read_bytes())
    assert len(made) == 1


def broken(call: Callable[..., Any], error: type[BaseException], at: int) -> Callable[..., Any]:
    """Return a function that does what another does, and raises at one of its calls."""
    count = iter(range(10**9))

    def breaks(*arguments: object, **options: object) -> object:
        if next(count) == at:
            raise error("broken")
        return call(*arguments, **options)

    return breaks


@pytest.mark.parametrize("name", ["sorted", "unsorted"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize(
    "broken_at",
    [
        (readers, "bounded", 10),
        (Machine, "step_canonical", 0),
        (Machine, "step_canonical", 10),
        (Machine, "snapshot", 0),
        (parquet_sink.ParquetSink, "_encoded", 12),
        (parquet_sink.ParquetSink, "_add", 9),
        (output, "_force", 0),
    ],
)
def test_whatever_breaks_a_stage_ends_all(  # noqa: PLR0917 - fixtures
    orders: dict[str, Path],
    tmp_path: Path,
    name: str,
    error: type[BaseException],
    broken_at: tuple[object, str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner, stage, at = broken_at
    out = tmp_path / "changes.parquet"
    out.write_text("old")
    monkeypatch.setattr(owner, stage, broken(getattr(owner, stage), error, at))
    with pytest.raises(error):
        run(orders[name], out, threads=2)
    assert at_work() == []
    assert list(tmp_path.iterdir()) == [out]
    assert out.read_text() == "old"


@pytest.mark.parametrize("name", ["sorted", "unsorted"])
def test_an_interrupt_while_row_groups_are_written(tmp_path: Path, name: str) -> None:
    orders, out = tmp_path / "orders.parquet", tmp_path / "out"
    out.mkdir()
    generate(customers=100_000, orders=1_000_000, seed=2, keys="uniform", out=orders)
    if name == "unsorted":
        table = pq.read_table(orders)
        pq.write_table(pa.concat_tables([table.slice(500_000), table.slice(0, 500_000)]), orders)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SCRIPT,
            "replay",
            str(orders),
            "--changes",
            str(out / "changes.parquet"),
            "--threads",
            "2",
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    give_up = time.monotonic() + 120
    while not any(path.stat().st_size > 1 << 20 for path in out.iterdir()):
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told == "rfmstream: interrupted; no half-written file is left\n"
    assert list(out.iterdir()) == []
