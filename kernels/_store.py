"""Where compiled kernels lie: beside these sources in a wheel, else in a folder of the user's cache.

Loading an object runs what is in it. So a folder is used only if nobody but its user (or root) can write to it, and an
object only if it was made from exactly these sources for a processor like this one.
"""

import fcntl
import hashlib
import logging
import os
import platform
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from rfmstream.kernels._manifest import Manifest, Unusable, pack, unpack

SUFFIX: Final = ".kernel"
ROOT: Final = Path(__file__).resolve().parent
SHIPPED: Final = ROOT / "objects"

_LOADERS: Final = {"__init__.py", "_kernel.py", "_store.py", "_link.py", "gil.py"}
"""What finds and loads objects, and shows in none of them."""

FOR_VARIABLE: Final = "RFM_KERNELS_FOR"
"""As FOLDER:LEVEL has kernels compiled into another folder, for a level of instructions: how a wheel's are made."""

_LEVELS: Final = {
    "x86_64-v2": "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3",
    "x86_64-v3": "abm avx avx2 bmi1 bmi2 f16c fma movbe",
    "x86_64-v4": "avx512f avx512bw avx512cd avx512dq avx512vl",
}
"""What /proc/cpuinfo says of each level of the psABI, beyond the level before."""

_log = logging.getLogger(__name__)


@cache
def sources() -> str:
    """Return a digest of all that a kernel's code depends on: the sources of kernels/, and the codes they use."""
    digest = hashlib.sha256()
    # Of the ground floor kernels use the codes alone, which a test holds.
    made_of = [path for path in sorted(ROOT.glob("*.py")) if path.name not in _LOADERS]
    for source in (*made_of, ROOT.parent / "schemas" / "codes.py"):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _abilities() -> str:
    """Return the processor's flags, as the kernel of Linux names them; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    # x86 says flags, ARM says Features.
    found = [line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))]
    return "\n".join(sorted(set(found)))


@cache
def machine() -> str:
    """Return a name for processors that can run what is compiled: those that are this very one.

    Where NUMBA_CPU_NAME is set it is that processor's, as in an image that runs on any ("generic").
    """
    name, features = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES", "")
    digest = hashlib.sha256((features if name else _abilities()).encode()).hexdigest()[:8]
    return "-".join([platform.machine(), *([name] if name else []), digest])


@cache
def levels() -> tuple[str, ...]:
    """Return the levels of instructions that this processor has, the richest first."""
    has = set(_abilities().split())
    found: list[str] = []
    if platform.machine() == "x86_64":
        for level, flags in _LEVELS.items():
            if not has.issuperset(flags.split()):
                break
            found.insert(0, level)
    elif platform.machine() == "aarch64":
        found.append("aarch64")
    return tuple(found)


def is_checked() -> bool:
    """Tell whether array accesses are checked, which needs kernels of their own."""
    return os.environ.get("NUMBA_BOUNDSCHECK", "0") not in {"", "0"}


def user_folder() -> Path:
    """Return the folder of kernels compiled on this machine, of these sources: NUMBA_CACHE_DIR or the user's cache.

    A user without a home has one among the temporary files, where `refusal` sees that it is nobody else's.
    """
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    try:
        place = Path(base or "~/.cache").expanduser()
    except RuntimeError:
        place = Path(tempfile.gettempdir()) / f"rfmstream-cache-{os.geteuid()}"
    return place / "rfmstream-kernels" / f"{sources()}-{machine()}{'-checked' if is_checked() else ''}"


@cache
def refusal(folder: Path) -> str | None:
    """Return why a folder of the user's cache is not to be used; None: nobody else can write to it."""
    for place in (folder, folder.parent):
        try:
            status = place.stat()
        except OSError:
            continue  # is made by us, or holds nothing
        if status.st_uid not in {os.geteuid(), 0}:
            return f"{place} belongs to another user; remove it, or set NUMBA_CACHE_DIR"
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"others may write to {place}; chmod go-w it, or set NUMBA_CACHE_DIR"
    base = folder.parent.parent
    try:
        mode = base.stat().st_mode
    except OSError:
        return None
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
        return f"others may write to {base}; chmod go-w it, or set NUMBA_CACHE_DIR"
    return None


def target() -> tuple[Path, str] | None:
    """Return the folder that new objects go to, and what machine they are for; None: there is none to be trusted."""
    asked = os.environ.get(FOR_VARIABLE)
    if asked:
        folder, _, level = asked.rpartition(":")
        return Path(folder), level
    own = user_folder()
    return (own, machine()) if refusal(own) is None else None


@contextmanager
def claim(kernel: str) -> Iterator[None]:
    """Hold a kernel against other processes, which wait: what one compiles no other compiles once more."""
    handle = _open_lock(kernel)
    if handle is None:
        yield  # Where nothing can be kept, all compile for themselves.
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _open_lock(kernel: str) -> int | None:
    place = target()
    if place is None:
        return None
    try:
        _make(place[0])
        return os.open(place[0] / f".{kernel}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    except OSError:
        return None


def _make(folder: Path) -> None:
    """Make a folder that all may read, as users of an image that root built, and nobody else may write to."""
    for place in (folder.parent, folder):
        place.mkdir(mode=0o755, parents=True, exist_ok=True)


@cache
def folders() -> tuple[tuple[Path, str], ...]:
    """Return the folders that may be read, and the machine each is for: the wheel's, and the user's."""
    found = []
    if os.environ.get(FOR_VARIABLE):
        place = target()
        return () if place is None else (place,)
    if not is_checked():
        found += [(SHIPPED / level, level) for level in levels()]
    own = user_folder()
    reason = refusal(own)
    if reason is None:
        found.append((own, machine()))
    else:
        _log.warning("compiled kernels are not used: %s", reason)
    return tuple(found)


def names() -> dict[str, list[tuple[Path, str]]]:
    """Return the objects there are, by "module.kernel": path, and the machine of its folder."""
    found: dict[str, list[tuple[Path, str]]] = {}
    for folder, of_machine in folders():
        if not folder.is_dir():
            continue
        here: dict[str, list[tuple[Path, str]]] = {}
        for path in sorted(folder.glob("*" + SUFFIX)):
            here.setdefault(path.name.rpartition("-")[0], []).append((path, of_machine))
        # A kernel is taken from one level: a poorer one has nothing more. The user's folder has what was added.
        for kernel, paths in here.items():
            if kernel not in found or of_machine not in _LEVELS:
                found.setdefault(kernel, []).extend(paths)
    return found


def read(path: Path, of_machine: str) -> tuple[bytes, Manifest]:
    """Return an object and its manifest.

    Errors  Unusable  not of these sources or for this machine, damaged, or open to others
    """
    try:
        if SHIPPED not in path.parents:
            status = path.stat()
            if status.st_uid not in {os.geteuid(), 0} or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise Unusable("another user may have written it")
        code, manifest = unpack(path.read_bytes())
    except OSError as error:
        raise Unusable(str(error)) from error
    if manifest.sources != sources():
        raise Unusable("it was made from other sources")
    if manifest.machine != of_machine:
        raise Unusable("it was made for another processor")
    if manifest.kernel != path.name.rpartition("-")[0]:
        raise Unusable("it is another kernel's")
    return code, manifest


def write(code: bytes, manifest: Manifest) -> Path | None:
    """Write an object into the folder for new ones, which only its user may write to; None where that cannot be."""
    place = target()
    if place is None:
        return None
    folder = place[0]
    signature = hashlib.sha256(manifest.types.encode()).hexdigest()[:8]
    path = folder / f"{manifest.kernel}-{signature}{SUFFIX}"
    try:
        _make(folder)
        handle, part = tempfile.mkstemp(dir=folder, prefix=".")
        with os.fdopen(handle, "wb") as file:
            file.write(pack(code, manifest))
            os.fchmod(handle, 0o644)  # it is made for its owner alone
        Path(part).replace(path)
    except OSError as error:
        _log.info("a compiled kernel is not kept: %s", error)
        return None
    return path
