"""Customers' rows as JSON against what a snapshot in JSON lines has."""

import json
from collections.abc import Sequence

import pyarrow as pa
import pytest

from rfmstream import Engine
from rfmstream.engine.core.lookup import rows_of
from rfmstream.engine.core.views import Views
from rfmstream.engine.files.text_rows import json_lines
from rfmstream.engine.live.customer_rows import CustomerRows
from rfmstream.schemas.plan import Plan, View
from rfmstream.schemas.ruleset import Ruleset, load_ruleset

IDS = [
    "ann",
    "東京/3",
    'a"b\\c',
    "tab\tand\x01",
    "é" * 128,
    "00042",
    *(f"c{number}" for number in range(300)),
]


def orders(ids: Sequence[str]) -> pa.Table:
    """Return an order each; every third is cancelled, so that its customer has no tier."""
    rows = [
        {"customer_id": id_, "order_id": f"o{at}", "type": type_, "store": f"s{at % 3}"}
        | {"occurred_at": f"2026-01-{1 + at % 28:02d}T10:00:0{at % 7}.00{at % 10}Z", "amount": amount}
        for at, id_ in enumerate(ids)
        for type_, amount in [("paid", f"{at * 7}.50"), ("cancelled", None)][: 2 if at % 3 == 0 else 1]
    ]
    return pa.Table.from_pylist(rows)


def as_written(table: pa.Table, ruleset: Ruleset) -> list[bytes]:
    """Return the rows as `json_lines` and a plain dict of tiers make them."""
    tiers = {tier.id: tier for tier in ruleset.tiers}
    lines = b"".join(json_lines(batch).to_pybytes() for batch in table.to_batches()).splitlines()
    found = []
    for line in lines:
        tier = tiers.get(json.loads(line)["tier"])
        names = (
            {"tier_zh": tier.label_zh, "tier_en": tier.label_en, "playbook": tier.playbook.key}
            if tier
            else dict.fromkeys(("tier_zh", "tier_en", "playbook"))
        )
        text = json.dumps(names, ensure_ascii=False, separators=(",", ":"))
        found.append(line[:-1] + b"," + text[1:].encode())
    return found


@pytest.mark.parametrize("name", ["rfm8", "rfm8-annual", "types7", "scores4"])
def test_rows_are_those_of_a_snapshot(name: str) -> None:
    engine = Engine(name, mode="live")
    engine.step(orders(IDS))
    engine.advance("2026-03-01T00:00:00Z")
    for ids in ([], ["ann"], IDS):
        table = rows_of(engine, [*ids, "nobody"])
        assert table.num_rows == len(ids)
        assert table["tier"].null_count == sum(at % 3 == 0 for at in range(len(ids)))
        pieces = CustomerRows(engine.ruleset).as_json(table)
        assert b",".join(pieces) == b",".join(as_written(table, engine.ruleset))
        assert len(json.loads(b"[%s]" % b",".join(pieces))) == len(ids)


def test_rows_of_populations() -> None:
    plan = Plan((View("by-store", load_ruleset("rfm8"), per="store"),))
    views = Views(plan, mode="live")
    views.step(orders(IDS))
    engine = next(iter(views.views.values())).engine
    table = rows_of(engine, IDS)
    assert set(table["population"].to_pylist()) == {"s0", "s1", "s2"}
    pieces = CustomerRows(engine.ruleset).as_json(table)
    assert b",".join(pieces) == b",".join(as_written(table, engine.ruleset))


def test_more_rows_than_a_batch_of_records_holds() -> None:
    engine = Engine("rfm8", mode="live")
    engine.step(orders([f"{number:0200d}" for number in range(3_000)]))
    table = engine.snapshot()
    pieces = CustomerRows(engine.ruleset).as_json(table)
    assert len(pieces) > 1
    assert b",".join(pieces) == b",".join(as_written(table, engine.ruleset))


@pytest.mark.parametrize("count", [1, 63, 64, 65, 300])
def test_customers_are_found_wherever_they_stand_in_a_list(count: int) -> None:
    engine = Engine("rfm8", mode="live")
    engine.step(orders([f"c{number}" for number in range(0, count, 2)]))
    erased = {
        "customer_id": ["c0"],
        "order_id": ["o"],
        "type": ["erased"],
        "occurred_at": ["2026-02-01T00:00:00Z"],
    }
    engine.step(pa.table(erased))
    found = rows_of(engine, [f"c{number}" for number in range(count)])
    assert found["customer_id"].to_pylist() == [f"c{number}" for number in range(2, count, 2)]
