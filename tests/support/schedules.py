"""How long the tests look that could look for ever: a part of it in `make test`, all of it in `make test-deep`."""

import os
from typing import Final

DEEP: Final = bool(os.environ.get("RFM_DEEP"))


def some(count: int) -> int:
    """Return how many of `count` cases to look at now: all of them in test-deep, else a fifth and at least 20."""
    return count if DEEP else min(count, max(count // 5, 20))
