"""The plan of views: in which ways one stream of orders is looked at, as frozen dataclasses.

`schemas.plan_file` reads and validates the file.

Source  docs/semantics.md section 10
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.ruleset import Ruleset

VIEW_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
"""A view's name is part of file names and of the identity of what it gives."""

ATTRIBUTE: Final = "attribute."
"""What the columns of a canonical batch that carry attributes are named by: this and the attribute's name."""

Where = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class View:
    """One way to look at the orders.

    Fields  name     tells views apart
            ruleset  decides its tiers
            where    only events whose column (first) has one of the values count; several columns: all of them must
            per      (value of this column, customer) is a customer of its own; None: there is one population
            shadow   computed and counted, written to files of its own, never sent where automation listens
    """

    name: str
    ruleset: Ruleset
    where: Where = ()
    per: str | None = None
    shadow: bool = False

    @property
    def attributes(self) -> tuple[str, ...]:
        """The columns it looks at, each once."""
        return tuple(
            dict.fromkeys([name for name, _ in self.where] + ([] if self.per is None else [self.per]))
        )

    @property
    def selects(self) -> dict[str, Any]:
        """What says which events are whose: all of a view but its ruleset and where its output goes, for a manifest."""
        return {"where": {name: list(values) for name, values in self.where}, "per": self.per}


@dataclass(frozen=True)
class Plan:
    """The views of a run.

    Fields  views  in the order of the file, or of the options
            path   the file it was read from; None: there is none
    Errors  ConfigError  no view, or two of one name
    """

    views: tuple[View, ...]
    path: str | None = None

    def __post_init__(self) -> None:
        if not self.views:
            raise ConfigError(
                "there is no view", file=self.path, key="view", fix="add a [[view]] section with a ruleset"
            )
        seen: set[str] = set()
        for number, view in enumerate(self.views, 1):
            if view.name in seen:
                raise ConfigError(
                    f"there are two views {view.name!r}",
                    file=self.path,
                    key=f"view[{number}].name" if self.path else "ruleset",
                    fix="give each a name of its own" + ("" if self.path else ", in a file: --plan"),
                )
            seen.add(view.name)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The columns that its views look at, each once, in order of their first use."""
        return tuple(dict.fromkeys(name for view in self.views for name in view.attributes))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its views."""
        return tuple(view.name for view in self.views)

    def without_signals(self) -> "Plan":
        """Return the plan whose views decide the same tiers and give no signal."""
        views = tuple(replace(view, ruleset=view.ruleset.without_signals()) for view in self.views)
        return replace(self, views=views)

    def view(self, name: str) -> View:
        """Return a view by its name.

        Errors  ConfigError  there is none
        """
        for view in self.views:
            if view.name == name:
                return view
        raise no_view(name, self.names)


def plan_of(rulesets: Iterable[Ruleset]) -> Plan:
    """Return the plan with a view for each ruleset, named after it.

    Errors  ConfigError  two rulesets of one name
    """
    return Plan(tuple(View(ruleset.name, ruleset) for ruleset in rulesets))


def no_view(name: str | None, names: Iterable[str], *, where: str | None = None) -> ConfigError:
    """Build (not raise) the error of a view that is not there, or that has to be named."""
    problem = "there are several views" if name is None else f"there is no view {name!r}"
    return ConfigError(problem, file=where, key="view", fix=f"name one of {', '.join(names)}")
