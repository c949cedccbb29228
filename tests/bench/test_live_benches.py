"""The benches of the live worker run, at sizes that show nothing but that, and bring what a replay brings."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.deep
@pytest.mark.skipif(
    not os.environ.get("KAFKA_BOOTSTRAP") and not (shutil.which("java") and shutil.which("mvn")),
    reason="there is no broker to test against",
)
def test_live_benches_run(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.live.run", "--out", str(out)),
            *("--only", "throughput,latency", "--loads", "zipf,arrow", "--rates", "200"),
        ],
        cwd=ROOT,
        env={**os.environ, "RFM_BENCH_SCALE": "tiny"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    found = json.loads(out.read_text())
    assert [row["is_equal"] for row in found["throughput"]] == [True] * 3
    assert found["latency"][0]["changes"] > 0
