"""Kernels compiled before they are needed."""

import ast
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numba
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from rfmstream import kernels
from rfmstream.engine.cli.warm_up import KERNELS, compile_kernels, warm_up
from rfmstream.kernels import _store
from rfmstream.kernels._jit import compiled, is_jitted

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"

# Runs a part, and prints which kernels had an object loaded.
_LOADED = """
import sys

from rfmstream.engine.cli.warm_up import _PARTS
from rfmstream.kernels import _kernel

_PARTS[sys.argv[1]]()
print(*{overload.manifest.kernel for overload in _kernel._loaded})
sys.exit("numba" in sys.modules)
"""


@pytest.mark.parametrize("name", sorted(name for names in KERNELS.values() for name in names))
def test_what_is_named_is_a_kernel(name: str) -> None:
    module, _, kernel = name.partition(".")
    assert callable(getattr(import_module(f"rfmstream.kernels.{module}"), kernel))


def test_every_kernel_has_a_part() -> None:
    """One that has none is in no wheel: who meets it there waits for numba."""
    found = set()
    for path in Path(kernels.__path__[0]).glob("[a-z]*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = {
                decorator.id
                for decorator in getattr(node, "decorator_list", ())
                if isinstance(decorator, ast.Name)
            }
            if isinstance(node, ast.FunctionDef) and "jit" in names:
                found.add(f"{path.stem}.{node.name}")
    assert found == {name for names in KERNELS.values() for name in names}


def test_no_kernel_is_compiled_by_two() -> None:
    names = [name for names in KERNELS.values() for name in names]
    assert len(names) == len(set(names))


@pytest.mark.skipif(not is_jitted(), reason="kernels are plain Python here")
def test_every_kernel_stands_in_the_list_that_the_progress_counts() -> None:
    compile_kernels(*KERNELS)
    names = {name for names in KERNELS.values() for name in names}
    assert compiled() >= names
    for part, of_part in KERNELS.items():
        done = subprocess.run(
            [sys.executable, "-c", _LOADED, part], capture_output=True, text=True, check=True
        )
        used = set(done.stdout.split())
        assert set(of_part) <= used <= names, part


@pytest.mark.skipif(not is_jitted(), reason="kernels are plain Python here")
def test_histories_compile_what_they_name(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    subprocess.run(
        [sys.executable, "-m", "rfmstream.engine.cli.warm_up", "histories"],
        check=True,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
    )
    made = {path.name.rpartition("-")[0] for path in tmp_path.rglob("*.kernel")}
    assert made == set(KERNELS["histories"])


def test_twice_is_once() -> None:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "rfmstream", "warm-up"], capture_output=True, text=True, check=True
        )
    assert done.stdout == "the kernels were compiled already\n"


_REPLAY = """
import sys

from rfmstream.engine.cli.app import cli

cli(["replay", *sys.argv[1:]], standalone_mode=False)
sys.exit("numba" in sys.modules or "llvmlite" in sys.modules)
"""


@pytest.mark.skipif(not is_jitted(), reason="kernels are plain Python here")
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_replay_needs_no_compiler_later(kind: str, tmp_path: Path) -> None:
    orders = tmp_path / f"orders.{kind}"
    made = {
        "customer_id": ["c", "d", "c"],
        "order_id": ["1", "2", "3"],
        "occurred_at": ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-05-01T00:00:00Z"],
        "amount": ["1.00", "2.50", "0.99"],
    }
    table = pa.table(made)
    if kind == "csv":
        pa.csv.write_csv(table, orders)
    elif kind == "jsonl":
        orders.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        pq.write_table(table, orders)
    outputs = [tmp_path / name for name in ("changes.parquet", "snapshot.csv", "rejected.csv")]
    options = [*zip(("--changes", "--snapshot", "--rejected"), map(str, outputs), strict=True)]
    command = [sys.executable, "-c", _REPLAY, str(orders), *(word for option in options for word in option)]
    subprocess.run(command, check=False, capture_output=True)  # may compile
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not is_jitted(), reason="kernels are plain Python here")
@pytest.mark.parametrize(
    "options",
    [
        ["export.csv", "--map", "export-map.toml", "--ruleset", "coffee.toml", "--as-of", "2026-03-01"],
        ["export.csv", "--map", "export-map.toml", "--ruleset", "r-rfm.toml"],
        ["export.csv", "--map", "export-map.toml", "--plan", "views.toml", "--currency", "GBP"],
    ],
    ids=lambda options: options[-1],
)
def test_what_warm_up_compiles_is_enough_for_the_examples(options: list[str]) -> None:
    compile_kernels(*KERNELS)
    done = subprocess.run(
        [sys.executable, "-c", _REPLAY, *options], check=False, capture_output=True, text=True, cwd=EXAMPLES
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not is_jitted(), reason="kernels are plain Python here")
def test_an_object_names_no_folder_of_the_machine_that_made_it() -> None:
    compile_kernels(*KERNELS)
    places = [os.fsencode(place) for place in (sys.prefix, Path(numba.__file__).parent, Path.cwd())]
    found = list(_store.user_folder().glob("*.kernel"))
    assert len(found) >= sum(map(len, KERNELS.values()))
    for path in found:
        assert not any(place in path.read_bytes() for place in places), path


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--into", "x"], "--into and --level go together"),
        (["--level", "x86_64-v3"], "--into and --level go together"),
        (["--into", "x", "--level", "vax"], "this machine cannot run vax"),
    ],
)
def test_a_level_is_named_with_its_folder_and_can_be_run(options: list[str], reason: str) -> None:
    done = CliRunner().invoke(warm_up, options)
    assert done.exit_code == 2
    assert reason in done.output
