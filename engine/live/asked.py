"""What a request asks for: the keys of its query, and the view and population they name.

Source: docs/views.md, docs/live.md (Status pages)
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from aiohttp import web

from rfmstream.engine.live.board import Board, Watched
from rfmstream.engine.service.page_server import Handler
from rfmstream.schemas.errors import ConfigError, TransportError
from rfmstream.schemas.plan import View, no_view
from rfmstream.schemas.ruleset import Ruleset

RETRY_AFTER_S: Final = 1
POPULATIONS_NAMED_MAX: Final = 20
"""So many populations an error names: there may be tens of thousands."""


def answering(handler: Handler, *keys: str) -> Handler:
    """Return a handler of requests with these keys in their query and no others, each at most once.

    A ConfigError is answered by 400, a TransportError by 503 with Retry-After; who has begun to send raises none.
    """

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            _check(request, keys)
            return await handler(request)
        except ConfigError as error:
            return web.Response(status=400, text=f"{error}\n")
        except TransportError as error:
            return later(str(error))

    return answer


def later(why: str) -> web.Response:
    """Return the answer of a worker that cannot tell yet."""
    return web.Response(status=503, headers={"Retry-After": str(RETRY_AFTER_S)}, text=f"not ready: {why}\n")


def asked_bool(request: web.Request, key: str, *, default: bool) -> bool:
    """Return what a key of the query says, `true` or `false`.

    Errors  ConfigError  something else
    """
    text = request.query.get(key)
    if text not in (None, "true", "false"):
        raise ConfigError(f"{text!r} is neither true nor false", key=key, fix="write true or false")
    return default if text is None else text == "true"


def _check(request: web.Request, keys: Sequence[str]) -> None:
    for name in request.query:
        if name not in keys:
            fix = f"its keys are {', '.join(keys)}" if keys else "it has none"
            raise ConfigError(f"is no key of {request.path[:80]!r}", key=name[:80], fix=fix)
        if len(request.query.getall(name)) > 1:
            raise ConfigError("is there more than once", key=name, fix="name it once")


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


def asked_view(request: web.Request, board: Board) -> AskedView:
    """Return what a request asks for.

    Errors  ConfigError  there is no such view, or it has no populations
    """
    name, population = request.query.get("view"), request.query.get("population")
    return chosen(board.views, board.ruleset, name, population)


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
        parted = [each.name for each in views if each.per is not None]
        raise ConfigError(
            "the view has no populations",
            key="population",
            fix="leave it out" + (f", or name a view that has some: {', '.join(parted)}" if parted else ""),
        )
    return AskedView(ruleset if view is None else view.ruleset, view, population)


def no_population(view: View, names: Sequence[str]) -> ConfigError:
    """Build (not raise) the error of a question about one population that names none.

    In      names  those that there are, as far as they are known here
    """
    told = ", ".join(names[:POPULATIONS_NAMED_MAX])
    more = len(names) - POPULATIONS_NAMED_MAX
    return ConfigError(
        f"view {view.name} has a population for each {view.per}",
        key="population",
        fix=f"name one of {told or 'those of its orders'}{f' and {more:,} more' if more > 0 else ''}"
        ", or ask for all with POST /customers",
    )
