"""How long to wait before a request is tried again."""

import random
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")


@dataclass(frozen=True)
class Backoff:
    """Exponential waits with jitter.

    Fields  first_s  wait before the first retry, doubled for each further one
            max_s    never longer
    """

    first_s: float = 0.5
    max_s: float = 300.0

    def wait_s(self, tries: int, chance: random.Random) -> float:
        """Return the wait after `tries` tries that failed: between half of it and all of it, by chance."""
        whole_s = min(self.first_s * 2.0 ** min(tries - 1, 40), self.max_s)
        return whole_s * (0.5 + chance.random() / 2)


def retry_after_s(header: str | None, now_unix_s: float) -> float | None:
    """Return the seconds that a Retry-After header asks for; None: it asks for nothing readable.

    Source  RFC 9110 section 10.2.3: seconds, or a date
    """
    if header is None:
        return None
    text = header.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - now_unix_s, 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
