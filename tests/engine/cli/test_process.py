"""The command as a process of its own: what only shows there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from rfmstream.engine.cli import main; main()"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Takes seconds to read.
    path = tmp_path_factory.mktemp("large") / "orders.csv"
    made = run("generate", "--customers", 100_000, "--orders", 1_000_000, "--seed", 1, "--out", path)
    assert made.returncode == 0, made.stderr
    return path


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_broken_off_replay_leaves_what_was_there(large: Path, tmp_path: Path, sent: int, code: int) -> None:
    old = tmp_path / "changes.parquet"
    old.write_text("old")
    outputs = ["--changes", old, "--snapshot", tmp_path / "snapshot.csv", "--rejected", tmp_path / "r.jsonl"]
    # What a shell starts in the background ignores Ctrl-C, and so would whatever is started here.
    heeding = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {COMMAND[2]}"
    command = [*COMMAND[:2], heeding, "replay", large, *outputs, "--checkpoint", tmp_path / "state"]
    process = subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    give_up = time.monotonic() + 60
    while not list(tmp_path.glob(".changes.parquet.*.part")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < give_up
        time.sleep(0.01)
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out == ""
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["changes.parquet"]
    assert old.read_text() == "old"


def test_a_sort_that_is_broken_off_leaves_no_folder(large: Path, tmp_path: Path) -> None:
    little = "import rfmstream.engine.files.source as s; s.open_orders.__kwdefaults__['memory_budget_bytes'] = 1 << 20"
    folder = tmp_path / "sort"
    folder.mkdir()
    process = subprocess.Popen(
        [
            *(*COMMAND[:2], f"{little}; {COMMAND[2]}"),
            *("replay", str(large), "--changes", str(tmp_path / "changes.jsonl")),
        ],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    give_up = time.monotonic() + 60
    # What has been sorted comes out.
    while not any(path.stat().st_size for path in tmp_path.glob(".changes*")):
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert list(folder.glob("*/*"))
    process.terminate()
    assert process.wait(60) == 143
    assert list(tmp_path.rglob("*")) == [folder]


def test_stdout_is_json_alone(history: Path) -> None:
    done = run("replay", history, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["rows"]["read"] == 7
    assert done.stderr == ""


def test_an_error_is_one_line_and_no_traceback(history: Path) -> None:
    done = run("replay", history, "--strict")
    assert done.returncode == 3
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"rfmstream: {history}: 2 of 7 rows were rejected")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk here")
def test_a_summary_that_cannot_be_printed_is_told_in_a_line(history: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "replay", str(history)], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "rfmstream: all files and the checkpoint are written, but not this summary",
        "rfmstream: writing broke off: No space left on device; make room",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_one_may_not_write_to(history: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    done = run("replay", history, "--changes", closed / "changes.csv")
    assert done.returncode == 2
    assert "cannot be written: Permission denied" in done.stderr


def test_help_loads_neither_arrow_nor_the_compiler() -> None:
    script = (
        "import sys\n"
        "from rfmstream.engine.cli.app import cli\n"
        "cli(['replay', '--help'], standalone_mode=False)\n"
        "heavy = {'numba', 'pyarrow', 'numpy', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "big5", "latin-1"])
def test_a_terminal_that_cannot_show_a_label_ends_no_run(tmp_path: Path, encoding: str) -> None:
    orders = tmp_path / "orders.csv"
    orders.write_text("customer_id,order_id,occurred_at,amount\n\u00fc\u5f20,1,2024-01-01,5\n")
    state, changes = tmp_path / "state", tmp_path / "changes.csv"
    command = [*COMMAND, "replay", str(orders), "--checkpoint", str(state), "--changes", str(changes)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    ended = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert (ended.returncode, b"Traceback" in ended.stderr) == (0, False), ended.stderr
    assert ended.stdout
    assert changes.read_text().count("\n") == 2
