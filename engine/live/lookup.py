"""Customers by id over HTTP, for programs: what a snapshot says of them, what their tier is called, and why it is so.

A customer that this worker does not have may be another worker's, or may not be recovered yet. Only a worker that has
every partition of its topics, all of them recovered, answers that there is no such customer.

What is read is committed. A partition that is making a step is waited for; one that is committing a step is not, but
by whoever asks for a customer of that step. Who has to wait is answered together with all who ask meanwhile.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

import numpy as np
import orjson
import pyarrow as pa
from aiohttp import web

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.explain import explain
from rfmstream.engine.core.lookup import Found, Row
from rfmstream.engine.files.text_rows import json_lines
from rfmstream.engine.live.access import Access
from rfmstream.engine.live.asked import AskedView, asked_view
from rfmstream.engine.live.board import PARTITIONS_HEADER, READY_STATES, Board, Reads, Watched
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.placement import places_of
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError, TransportError
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.snapshots import SNAPSHOT_SCHEMA, snapshot_schema

ARROW_STREAM: Final = "application/vnd.apache.arrow.stream"
OWNER_HEADER: Final = "Rfmstream-Owner"
"""Of an answer 421: the URL of the worker that has the customer's partition."""

CUSTOMER_ROUTE: Final = "/customers/{id:[^/]+}"
"""Of one customer: an id may hold any character, and a slash in it comes escaped."""

IDS_MAX: Final = 10_000
BODY_BYTES_MAX: Final = 4 << 20
RETRY_AFTER_S: Final = 1

_IDS_AT_ONCE: Final = 2_000
"""So few are looked up at once, so that others wait no longer than the milliseconds that takes."""
_ROWS_HERE: Final = 1_000
"""So few rows are written as JSON on the event loop: that takes two milliseconds, and a thread would cost more."""

Partitions = Mapping[Source, Watched]

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
        self._labels: dict[str, tuple[dict[str, pa.Array], dict[str, int]]] = {}
        self._waiting: list[tuple[str, asyncio.Future[list[Row]]]] = []
        self._answering: asyncio.Task[None] | None = None

    def add_to(self, app: web.Application, access: Access) -> None:
        """Serve GET /customers/{id} and POST /customers."""
        app.router.add_get(CUSTOMER_ROUTE, access.guarded(self._one))
        app.router.add_post("/customers", access.guarded(self._many))

    async def _one(self, request: web.Request) -> web.Response:
        id_, as_of = request.match_info["id"], request.query.get("as_of")
        try:
            view = asked_view(request, self._board, in_one=True)
            partitions = self._ready()
            asked_us = self._instant_of(as_of, partitions)
            at_once, waits = self._look([id_], asked_us, view, partitions)
            if not waits:
                found = _rows(at_once)
            elif asked_us is None and "view" not in request.query and view.population is None:
                found = await self._soon(id_)
            else:
                found = [row for one in await self._find([id_], asked_us, view) for row in _rows(one)]
        except ConfigError as error:
            return web.Response(status=400, text=f"{error}\n")
        except TransportError as error:
            return _later(str(error))
        if not found:
            return self._absent([id_])
        # Records of one customer in several partitions: the state with the newest order is what there is.
        row = max(found, key=lambda row: NEVER_US if row["last_paid_at"] is None else row["last_paid_at"])
        # Whoever has asked for the same customer at the same time has the same row.
        row = dict(row)
        body = orjson.dumps(self._told(row, view.ruleset)) + b"\n"
        return web.Response(body=body, content_type="application/json", headers=self._where())

    async def _many(self, request: web.Request) -> web.Response:
        ids = _ids_in(await request.read())
        if ids is None:
            text = f"send a JSON array of at most {IDS_MAX:,} ids, which are strings\n"
            return web.Response(status=400, text=text)
        try:
            view = asked_view(request, self._board)
            asked_us = self._instant_of(request.query.get("as_of"), self._ready())
            found = [one for one in await self._find(ids, asked_us, view) if one.rows]
        except ConfigError as error:
            return web.Response(status=400, text=f"{error}\n")
        except TransportError as error:
            return _later(str(error))
        tables = [one.table() for one in found]
        if request.headers.get("Accept", "").startswith(ARROW_STREAM):
            body = _arrow(tables, _schema(tables, view.ruleset))
            return web.Response(body=body, content_type=ARROW_STREAM, headers=self._where())
        known = {id_ for one in found for id_ in one.customer_ids()}
        missing = [id_ for id_ in dict.fromkeys(ids) if id_ not in known]
        if missing and (absent := self._absent(missing)).status != web.HTTPNotFound.status_code:
            return absent
        tables = [self._named(table, view.ruleset) for table in tables]
        if sum(one.rows for one in found) <= _ROWS_HERE:
            body = _json(tables, missing)
        else:
            body = await asyncio.to_thread(_json, tables, missing)
        return web.Response(body=body, content_type="application/json", headers=self._where())

    def _ready(self) -> Partitions:
        return {
            source: one
            for source, one in sorted(self._board.partitions.items())
            if one.stats.state in READY_STATES
        }

    async def _soon(self, id_: str) -> list[Row]:
        """Return a customer's rows at the present, found together with those of whoever asks at the same time."""
        answer: asyncio.Future[list[Row]] = asyncio.get_running_loop().create_future()
        self._waiting.append((id_, answer))
        if self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._answer())
        return await answer

    async def _answer(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting[:_IDS_AT_ONCE], self._waiting[_IDS_AT_ONCE:]
            rows: dict[str, list[Row]] = {}
            try:
                for found in await self._find([id_ for id_, _ in asked], None, self._first):
                    for row in _rows(found):
                        rows.setdefault(row["customer_id"], []).append(row)
            except Exception as error:  # noqa: BLE001 - it is theirs who asked
                for _, answer in asked:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for id_, answer in asked:
                if not answer.done():
                    answer.set_result(rows.get(id_, []))

    @property
    def _first(self) -> AskedView:
        """The view that nobody has to name."""
        board = self._board
        view = next((view for view in board.views if not view.shadow), None)
        return AskedView(board.ruleset, view)

    async def _find(self, ids: Sequence[str], asked_us: int | None, view: AskedView) -> list[Found]:
        """Return what the partitions that are ready have.

        Errors  ConfigError     the instant lies before a partition's clock
                TransportError  a partition is being recovered
        """
        found = []
        for at in range(0, len(ids), _IDS_AT_ONCE):
            if at:
                await asyncio.sleep(0)
            some, partitions = ids[at : at + _IDS_AT_ONCE], self._ready()
            at_once, waits = self._look(some, asked_us, view, partitions)
            found += [at_once, *await self._wait_for(waits, at_once, asked_us, view, partitions)]
        return found

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

    def _absent(self, ids: Sequence[str]) -> web.Response:
        """Return what is said of customers that no partition here has: never 404 where another may have them."""
        board = self._board
        if not board.joined or any(one.stats.state not in READY_STATES for one in board.partitions.values()):
            return _later("partitions are being recovered")
        expected = set(board.expected)
        if not expected or expected - set(board.partitions):
            owner = self._owner(ids)
            text = "no customer of this worker's partitions; " + (
                f"ask {owner}\n" if owner else "another worker may have it\n"
            )
            headers = self._where() | ({} if owner is None else {OWNER_HEADER: owner})
            return web.Response(status=421, text=text, headers=headers)
        return web.Response(status=404, text="there is no such customer\n", headers=self._where())

    def _owner(self, ids: Sequence[str]) -> str | None:
        """Return the URL of the worker that has the customers, where that is known."""
        board = self._board
        elsewhere = [source for source in board.expected if source not in board.partitions]
        owners = {board.owners.get(source) for source in elsewhere}
        if len(owners) > 1 and len({source.topic for source in elsewhere}) == 1 and self._is_murmur2():
            count = len({source for source in board.expected if source.topic == elsewhere[0].topic})
            topic = elsewhere[0].topic
            places = places_of([id_.encode() for id_ in ids], count).tolist()
            owners = {board.owners.get(Source(topic, place)) for place in places}
        return owners.pop() if len(owners) == 1 else None

    def _is_murmur2(self) -> bool:
        """Tell whether records lie where Kafka's own hash puts them, as far as any were seen."""
        seen = [one.stats.placement for one in self._board.partitions.values()]
        return all(placement is not None and not placement.elsewhere for placement in seen)

    def _where(self) -> dict[str, str]:
        return {
            PARTITIONS_HEADER: ",".join(map(str, sorted(self._board.partitions))),
            "Cache-Control": "no-store",
        }

    def _told(self, row: Row, ruleset: Ruleset) -> Row:
        """Return a row with what its tier is called and everything behind it."""
        labels, codes = self._labels_of(ruleset)
        code = codes.get(row["tier"])
        named = {name: None if code is None else words[code].as_py() for name, words in labels.items()}
        rules = self._board.rules.get(ruleset.identity)
        why = explain(row, ruleset, rules, as_of_us=row.pop("as_of_us"))
        texts = {
            name: None if row[name] is None else _instant_text(row[name]) for name in _INSTANTS if name in row
        }
        return row | texts | named | {"explain": why}

    def _named(self, table: pa.Table, ruleset: Ruleset) -> pa.Table:
        """Return rows with what their tiers are called."""
        tiers = table["tier"].combine_chunks()
        for name, words in self._labels_of(ruleset)[0].items():
            column = pa.DictionaryArray.from_arrays(tiers.indices, words)
            table = table.append_column(name, column)
        return table

    def _labels_of(self, ruleset: Ruleset) -> tuple[dict[str, pa.Array], dict[str, int]]:
        """Return what tiers are called, by code, and the code of each."""
        known = self._labels.get(ruleset.identity)
        if known is None:
            tiers = ruleset.tiers
            labels = {
                "tier_zh": pa.array([tier.label_zh for tier in tiers], pa.string()),
                "tier_en": pa.array([tier.label_en for tier in tiers], pa.string()),
                "playbook": pa.array([tier.playbook.key for tier in tiers], pa.string()),
            }
            known = labels, {tier.id: code for code, tier in enumerate(tiers)}
            self._labels[ruleset.identity] = known
        return known


def _schema(found: Sequence[pa.Table], ruleset: Ruleset) -> pa.Schema:
    return found[0].schema if found else snapshot_schema(ruleset)


def customer_path(id_: str) -> str:
    """Return the path of a customer: an id may hold any character."""
    return "/customers/" + quote(id_, safe="")


def _ids_in(body: bytes) -> list[str] | None:
    """Return the ids that are asked for; None: that is no list of them."""
    try:
        ids = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    is_one = isinstance(ids, list) and len(ids) <= IDS_MAX and all(isinstance(id_, str) for id_ in ids)
    return ids if is_one else None


def _arrow(tables: Sequence[pa.Table], schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for table in tables:
            writer.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def _json(tables: Sequence[pa.Table], missing: Sequence[str]) -> bytes:
    lines = b"".join(json_lines(batch).to_pybytes() for table in tables for batch in table.to_batches())
    # In JSON a line feed is at the end of a row and nowhere else.
    return b'{"customers":[%s],"not_found":%s}\n' % (lines[:-1].replace(b"\n", b","), orjson.dumps(missing))


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


def _later(why: str) -> web.Response:
    return web.Response(status=503, headers={"Retry-After": str(RETRY_AFTER_S)}, text=f"not ready: {why}\n")
