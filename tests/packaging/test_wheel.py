"""What `pip install` brings: one package, which lives beside others whose names are those of our folders."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from little_history import CHANGES, HISTORY

from rfmstream.kernels._jit import is_jitted
from rfmstream.kernels._store import levels

pytestmark = pytest.mark.deep

ROOT = Path(__file__).resolve().parents[2]
LEVEL = next(reversed(levels()), None)
"""The poorest this processor has: wheels hold compiled kernels for some."""

KERNEL = """
import sys
import numpy as np
from rfmstream.kernels.parse import within
print(within(np.arange(4), 0, 3), "numba" in sys.modules)
"""

NAMESAKES = ("kernels", "schemas")
"""Projects on PyPI that install packages of these names."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # Built from a copy: setuptools leaves build/ and egg-info where it builds.
    source.mkdir()
    for name in ("rfmstream", "engine", "kernels", "schemas"):
        shutil.copytree(
            ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    if LEVEL is not None:
        # As `rfmstream warm-up --into --level` does it, but for one kernel, since all take minutes.
        objects = {"RFM_KERNELS_FOR": f"{source}/kernels/objects/{LEVEL}:{LEVEL}", "NUMBA_CPU_FEATURES": ""}
        subprocess.run([sys.executable, "-c", KERNEL], env={**os.environ, **objects}, check=True)
    pip(folder, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source))
    (built,) = folder.glob("rfmstream-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with the wheel and its namesakes; the dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    pip(folder, "install", "--no-deps", "--target", str(site), str(wheel), *NAMESAKES)
    # A folder named in a .pth file comes last, and the .pth files in it, with our own sources, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def pip(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if "connection" in done.stderr.lower() and done.returncode != 0:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr


def run(python: Path, *arguments: str) -> str:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run(
        [str(python), *arguments], cwd=python.parent, env=env, capture_output=True, text=True, check=True
    ).stdout


def test_the_wheel_holds_one_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"rfmstream"}
    assert {"rfmstream/py.typed", "rfmstream/schemas/rulesets/rfm8.toml", "rfmstream/kernels/fold.py"} <= set(
        names
    )
    assert any(name.startswith("rfmstream/engine/files/maps/") and name.endswith(".toml") for name in names)


def test_namesakes_keep_their_files(installed: Path) -> None:
    # Found, not imported: they want dependencies of their own.
    names = f"{(*NAMESAKES, 'rfmstream')}"
    places = f"[find_spec(name).origin for name in {names}]"
    script = f"import json; from importlib.util import find_spec; print(json.dumps({places}))"
    kernels, schemas, ours = json.loads(run(installed, "-c", script))
    assert Path(kernels).parent != Path(ours).parent / "kernels"
    assert Path(schemas).parent != Path(ours).parent / "schemas"
    assert Path(ours).is_relative_to(installed.parents[1])


def test_a_replay_beside_them(installed: Path, tmp_path: Path) -> None:
    orders, changes = tmp_path / "orders.csv", tmp_path / "changes.jsonl"
    orders.write_text(HISTORY)
    options = ("--as-of", "2026-03-01T00:00:00Z", "--changes", str(changes))
    run(installed, "-m", "rfmstream", "replay", str(orders), *options)
    rows = [json.loads(line) for line in changes.read_text().splitlines()]
    assert sorted((row["customer_id"], row["seq"], row["to_tier"]) for row in rows) == sorted(
        (customer, seq, to_tier) for customer, seq, _, _, to_tier, *_ in CHANGES
    )


def test_the_face_needs_neither_arrow_nor_the_compiler(installed: Path) -> None:
    script = "import sys, rfmstream; rfmstream.__version__; print(*sys.modules)"
    loaded = set(run(installed, "-c", script).split())
    assert not loaded & {"pyarrow", "numba", "numpy", "click", "rich", "aiokafka", "faust"}
    run(installed, "-c", "import rfmstream; [getattr(rfmstream, name) for name in rfmstream.__all__]")


@pytest.mark.skipif(LEVEL is None or not is_jitted(), reason="no kernels can be compiled for others here")
def test_kernels_of_a_wheel_run_without_the_compiler(
    wheel: Path, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [name] = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".kernel")]
    assert name.startswith(f"rfmstream/kernels/objects/{LEVEL}/parse.within-")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert run(installed, "-c", KERNEL) == "True False\n"
    assert list(tmp_path.iterdir()) == []
