"""What the page shows of several workers, as they tell it over HTTP; it runs in a process of its own.

Each worker's stream is followed; one that does not answer is tried again, and the page says so meanwhile.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import aiohttp
import pyarrow as pa
import pyarrow.compute as pc
from aiohttp import web
from yarl import URL

from rfmstream.engine.live.access import Access
from rfmstream.engine.live.change_stream import ARROW_STREAM, EVENT_STREAM, QUIET_S
from rfmstream.engine.live.page import Held
from rfmstream.engine.live.page_source import NEWEST, columns_of
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError, StateError, TransportError
from rfmstream.schemas.ruleset import Ruleset

AGAIN_S: Final = 1.0
_SILENT_S: Final = 3 * QUIET_S
_ANSWER_S: Final = 300.0
_SUMS: Final = ("customers", "applied", "rejected", "changes")
_FAILURES: Final = (aiohttp.ClientError, TimeoutError, OSError, ValueError, pa.ArrowException)
"""What a worker that does not answer, or not as one, comes as."""


class WorkersSource:
    """Several workers of one app.

    In      urls   of their data
            token  what they ask for; None: nothing
    """

    def __init__(self, urls: Sequence[str], ruleset: Ruleset, token: str | None) -> None:
        self._urls = tuple(url.rstrip("/") for url in urls)
        self._ruleset = ruleset
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._states: dict[str, Mapping[str, Any] | None] = dict.fromkeys(self._urls)
        self._session: aiohttp.ClientSession | None = None
        self._following: list[asyncio.Task[None]] = []

    @property
    def ruleset(self) -> Ruleset | None:
        """That of the workers."""
        return self._ruleset

    @property
    def is_drawn(self) -> bool:
        """Always: no orders are held up here."""
        return True

    async def start(self) -> None:
        """Begin to follow the workers."""
        self._session = aiohttp.ClientSession(headers=self._headers)
        self._following = [asyncio.create_task(self._follow(url)) for url in self._urls]

    async def stop(self) -> None:
        """Follow them no more."""
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def add_to(self, app: web.Application, access: Access) -> None:
        """Serve what the page asks for of single customers."""
        app.router.add_get("/customers/{id}", access.guarded(self._customer))
        app.router.add_get("/customers/{id}/changes", access.guarded(self._story))

    async def state(self) -> dict[str, Any]:
        """Return what the workers tell, put together."""
        there = [state for state in self._states.values() if state is not None]
        partitions = sorted(
            (one for state in there for one in state["partitions"]), key=lambda one: one["name"]
        )
        names = {one["name"] for one in partitions}
        missing = sorted({name for state in there for name in state["missing"]} - names)
        silent = sum(state is None for state in self._states.values())
        rules = self._ruleset
        newest = sorted(
            (change for state in there for change in state["newest"]),
            key=lambda change: str(change["effective_at"]),
            reverse=True,
        )
        counts = [{tier["id"]: tier["customers"] for tier in state["tiers"]} for state in there]
        notes = [note for state in there for note in state["notes"]]
        if silent:
            notes.append({"key": "worker_silent", "count": silent})
        return {
            "ready": silent == 0 and all(state["ready"] for state in there),
            "ruleset": rules.identity,
            "time_zone": rules.time_zone,
            "currency": rules.currency,
            "currency_exponent": rules.currency_exponent,
            "tiers": [
                {
                    "id": tier.id,
                    "label_en": tier.label_en,
                    "label_zh": tier.label_zh,
                    "customers": sum(count.get(tier.id, 0) for count in counts),
                }
                for tier in rules.tiers
            ],
            **{name: sum(state[name] for state in there) for name in _SUMS},
            "expected": max((state["expected"] for state in there), default=0),
            "missing": missing,
            "partitions": partitions,
            "notes": notes,
            "newest": newest[:NEWEST],
        }

    async def held(self) -> Held:
        """Return what pictures are made of.

        Errors  TransportError  a worker does not answer, or is not ready
        """
        tables, changes = [], []
        for url in self._urls:
            table, told = await self._table(url, "/snapshot"), await self._table(url, "/changes")
            # Of several views a snapshot is the first one's that is no shadow; the changes are all views'.
            views = table["view"].cast(pa.string()).unique()
            changes.append(told.filter(pc.is_in(told["view"].cast(pa.string()), views)))
            tables.append(columns_of(table))
        return Held(tables, changes, NEVER_US)

    async def _table(self, url: str, path: str) -> pa.Table:
        assert self._session is not None, "it is started"
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
        try:
            async with self._session.get(
                url + path, headers={"Accept": ARROW_STREAM}, timeout=timeout
            ) as answer:
                body = await answer.read()
                if answer.status != web.HTTPOk.status_code:
                    raise TransportError(body[:200].decode("utf-8", "replace").strip(), endpoint=url)
            return await asyncio.to_thread(lambda: pa.ipc.open_stream(body).read_all())
        except _FAILURES as error:
            raise TransportError(f"no answer ({error})", endpoint=url) from error

    async def _follow(self, url: str) -> None:
        """Keep what a worker tells up to date, for ever."""
        assert self._session is not None, "it is started"
        timeout = aiohttp.ClientTimeout(total=None, sock_read=_SILENT_S)
        while True:
            with suppress(*_FAILURES):
                headers = {"Accept": EVENT_STREAM}
                async with self._session.get(
                    f"{url}/page/stream", headers=headers, timeout=timeout, read_bufsize=1 << 20
                ) as answer:
                    answer.raise_for_status()
                    name = b""
                    async for line in answer.content:
                        if line.startswith(b"event: "):
                            name = line[7:].strip()
                        elif line.startswith(b"data: ") and name == b"state":
                            self._states[url] = json.loads(line[6:])
            self._states[url] = None
            await asyncio.sleep(AGAIN_S)

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
        if (await self.state())["missing"]:
            return web.Response(status=421, text="no customer of these workers; another one may have it\n")
        return web.Response(status=404, text="there is no such customer\n")

    async def _story(self, request: web.Request) -> web.Response:
        """Return what the workers have kept of a customer's changes."""
        found: list[Any] = []
        for url in self._urls:
            status, body = await self._asked(url, request.raw_path)
            if status == web.HTTPOk.status_code:
                found += json.loads(body)["changes"]
        return web.json_response({"changes": found})

    async def _asked(self, url: str, path: str) -> tuple[int, bytes]:
        assert self._session is not None, "it is started"
        try:
            # The path as it came: what is escaped in it stays so.
            async with self._session.get(
                URL(url + path, encoded=True), timeout=aiohttp.ClientTimeout(total=30)
            ) as answer:
                return answer.status, await answer.read()
        except _FAILURES:
            return web.HTTPServiceUnavailable.status_code, b"not ready: a worker does not answer\n"


async def ruleset_of_workers(urls: Sequence[str], token: str | None) -> str:
    """Return the identity of the ruleset that workers segment by.

    Errors  ConfigError     a URL is wrong
            TransportError  a worker does not answer
            StateError      they have different ones
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    found: dict[str, str] = {}
    async with aiohttp.ClientSession(headers=headers) as session:
        for url in urls:
            try:
                async with session.get(
                    f"{url.rstrip('/')}/page/state", timeout=aiohttp.ClientTimeout(total=30)
                ) as answer:
                    if answer.status != web.HTTPOk.status_code:
                        said = (await answer.text())[:200].strip()
                        raise TransportError(said, endpoint=url, fix="is it a worker, and has it the token?")
                    found.setdefault((await answer.json())["ruleset"], url)
            except aiohttp.InvalidURL as error:
                raise ConfigError(
                    f"{url!r} is no URL of a worker", key="--worker", fix="write http://127.0.0.1:8765"
                ) from error
            except (*_FAILURES, KeyError) as error:
                raise TransportError(f"no answer ({error})", endpoint=url, fix="is it a worker?") from error
    if len(found) > 1:
        raise StateError(f"the workers have different rulesets: {', '.join(found)}", fix="ask them apart")
    return next(iter(found))
