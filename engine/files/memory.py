"""How much memory an input may ask for: known before it is unpacked, and refused beyond a bound.

The bound is half of what this machine, or the container, has; `--memory` sets another one.
"""

import os
import re
from pathlib import Path
from typing import Final

from rfmstream.schemas.errors import InputError

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_UNITS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_CONTAINER: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_LEAST: Final = 1 << 28


def parse_size(text: str) -> int:
    """Return bytes of a size such as 4G, 500M or 1000000.

    Errors  ValueError  it is none
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is no size")
    return int(float(match[1]) * 1024 ** _UNITS[match[2].lower()])


# Of the process, not of a context: files are read by threads of their own.
_asked: list[int] = []


def set_bound(size: int | None) -> None:
    """Let inputs ask for so much from now on; None: for half of what there is."""
    _asked[:] = [] if size is None else [size]


def is_asked() -> bool:
    """Tell whether somebody has set a bound."""
    return bool(_asked)


def bound_bytes() -> int:
    """Return what an input may ask for."""
    return _asked[0] if _asked else max(_there_is() // 2, _LEAST)


def check_asked(asked: int, what: str, source: str | Path) -> None:
    """Refuse an input that asks for more than it may.

    Errors  InputError
    """
    if asked > bound_bytes():
        raise too_much(what, source, shown_size(asked))


def too_much(what: str, source: str | Path, asked: str | None = None) -> InputError:
    """Return the refusal of an input that asks for more than it may; how much, where that is known."""
    bound = shown_size(bound_bytes())
    return InputError(
        f"asks for {asked} of memory{what}, and {bound} are the most it may"
        if asked
        else f"asks for more than {bound} of memory{what}",
        source=source,
        fix="if it is to be trusted, raise --memory; else leave it out",
    )


def _there_is() -> int:
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for place in _CONTAINER:
        try:
            sizes.append(int(Path(place).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no container, or one without a limit: "max"
            continue
    return min(sizes)


def shown_size(size: int) -> str:
    """Return bytes as people read them."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
