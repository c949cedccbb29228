"""The law of a history: ruleset, input map, and how the clock runs. With records and ticks it determines the history.

A history can be repeated only under the law under which it was made. So every checkpoint holds the law, and so do
ticks: a partition's first one, and one wherever the law changed (`Tick.ruleset`).
"""

from typing import Literal, NamedTuple, Self

from rfmstream.schemas.ruleset import Ruleset

Clock = Literal["log", "event"]


class Law(NamedTuple):
    """A law; its text is what is written down.

    Fields  identity, fingerprint  of the ruleset
            clock         log or event; behind a plus the fingerprint of the input map, if records are read by one
            tolerance_us  how far beyond the log's clock an event may be dated; 0 for the clock event
    """

    identity: str
    fingerprint: str
    clock: str
    tolerance_us: int

    @classmethod
    def of(cls, ruleset: Ruleset, clock: Clock, tolerance_us: int, input_map: str | None = None) -> Self:
        """Return the law of a ruleset, a way to tell the time, and the fingerprint of an input map."""
        told = clock if input_map is None else f"{clock}+{input_map}"
        return cls(ruleset.identity, ruleset.fingerprint, told, tolerance_us if clock == "log" else 0)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the law that a text stands for; None: for none."""
        identity, *rest = text.rsplit(" ", 3)
        if len(rest) != 3 or not rest[2].isdecimal():
            return None
        return cls(identity, rest[0], rest[1], int(rest[2]))

    def __str__(self) -> str:
        return f"{self.identity} {self.fingerprint} {self.clock} {self.tolerance_us}"

    def decides_as(self, ruleset: Ruleset) -> bool:
        """Tell whether the tiers are those of this ruleset, under the same name; it may ask for other signals.

        Before rulesets could ask for signals their fingerprint was what now is that of their tiers. The identity of a
        user's file holds it.
        """
        if self.identity != ruleset.identity:
            return False
        return self.fingerprint in (ruleset.fingerprint, ruleset.tier_fingerprint) or "@" in self.identity

    def has_rules_of(self, ruleset: Ruleset) -> bool:
        """Tell whether this ruleset decides, under the same name."""
        return (self.identity, self.fingerprint) == (ruleset.identity, ruleset.fingerprint)
