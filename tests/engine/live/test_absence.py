"""Customers that a worker does not have: lists asked of several workers, what no customer can be, and unknown keys."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from served_workers import Shell, page_of_workers, serving, watched

from rfmstream import Engine
from rfmstream.engine.live.board import Board
from rfmstream.engine.live.feed import Feed
from rfmstream.engine.live.http import ARROW_STREAM, StatusServer
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.placement import Placement, places_of
from rfmstream.schemas.errors import TransportError

TOPIC = "orders.v1"
PARTITIONS = 4
CUSTOMERS = [f"c{number}" for number in range(60)]
NOBODY = [f"n{number}" for number in range(20)]


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: Any

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def table(self) -> pa.Table:
        return pa.ipc.open_stream(self.body).read_all()


def ask(url: str, ids: Any = None, *, arrow: bool = False) -> Answer:  # noqa: ANN401 - JSON
    data = None if ids is None else json.dumps(ids).encode()
    headers = {"Accept": ARROW_STREAM} if arrow else {}
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - a server of the test's own
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return Answer(answer.status, answer.read(), answer.headers)
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read(), error.headers)


def board_of(numbers: Sequence[int]) -> Board:
    """Return the board of a worker with some partitions; customers lie where Kafka's own hash puts them."""
    places = dict(
        zip(CUSTOMERS, places_of([id_.encode() for id_ in CUSTOMERS], PARTITIONS).tolist(), strict=True)
    )
    ruleset = Engine("rfm8").ruleset
    board = Board(ruleset, "event", joined=True, feed=Feed(ruleset))
    board.expected = [Source(TOPIC, number) for number in range(PARTITIONS)]
    for number in numbers:
        ids = [id_ for id_, place in places.items() if place == number]
        engine = Engine("rfm8", mode="live")
        engine.step(
            pa.table(
                {
                    "customer_id": ids,
                    "order_id": ["o1"] * len(ids),
                    "occurred_at": ["2026-01-01T00:00:00Z"] * len(ids),
                    "amount": ["10.00"] * len(ids),
                }
            )
        )
        board.partitions[Source(TOPIC, number)] = watched(engine)
    return board


@contextmanager
def workers(*parts: Sequence[int], places_known: bool = True) -> Iterator[tuple[list[str], list[Board]]]:
    """Serve workers that know of each other."""
    boards = [board_of(part) for part in parts]
    with ExitStack() as stack:
        urls = [stack.enter_context(serving(board)) for board in boards]
        owners = {
            Source(TOPIC, number): url for part, url in zip(parts, urls, strict=True) for number in part
        }
        for board in boards:
            board.owners = {source: url for source, url in owners.items() if source not in board.partitions}
            for source, one in board.partitions.items():
                one.stats.placement = Placement(source.partition, PARTITIONS) if places_known else None
        yield urls, boards


def looked_up(urls: Sequence[str], ids: Sequence[str], *, arrow: bool) -> tuple[list[str], list[str]]:
    """Return the customers of a list, and the ids of none, as docs/live.md tells a client to find them."""
    found: list[str] = []
    left = {urls[0]: list(ids)}
    seen: set[str] = set()
    asked: set[tuple[str, str]] = set()
    nowhere = []
    while left:
        url, some = left.popitem()
        answer = ask(f"{url}/customers" + ("?partial=true" if arrow else ""), some, arrow=arrow)
        assert answer.status == 200, answer.text
        asked |= {(url, id_) for id_ in some}
        if arrow:
            table = answer.table
            found += table["customer_id"].to_pylist()
            told = {
                key: json.loads(table.schema.metadata[b"rfmstream." + key.encode()])
                for key in ("not_found", "elsewhere")
            }
        else:
            told = answer.json
            found += [row["customer_id"] for row in told["customers"]]
        nowhere += told["not_found"]
        seen |= set(answer.headers["Rfmstream-Partitions"].split(","))
        for group in told["elsewhere"]:
            for id_ in group["ids"]:
                # Of an unknown owner, or one that was asked, whoever is left is asked.
                rest = [other for other in (group["owner"], *urls) if other and (other, id_) not in asked]
                if rest:
                    left.setdefault(rest[0], []).append(id_)
                else:
                    assert seen == set(answer.headers["Rfmstream-Partitions-Expected"].split(","))
                    nowhere.append(id_)
    return found, nowhere


@pytest.mark.parametrize("arrow", [False, True], ids=["json", "arrow"])
@pytest.mark.parametrize("places_known", [True, False])
@pytest.mark.parametrize("parts", [((0, 1, 2, 3),), ((0, 1), (2, 3)), ((0,), (1, 3), (2,))], ids=len)
def test_a_list_is_found_at_all_workers_together(
    parts: Sequence[Sequence[int]], *, places_known: bool, arrow: bool
) -> None:
    with workers(*parts, places_known=places_known) as (urls, _):
        for first in range(len(urls)):
            found, nowhere = looked_up([*urls[first:], *urls[:first]], CUSTOMERS + NOBODY, arrow=arrow)
            assert sorted(found) == sorted(CUSTOMERS)
            assert sorted(nowhere) == sorted(NOBODY)


def test_every_id_of_a_list_is_told_of_once() -> None:
    with workers((0,), (1, 3), (2,)) as (urls, _):
        ids = CUSTOMERS + NOBODY
        answer = ask(f"{urls[0]}/customers", [*ids, *ids[::-1]])
        assert answer.headers["Rfmstream-Partitions"] == "orders.v1-0"
        told = answer.json
        here = [row["customer_id"] for row in told["customers"]]
        assert 0 < len(here) < len(CUSTOMERS)
        elsewhere = {group["owner"]: group["ids"] for group in told["elsewhere"]}
        assert set(elsewhere) == {None, urls[1], urls[2]}
        # Whose partition is here, and who is not found, may be a customer of a producer with a hash of its own.
        assert set(elsewhere[None]) < set(NOBODY)
        assert sorted([*here, *(id_ for some in elsewhere.values() for id_ in some)]) == sorted(ids)
        assert told["not_found"] == []


def test_as_arrow_nothing_is_left_out_unless_it_is_asked_for() -> None:
    with workers((0, 1), (2, 3)) as (urls, _):
        answer = ask(f"{urls[0]}/customers", CUSTOMERS, arrow=True)
        assert answer.status == 421
        assert "of 60 ids are of no customer in this worker's partitions" in answer.text
        assert answer.headers["Rfmstream-Owner"] == urls[1]
        table = ask(f"{urls[0]}/customers?partial=true", CUSTOMERS, arrow=True).table
        here = table["customer_id"].to_pylist()
        [group] = json.loads(table.schema.metadata[b"rfmstream.elsewhere"])
        assert (sorted(here + group["ids"]), group["owner"]) == (sorted(CUSTOMERS), urls[1])
        # Whoever is here can be had without more words.
        whole = ask(f"{urls[0]}/customers", here, arrow=True).table
        assert whole["customer_id"].to_pylist() == here
        assert table.schema.metadata.keys() == whole.schema.metadata.keys()
        assert whole.schema.metadata[b"rfmstream.ruleset"] == b"rfm8"
        refused = ask(f"{urls[0]}/customers?partial=yes", CUSTOMERS, arrow=True)
        assert (refused.status, refused.text) == (
            400,
            "partial: 'yes' is neither true nor false; write true or false\n",
        )


@pytest.mark.parametrize("arrow", [False, True], ids=["json", "arrow"])
def test_while_a_partition_recovers_nobody_is_said_not_to_be_there(*, arrow: bool) -> None:
    with workers((0, 1), (2, 3)) as (urls, boards):
        known = [row["customer_id"] for row in ask(f"{urls[0]}/customers", CUSTOMERS).json["customers"]]
        of_first = [id_ for id_ in known if places_of([id_.encode()], PARTITIONS)[0] == 0]
        boards[0].partitions[Source(TOPIC, 1)].stats.state = "recovering"
        for ids in (known, CUSTOMERS, NOBODY):
            answer = ask(f"{urls[0]}/customers?partial=true", ids, arrow=arrow)
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert ask(f"{urls[0]}/customers", of_first, arrow=arrow).status == 200
        for path in ("/snapshot", "/tiers/100", f"/customers/{NOBODY[0]}"):
            answer = ask(urls[0] + path)
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1"), path


def test_what_no_customer_can_be_is_refused() -> None:
    with workers((0, 1), (2, 3)) as (urls, _):
        fits, long = "é" * 128, "é" * 128 + "x"
        for path in (
            f"/customers/{urllib.parse.quote(long)}",
            f"/customers/{urllib.parse.quote(long)}/changes",
        ):
            answer = ask(urls[0] + path)
            assert (answer.status, answer.text) == (
                400,
                "id: is 257 bytes long; an id has 1 to 256 bytes of UTF-8\n",
            )
        assert ask(f"{urls[0]}/customers/").text == "id: is empty; an id has 1 to 256 bytes of UTF-8\n"
        assert ask(f"{urls[0]}/customers/{urllib.parse.quote(fits)}").status == 421
        assert ask(f"{urls[0]}/customers", [fits, "x" * 256]).status == 200
        for bad, words in {"": "is empty", long: "is 257 bytes long", "x" * 257: "is 257 bytes long"}.items():
            for arrow in (False, True):
                answer = ask(f"{urls[0]}/customers", ["c1", fits, bad], arrow=arrow)
                assert (answer.status, answer.text.split(";")[0]) == (400, f"body[2]: {words}")


@pytest.mark.parametrize("parts", [((0, 1), (2, 3)), ((0,), (1, 3))], ids=["all", "one elsewhere"])
def test_a_page_of_workers_tells_of_every_id_of_a_list(parts: Sequence[Sequence[int]]) -> None:
    ids = [*CUSTOMERS, *NOBODY]
    here = {number for part in parts for number in part}
    places = places_of([id_.encode() for id_ in CUSTOMERS], PARTITIONS).tolist()
    there = {id_ for id_, place in zip(CUSTOMERS, places, strict=True) if place in here}
    with ExitStack() as stack:
        boards = [board_of(part) for part in parts]
        urls = [stack.enter_context(serving(board, Shell())) for board in boards]
        with page_of_workers(urls, boards[0].ruleset) as url:
            told = ask(f"{url}/customers", ids).json
    elsewhere = {id_ for group in told["elsewhere"] for id_ in group["ids"]}
    assert {row["customer_id"] for row in told["customers"]} == there
    assert (set(told["not_found"]), elsewhere) == (
        (set(NOBODY), set()) if len(here) == PARTITIONS else (set(), set(ids) - there)
    )


def test_no_route_takes_a_key_that_it_does_not_know() -> None:
    board = board_of(range(PARTITIONS))
    keys = {
        "/customers/{id}": "as_of, view, population",
        "/customers": "as_of, view, population, partial",
        "/customers/{id}/changes": "view, population",
        "/changes": "from, follow, view, population",
        "/": "view, population, lang",
        "/page/state": "view, population",
        "/page/stream": "view, population, pictures",
        "/page/views": "view, population",
        "/page/populations": "view, population",
        "/snapshot": "as_of, view, population",
        "/tiers/{tier}": "as_of, view, population",
    }
    server = StatusServer(("127.0.0.1", 0), board, draws=Shell())
    paths = {resource.canonical for resource in server._status.app.router.resources()}
    assert keys.keys() < paths
    with serving(board, Shell()) as url:
        for path in sorted(paths):
            asked = url + path.replace("{id}", "c1").replace("{tier}", "100")
            ids = ["c1"] if path == "/customers" else None
            answer = ask(f"{asked}?as_off=2026-01-01", ids)
            fix = f"its keys are {keys[path]}" if path in keys else "it has none"
            assert answer.status == 400, path
            assert answer.text.startswith("as_off: is no key of "), path
            assert answer.text.endswith(f"; {fix}\n"), path
        answer = ask(f"{url}/customers/c1?as_of=2026-02-01&as_of=2026-03-01")
        assert (answer.status, answer.text) == (400, "as_of: is there more than once; name it once\n")


def test_a_partition_that_comes_while_others_are_looked_in_was_not_looked_in() -> None:
    board = board_of(range(PARTITIONS))
    ids = [id_.encode() for id_ in CUSTOMERS]
    late = Source(TOPIC, 3)
    there = [id_ for id_, place in zip(CUSTOMERS, places_of(ids, PARTITIONS), strict=True) if place == 3]
    one, other = board.partitions.pop(late), board.partitions[Source(TOPIC, 0)]
    reads = other.reads
    assert reads is not None

    class Slow:
        """A partition that has to be waited for; meanwhile this worker is given another one."""

        def committed(self, *_: object) -> None:
            return None

        async def ask(self, question: Any, view: str | None = None, *, small: bool = False) -> Any:  # noqa: ANN401
            board.partitions[late] = one
            return await reads.ask(question, view, small=small)

    with serving(board) as url:
        for path, some in ((f"/customers/{there[0]}", None), ("/customers", there)):
            board.partitions.pop(late, None)
            board.partitions[Source(TOPIC, 0)] = other._replace(reads=Slow())
            assert ask(url + path, some).status == 503
            again = ask(url + path, some)
            assert again.status == 200
    assert [row["customer_id"] for row in again.json["customers"]] == there


def test_a_snapshot_that_breaks_off_is_no_whole_one() -> None:
    board = board_of((0, 1))

    async def lost(*_: object) -> pa.Table:
        raise TransportError("the partition is being recovered")

    later = Source(TOPIC, 1)
    board.partitions[later] = board.partitions[later]._replace(snapshot=lost)
    with serving(board) as url, pytest.raises((http.client.HTTPException, ConnectionError)):
        ask(f"{url}/snapshot")
