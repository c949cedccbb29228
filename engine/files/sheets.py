"""One sheet of a workbook, read by another process whose memory has a bound (`engine.files.sheet_process`)."""

import marshal
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from rfmstream.engine.files.memory import bound_bytes, too_much
from rfmstream.engine.files.sheet_process import FRAME
from rfmstream.schemas.errors import InputError

Row = list[str]

_NO_MEMORY: Final = b"memory allocation"
"""How the library's last words begin when it is given no more."""


class Sheet:
    """The rows of a sheet.

    Fields  height  how many rows there are
            name    of the sheet
            others  the names of the other sheets that are shown
    """

    def __init__(self, process: subprocess.Popen[bytes], words: IO[bytes], source: str) -> None:
        self._process, self._words, self._source = process, words, source
        opened = self._frame()
        self.height: int = opened["height"]
        self.name: str = opened["name"]
        self.others: tuple[str, ...] = tuple(opened["others"])

    def rows(self) -> Iterator[Row]:
        """Yield each row as the texts that it shows, without the empty ones at its end.

        Errors  InputError  the sheet cannot be read on
        """
        while (rows := self._frame()) is not None:
            yield from rows

    def _frame(self) -> Any:  # noqa: ANN401 - what the other process says
        out = self._process.stdout
        assert out is not None
        head = out.read(FRAME.size)
        body = out.read(FRAME.unpack(head)[0]) if len(head) == FRAME.size else b""
        if not body:
            raise self._ended()
        frame = marshal.loads(body)  # noqa: S302 - of a process that was started here
        if isinstance(frame, dict) and "fault" in frame:
            raise self._fault(frame)
        return frame

    def _ended(self) -> InputError:
        """Return what the end of the other process says of the workbook."""
        code = self._process.wait()
        self._words.seek(0)
        words = self._words.read()
        if _NO_MEMORY in words or b"MemoryError" in words or code == -signal.SIGKILL:
            return self._fault({"fault": "memory"})
        last = words.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return self._fault({"fault": "unreadable", "words": last or f"its reader ended with {code}"})

    def _fault(self, fault: dict[str, Any]) -> InputError:
        match fault["fault"]:
            case "memory":
                return too_much(" when it is opened as a workbook", self._source)
            case "locked":
                return InputError(
                    "is a workbook locked by a password", source=self._source, fix="save it without"
                )
            case "no sheet":
                return InputError(
                    f"has no sheet {fault['name']!r}; its sheets are {', '.join(fault['names']) or 'none'}",
                    source=self._source,
                    fix="name one of them as sheet in the [input] section of a map",
                )
            case _:
                return InputError(
                    f"is a workbook that cannot be read: {fault['words']}",
                    source=self._source,
                    fix="save it anew, or as CSV",
                )


@contextmanager
def open_sheet(path: Path, sheet: str | None, name: str) -> Iterator[Sheet]:
    """Open a sheet by its name, or the first that is not hidden.

    In      name  what the workbook is called in errors
    Errors  InputError  no workbook, locked by a password, no such sheet, more memory than it may ask for
    """
    # The other process finds packages in the same places as this one.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-P", "-m", "rfmstream.engine.files.sheet_process"]
    with (
        tempfile.TemporaryFile() as words,
        subprocess.Popen(  # noqa: S603 - this Python, with a module of ours
            [*command, str(path), sheet or "", str(bound_bytes())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=words,
            env=environment,
        ) as process,
    ):
        try:
            yield Sheet(process, words, name)
        finally:
            process.kill()
