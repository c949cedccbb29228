"""Kernels compiled before they are needed."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from rfmstream.engine.cli.warm_up import KERNELS, compile_kernels
from rfmstream.kernels._jit import compiled, is_jitted

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
