"""Which events a destination gets."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

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
        for name, wanted, of_change, of_signal in self._checks:
            column = of_change if event.kind == "change" else of_signal
            value = event.kind if column == "event" else data.get(column)
            if column and ("none" if value is None else str(value)) not in wanted:
                return name
        return None

    @cached_property
    def _checks(self) -> list[tuple[str, Collection[str], str, str]]:
        """What is asked for: its name, the words, and the columns of a change and of a signal that must be one."""
        known = (
            ("event", self.events, "event", "event"),
            ("from_tier", self.from_tiers, "from_tier", ""),
            ("tier", self.tiers, "to_tier", "tier"),
            ("reason", self.reasons, "reason", ""),
            ("kind", self.kinds, "", "kind"),
            ("playbook", self.playbooks, "playbook", "playbook"),
            ("view", self.views, "view", "view"),
            ("population", self.populations, "population", "population"),
        )
        return [
            (name, wanted, change, signal) for name, wanted, change, signal in known if wanted is not None
        ]
