"""Every bench runs, at sizes that show nothing but that: their results are checked, their times are not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.deep
def test_benches_run() -> None:
    pytest.importorskip("pytest_benchmark")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "bench", "-q", "--benchmark-disable"),
            *("-p", "no:cacheprovider", "-p", "no:xdist"),
        ],
        cwd=ROOT,
        env={**os.environ, "RFM_BENCH_SCALE": "tiny"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
