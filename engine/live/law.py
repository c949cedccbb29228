"""The law of a history: its views, the input map, how the clock runs. With records and ticks it determines the history.

A history can be repeated only under the law under which it was made. So every checkpoint holds the law, and so do
ticks: a partition's first one, and one wherever the law changed (`Tick.ruleset`). The law of a single ruleset names it;
that of several views, or of one that does not look at all orders, is their JSON.
"""

import re
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple, Self

import orjson

from rfmstream.engine.live.plain import is_plain
from rfmstream.schemas.plan import Plan, View
from rfmstream.schemas.ruleset import Ruleset

_NAME: Final = re.compile(r"[^\[@]*")

Clock = Literal["log", "event"]


class Law(NamedTuple):
    """A law; its text is what is written down.

    Fields  identity, fingerprint  of the ruleset; of several views, their JSON and its digest
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
    def of_plan(cls, plan: Plan, clock: Clock, tolerance_us: int, input_map: str | None = None) -> Self:
        """Return the law of a plan's views, a way to tell the time, and the fingerprint of an input map."""
        law = cls.of(plan.views[0].ruleset, clock, tolerance_us, input_map)
        if is_plain(plan):
            return law
        told = [
            {
                "view": view.name,
                "ruleset": view.ruleset.identity,
                "fingerprint": view.ruleset.fingerprint,
                **view.selects,
            }
            for view in sorted(plan.views, key=lambda view: view.name)
        ]
        text = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
        return law._replace(identity=text.decode(), fingerprint=sha256(text).hexdigest())

    @property
    def views(self) -> dict[str, "ViewLaw"]:
        """What each view was, by name."""
        try:
            told = orjson.loads(self.identity)
        except orjson.JSONDecodeError:
            found = _NAME.match(self.identity)
            name = found[0] if found else self.identity
            return {name: ViewLaw(self.identity, self.fingerprint, {"where": {}, "per": None})}
        return {
            view["view"]: ViewLaw(
                view["ruleset"], view["fingerprint"], {key: view[key] for key in ("where", "per")}
            )
            for view in told
        }

    @property
    def named(self) -> str:
        """The law's rulesets, for people."""
        views = self.views
        if self.identity in {view.identity for view in views.values()}:
            return f"ruleset {self.identity}"
        return "views " + ", ".join(f"{name} ({view.identity})" for name, view in views.items())

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the law that a text stands for; None: for none."""
        identity, *rest = text.rsplit(" ", 3)
        if len(rest) != 3 or not rest[2].isdecimal():
            return None
        return cls(identity, rest[0], rest[1], int(rest[2]))

    def __str__(self) -> str:
        return f"{self.identity} {self.fingerprint} {self.clock} {self.tolerance_us}"

    def difference(self, plan: Plan) -> "Difference":
        """Return which views a plan has otherwise."""
        before = self.views
        if is_plain(plan) and not self.identity.startswith("["):
            # One ruleset in place of another, whatever they are called.
            before = {plan.views[0].name: next(iter(before.values()))}
        wanted = {view.name: view for view in plan.views}
        there = [view for view in plan.views if view.name in before]
        moved = tuple(view.name for view in there if not before[view.name].selects_as(view))
        return Difference(
            added=tuple(name for name in wanted if name not in before),
            dropped=tuple(name for name in before if name not in wanted),
            changed=tuple(
                view.name
                for view in there
                if view.name not in moved and not before[view.name].decides_as(view.ruleset)
            ),
            moved=moved,
        )


class ViewLaw(NamedTuple):
    """What a view was.

    Fields  identity, fingerprint  of its ruleset
            selects  see `schemas.plan.View.selects`
    """

    identity: str
    fingerprint: str
    selects: dict[str, Any]

    def selects_as(self, view: View) -> bool:
        """Tell whether the same events were its own, under the same keys."""
        return self.selects == view.selects

    def decides_as(self, ruleset: Ruleset) -> bool:
        """Tell whether the tiers are those of this ruleset, under the same name; it may ask for other signals.

        Before rulesets could ask for signals their fingerprint was what now is that of their tiers. The identity of a
        user's file holds it.
        """
        if self.identity != ruleset.identity:
            return False
        return self.fingerprint in (ruleset.fingerprint, ruleset.tier_fingerprint) or "@" in self.identity


class Difference(NamedTuple):
    """What a plan has otherwise than a law, by the names of views.

    Fields  changed  another ruleset
            moved    other events, or other populations
    """

    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()

    @property
    def is_none(self) -> bool:
        """Whether there is no difference."""
        return self == Difference()
