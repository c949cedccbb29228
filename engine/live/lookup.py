"""Customers by id over HTTP, for programs: what a snapshot says of them, what their tier is called, and why it is so.

A customer that is not found may be another worker's, or not recovered yet: `absence.py`. A list is answered as far as
it can be, and says of every id what became of it.

What is read is committed. A partition that is making a step is waited for; one that is committing a step is not, but
by whoever asks for a customer of that step. Who has to wait is answered together with all who ask meanwhile.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
from aiohttp import web

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.explain import explain
from rfmstream.engine.core.lookup import Found, Row
from rfmstream.engine.live.absence import Absence, absence
from rfmstream.engine.live.access import Access
from rfmstream.engine.live.asked import AskedView, answering, asked_bool, asked_view, no_population
from rfmstream.engine.live.board import (
    EXPECTED_HEADER,
    PARTITIONS_HEADER,
    READY_STATES,
    Board,
    Reads,
    Watched,
)
from rfmstream.engine.live.customer_rows import CustomerRows
from rfmstream.engine.live.model import Source
from rfmstream.schemas.codes import ID_BYTES_MAX, NEVER_US
from rfmstream.schemas.errors import ConfigError, TransportError
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.snapshots import SNAPSHOT_SCHEMA, snapshot_schema

ARROW_STREAM: Final = "application/vnd.apache.arrow.stream"
OWNER_HEADER: Final = "Rfmstream-Owner"
"""Of an answer 421: the URL of the worker that has the customer's partition."""

IDS_MAX: Final = 10_000
BODY_BYTES_MAX: Final = 4 << 20
NOT_FOUND_KEY: Final = "rfmstream.not_found"
ELSEWHERE_KEY: Final = "rfmstream.elsewhere"
"""Of an Arrow stream's schema: JSON, as in the answer as JSON."""

CUSTOMER_PATH: Final = "/customers/{id:[^/]*}"
"""Of one customer: an id may hold any character, and a slash in it comes escaped."""

_SURELY_SHORT: Final = ID_BYTES_MAX // 4
"""An id of so many characters at most has no more bytes than an id may have."""
_IDS_AT_ONCE: Final = 2_000
"""So few are looked up at once, so that others wait no longer than the milliseconds that takes."""
_ROWS_HERE: Final = 1_000
"""So few rows are written as JSON on the event loop: that takes less than a millisecond, as much as a thread costs."""

Partitions = Mapping[Source, Watched]
Looked = frozenset[Source]

_INSTANTS: Final = tuple(field.name for field in SNAPSHOT_SCHEMA if pa.types.is_timestamp(field.type))


class Lookup:
    """Answers for single customers.

    In      instant_of  the instant a query names, None for the present; raises ConfigError
            present_us  what the present is
    """

    def __init__(
        self,
        board: Board,
        *,
        instant_of: Callable[[str | None, Partitions], int | None],
        present_us: Callable[[Partitions], int],
    ) -> None:
        self._board = board
        self._instant_of = instant_of
        self._present_us = present_us
        self._writers: dict[str, CustomerRows] = {}
        self._waiting: list[tuple[str, asyncio.Future[tuple[list[Row], Looked]]]] = []
        self._answering: asyncio.Task[None] | None = None

    def add_to(self, app: web.Application, access: Access) -> None:
        """Serve GET /customers/{id} and POST /customers."""
        app.router.add_get(CUSTOMER_PATH, access.guarded(answering(self._one, "as_of", "view", "population")))
        app.router.add_post(
            "/customers", access.guarded(answering(self._many, "as_of", "view", "population", "partial"))
        )

    async def _one(self, request: web.Request) -> web.Response:
        id_ = asked_id(request)
        view = await self._in_one(request)
        partitions = self._ready()
        asked_us = self._instant_of(request.query.get("as_of"), partitions)
        at_once, waits = self._look([id_], asked_us, view, partitions)
        if not waits:
            found, looked = _rows(at_once), frozenset(partitions)
        elif asked_us is None and "view" not in request.query and view.population is None:
            found, looked = await self._soon(id_)
        else:
            some, looked = await self._find([id_], asked_us, view)
            found = [row for one in some for row in _rows(one)]
        if not found:
            return self._absent(absence(self._board, [id_], looked))
        # Records of one customer in several partitions: the state with the newest order is what there is.
        row = max(found, key=lambda row: NEVER_US if row["last_paid_at"] is None else row["last_paid_at"])
        # Whoever has asked for the same customer at the same time has the same row.
        row = dict(row)
        body = orjson.dumps(self._told(row, view.ruleset)) + b"\n"
        return web.Response(body=body, content_type="application/json", headers=self._where())

    async def _many(self, request: web.Request) -> web.Response:
        ids = _ids_in(await request.read())
        view = asked_view(request, self._board)
        is_partial = asked_bool(request, "partial", default=False)
        asked_us = self._instant_of(request.query.get("as_of"), self._ready())
        some, looked = await self._find(ids, asked_us, view)
        found = [one for one in some if one.rows]
        known = set[str]().union(*(one.customer_ids() for one in found))
        missing = [id_ for id_ in ids if id_ not in known] if len(known) < len(ids) else []
        absent = absence(self._board, missing, looked)
        tables = [one.table() for one in found]
        if request.headers.get("Accept", "").startswith(ARROW_STREAM):
            # Rows alone do not say what is missing, and few look at what the schema says.
            if absent.elsewhere and not is_partial:
                return self._absent(absent, of=len(ids))
            body = _arrow(tables, _schema(tables, view.ruleset, absent))
            return web.Response(body=body, content_type=ARROW_STREAM, headers=self._where())
        rows = self._rows_of(view.ruleset)
        if sum(one.rows for one in found) <= _ROWS_HERE:
            body = _json(rows, tables, absent)
        else:
            body = await asyncio.to_thread(_json, rows, tables, absent)
        return web.Response(body=body, content_type="application/json", headers=self._where())

    async def _in_one(self, request: web.Request) -> AskedView:
        """Return what a request for one customer asks for.

        Errors  ConfigError  it has to name a population: which ones there are here
        """
        asked = asked_view(request, self._board)
        if not asked.is_wide:
            return asked
        assert asked.view is not None, "it has populations"
        names: set[str] = set()
        for one in self._ready().values():
            with suppress(TransportError):
                assert one.reads is not None, "a partition that is live can be asked"
                names.update(await one.reads.ask(_populations, asked.view.name, small=True))
        raise no_population(asked.view, sorted(names))

    def _ready(self) -> Partitions:
        return {
            source: one
            for source, one in sorted(self._board.partitions.items())
            if one.stats.state in READY_STATES
        }

    async def _soon(self, id_: str) -> tuple[list[Row], Looked]:
        """Return a customer's rows at the present, found together with those of whoever asks at the same time."""
        answer: asyncio.Future[tuple[list[Row], Looked]] = asyncio.get_running_loop().create_future()
        self._waiting.append((id_, answer))
        if self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._answer())
        return await answer

    async def _answer(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting[:_IDS_AT_ONCE], self._waiting[_IDS_AT_ONCE:]
            rows: dict[str, list[Row]] = {}
            try:
                some, looked = await self._find([id_ for id_, _ in asked], None, self._first)
                for found in some:
                    for row in _rows(found):
                        rows.setdefault(row["customer_id"], []).append(row)
            except Exception as error:  # noqa: BLE001 - it is theirs who asked
                for _, answer in asked:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for id_, answer in asked:
                if not answer.done():
                    answer.set_result((rows.get(id_, []), looked))

    @property
    def _first(self) -> AskedView:
        """The view that nobody has to name."""
        board = self._board
        view = next((view for view in board.views if not view.shadow), None)
        return AskedView(board.ruleset, view)

    async def _find(
        self, ids: Sequence[str], asked_us: int | None, view: AskedView
    ) -> tuple[list[Found], Looked]:
        """Return what the partitions that are ready have, and those that were looked in for every id.

        Errors  ConfigError     the instant lies before a partition's clock
                TransportError  a partition is being recovered
        """
        found: list[Found] = []
        looked = frozenset(self._ready())
        for at in range(0, len(ids), _IDS_AT_ONCE):
            if at:
                await asyncio.sleep(0)
            some, partitions = ids[at : at + _IDS_AT_ONCE], self._ready()
            looked &= partitions.keys()
            at_once, waits = self._look(some, asked_us, view, partitions)
            found += [at_once, *await self._wait_for(waits, at_once, asked_us, view, partitions)]
        return found, looked

    def _look(
        self, ids: Sequence[str], asked_us: int | None, view: AskedView, partitions: Partitions
    ) -> tuple[Found, list[Reads]]:
        """Return what can be read at this moment, and those that have to be waited for."""
        found, waits = Found(ids, population=view.population), []
        as_of_us = self._present_us(partitions) if asked_us is None else asked_us
        for one in partitions.values():
            assert one.reads is not None, "a partition that is live can be asked"
            engine = None if view.is_wide else one.reads.committed(found.ids, as_of_us, view.name)
            if engine is None:
                waits.append(one.reads)
            else:
                found.look_in(engine, as_of_us)
        return found, waits

    async def _wait_for(
        self,
        waits: Sequence[Reads],
        found: Found,
        asked_us: int | None,
        view: AskedView,
        partitions: Partitions,
    ) -> list[Found]:
        """Add to `found` what partitions have that had to be waited for; return what was found apart from it."""

        async def add(reads: Reads) -> list[Found]:
            # Where there may be many populations a thread looks, and threads find each their own.
            one = Found(found.ids, population=view.population) if view.is_wide else found

            def look(engine: Engine) -> None:
                # The clock may be past the present, and may have gone on meanwhile.
                present_us = max(self._present_us(partitions), engine.clock_us)
                one.look_in(engine, present_us if asked_us is None else asked_us)

            await reads.ask(look, view.name, small=not view.is_wide)
            return [one] if view.is_wide else []

        # At once: each waits for the step that its partition is in.
        return [one for some in await asyncio.gather(*map(add, waits)) for one in some]

    def _absent(self, absent: Absence, *, of: int | None = None) -> web.Response:
        """Return what is said of customers that cannot be told of: 404 only where there are none.

        In      of  the ids of the list they were in; None: one was asked for by itself
        """
        if not absent.elsewhere:
            return web.Response(status=404, text="there is no such customer\n", headers=self._where())
        owner = next(iter(absent.elsewhere)) if len(absent.elsewhere) == 1 else None
        text = "no customer of this worker's partitions; " + (
            f"ask {owner}\n" if owner else "another worker may have it\n"
        )
        if of is not None:
            count = sum(map(len, absent.elsewhere.values()))
            text = (
                f"{count:,} of {of:,} ids are of no customer in this worker's partitions: ask with partial=true for "
                "the others, or for JSON; both say which ids these are, and which worker has them\n"
            )
        headers = self._where() | ({} if owner is None else {OWNER_HEADER: owner})
        return web.Response(status=421, text=text, headers=headers)

    def _where(self) -> dict[str, str]:
        return {
            PARTITIONS_HEADER: ",".join(map(str, sorted(self._board.partitions))),
            EXPECTED_HEADER: ",".join(map(str, self._board.expected)),
            "Cache-Control": "no-store",
        }

    def _told(self, row: Row, ruleset: Ruleset) -> Row:
        """Return a row with what its tier is called and everything behind it."""
        rules = self._board.rules.get(ruleset.identity)
        why = explain(row, ruleset, rules, as_of_us=row.pop("as_of_us"))
        texts = {
            name: None if row[name] is None else _instant_text(row[name]) for name in _INSTANTS if name in row
        }
        return row | texts | self._rows_of(ruleset).names_of(row["tier"]) | {"explain": why}

    def _rows_of(self, ruleset: Ruleset) -> CustomerRows:
        """Return what writes rows by a ruleset."""
        if ruleset.identity not in self._writers:
            self._writers[ruleset.identity] = CustomerRows(ruleset)
        return self._writers[ruleset.identity]


def asked_id(request: web.Request) -> str:
    """Return the id in the path of a request.

    Errors  ConfigError  no customer can have it
    """
    id_ = request.match_info["id"]
    _check_id(id_, "id")
    return id_


def _check_id(id_: str, key: str) -> None:
    size = len(id_.encode("utf-8", "surrogatepass"))
    if not 0 < size <= ID_BYTES_MAX:
        problem = f"is {size:,} bytes long" if size else "is empty"
        raise ConfigError(problem, key=key, fix=f"an id has 1 to {ID_BYTES_MAX} bytes of UTF-8")


def _ids_in(body: bytes) -> list[str]:
    """Return the ids that are asked for, each once.

    Errors  ConfigError  that is no list of them
    """
    try:
        ids = orjson.loads(body)
    except orjson.JSONDecodeError:
        ids = None
    if not isinstance(ids, list) or len(ids) > IDS_MAX or not set(map(type, ids)) <= {str}:
        raise ConfigError(
            "is no list of ids",
            key="body",
            fix=f"send a JSON array of at most {IDS_MAX:,} ids, which are strings",
        )
    sizes = list(map(len, ids))
    if ids and (min(sizes) == 0 or max(sizes) > _SURELY_SHORT):
        for at, id_ in enumerate(ids):
            _check_id(id_, f"body[{at}]")
    return list(dict.fromkeys(ids))


def _populations(engine: Engine) -> Sequence[str]:
    return () if engine.populations is None else engine.populations.names[1:]


def _schema(found: Sequence[pa.Table], ruleset: Ruleset, absent: Absence) -> pa.Schema:
    schema = found[0].schema if found else snapshot_schema(ruleset)
    told = {NOT_FOUND_KEY: orjson.dumps(absent.not_found), ELSEWHERE_KEY: orjson.dumps(_elsewhere(absent))}
    return schema.with_metadata(ruleset.metadata | told)


def _elsewhere(absent: Absence) -> list[dict[str, Any]]:
    return [{"owner": owner, "ids": ids} for owner, ids in absent.elsewhere.items()]


def _arrow(tables: Sequence[pa.Table], schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for table in tables:
            writer.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def _json(rows: CustomerRows, tables: Sequence[pa.Table], absent: Absence) -> bytes:
    pieces = b",".join(piece for table in tables for piece in rows.as_json(table))
    told = orjson.dumps({"not_found": absent.not_found, "elsewhere": _elsewhere(absent)})
    return b'{"customers":[%s],%s\n' % (pieces, told[1:])


def _rows(found: Found) -> list[Row]:
    """Return rows with their instants in µs, and as_of_us."""
    rows, done = found.plain(), 0
    for end, as_of_us in found.as_of_us:
        for row in rows[done:end]:
            row["as_of_us"] = as_of_us
        done = end
    return rows


def _instant_text(instant_us: int) -> str:
    """Write an instant as snapshots in JSON lines have it."""
    return f"{np.datetime64(instant_us, 'us')}Z"
