"""A crash at any moment of writing leaves the checkpoint before it; what cannot be written is told."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from checkpoints import grown, history, told
from twins import canonical_batch

from rfmstream import ConfigError, Engine, InputError, RfmError, StateError
from rfmstream.engine.core.checkpoint import write
from rfmstream.engine.core.checkpoint.folder import MANIFEST, held
from rfmstream.engine.core.threads import Waited
from rfmstream.engine.replay.replay import open_engine


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "orders.arrow",
        ".hidden",
        "2024-orders.arrow",
        "1-manifest.json.bak",
        "7-orders-manifest.json",
    ],
)
def test_a_directory_with_foreign_files_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("dear to somebody")
    with pytest.raises(StateError, match=name.replace(".", r"\.")):
        grown(5).checkpoint(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "dear to somebody"


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StateError):
            grown(5).checkpoint(place)
    assert (tmp_path / "file").read_text() == "x"


class Crash(BaseException):
    """Nobody catches it on purpose."""


@contextmanager
def crash_at(
    monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException, *, hard: bool
) -> Iterator[None]:
    """Raise at the given call of what reaches the disk; `hard`: as when the process is gone, nothing is cleaned up."""
    calls = count(1)  # shards are written by a thread each

    def counted(function: Any) -> Any:  # noqa: ANN401
        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            if next(calls) == step:
                raise error
            return function(*args, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(Path, "replace", counted(Path.replace))
        if hard:
            patch.setattr(Path, "unlink", lambda *_args, **_options: None)
        yield


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(
    "error", [Crash(), KeyboardInterrupt(), OSError(28, "No space left on device")], ids=repr
)
@pytest.mark.parametrize("step", range(1, 9))
def test_a_crash_while_writing_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException, *, hard: bool
) -> None:
    engine = grown(100, threads=2)
    engine.checkpoint(tmp_path)
    before = told(engine)
    engine.step_canonical(canonical_batch(history(100, first=100)))
    with crash_at(monkeypatch, step, error, hard=hard), suppress(Crash, KeyboardInterrupt, StateError):
        engine.checkpoint(tmp_path)
    # Five files, the folder, the manifest's new name, then the folder: from there on it is the new checkpoint.
    found = told(Engine.restore(tmp_path))
    assert found == (before if step <= 7 else told(engine))
    engine.checkpoint(tmp_path)
    assert told(Engine.restore(tmp_path)) == told(engine)
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("error", [Crash(), OSError(28, "No space left on device")], ids=repr)
@pytest.mark.parametrize("step", range(1, 9))
def test_what_is_left_of_a_first_checkpoint_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException
) -> None:
    engine = grown(100, threads=2)
    with crash_at(monkeypatch, step, error, hard=True), suppress(Crash, StateError):
        engine.checkpoint(tmp_path)
    assert open_engine(checkpoint=tmp_path).customers == (0 if step <= 7 else engine.customers)
    # Another failure takes nothing away that tells so.
    with crash_at(monkeypatch, 1, error, hard=False), suppress(Crash, StateError):
        open_engine(checkpoint=tmp_path).checkpoint(tmp_path)
    assert open_engine(checkpoint=tmp_path).customers == (0 if step <= 7 else engine.customers)
    engine.checkpoint(tmp_path)
    assert told(Engine.restore(tmp_path)) == told(engine)
    assert len(list(tmp_path.iterdir())) == 5
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(StateError, match="holds no checkpoint but other files"):
        open_engine(checkpoint=tmp_path)


def test_an_interrupt_waits_for_the_other_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = grown(100, threads=2)
    sync, at_work, may_go_on, done = os.fsync, threading.Semaphore(0), threading.Event(), []
    whole = Waited.until

    def slow(handle: int) -> None:
        at_work.release()
        assert may_go_on.wait(60)
        time.sleep(0.05)
        done.append(sync(handle))

    def interrupted(waited: Waited, condition: Callable[[], bool]) -> None:
        if not may_go_on.is_set():
            # Both shards.
            assert at_work.acquire(timeout=60)
            assert at_work.acquire(timeout=60)
            may_go_on.set()
            raise KeyboardInterrupt
        whole(waited, condition)

    monkeypatch.setattr(os, "fsync", slow)
    monkeypatch.setattr(Waited, "until", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.checkpoint(tmp_path)
    assert len(done) == 4
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = grown(5)
    with (
        crash_at(monkeypatch, 1, OSError(28, "No space left on device"), hard=False),
        pytest.raises(StateError, match="No space left"),
    ):
        engine.checkpoint(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_takes_no_hints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refused(*hint: int) -> None:
        asked.append(hint)
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(write, "_WRITE_BACK_BYTES", 1000)
    monkeypatch.setattr(os, "posix_fadvise", refused)
    engine = grown(100)
    engine.checkpoint(tmp_path)
    assert len(asked) > 1
    assert told(Engine.restore(tmp_path)) == told(engine)


def test_a_refused_checkpoint_is_an_error_of_ours() -> None:
    assert issubclass(StateError, RfmError)
    assert not issubclass(StateError, ConfigError | InputError)


def test_a_checkpoint_that_another_run_holds_is_not_written(tmp_path: Path) -> None:
    """The lock of `replay --checkpoint`, taken by the engine itself, too; who has it already may write."""
    folder, engine = tmp_path / "state", grown(50)
    engine.checkpoint(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    script = (
        "import sys; from pathlib import Path; from rfmstream.engine.core.checkpoint.folder import held\n"
        "with held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    root = Path(__file__).resolve().parents[3]
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(StateError, match="another run is at work on this checkpoint"):
        engine.checkpoint(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    other.communicate(b"", timeout=60)
    engine.checkpoint(folder)
    with held(folder):
        engine.checkpoint(folder)
    assert told(Engine.restore(folder)) == told(engine)


def test_two_threads_do_not_write_one_checkpoint_at_once(tmp_path: Path) -> None:
    engines = [grown(200), grown(200)]
    refused: list[StateError] = []

    def write(engine: Engine) -> None:
        for _ in range(20):
            try:
                engine.checkpoint(tmp_path / "state")
            except StateError as error:
                refused.append(error)

    threads = [threading.Thread(target=write, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("another run is at work" in str(error) for error in refused)
    assert told(Engine.restore(tmp_path / "state")) == told(engines[0])
