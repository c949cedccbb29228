"""Users without a home, without an entry in the list of users, or with one that cannot be written to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rfmstream.engine.live.config import load_worker_config
from rfmstream.engine.live.places import default_checkpoints
from rfmstream.schemas.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
NOT_WRITABLE = "/proc/1/nowhere"
UNKNOWN = """
import pwd
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
"""
"""A user of whom the machine has no entry, as a container's may be: what Python asks then."""


def run(tmp_path: Path, *arguments: str, home: str | None = None) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "LANG")}
    environment = {**kept, "TMPDIR": str(tmp_path)} | ({} if home is None else {"HOME": home})
    script = f"{UNKNOWN if home is None else ''}\nfrom rfmstream.engine.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )


def test_a_program_that_imports_rfmstream_needs_no_home(tmp_path: Path) -> None:
    """What the command line sees to, a service of one's own does not."""
    script = f"{UNKNOWN}\nfrom rfmstream.kernels import _store\nprint(_store.user_folder())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path}/rfmstream-cache-{os.geteuid()}/")


@pytest.mark.parametrize("home", [None, NOT_WRITABLE])
def test_compiled_kernels_are_kept_somewhere(tmp_path: Path, home: str | None) -> None:
    script = ["generate", "--customers", "5", "--orders", "20", "--seed", "1", "--out"]
    done = run(tmp_path, *script, str(tmp_path / "orders.csv"), home=home)
    assert done.returncode == 0, done.stderr
    assert "set NUMBA_CACHE_DIR to a folder that lasts" in done.stderr
    place = tmp_path / f"rfmstream-cache-{os.geteuid()}"
    assert place.stat().st_mode & 0o777 == 0o700
    assert any(path.is_file() for path in place.rglob("*"))
    again = run(tmp_path, "maps", "list", home=home)
    assert (again.returncode, again.stderr) == (0, ""), "it is said once"


def test_a_cache_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    place = tmp_path / f"rfmstream-cache-{os.geteuid()}"
    place.mkdir()
    place.chmod(0o777)
    done = run(tmp_path, "maps", "list")
    assert done.returncode == 0, done.stderr
    assert f"they are in {place};" not in done.stderr


def test_checkpoints_are_with_the_users_states(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_checkpoints("shop", {"HOME": "/home/x"}) == "/home/x/.local/state/rfmstream/shop"
    assert default_checkpoints("shop", {"XDG_STATE_HOME": "/var/lib"}) == "/var/lib/rfmstream/shop"
    config = load_worker_config({"app_id": "shop"}, environment={"HOME": "/home/x"})
    assert config.checkpoints == "/home/x/.local/state/rfmstream/shop"
    given = load_worker_config({"checkpoints": "here"}, environment={})
    assert given.checkpoints == "here"
    with pytest.raises(ConfigError, match=r"checkpoints: is not set, and the user has no home"):
        load_worker_config({}, environment={})


def test_checkpoints_of_an_earlier_version_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rfmstream-checkpoints").mkdir()
    assert default_checkpoints("shop", {"HOME": "/home/x"}) == "rfmstream-checkpoints"
