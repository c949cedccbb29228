"""Kernels compiled before they are needed."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from rfmstream.engine.cli.warm_up import KERNELS
from rfmstream.kernels._jit import is_jitted


@pytest.mark.parametrize("name", sorted(name for names in KERNELS.values() for name in names))
def test_what_is_named_is_a_kernel(name: str) -> None:
    module, _, kernel = name.partition(".")
    assert callable(getattr(import_module(f"rfmstream.kernels.{module}"), kernel))


def test_no_kernel_is_compiled_by_two() -> None:
    names = [name for names in KERNELS.values() for name in names]
    assert len(names) == len(set(names))


@pytest.mark.skipif(not is_jitted(), reason="kernels are plain Python here")
def test_histories_compile_what_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    subprocess.run([sys.executable, "-m", "rfmstream.engine.cli.warm_up", "histories"], check=True)
    made = {path.name.partition("-")[0] for path in tmp_path.rglob("*.nbi")}
    assert made >= set(KERNELS["histories"])


def test_twice_is_once() -> None:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "rfmstream", "warm-up"], capture_output=True, text=True, check=True
        )
    assert done.stdout == "the kernels were compiled already\n"
