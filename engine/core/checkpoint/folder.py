"""The directory of a checkpoint: who may write to it, and which of its files are the checkpoint's."""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import IO, Final

from rfmstream.schemas.errors import StateError

MANIFEST: Final = "manifest.json"
FIRST: Final = f"0-{MANIFEST}"
"""Empty, and there while the first checkpoint of a directory is in the making: what is there then is no loss."""
OWN_FILE: Final = re.compile(r"\d+-\d+-(customers|entries|populations)\.arrow|\d+-manifest\.json")
OWN_FOLDER: Final = re.compile(r"\d+-\d+")
"""Of a view, where a checkpoint holds several."""


_ours: set[tuple[int, int]] = set()
"""Folders that callers in this process have locked, by device and inode."""


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Lock a folder for what this process does in it; yield whether nobody else has. A process that dies lets go."""
    with _flocked(folder) as is_free:
        place = _place(folder)
        try:
            if is_free:
                _ours.add(place)
            yield is_free
        finally:
            if is_free:
                _ours.discard(place)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Write to a folder, made if need be, while no other run is at work on it; who calls may have it locked.

    Raises  StateError where another run holds it
    """
    folder.mkdir(parents=True, exist_ok=True)
    if _place(folder) in _ours:
        yield
        return
    with _flocked(folder) as is_free:
        if not is_free:
            raise _at_work(folder)
        yield


def _place(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino


def _at_work(folder: Path) -> StateError:
    return StateError(
        "another run is at work on this checkpoint",
        path=folder,
        fix="wait for its end, or name another directory",
    )


@contextmanager
def _flocked(folder: Path) -> Iterator[bool]:
    handle = os.open(folder, os.O_RDONLY)
    # Whatever interrupts from here on: the lock goes with the handle.
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_free = True
        except BlockingIOError:
            is_free = False
        yield is_free
    finally:
        os.close(handle)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a checkpoint's directory, made if need be, from other runs: of two, one would be as if it had never been.

    Raises  StateError where another run holds it, or it cannot be made
    """
    is_new = not os.path.exists(folder)  # noqa: PTH110 - a name too long is none, and told when it is made
    try:
        with ExitStack() as stack:
            with writing(folder):
                if is_new:
                    folder.mkdir(parents=True)
                is_free = stack.enter_context(locked(folder))
            if not is_free:
                raise _at_work(folder)
            yield
    finally:
        if is_new:
            with suppress(OSError):  # a checkpoint is in it
                folder.rmdir()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say of what the system refuses meanwhile that a checkpoint cannot be written there.

    Raises  StateError instead of OSError
    """
    try:
        yield
    except OSError as error:
        raise StateError(
            f"cannot write a checkpoint: {error.strerror or error}",
            path=folder,
            fix="name a directory that can be written to, on a disk with room",
        ) from error


def has_checkpoint(directory: str | os.PathLike[str]) -> bool:
    """Tell whether a directory holds a checkpoint, whole or not."""
    return os.path.exists(Path(directory) / MANIFEST)  # noqa: PTH110 - a name too long is none


def is_unfinished(directory: str | os.PathLike[str]) -> bool:
    """Tell whether a directory holds the parts of its first checkpoint alone, whose writer was killed.

    Raises  StateError where it holds anything else
    """
    return not has_checkpoint(directory) and FIRST in files_of(Path(directory))


def files_of(folder: Path) -> list[str]:
    """Return the data files of the present checkpoint and of any that was not finished.

    Raises  StateError where the directory holds anything else: nothing of it may be lost
    """
    is_there = os.path.isdir(folder)  # noqa: PTH112 - a name too long is told when it is made
    names = sorted(path.name for path in folder.iterdir()) if is_there else []
    ours = [name for name in names if OWN_FILE.fullmatch(name) or OWN_FOLDER.fullmatch(name)]
    strange = [name for name in names if name not in ours and name != MANIFEST]
    if strange:
        raise StateError(
            f"the directory holds {strange[0]}, which is no part of a checkpoint",
            path=folder,
            fix="name an empty or new directory",
        )
    return ours


def next_generation(names: Iterable[str]) -> int:
    """Return the number that tells a new checkpoint's files from those that are there."""
    return 1 + max((int(name.split("-")[0]) for name in names), default=0)


def remove(path: Path) -> None:
    """Remove a file, or the folder of a view, if it is there."""
    if path.is_dir():
        rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(file: IO[bytes]) -> None:
    """Force what was written of a file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Force what a folder lists to the disk."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # not every system lets a directory be opened
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
