"""What somebody who looks before a start has found: one thing each, and what to do about it."""

from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["ok", "warning", "wrong", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Fields  what     was looked at, a word or two
            verdict  ok; warning: it works, and is to be known; wrong: a worker would refuse or fail; unknown: it could
                     not be looked at
            found    what there is, a clause
            fix      what to do about it, a clause, or None
            error    that a worker would end with; None: it would not
    """

    what: str
    verdict: Verdict
    found: str
    fix: str | None = None
    error: Exception | None = None

    def document(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"what": self.what, "verdict": self.verdict, "found": self.found, "fix": self.fix}
