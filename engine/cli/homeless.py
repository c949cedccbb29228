"""Users without a home: in containers and as services many have none, or none that can be written to."""

import os
import tempfile
from pathlib import Path
from typing import Final

import click

_CACHE: Final = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")


def keep_a_cache() -> None:
    """See to it that compiled kernels have somewhere to be kept: without, each start would end in a traceback.

    Where nobody says where, and the home is not there or not to be written to, a folder of the user's own among the
    temporary ones serves until the machine is started anew.
    """
    if any(os.environ.get(name) for name in _CACHE) or _has_home():
        return
    place = Path(tempfile.gettempdir()) / f"rfmstream-cache-{os.geteuid()}"
    is_new = not place.exists()
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        status = place.lstat()
        # Whoever could write to it could have us run what he likes.
        is_ours = status.st_uid == os.geteuid() and not status.st_mode & 0o022 and not place.is_symlink()
    except OSError:
        is_ours = False
    if not is_ours:
        place, is_new = Path(tempfile.mkdtemp(prefix="rfmstream-cache-")), True
    os.environ["XDG_CACHE_HOME"] = str(place)
    if is_new:
        click.echo(
            f"rfmstream: there is no home to keep compiled kernels in: they are in {place}; "
            "set NUMBA_CACHE_DIR to a folder that lasts",
            err=True,
        )


def _has_home() -> bool:
    """Tell whether the cache's folder in the user's home can be written to."""
    try:
        folder = Path("~/.cache/rfmstream").expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except (RuntimeError, OSError):
        return False
    return os.access(folder, os.W_OK | os.X_OK)
