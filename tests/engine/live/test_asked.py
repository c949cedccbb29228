"""Views and populations over HTTP, and through `snapshot --worker`."""

import asyncio
import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
from served_workers import Shell, page_of_workers, serving, watched

from rfmstream.engine.core.views import Views
from rfmstream.engine.live.board import Board
from rfmstream.engine.live.change_stream import ARROW_STREAM
from rfmstream.engine.live.feed import Feed
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.page_of_workers import WorkersSource, views_of_workers
from rfmstream.engine.live.snapshots import snapshot_of_workers
from rfmstream.engine.live.state import State
from rfmstream.engine.live.stats import count_changes
from rfmstream.schemas.errors import ConfigError, StateError
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

    feed, shadows = (Feed(PLAN.view("all").ruleset, views=PLAN.views) for _ in range(2))
    for view, result in brought.views.items():
        (shadows if PLAN.view(view).shadow else feed).add(result.changes)
    board = Board(
        PLAN.view("all").ruleset, "event", joined=True, views=PLAN.views, feed=feed, shadows=shadows
    )
    board.expected = [Source("orders.v1", 0)]
    board.partitions[board.expected[0]] = one = watched(state)
    for view, result in brought.views.items():
        # Its tiers are known already.
        count_changes(result.changes, one.stats.of(view).changes, Counter())
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


def followed(url: str, query: str) -> list[tuple[str, str | None, str]]:
    with opened(f"{url}/changes?from=oldest&follow=false{query}") as answer:
        lines = [json.loads(line) for line in answer.read().splitlines()]
    names = ("view", "population", "customer_id")
    found = [tuple(line.get(name) for name in names) for line in lines]
    request = urllib.request.Request(f"{url}/changes?{query}", headers={"Accept": ARROW_STREAM})  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        rows = pa.ipc.open_stream(answer).read_all().to_pylist()
    # A table has what lines have.
    assert [tuple(row[name] for name in names) for row in rows] == found
    return found


def test_changes_of_a_view_and_a_population(url: str) -> None:
    everybody = followed(url, "")
    assert {view for view, _, _ in everybody} == {"all", "by-store"}
    assert followed(url, "&view=all") == [row for row in everybody if row[0] == "all"]
    hk = followed(url, "&view=by-store&population=hk")
    assert hk == [row for row in everybody if row[1] == "hk"]
    assert {customer for _, _, customer in hk} == {"ann", "bob"}
    # A shadow's are told only to who names it.
    shadow = followed(url, "&view=next")
    assert len(shadow) >= 3
    assert {view for view, _, _ in shadow} == {"next"}
    assert "no view 'other'" in refused(f"{url}/changes?view=other")


def test_a_story_of_a_shadow(url: str) -> None:
    found = get(f"{url}/customers/ann/changes?view=next")["changes"]
    assert [change["view"] for change in found] == ["next"] * len(found)
    assert found[-1]["to_tier"] == "general_value"


def counted(state: dict[str, Any]) -> dict[str, int]:
    return {tier["id"]: tier["customers"] for tier in state["tiers"] if tier["customers"]}


def tiers_in(url: str, query: str) -> dict[str, int]:
    with opened(f"{url}/snapshot?{query}") as answer:
        return dict(Counter(pa.ipc.open_stream(answer).read_all()["tier"].to_pylist()))


def check_page(url: str, of: str) -> None:
    """Compare what the page at `url` tells of each choice with the snapshots of the worker `of`."""
    for query, view, population, customers in (
        ("", "all", None, 3),
        ("view=next", "next", None, 3),
        ("view=by-store", "by-store", None, 4),
        ("view=by-store&population=tw", "by-store", "tw", 2),
        ("view=by-store&population=nowhere", "by-store", "nowhere", 0),
    ):
        state = get(f"{url}/page/state?{query}")
        assert (state["view"], state["population"], state["customers"]) == (view, population, customers)
        assert counted(state) == tiers_in(of, query)
        told = followed(of, f"&view={view}" + ("" if population is None else f"&population={population}"))
        assert state["changes"] == len(told)
        assert len(state["newest"]) == min(len(told), 10)
        shown = {(change["view"], change.get("population")) for change in state["newest"]}
        assert shown <= {(view, place) for place in ([population] if population else ["hk", "tw", None])}
    names = [(each["name"], each["per"], each["shadow"]) for each in get(f"{url}/page/state")["views"]]
    assert names == [("next", None, True), ("all", None, False), ("by-store", "store", False)]
    stores = [{"name": name, "customers": 2} for name in ("hk", "tw")]
    assert get(f"{url}/page/populations?view=by-store") == {"populations": stores, "all": 2}
    assert get(f"{url}/page/populations?view=all") == {"populations": [], "all": 0}
    for path in ("state", "stream", "views", "populations"):
        assert "no view 'other'" in refused(f"{url}/page/{path}?view=other")
        assert "has no populations" in refused(f"{url}/page/{path}?view=all&population=hk")


def test_the_page_tells_of_what_is_chosen(url: str) -> None:
    check_page(url, url)


@contextmanager
def page_of(*urls: str) -> Iterator[str]:
    """Serve the page of workers as `rfmstream page` does, and give its URL."""
    known = {view.ruleset.identity: view.ruleset for view in PLAN.views}
    ruleset, views = asyncio.run(views_of_workers(urls, None, known.__getitem__))
    assert (ruleset.identity, views) == ("rfm8", PLAN.views)
    with page_of_workers(urls, ruleset, views) as page:
        yield page


def test_the_page_of_workers_tells_of_what_is_chosen(url: str) -> None:
    with page_of(url) as page:
        check_page(page, url)
        for query in ("?view=next", "?view=by-store&population=hk"):
            path = f"customers/ann{query}"
            assert get(f"{page}/{path}")["ruleset"] == get(f"{url}/{path}")["ruleset"]
        with opened(f"{page}/customers?view=by-store", b'["ann", "x"]') as answer:
            found = json.loads(answer.read())
        assert (len(found["customers"]), found["not_found"]) == (2, ["x"])
        with pytest.raises(urllib.error.HTTPError) as error:
            opened(f"{page}/customers/x")
        assert error.value.code == 404


def test_the_page_of_workers_draws_what_is_chosen(url: str) -> None:
    async def held(view: str, population: str | None) -> tuple[int, set[tuple[str, str | None]]]:
        source = WorkersSource([url], PLAN.view("all").ruleset, None, views=PLAN.views)
        await source.start()
        try:
            found = await source.look(source.asked(view, population)).held()
        finally:
            await source.stop()
        rows = [row for table in found.changes for row in table.to_pylist()]
        return sum(table.num_rows for table in found.tables), {
            (row["view"], row["population"]) for row in rows
        }

    assert asyncio.run(held("all", None)) == (3, {("all", None)})
    assert asyncio.run(held("next", None)) == (3, {("next", None)})
    assert asyncio.run(held("by-store", "tw")) == (2, {("by-store", "tw")})


def test_nobody_who_looks_at_one_worker_reads_another_s_views(url: str) -> None:
    ruleset = PLAN.view("all").ruleset
    with (
        serving(Board(ruleset, "event", joined=True), Shell()) as other,
        pytest.raises(StateError, match="different rulesets or views"),
    ):
        asyncio.run(views_of_workers([url, other], None, load_ruleset))
