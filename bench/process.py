"""Processes: what this one uses, and others to measure as a whole."""

import os
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

RFMSTREAM: Final = str(Path(sysconfig.get_path("scripts")) / "rfmstream")


class Stopwatch:
    """Says how many cores a piece of work kept busy."""

    def __enter__(self) -> Self:
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.cores = (time.process_time() - self._began[1]) / (time.perf_counter() - self._began[0])


def rss_bytes() -> int:
    """Return the memory this process holds; 0 where the system does not say."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if path.exists() else 0


def run(arguments: Sequence[object], environment: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return what it printed."""
    done = subprocess.run(  # noqa: S603 - programs of ours
        [str(argument) for argument in arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def confined(cores: int) -> Iterator[None]:
    """Let processes that are started inside use so many cores and no more, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[-cores:]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
