"""Files that are made: nobody else has them, and they are open to those that what they replace is open to."""

import os
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE, S_IWUSR


def create(path: Path, *, like: Path) -> None:
    """Create an empty file; who may read and write it is as with another one, or as the umask says where there is none.

    Errors  OSError  there is one already, or it cannot be made
    """
    mode = None
    with suppress(OSError):
        mode = S_IMODE(like.stat().st_mode)
    # Never through a link that somebody laid there, and never readable for a moment to those it is not for.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else mode & 0o700)
    try:
        if mode is not None:
            os.fchmod(descriptor, mode | S_IWUSR)
    finally:
        os.close(descriptor)
