"""Customers by id over HTTP, for programs: what a snapshot says of them, what their tier is called, and why it is so.

A customer that this worker does not have may be another worker's, or may not be recovered yet. Only a worker that has
every partition of its topics, all of them recovered, answers that there is no such customer.

Who asks while others are being answered waits a moment and is answered together with them: a partition is looked at
once for all of them, between two of its steps.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import numpy as np
import orjson
import pyarrow as pa
from aiohttp import web

from rfmstream.engine.core.explain import explain
from rfmstream.engine.files.text_rows import json_lines
from rfmstream.engine.live.access import Access
from rfmstream.engine.live.asked import AskedView, asked_view
from rfmstream.engine.live.board import PARTITIONS_HEADER, READY_STATES, Board, Watched
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.placement import places_of
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError, TransportError
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.snapshots import SNAPSHOT_SCHEMA, snapshot_schema

ARROW_STREAM: Final = "application/vnd.apache.arrow.stream"
OWNER_HEADER: Final = "Rfmstream-Owner"
"""Of an answer 421: the URL of the worker that has the customer's partition."""

IDS_MAX: Final = 10_000
BODY_BYTES_MAX: Final = 4 << 20
RETRY_AFTER_S: Final = 1

_IDS_AT_ONCE: Final = 2_000
"""So few are looked up at once, so that orders wait no longer than that takes."""

Partitions = Mapping[Source, Watched]
Row = dict[str, Any]

_INSTANTS: Final = tuple(field.name for field in SNAPSHOT_SCHEMA if pa.types.is_timestamp(field.type))


class _Found(NamedTuple):
    """Rows of a snapshot, and the instant they are of."""

    table: pa.Table
    as_of_us: int


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
        app.router.add_get("/customers/{id}", access.guarded(self._one))
        app.router.add_post("/customers", access.guarded(self._many))

    async def _one(self, request: web.Request) -> web.Response:
        id_, as_of = request.match_info["id"], request.query.get("as_of")
        try:
            view = asked_view(request, self._board, in_one=True)
            asked_us = self._instant_of(as_of, self._ready())
            if asked_us is None and "view" not in request.query and view.population is None:
                found = await self._soon(id_)
            else:
                found = [row for rows in await self._find([id_], asked_us, view) for row in _plain(rows)]
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
        try:
            ids = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            ids = None
        if not isinstance(ids, list) or len(ids) > IDS_MAX or not all(isinstance(id_, str) for id_ in ids):
            text = f"send a JSON array of at most {IDS_MAX:,} ids, which are strings\n"
            return web.Response(status=400, text=text)
        try:
            view = asked_view(request, self._board)
            asked_us = self._instant_of(request.query.get("as_of"), self._ready())
            found = [rows.table for rows in await self._find(ids, asked_us, view)]
        except ConfigError as error:
            return web.Response(status=400, text=f"{error}\n")
        except TransportError as error:
            return _later(str(error))
        if request.headers.get("Accept", "").startswith(ARROW_STREAM):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, _schema(found, view.ruleset)) as writer:
                for table in found:
                    writer.write_table(table)
            body = sink.getvalue().to_pybytes()
            return web.Response(body=body, content_type=ARROW_STREAM, headers=self._where())
        known = {id_ for table in found for id_ in table["customer_id"].to_pylist()}
        missing = [id_ for id_ in dict.fromkeys(ids) if id_ not in known]
        if missing and (absent := self._absent(missing)).status != web.HTTPNotFound.status_code:
            return absent
        lines = b"".join(
            [
                json_lines(batch).to_pybytes()
                for table in found
                for batch in self._named(table, view.ruleset).combine_chunks().to_batches()
            ]
        )
        # In JSON a line feed is at the end of a row and nowhere else.
        body = b'{"customers":[%s],"not_found":%s}\n' % (
            lines[:-1].replace(b"\n", b","),
            orjson.dumps(missing),
        )
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
                    for row in _plain(found):
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

    async def _find(self, ids: Sequence[str], asked_us: int | None, view: AskedView) -> list[_Found]:
        """Return what the partitions that are ready have.

        Errors  ConfigError     the instant lies before a partition's clock
                TransportError  a partition is being recovered
        """
        partitions = self._ready()

        async def of(one: Watched) -> list[_Found]:
            parts = [
                await self._ask(one, ids[at : at + _IDS_AT_ONCE], asked_us, partitions, view)
                for at in range(0, len(ids), _IDS_AT_ONCE)
            ]
            return [part for part in parts if part.table.num_rows]

        # At once: each waits for the step that its partition is in.
        found = await asyncio.gather(*map(of, partitions.values()))
        return [part for parts in found for part in parts]

    async def _ask(
        self,
        one: Watched,
        ids: Sequence[str],
        asked_us: int | None,
        partitions: Partitions,
        view: AskedView,
    ) -> _Found:
        if asked_us is not None:
            return _Found(await view.customers(one, ids, asked_us), asked_us)
        as_of_us = max(self._present_us(partitions), one.stats.clock_us)
        try:
            return _Found(await view.customers(one, ids, as_of_us), as_of_us)
        except ConfigError:
            table = await view.customers(one, ids, None)  # its clock has moved on
            return _Found(table, one.stats.clock_us)

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
        rules = self._board.rules if ruleset is self._board.ruleset else None
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


def _plain(found: _Found) -> list[Row]:
    """Return rows with their instants in µs, which may lie in years that a datetime has not, and as_of_us."""
    table = found.table
    names = [*table.schema.names, "as_of_us"]
    columns = [
        (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for column in table.columns
    ]
    rows = zip(*columns, [found.as_of_us] * table.num_rows, strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _instant_text(instant_us: int) -> str:
    """Write an instant as snapshots in JSON lines have it."""
    return f"{np.datetime64(instant_us, 'us')}Z"


def _later(why: str) -> web.Response:
    return web.Response(status=503, headers={"Retry-After": str(RETRY_AFTER_S)}, text=f"not ready: {why}\n")
