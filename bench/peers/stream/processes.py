"""A peer as a process with all it starts: what it uses, paused, resumed and stopped by its id. Linux, through /proc."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

STOP_SECONDS_MAX: Final = 20
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """What a process tree has used: processor seconds since its start, and the memory it holds now."""

    cpu_s: float
    rss_bytes: int


class Tree:
    """A program and its children: a session of their own."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], cwd: Path, log: Path
    ) -> None:
        with log.open("wb") as file:
            self._process = subprocess.Popen(  # noqa: S603 - programs of ours
                command,
                env={**os.environ, **environment},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._session = self._process.pid

    def ended(self) -> bool:
        return self._process.poll() is not None

    def usage(self) -> Usage:
        return session_usage(self._session)

    def pause(self) -> None:
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to stop, then make it."""
        self.resume()
        if not self.ended():
            self._process.terminate()
            deadline = time.monotonic() + STOP_SECONDS_MAX
            while not self.ended() and time.monotonic() < deadline:
                time.sleep(0.1)
        self._send(signal.SIGKILL)
        self._process.wait()

    def kill(self) -> None:
        """End it as a crash does."""
        self._send(signal.SIGKILL)
        self._process.wait()

    def _send(self, number: int) -> None:
        # Whoever starts a session leads its process group, which has the same number.
        with suppress(ProcessLookupError):
            os.killpg(self._session, number)


def session_usage(session: int) -> Usage:
    """Return what the processes of a session have used, ended children that were waited for included."""
    cpu_ticks = rss_pages = 0
    for fields in _stats():
        if int(fields[3]) == session:
            cpu_ticks += sum(int(each) for each in fields[11:15])
            rss_pages += int(fields[21])
    return Usage(cpu_ticks / _TICKS, rss_pages * _PAGE)


def _stats() -> Iterator[list[str]]:
    """Yield /proc/PID/stat of every process from its third field on (the second may hold anything)."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            yield path.read_text().rpartition(")")[2].split()
