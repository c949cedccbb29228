"""Two workers of a group over a real broker: who has a customer, what both tell, and the page of both."""

import asyncio
import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
from kafka_cluster import Cluster
from kafka_workers import RULESET, WorkerProcess, flags_of, worker

from rfmstream.engine.live.page_of_workers import WorkersSource, views_of_workers
from rfmstream.engine.live.placement import places_of

PARTITIONS = 4
CUSTOMERS = [f"c{number}" for number in range(40)]
ANSWER_S = 120


def url_of(process: WorkerProcess, name: str) -> str:
    """Return an address that a worker told when it started."""
    process.wait_for("worker starts")
    found = re.search(rf"\b{name}=(http://\S+)", process.log.read_text())
    assert found is not None, process.log.read_text()
    return found[1]


def asked(url: str) -> tuple[int, bytes, str | None]:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:  # noqa: S310 - of the test
            return answer.status, answer.read(), None
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers.get("Rfmstream-Owner")


def posted(url: str, ids: list[str]) -> Any:  # noqa: ANN401 - JSON
    with urllib.request.urlopen(url, json.dumps(ids).encode(), timeout=ANSWER_S) as answer:  # noqa: S310
        return json.loads(answer.read())


def follow(url: str, found: list[str]) -> None:
    """Take customers of changes until there are as many as expected, from both workers together."""
    with urllib.request.urlopen(f"{url}/changes?from=oldest", timeout=ANSWER_S) as answer:  # noqa: S310
        for line in answer:
            if line.strip():
                found.append(json.loads(line)["customer_id"])
            if len(found) >= len(CUSTOMERS):
                return


def records() -> list[tuple[int, bytes, bytes]]:
    places = places_of([id_.encode() for id_ in CUSTOMERS], PARTITIONS).tolist()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return [
        (
            place,
            id_.encode(),
            orjson.dumps({"customer_id": id_, "order_id": "o1", "occurred_at": now, "amount": "10.00"}),
        )
        for place, id_ in zip(places, CUSTOMERS, strict=True)
    ]


def test_every_customer_is_found_wherever_it_is(cluster: Cluster, tmp_path: Path) -> None:
    flags = flags_of(cluster, tmp_path / "state", listen="127.0.0.1:0", listen_data="127.0.0.1:0")
    asyncio.run(cluster.create(cluster.orders, PARTITIONS))
    with worker(flags, tmp_path / "first") as first, worker(flags, tmp_path / "second") as second:
        for process in (first, second):
            process.wait_for("partitions assigned count=2")
        urls = [url_of(process, "data") for process in (first, second)]
        found: list[str] = []
        readers = [Thread(target=follow, args=(url, found), daemon=True) for url in urls]
        for reader in readers:
            reader.start()
        asyncio.run(cluster.send(records()))
        until = time.monotonic() + ANSWER_S
        while len(found) < len(CUSTOMERS):
            assert time.monotonic() < until, first.log.read_text() + second.log.read_text()
            time.sleep(0.05)
        assert sorted(found) == sorted(CUSTOMERS)

        here = 0
        for id_ in CUSTOMERS:
            status, body, owner = asked(f"{urls[0]}/customers/{id_}")
            if status == 200:
                here += 1
            else:
                assert (status, owner) == (421, urls[1])
                status, body, _ = asked(f"{owner}/customers/{id_}")
            row = json.loads(body)
            assert (status, row["customer_id"], row["explain"]["tier"]) == (200, id_, row["tier"])
        assert 0 < here < len(CUSTOMERS)
        assert asked(f"{urls[1]}/customers/nobody")[::2] == (421, urls[0])
        told = [posted(f"{url}/customers", [*CUSTOMERS, "nobody"]) for url in urls]
        here_of_each = [[row["customer_id"] for row in one["customers"]] for one in told]
        assert sorted(here_of_each[0] + here_of_each[1]) == sorted(CUSTOMERS)
        for one, other, url in zip(told, reversed(here_of_each), reversed(urls), strict=True):
            [group] = one["elsewhere"]
            assert (group["owner"], one["not_found"]) == (url, [])
            assert sorted(group["ids"]) == sorted([*other, "nobody"])
        # Metrics and health are elsewhere, and data is not there.
        status_url = url_of(first, "status")
        assert asked(f"{status_url}/healthz")[0] == 200
        assert asked(f"{status_url}/customers/{CUSTOMERS[0]}")[0] == 404
        asyncio.run(both_together(urls))
        for process in (first, second):
            process.terminate()
            assert process.exit_code() == 0, process.log.read_text()


async def both_together(urls: list[str]) -> None:
    assert await views_of_workers(urls, None, {RULESET.identity: RULESET}.__getitem__) == (RULESET, ())
    source = WorkersSource(urls, RULESET, None)
    await source.start()
    look = source.look(source.asked(None, None))
    look.begin()
    try:
        async with asyncio.timeout(ANSWER_S):
            while not (state := await look.state())["ready"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (state["customers"], state["missing"], len(state["partitions"])) == (40, [], PARTITIONS)
        assert sum(tier["customers"] for tier in state["tiers"]) == 40
        held = await look.held()
        assert sum(table.num_rows for table in held.tables) == 40
        assert sum(table.num_rows for table in held.changes) == 40
    finally:
        look.end()
        await source.stop()
