"""Which events a destination gets."""

from collections.abc import Collection
from dataclasses import dataclass

from rfmstream.engine.deliver.model import Event


@dataclass(frozen=True)
class Filter:
    """What must hold for an event to be sent; None: anything does. "none" stands for no tier, population or playbook.

    Held-out customers are never sent, whatever the filter says: without them there is nothing to compare with.

    Fields  events       change, signal
            from_tiers   tiers a change comes from; a signal has none, and passes
            tiers        tiers a change leads to, or a signal is given in
            reasons      of changes; signals pass
            kinds        of signals; changes pass
            playbooks, views, populations  of both
            modes        live, replay
    """

    events: Collection[str] | None = None
    from_tiers: Collection[str] | None = None
    tiers: Collection[str] | None = None
    reasons: Collection[str] | None = None
    kinds: Collection[str] | None = None
    playbooks: Collection[str] | None = None
    views: Collection[str] | None = None
    populations: Collection[str] | None = None
    modes: Collection[str] = ("live",)

    def refusal(self, event: Event) -> str | None:
        """Return what keeps an event from being sent; None: nothing does."""
        data = event.data
        if data.get("mode", "live") not in self.modes:
            return "mode"
        if data.get("holdout") is True:
            return "holdout"
        is_change = event.kind == "change"
        checks = (
            ("event", self.events, event.kind),
            ("from_tier", self.from_tiers if is_change else None, data.get("from_tier")),
            ("tier", self.tiers, data.get("to_tier" if is_change else "tier")),
            ("reason", self.reasons if is_change else None, data.get("reason")),
            ("kind", None if is_change else self.kinds, data.get("kind")),
            ("playbook", self.playbooks, data.get("playbook")),
            ("view", self.views, data.get("view")),
            ("population", self.populations, data.get("population")),
        )
        for name, wanted, value in checks:
            if wanted is not None and ("none" if value is None else str(value)) not in wanted:
                return name
        return None
