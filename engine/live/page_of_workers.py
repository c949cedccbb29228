"""What the page shows of several workers, as they tell it over HTTP; it runs in a process of its own.

Each worker's stream is followed while somebody looks; one that does not answer is tried again, and the page says so
meanwhile.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import pyarrow as pa
from aiohttp import web
from yarl import URL

from rfmstream.engine.live.access import Access
from rfmstream.engine.live.asked import AskedView, chosen
from rfmstream.engine.live.change_stream import ARROW_STREAM, EVENT_STREAM, QUIET_S
from rfmstream.engine.live.lookup import CUSTOMER_PATH
from rfmstream.engine.live.page import Held
from rfmstream.engine.live.page_source import NEWEST, choice_of, columns_of, tiers_shown
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError, StateError, TransportError
from rfmstream.schemas.plan import View
from rfmstream.schemas.ruleset import Ruleset

AGAIN_S: Final = 1.0
_SILENT_S: Final = 3 * QUIET_S
_ANSWER_S: Final = 300.0
_FIRST_S: Final = 5.0
"""So long a reader waits for what workers tell first."""
_SUMS: Final = ("customers", "applied", "changes", "rejected")
_FAILURES: Final = (aiohttp.ClientError, TimeoutError, OSError, ValueError, pa.ArrowException)
"""What a worker that does not answer, or not as one, comes as."""


class WorkersSource:
    """Several workers of one app.

    In      urls     of their data
            ruleset  of what they show where nobody names a view
            views    those of their plan; empty: there is the ruleset's alone
            token    what they ask for; None: nothing
    """

    def __init__(
        self, urls: Sequence[str], ruleset: Ruleset, token: str | None, *, views: Sequence[View] = ()
    ) -> None:
        self._urls = tuple(url.rstrip("/") for url in urls)
        self._ruleset = ruleset
        self._views = tuple(views)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None
        self._looks: list[WorkersLook] = []

    def asked(self, view: str | None, population: str | None) -> AskedView:
        """Return what names choose.

        Errors  ConfigError  there is no such view, or it has no populations
        """
        return chosen(self._views, self._ruleset, view, population)

    def look(self, asked: AskedView) -> "WorkersLook":
        """Return what is seen of a view and a population."""
        assert self._session is not None, "it is started"
        return WorkersLook(self._session, self._urls, asked, self._views)

    async def start(self) -> None:
        """Begin; workers are followed once somebody looks."""
        self._session = aiohttp.ClientSession(headers=self._headers)

    async def stop(self) -> None:
        """Ask them no more."""
        if self._session is not None:
            await self._session.close()

    def add_to(self, app: web.Application, access: Access) -> None:
        """Serve what the page asks for of single customers."""
        app.router.add_get(CUSTOMER_PATH, access.guarded(self._customer))
        app.router.add_post("/customers", access.guarded(self._customers))
        app.router.add_get(f"{CUSTOMER_PATH}/changes", access.guarded(self._story))

    async def populations(self, asked: AskedView) -> dict[str, int]:
        """Return the populations of a view that workers tell of, and the customers of each."""
        found: dict[str, int] = {}
        path = "/page/populations" + query_of(asked.name, None)
        for status, body in await asyncio.gather(*(self._asked(url, path) for url in self._urls)):
            for one in json.loads(body)["populations"] if status == web.HTTPOk.status_code else ():
                found[one["name"]] = found.get(one["name"], 0) + one["customers"]
        return found

    async def _customer(self, request: web.Request) -> web.Response:
        """Ask one worker after another for a customer."""
        said: list[tuple[int, bytes]] = []
        for url in self._urls:
            status, body = await self._asked(url, request.raw_path)
            if status == web.HTTPOk.status_code:
                return web.Response(body=body, content_type="application/json")
            said.append((status, body))
        elsewhere = {web.HTTPNotFound.status_code, web.HTTPMisdirectedRequest.status_code}
        other = [one for one in said if one[0] not in elsewhere]
        if other:
            return web.Response(status=other[0][0], body=other[0][1])
        if any(status == web.HTTPMisdirectedRequest.status_code for status, _ in said):
            return await self._absent()
        return web.Response(status=404, text="there is no such customer\n")

    async def _customers(self, request: web.Request) -> web.Response:
        """Return what the workers have of customers, by their ids: one may have them in some populations."""
        ids = await request.read()
        found: list[Any] = []
        absent: dict[str, None] = {}
        owners: dict[str, str | None] = {}
        for url in self._urls:
            status, body = await self._asked(url, request.raw_path, ids)
            if status != web.HTTPOk.status_code:
                return web.Response(status=status, body=body)
            told = json.loads(body)
            found += told["customers"]
            absent |= dict.fromkeys(told["not_found"])
            owners |= {id_: part["owner"] for part in told["elsewhere"] for id_ in part["ids"]}
        known = {row["customer_id"] for row in found}
        elsewhere: dict[str | None, list[str]] = {}
        if not owners.keys() <= known and await self._have_all():
            # What each of them supposes elsewhere none of them has.
            absent, owners = absent | dict.fromkeys(owners), {}
        for id_, owner in owners.items():
            if id_ not in known:
                elsewhere.setdefault(None if owner in self._urls else owner, []).append(id_)
        return web.json_response(
            {
                "customers": found,
                "not_found": [id_ for id_ in absent if id_ not in known],
                "elsewhere": [{"owner": owner, "ids": of_owner} for owner, of_owner in elsewhere.items()],
            }
        )

    async def _absent(self) -> web.Response:
        """Answer for a customer whom no worker has: one that was not named may have its partition."""
        if await self._have_all():
            return web.Response(status=404, text="there is no such customer\n")
        return web.Response(status=421, text="no customer of these workers; another one may have it\n")

    async def _have_all(self) -> bool:
        """Tell whether these workers have every partition there is."""
        told = [await self._asked(url, "/page/state") for url in self._urls]
        return not _missing([json.loads(body) for status, body in told if status == web.HTTPOk.status_code])

    async def _story(self, request: web.Request) -> web.Response:
        """Return what the workers have kept of a customer's changes."""
        found: list[Any] = []
        for url in self._urls:
            status, body = await self._asked(url, request.raw_path)
            if status == web.HTTPOk.status_code:
                found += json.loads(body)["changes"]
        return web.json_response({"changes": found})

    async def _asked(self, url: str, path: str, ids: bytes | None = None) -> tuple[int, bytes]:
        """Ask a worker; `ids`: with these as the body of a POST."""
        assert self._session is not None, "it is started"
        try:
            # The path as it came: what is escaped in it stays so.
            async with self._session.request(
                "GET" if ids is None else "POST",
                URL(url + path, encoded=True),
                data=ids,
                timeout=aiohttp.ClientTimeout(total=30),
            ) as answer:
                return answer.status, await answer.read()
        except _FAILURES:
            return web.HTTPServiceUnavailable.status_code, b"not ready: a worker does not answer\n"


class WorkersLook:
    """One view of them, or one population of it."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        urls: Sequence[str],
        asked: AskedView,
        views: Sequence[View],
    ) -> None:
        self._session = session
        self._asked = asked
        self._views = views
        self._query = query_of(asked.name, asked.population)
        self._states: dict[str, Mapping[str, Any] | None] = dict.fromkeys(urls)
        self._heard = {url: asyncio.Event() for url in urls}
        self._following: list[asyncio.Task[None]] = []

    @property
    def ruleset(self) -> Ruleset:
        """That of what is shown."""
        return self._asked.ruleset

    @property
    def is_drawn(self) -> bool:
        """Always: no orders are held up here."""
        return True

    def begin(self) -> None:
        """Begin to follow the workers."""
        self._states = dict.fromkeys(self._states)
        self._heard = {url: asyncio.Event() for url in self._states}
        self._following = [asyncio.create_task(self._follow(url)) for url in self._states]

    def end(self) -> None:
        """Follow them no more."""
        for task in self._following:
            task.cancel()

    async def state(self) -> dict[str, Any]:
        """Return what the workers tell, put together."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_S):
                await asyncio.gather(*(heard.wait() for heard in self._heard.values()))
        for heard in self._heard.values():
            heard.set()
        there = [state for state in self._states.values() if state is not None]
        partitions = sorted(
            (one for state in there for one in state["partitions"]), key=lambda one: one["name"]
        )
        silent = sum(state is None for state in self._states.values())
        newest = sorted(
            (change for state in there for change in state["newest"]),
            key=lambda change: str(change["effective_at"]),
            reverse=True,
        )
        counts = [{tier["id"]: tier["customers"] for tier in state["tiers"]} for state in there]
        notes = [note for state in there for note in state["notes"]]
        if silent:
            notes.append({"key": "worker_silent", "count": silent})
        tiers = [sum(count.get(tier.id, 0) for count in counts) for tier in self.ruleset.tiers]
        return {
            "ready": silent == 0 and all(state["ready"] for state in there),
            **choice_of(self._asked, self._views),
            "tiers": tiers_shown(self.ruleset, tiers),
            **{name: _sum([state[name] for state in there]) for name in _SUMS},
            "expected": max((state["expected"] for state in there), default=0),
            "missing": _missing(there),
            "partitions": partitions,
            "notes": notes,
            "newest": newest[:NEWEST],
        }

    async def held(self) -> Held:
        """Return what pictures are made of.

        Errors  TransportError  a worker does not answer, or is not ready
        """

        async def of(url: str) -> tuple[pa.Table, pa.Table]:
            table = await self._table(url, "/snapshot" + self._query)
            return columns_of(table), await self._table(url, "/changes" + self._query)

        found = await asyncio.gather(*map(of, self._states))
        return Held([table for table, _ in found], [changes for _, changes in found], NEVER_US)

    async def _table(self, url: str, path: str) -> pa.Table:
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
        try:
            async with self._session.get(
                URL(url + path, encoded=True), headers={"Accept": ARROW_STREAM}, timeout=timeout
            ) as answer:
                body = await answer.read()
                if answer.status != web.HTTPOk.status_code:
                    raise TransportError(body[:200].decode("utf-8", "replace").strip(), endpoint=url)
            return await asyncio.to_thread(lambda: pa.ipc.open_stream(body).read_all())
        except _FAILURES as error:
            raise TransportError(f"no answer ({error})", endpoint=url) from error

    async def _follow(self, url: str) -> None:
        """Keep what a worker tells up to date, until nobody looks any more."""
        timeout = aiohttp.ClientTimeout(total=None, sock_read=_SILENT_S)
        # Pictures are drawn here: a worker need not draw them, too.
        query = self._query + ("&" if self._query else "?") + "pictures=false"
        while True:
            with suppress(*_FAILURES):
                headers = {"Accept": EVENT_STREAM}
                async with self._session.get(
                    URL(f"{url}/page/stream{query}", encoded=True),
                    headers=headers,
                    timeout=timeout,
                    read_bufsize=1 << 20,
                ) as answer:
                    answer.raise_for_status()
                    name = b""
                    async for line in answer.content:
                        if line.startswith(b"event: "):
                            name = line[7:].strip()
                        elif line.startswith(b"data: ") and name == b"state":
                            self._states[url] = json.loads(line[6:])
                            self._heard[url].set()
            self._states[url] = None
            self._heard[url].set()
            await asyncio.sleep(AGAIN_S)


def query_of(view: str | None, population: str | None) -> str:
    """Return the query that chooses a view and a population; nothing where none is named."""
    named = {"view": view, "population": population}
    found = urlencode({key: value for key, value in named.items() if value is not None})
    return f"?{found}" if found else ""


def _sum(counts: Sequence[int | None]) -> int | None:
    """Return the sum of what workers count; None: one of them does not know."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _missing(states: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the partitions that no worker has."""
    there = {one["name"] for state in states for one in state["partitions"]}
    return sorted({name for state in states for name in state["missing"]} - there)


async def views_of_workers(
    urls: Sequence[str], token: str | None, agreed: Callable[[str], Ruleset]
) -> tuple[Ruleset, tuple[View, ...]]:
    """Return the ruleset that workers segment by where nobody names a view, and their views; none: that is all.

    In      agreed  the ruleset of an identity
    Errors  ConfigError     a URL is wrong, or a ruleset is not known
            TransportError  a worker does not answer
            StateError      they have different ones
    """
    told = [await _choice_of_worker(url.rstrip("/"), token) for url in urls]
    kinds = {json.dumps([one["ruleset"], one["views"]]): one for one in told}
    if len(kinds) > 1:
        names = [", ".join(view["name"] for view in one["views"]) or one["ruleset"] for one in kinds.values()]
        raise StateError(
            f"the workers have different rulesets or views: {'; '.join(names)}", fix="ask them apart"
        )
    [found] = kinds.values()
    views = tuple(
        View(
            one["name"],
            agreed(one["ruleset"]),
            tuple((column, tuple(values)) for column, values in one["where"].items()),
            one["per"],
            one["shadow"],
        )
        for one in found["views"]
    )
    return agreed(found["ruleset"]), views


async def _choice_of_worker(url: str, token: str | None) -> Mapping[str, Any]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=30)
    try:
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{url}/page/state", timeout=timeout) as answer,
        ):
            if answer.status != web.HTTPOk.status_code:
                said = (await answer.text())[:200].strip()
                raise TransportError(said, endpoint=url, fix="is it a worker, and has it the token?")
            state = await answer.json()
            return {"ruleset": state["ruleset"], "views": state["views"]}
    except aiohttp.InvalidURL as error:
        raise ConfigError(
            f"{url!r} is no URL of a worker", key="--worker", fix="write http://127.0.0.1:8765"
        ) from error
    except (*_FAILURES, KeyError, TypeError) as error:
        raise TransportError(f"no answer ({error})", endpoint=url, fix="is it a worker?") from error
