"""Which view and which population a request asks for: `?view=NAME&population=VALUE`.

Source: docs/views.md
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from aiohttp import web

from rfmstream.engine.live.board import Board, Watched
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.plan import View, no_view
from rfmstream.schemas.ruleset import Ruleset


@dataclass(frozen=True)
class AskedView:
    """What is asked for.

    Fields  view        None: the first one that is no shadow, which nobody named
            ruleset     its ruleset
            population  None: all of them, or the view has none
    """

    ruleset: Ruleset
    view: View | None = None
    population: str | None = None

    def snapshot(self, one: Watched, as_of_us: int | None) -> Awaitable[pa.Table]:
        """Ask a partition for its snapshot."""
        if self.view is None:
            return one.snapshot(as_of_us)
        return one.snapshot(as_of_us, self.view.name)

    @property
    def name(self) -> str | None:
        """The view's name; None: there is the ruleset's alone."""
        return None if self.view is None else self.view.name

    @property
    def is_wide(self) -> bool:
        """Whether every population is to be looked in: there may be many."""
        return self.view is not None and self.view.per is not None and self.population is None

    def only(self, table: pa.Table) -> pa.Table:
        """Return the rows of the population that is asked for."""
        if self.population is None:
            return table
        return table.filter(pc.equal(table["population"], self.population))


def asked_view(request: web.Request, board: Board, *, in_one: bool = False) -> AskedView:
    """Return what a request asks for.

    In      in_one  one population has to be named, where there are some
    Errors  ConfigError  there is no such view, or it has no populations
    """
    name, population = request.query.get("view"), request.query.get("population")
    asked = chosen(board.views, board.ruleset, name, population)
    if in_one and asked.is_wide:
        assert asked.view is not None, "only a view has populations"
        raise ConfigError(
            f"view {asked.name} has a population for each {asked.view.per}",
            key="population",
            fix="name one, or ask for all with POST /customers",
        )
    return asked


def chosen(views: Sequence[View], ruleset: Ruleset, name: str | None, population: str | None) -> AskedView:
    """Return what names choose.

    In      views       those there are; empty: there is the ruleset's alone
            name        None: the first view that is no shadow
            population  None: all of them, or the view has none
    Errors  ConfigError  there is no such view, or it has no populations
    """
    view = None
    if name is not None:
        view = next((each for each in views if each.name == name), None)
        if view is None and (views or name != ruleset.name):
            raise no_view(name, [each.name for each in views] or [ruleset.name])
    elif views:
        view = next((each for each in views if not each.shadow), views[0])
    if population is not None and (view is None or view.per is None):
        raise ConfigError(
            "the view has no populations", key="population", fix="leave it out, or name a view with per"
        )
    return AskedView(ruleset if view is None else view.ruleset, view, population)
