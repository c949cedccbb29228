"""Finds the records that end a process, by letting another process read them first (engine.live.trial).

A worker that was not stopped in order may have been killed by a record, and then every start would end alike. So
another process first reads the next records of its partitions, on trial. A record that ends two processes, the second
time when it is read alone, is left out.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from threading import Lock
from typing import Final

import orjson

from rfmstream.engine.live.model import RawRecords
from rfmstream.engine.live.spans import cut_out
from rfmstream.engine.live.trial import PIECE_RECORDS, as_stream
from rfmstream.schemas.errors import StateError

POISON_MAX: Final = 100
"""Records of one fetch that end a process, from which on it is not the records' fault."""

_log = logging.getLogger(__name__)


class Trials:
    """One process that reads on trial, for all partitions of a worker; started when it is needed.

    In      recipe       the arguments of engine.live.decode.Decoder
            piece_s_max  how long a piece may take, one record or some
    """

    def __init__(self, recipe: Mapping[str, object], *, piece_s_max: int = 120) -> None:
        self._recipe = {"decoder": dict(recipe), "piece_s_max": piece_s_max}
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    def poison(self, records: RawRecords) -> list[int]:
        """Return the offsets of records that end whoever reads them.

        Errors  StateError  so many do that something else is to blame
        """
        with self._lock:
            try:
                return self._poison(records)
            except _NoProcessError as error:
                _log.warning("records cannot be read on trial", extra={"reason": str(error)})
                return []

    def _poison(self, records: RawRecords) -> list[int]:
        found: list[int] = []
        first, count = 0, len(records.offsets)
        while first < count:
            ended_at = self._read(cut_out(records, first, count))
            if ended_at is None:
                break
            first += ended_at
            stop = min(first + PIECE_RECORDS, count)
            alone = self._alone(records, first, stop)
            if alone is None:
                first = stop  # it was not the records, or all of them together
                continue
            found.append(int(records.offsets[alone]))
            if len(found) > POISON_MAX:
                raise StateError(
                    f"more than {POISON_MAX} records end the process that reads them",
                    fix="see the log, and run rfmstream warm-up",
                )
            first = alone + 1
        return found

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _alone(self, records: RawRecords, first: int, stop: int) -> int | None:
        """Return the first record of some that ends a process by itself."""
        while first < stop:
            # One record at a time, as long as the process lives.
            if self._read(cut_out(records, first, first + 1)) is not None:
                return first
            first += 1
        return None

    def _read(self, records: RawRecords) -> int | None:
        """Return the ordinal of the piece that ends the process; None: it has read all."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        at = 0
        with suppress(BrokenPipeError):
            process.stdin.write(as_stream(records))
            process.stdin.flush()
            for line in process.stdout:
                if line == b"read\n":
                    return None
                at = int(line.split()[1])
        code = self._end()
        _log.warning(
            "a process that reads on trial has ended", extra={"offset": records.offsets[at], "code": code}
        )
        return at

    def _start(self) -> subprocess.Popen[bytes]:
        # The other process finds packages in the same places as this one.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rfmstream.engine.live.trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(orjson.dumps(self._recipe) + b"\n")
            self._process.stdin.flush()
            if self._process.stdout.readline() == b"ready\n":
                return self._process
        raise _NoProcessError(f"the process that would read them ended at its start: {self._end()}")

    def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        return code


class _NoProcessError(Exception):
    """The process cannot start, so nothing is known of the records."""
