"""Attributes reach the orders from every form of input, as the text they are compared by."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.files.source import open_orders
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import InputMap

BASE = {"customer_id": "a", "occurred_at": "2026-01-01T00:00:00Z", "amount": "5"}


def told(path: Path, *names: str, input_map: InputMap | None = None) -> list[tuple[Any, ...]]:
    """Return the attributes of the orders of a file, in the order of their rows."""
    batches = [
        batch for batch, _ in open_orders([path], currency="CNY", attributes=names, input_map=input_map)
    ]
    rows = [row for batch in batches for row in batch.to_pylist()]
    return [
        tuple(row[f"attribute.{name}"] for name in names) for row in sorted(rows, key=lambda row: row["row"])
    ]


VALUES: list[tuple[Any, str | None]] = [
    ("hk", "hk"),
    ("", None),
    (None, None),
    (7, "7"),
    (True, "true"),
    (False, "false"),
    ("書", "書"),
    ("x" * 5000, "x" * 5000),
]


def test_json_lines(tmp_path: Path) -> None:
    lines = [
        json.dumps({**BASE, "order_id": f"o{at}", "store": value}) for at, (value, _) in enumerate(VALUES)
    ]
    lines.append(
        '{"customer_id":"a","order_id":"z","occurred_at":"2026-01-01T00:00:00Z","amount":"5","store":0.10}'
    )
    lines.append('{"customer_id":"a","order_id":"y","occurred_at":"2026-01-01T00:00:00Z","amount":"5"}')
    path = tmp_path / "orders.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    # Digits stay as they are written.
    assert told(path, "store") == [*((text,) for _, text in VALUES), ("0.10",), (None,)]


def test_json_paths_and_arrays(tmp_path: Path) -> None:
    rows = [
        {**BASE, "order_id": "o1", "shop": {"store": "hk"}, "category": 3},
        {**BASE, "order_id": "o2", "shop": {}, "category": "b"},
        {**BASE, "order_id": "o3", "shop": None},
    ]
    lines = tmp_path / "orders.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    array = tmp_path / "orders.json"
    array.write_text(json.dumps(rows))
    for path in (lines, array):
        assert told(path, "shop.store", "category") == [("hk", "3"), (None, "b"), (None, None)]


def test_an_attribute_that_is_no_text_makes_its_row_malformed(tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    path.write_text(json.dumps({**BASE, "order_id": "o1", "store": ["hk"]}))
    rejected = [
        row for _, bad in open_orders([path], currency="CNY", attributes=["store"]) for row in bad.to_pylist()
    ]
    assert [row["reason"] for row in rejected] == ["malformed"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, None, -3], pa.int16()), ["1", None, "-3"]),
        (pa.array([True, None, False]), ["true", None, "false"]),
        (pa.array(["a", None, ""]).dictionary_encode(), ["a", None, None]),
        (pa.array(["a", None, "ü"], pa.large_string()), ["a", None, "ü"]),
        (pa.array([Decimal("1.50"), None, Decimal("2.00")]), ["1.50", None, "2.00"]),
        (pa.nulls(3), [None, None, None]),
    ],
    ids=str,
)
def test_columns_of_parquet(tmp_path: Path, column: pa.Array, expected: list[str | None]) -> None:
    base = {name: [value] * 3 for name, value in BASE.items()}
    table = pa.table({**base, "order_id": ["o1", "o2", "o3"], "store": column})
    path = tmp_path / "orders.parquet"
    pq.write_table(table, path)
    assert told(path, "store") == [(text,) for text in expected]


def test_orders_that_are_sorted_keep_theirs(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    rows = [f"a,o{day},2026-01-{day:02},5,s{day}" for day in range(28, 0, -1)]
    path.write_text("customer_id,order_id,occurred_at,amount,store\n" + "\n".join(rows))
    for budget in (1, 1 << 30):  # through runs on disk, and in memory
        batches = open_orders([path], currency="CNY", attributes=["store"], memory_budget_bytes=budget)
        found = [row for batch, _ in batches for row in batch.to_pylist()]
        assert [row["order_id"] for row in found] == [f"o{day}" for day in range(1, 29)]
        assert all(row["attribute.store"] == f"s{row['order_id'][1:]}" for row in found)


def test_columns_that_are_there_twice_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("customer_id,order_id,occurred_at,amount,store,store\na,o,2026-01-01,5,x,y\n")
    with pytest.raises(InputError, match="2 columns store"):
        told(path, "store")
    with pytest.raises(
        InputError, match="no column shop, which a view looks at; the columns are customer_id"
    ):
        told(path, "shop")


def test_a_map_that_does_not_say_it_leaves_the_column_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("Who,No,When,Paid,store,Kind\na,1,2026-01-01,5,hk, Books \n")
    (tmp_path / "map.toml").write_text(
        'name = "m"\n[attributes]\ncategory = { column = "Kind", case = "lower" }\n[[event]]\n'
        'customer_id = "Who"\norder_id = "No"\noccurred_at = "When"\namount = "Paid"\n'
    )
    form = load_map(tmp_path / "map.toml")
    assert told(path, "store", "category", input_map=form) == [("hk", "books")]
    with pytest.raises(InputError, match="no column brand, which a view looks at; the columns are Who"):
        told(path, "brand", input_map=form)
