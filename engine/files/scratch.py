"""Folders for what a run writes to disk on its way: sorted runs, parts of what is larger than memory.

A folder goes when its run ends, however it ends. One whose process was killed goes at the next start of a run that
makes one in the same place: nobody holds its lock any more.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from rfmstream.engine.core.checkpoint.folder import locked
from rfmstream.schemas.errors import ConfigError

PREFIX: Final = "rfmstream-scratch-"

# Of the process, not of a context: files are read by threads of their own.
_asked: list[Path] = []


def set_place(place: Path | None) -> None:
    """Let folders be made in `place` from now on; None: where the system keeps temporary files (TMPDIR)."""
    _asked[:] = [] if place is None else [place]


def place() -> Path:
    """Return where folders are made."""
    return _asked[0] if _asked else Path(tempfile.gettempdir())


@contextmanager
def scratch(*, bytes_needed: int = 0) -> Iterator[Path]:
    """Make an empty folder that goes at the end.

    In      bytes_needed  what is about to be written there
    Errors  ConfigError  it cannot be made, or its disk has not so much room
    """
    where = place()
    with ExitStack() as stack:
        try:
            _check_room(where, bytes_needed)
            _remove_left_behind(where)
            made = Path(tempfile.mkdtemp(prefix="rfmstream-new-", dir=where))
            folder = where / made.name.replace("new", "scratch", 1)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.callback(shutil.rmtree, made, ignore_errors=True)
            # It gets its name once its lock is held: until then others would take it for left behind.
            stack.enter_context(locked(made))
            made.rename(folder)
        except OSError as error:
            raise ConfigError(
                f"no temporary folder can be made: {error.strerror or error}",
                file=where,
                key="temp-dir",
                fix="--temp-dir DIR names another place",
            ) from error
        yield folder


def _check_room(where: Path, bytes_needed: int) -> None:
    free = shutil.disk_usage(where).free
    if free < bytes_needed:
        raise ConfigError(
            f"has {free / 2**30:,.1f} GiB free, and the parts of this input need about {bytes_needed / 2**30:,.1f}",
            file=where,
            key="temp-dir",
            fix="--temp-dir DIR names a disk with room; a larger --memory does without",
        )


def _remove_left_behind(where: Path) -> None:
    """Remove the folders of processes that were killed."""
    for folder in where.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or gone meanwhile
            state = folder.lstat()
            if folder.is_symlink() or state.st_uid != os.geteuid():
                continue
            with locked(folder) as is_left_behind:
                if is_left_behind:
                    shutil.rmtree(folder, ignore_errors=True)
