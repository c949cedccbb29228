"""Views and populations over HTTP, and through `snapshot --worker`."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from served_workers import Shell, serving, watched

from rfmstream.engine.core.views import Views
from rfmstream.engine.live.board import Board
from rfmstream.engine.live.feed import Feed
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.page_of_workers import WorkersSource
from rfmstream.engine.live.snapshots import snapshot_of_workers
from rfmstream.engine.live.state import State
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.plan import Plan, View
from rfmstream.schemas.ruleset import load_ruleset

PLAN = Plan(
    (
        View("next", load_ruleset("types7"), shadow=True),
        View("all", load_ruleset("rfm8")),
        View("by-store", load_ruleset("scores4"), per="store"),
    )
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    views = Views(PLAN, mode="live")
    orders = [("ann", "hk"), ("ann", "tw"), ("bob", "hk"), ("c/d", "tw"), ("ann", "hk")]
    brought = views.step(
        pa.table(
            {
                "customer_id": [customer for customer, _ in orders],
                "order_id": [f"o{n}" for n in range(len(orders))],
                "occurred_at": [f"2026-01-0{n + 1}T00:00:00Z" for n in range(len(orders))],
                "amount": ["10.00"] * len(orders),
                "store": [store for _, store in orders],
            }
        )
    )
    # As a worker's views, they have come to one instant.
    views.advance("2026-01-06T00:00:00Z")
    state = State(views.views.values())

    feed = Feed(PLAN.view("all").ruleset, views=PLAN.views)
    for view, result in brought.views.items():
        if not PLAN.view(view).shadow:
            feed.add(result.changes)
    board = Board(PLAN.view("all").ruleset, "event", joined=True, views=PLAN.views, feed=feed)
    board.expected = [Source("orders.v1", 0)]
    board.partitions[board.expected[0]] = watched(state)
    with serving(board, Shell()) as found:
        yield found


def opened(url: str, data: bytes | None = None) -> Any:  # noqa: ANN401 - a response
    return urllib.request.urlopen(url, data)  # noqa: S310 - a server of the test's own


def get(url: str) -> Any:  # noqa: ANN401 - JSON
    with opened(url) as answer:
        return json.loads(answer.read())


def refused(url: str) -> str:
    with pytest.raises(urllib.error.HTTPError) as error:
        opened(url)
    assert error.value.code == 400
    return error.value.read().decode()


def rows(url: str) -> list[tuple[str, str | None, str, int]]:
    with opened(url) as answer:
        found = pa.ipc.open_stream(answer).read_all().to_pylist()
    names = ("view", "population", "customer_id", "frequency")
    return sorted(tuple(row[name] for name in names) for row in found)


BY_STORE = [
    ("by-store", "hk", "ann", 2),
    ("by-store", "hk", "bob", 1),
    ("by-store", "tw", "ann", 1),
    ("by-store", "tw", "c/d", 1),
]


def test_snapshots(url: str) -> None:
    everybody = [("all", None, "ann", 3), ("all", None, "bob", 1), ("all", None, "c/d", 1)]
    assert rows(f"{url}/snapshot") == rows(f"{url}/snapshot?view=all") == everybody
    assert rows(f"{url}/snapshot?view=next") == [("next", *row[1:]) for row in everybody]
    assert rows(f"{url}/snapshot?view=by-store") == BY_STORE
    assert rows(f"{url}/snapshot?view=by-store&population=tw") == BY_STORE[2:]
    assert rows(f"{url}/snapshot?view=by-store&population=nowhere") == []
    assert rows(f"{url}/tiers/new?view=next") == [("next", None, "bob", 1), ("next", None, "c/d", 1)]
    assert "name one of next, all, by-store" in refused(f"{url}/snapshot?view=other")
    for path in ("/snapshot", "/tiers/100", "/customers/ann", "/customers/ann/changes"):
        assert refused(f"{url}{path}?population=hk") == (
            "population: the view has no populations; leave it out, or name a view that has some: by-store\n"
        )
    with pytest.raises(urllib.error.HTTPError) as error:
        opened(f"{url}/tiers/new")
    assert error.value.code == 404


def test_customers(url: str) -> None:
    ann = get(f"{url}/customers/ann")
    assert (ann["view"], ann["frequency"], ann["tier_en"]) == ("all", 3, "Loyal Low-spend")
    assert get(f"{url}/customers/ann?view=next")["tier"] == "general_value"
    store = get(f"{url}/customers/ann?view=by-store&population=hk")
    assert (store["population"], store["frequency"], store["ruleset"]) == ("hk", 2, "scores4")
    assert store["tier_en"]
    assert refused(f"{url}/customers/ann?view=by-store") == (
        "population: view by-store has a population for each store; name one of hk, tw, or ask for all with"
        " POST /customers\n"
    )
    with pytest.raises(urllib.error.HTTPError) as error:
        opened(f"{url}/customers/bob?view=by-store&population=tw")
    assert error.value.code == 404
    with opened(f"{url}/customers?view=by-store", b'["ann", "bob", "x"]') as answer:
        found = json.loads(answer.read())
    assert found["not_found"] == ["x"]
    assert sorted((row["population"], row["customer_id"]) for row in found["customers"]) == [
        ("hk", "ann"),
        ("hk", "bob"),
        ("tw", "ann"),
    ]


def test_snapshots_from_outside(url: str) -> None:
    found = snapshot_of_workers([url], None, view="by-store", population="hk")
    assert sum(batch.num_rows for batch in found.batches) == 2
    with pytest.raises(ConfigError, match="there is no view 'other'"):
        snapshot_of_workers([url], None, view="other")


def test_the_page_shows_the_first_view_that_is_no_shadow(url: str) -> None:
    state = get(f"{url}/page/state")
    assert (state["ruleset"], state["customers"]) == ("rfm8", 3)
    assert sum(tier["customers"] for tier in state["tiers"]) == 3
    # Each customer's first order and ann's third, and nothing of the stores, whose tiers are others.
    assert [change["view"] for change in state["newest"]] == ["all"] * 4


def test_a_story_is_of_one_view_and_population(url: str) -> None:
    def story(query: str) -> list[tuple[str, str | None]]:
        found = get(f"{url}/customers/ann/changes{query}")["changes"]
        return [(change["view"], change.get("population")) for change in found]

    assert story("") == story("?view=all") == [("all", None)] * 2
    assert set(story("?view=by-store&population=tw")) == {("by-store", "tw")}
    assert {population for _, population in story("?view=by-store")} == {"hk", "tw"}
    assert "no view 'other'" in refused(f"{url}/customers/ann/changes?view=other")


def test_the_page_of_several_workers_draws_one_view(url: str) -> None:
    async def held() -> list[set[str]]:
        source = WorkersSource([url], PLAN.view("all").ruleset, None)
        await source.start()
        try:
            return [set(table["view"].to_pylist()) for table in (await source.held()).changes]
        finally:
            await source.stop()

    assert asyncio.run(held()) == [{"all"}]
