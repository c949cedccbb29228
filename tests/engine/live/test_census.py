"""Customers of each population and tier, as the census counts them, and as a snapshot has them."""

import asyncio
import time
from collections import Counter

import pyarrow as pa
import pytest
from served_workers import watched

from rfmstream.engine.core.views import Views
from rfmstream.engine.live.board import Board
from rfmstream.engine.live.census import Census
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.state import State
from rfmstream.schemas.plan import Plan, View
from rfmstream.schemas.ruleset import load_ruleset

VIEW = View("by-store", load_ruleset("rfm8"), per="store")
LONG = "long" * 64
"""Longer than a key can hold beside its population: the key has its digest."""


def orders(count: int, store_of: int, *, type_: str = "paid") -> pa.Table:
    """Return orders of customers who buy in several of `store_of` stores."""
    return pa.table(
        {
            "customer_id": [LONG if at % 13 == 0 else f"c{at * 7 % 40}" for at in range(count)],
            "order_id": [f"{type_}-{at}" for at in range(count)],
            "type": [type_] * count,
            "occurred_at": [f"2026-01-{1 + at % 28:02d}T00:00:00Z" for at in range(count)],
            "amount": ["400.00" if type_ == "paid" else None] * count,
            # More stores than seven bits of a key's prefix can number.
            "store": [f"s{at * 31 % store_of}" for at in range(count)],
        }
    )


def test_it_counts_what_snapshots_have() -> None:
    partitions = [Views(Plan((VIEW,))) for _ in range(2)]
    partitions[0].step(orders(3_000, 300))
    partitions[1].step(orders(500, 4))
    erased = orders(5, 4, type_="erased").drop_columns(["store"])
    partitions[0].step(erased.append_column("store", pa.nulls(5, pa.string())))
    sources = [Source("orders.v1", number) for number in range(2)]
    board = Board(
        VIEW.ruleset,
        "event",
        {
            source: watched(State(views.views.values()))
            for source, views in zip(sources, partitions, strict=True)
        },
        joined=True,
        views=(VIEW,),
    )
    rows = [
        (row["population"], row["tier"])
        for views in partitions
        for row in views.snapshot(view="by-store").select(["population", "tier"]).to_pylist()
    ]
    census = Census(board, VIEW)
    populations = Counter(population for population, _ in rows)
    assert len(populations) == 300
    assert asyncio.run(census.populations()) == dict(populations)
    tiers = [None, *(tier.id for tier in VIEW.ruleset.tiers)]
    for population in ("s0", "s1", "s299"):
        counted = asyncio.run(census.tiers(population))
        assert counted == [rows.count((population, tier)) for tier in tiers], population
        assert sum(counted) == populations[population]
    assert sum(asyncio.run(census.tiers("nowhere"))) == 0


def test_it_counts_again_after_a_commit_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    views = Views(Plan((VIEW,)))
    views.step(orders(1, 1))
    one = watched(State(views.views.values()))
    census = Census(Board(VIEW.ruleset, "event", {Source("o", 0): one}, joined=True, views=(VIEW,)), VIEW)

    def counted() -> int:
        return asyncio.run(census.populations())["s0"]

    assert counted() == 1
    views.step(orders(3, 1))
    now[0] += 10
    assert counted() == 1
    one.stats.committed += 3
    assert counted() == 3
    # Soon after that nobody counts again.
    views.step(orders(6, 1))
    one.stats.committed += 3
    assert counted() == 3
    now[0] += 10
    assert counted() == 6
