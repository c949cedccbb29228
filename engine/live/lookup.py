"""Customers by id over HTTP, for programs: what a snapshot says of them, and what their tier is called.

A customer that is not here may be with another worker, or not known yet: "there is none" is only said by a worker that
has every partition of its topics, all of them past their recovery.
"""

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson
import pyarrow as pa
from aiohttp import web

from rfmstream.engine.files.text_rows import json_lines
from rfmstream.engine.live.board import PARTITIONS_HEADER, READY_STATES, Board, Watched
from rfmstream.engine.live.model import Source
from rfmstream.schemas.errors import ConfigError, TransportError
from rfmstream.schemas.snapshots import snapshot_schema

ARROW_STREAM: Final = "application/vnd.apache.arrow.stream"
IDS_MAX: Final = 10_000
BODY_BYTES_MAX: Final = 4 << 20
RETRY_AFTER_S: Final = 1

_IDS_AT_ONCE: Final = 500
"""So few are looked up at once, so that orders wait no longer than that takes."""

Partitions = Mapping[Source, Watched]


class Lookup:
    """Answers for single customers.

    In      instant_of  the instant a query names, None for the present; raises ConfigError
            present_us  what the present is
            token       what has to be shown as `Authorization: Bearer`; None: nothing
            is_open     whether customers may be asked for without a token: on loopback
    """

    def __init__(
        self,
        board: Board,
        *,
        instant_of: Callable[[str | None, Partitions], int | None],
        present_us: Callable[[Partitions], int],
        token: str | None,
        is_open: Callable[[], bool],
    ) -> None:
        self._board = board
        self._instant_of = instant_of
        self._present_us = present_us
        self._token = token
        self._is_open = is_open
        self._names = {tier.id: tier for tier in board.ruleset.tiers}

    def add_to(self, app: web.Application) -> None:
        """Serve GET /customers/{id} and POST /customers."""
        app.router.add_get("/customers/{id}", self._one)
        app.router.add_post("/customers", self._many)

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return why nobody may have customers' data without the token; None: this one may."""
        if self._token is None:
            if self._is_open():
                return None
            text = "customers are not served beyond loopback without RFMSTREAM_LISTEN_TOKEN\n"
            return web.Response(status=403, text=text)
        shown = request.headers.get("Authorization", "")
        if hmac.compare_digest(shown.encode("utf-8", "replace"), f"Bearer {self._token}".encode()):
            return None
        return web.Response(
            status=401,
            headers={"WWW-Authenticate": "Bearer"},
            text="show the worker's token as a bearer token\n",
        )

    async def _one(self, request: web.Request) -> web.Response:
        refusal = self.refusal(request)
        if refusal is not None:
            return refusal
        found, answer = await self._find([request.match_info["id"]], request.query.get("as_of"))
        if answer is not None:
            return answer
        rows = self._rows(found)
        if not rows:
            return self._absent()
        # Records of one customer in several partitions: the state with the newest order is what there is.
        row = max(rows, key=lambda row: row["last_paid_at"] or "")
        return web.Response(
            body=orjson.dumps(row) + b"\n", content_type="application/json", headers=self._where()
        )

    async def _many(self, request: web.Request) -> web.Response:
        refusal = self.refusal(request)
        if refusal is not None:
            return refusal
        try:
            ids = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            ids = None
        if not isinstance(ids, list) or len(ids) > IDS_MAX or not all(isinstance(id_, str) for id_ in ids):
            text = f"send a JSON array of at most {IDS_MAX:,} ids, which are strings\n"
            return web.Response(status=400, text=text)
        found, answer = await self._find(ids, request.query.get("as_of"))
        if answer is not None:
            return answer
        if request.headers.get("Accept", "").startswith(ARROW_STREAM):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, self._schema(found)) as writer:
                for table in found:
                    writer.write_table(table)
            body = sink.getvalue().to_pybytes()
            return web.Response(body=body, content_type=ARROW_STREAM, headers=self._where())
        rows = self._rows(found)
        known = {row["customer_id"] for row in rows}
        missing = [id_ for id_ in dict.fromkeys(ids) if id_ not in known]
        if missing and self._absent().status != web.HTTPNotFound.status_code:
            return self._absent()
        document = {"customers": rows, "not_found": missing}
        return web.Response(
            body=orjson.dumps(document) + b"\n", content_type="application/json", headers=self._where()
        )

    async def _find(
        self, ids: Sequence[str], as_of: str | None
    ) -> tuple[list[pa.Table], web.Response | None]:
        """Return what the partitions that are ready have, or the answer where nothing can be said."""
        partitions = {
            source: one
            for source, one in sorted(self._board.partitions.items())
            if one.stats.state in READY_STATES
        }
        try:
            asked_us = self._instant_of(as_of, partitions)
            return [
                table
                for one in partitions.values()
                for at in range(0, len(ids), _IDS_AT_ONCE)
                if (table := await self._ask(one, ids[at : at + _IDS_AT_ONCE], asked_us, partitions)).num_rows
            ], None
        except ConfigError as error:
            return [], web.Response(status=400, text=f"{error}\n")
        except TransportError as error:
            return [], _later(str(error))

    async def _ask(
        self, one: Watched, ids: Sequence[str], asked_us: int | None, partitions: Partitions
    ) -> pa.Table:
        assert one.customers is not None, "a partition that is live can be asked"
        if asked_us is not None:
            return await one.customers(ids, asked_us)
        try:
            return await one.customers(ids, max(self._present_us(partitions), one.stats.clock_us))
        except ConfigError:
            return await one.customers(ids, None)  # its clock has moved on

    def _absent(self) -> web.Response:
        """Return what is said of a customer that no partition here has: never 404 where another may have it."""
        board = self._board
        if not board.joined or any(one.stats.state not in READY_STATES for one in board.partitions.values()):
            return _later("partitions are being recovered")
        expected = set(getattr(board, "expected", ()))
        if not expected or expected - set(board.partitions):
            text = "no customer of this worker's partitions; another worker may have it\n"
            return web.Response(status=421, text=text, headers=self._where())
        return web.Response(status=404, text="there is no such customer\n", headers=self._where())

    def _where(self) -> dict[str, str]:
        return {
            PARTITIONS_HEADER: ",".join(map(str, sorted(self._board.partitions))),
            "Cache-Control": "no-store",
        }

    def _rows(self, found: Sequence[pa.Table]) -> list[dict[str, Any]]:
        """Return rows as `snapshot --out FILE.jsonl` writes them, with the tier's labels and playbook."""
        rows = []
        for table in found:
            for batch in table.to_batches():
                rows += [
                    self._named(orjson.loads(line)) for line in json_lines(batch).to_pybytes().splitlines()
                ]
        return rows

    def _named(self, row: dict[str, Any]) -> dict[str, Any]:
        tier = self._names.get(row["tier"])
        if tier is None:
            return row | {"tier_zh": None, "tier_en": None, "playbook": None}
        return row | {"tier_zh": tier.label_zh, "tier_en": tier.label_en, "playbook": tier.playbook.key}

    def _schema(self, found: Sequence[pa.Table]) -> pa.Schema:
        return found[0].schema if found else snapshot_schema(self._board.ruleset)


def _later(why: str) -> web.Response:
    return web.Response(status=503, headers={"Retry-After": str(RETRY_AFTER_S)}, text=f"not ready: {why}\n")
