"""--ids: several ids of one customer."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfmstream.engine.files.identities import load_identities
from rfmstream.engine.files.source import open_orders
from rfmstream.schemas.errors import InputError

ORDERS = """customer_id,order_id,occurred_at,amount
ann@x,1,2024-01-01,5
c1,2,2024-01-02,5
ann2,3,2024-01-03,5
bob,4,2024-01-04,5
"""


def customers(path: Path, ids: Path) -> list[str]:
    stream = open_orders([path], currency="USD", identities=load_identities(ids))
    return [row["customer_id"] for orders, _ in stream for row in orders.to_pylist()]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_orders_of_an_alias_are_the_customers(tmp_path: Path, suffix: str) -> None:
    orders, ids = tmp_path / "orders.csv", tmp_path / f"ids.{suffix}"
    orders.write_text(ORDERS)
    pairs = [("ann@x", "c1"), ("ann2", "c1"), ("ann2", "c1"), ("c1", "c1"), ("nobody", "c9")]
    if suffix == "csv":
        ids.write_text("note,alias,customer_id\n" + "".join(f"x,{alias},{own}\n" for alias, own in pairs))
    elif suffix == "jsonl":
        ids.write_text("".join(f'{{"alias":"{alias}","customer_id":"{own}"}}\n' for alias, own in pairs))
    else:
        table = {"customer_id": [own for _, own in pairs], "alias": [alias for alias, _ in pairs]}
        pq.write_table(pa.table(table), ids)
    assert customers(orders, ids) == ["c1", "c1", "c1", "bob"]


def test_lines_of_json_that_are_read_as_they_stand_have_their_own_ids_too(tmp_path: Path) -> None:
    orders, ids = tmp_path / "orders.jsonl", tmp_path / "ids.csv"
    orders.write_text(
        '{"customer_id":"a","order_id":"1","occurred_at":"2024-01-01T00:00:00Z","amount":"5"}\n'
    )
    ids.write_text("alias,customer_id\na,b\n")
    assert customers(orders, ids) == ["b"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("a,b\nb,c\n", "'a' stands for 'b', which stands for 'c': a chain"),
        ("a,b\nb,a\n", "a circle"),
        ("a,b\na,c\n", "'a' stands for 'b' and for 'c'"),
        ("a,\n", "row 0: has no customer_id"),
        ("a,b\n,c\n", "row 1: has no alias"),
        (f"{'a' * 257},c\n", "has no alias, or none that is"),
        ("a,b,c\n", "cannot be split"),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, rows: str, words: str) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("alias,customer_id\n" + rows)
    with pytest.raises(InputError, match=words):
        load_identities(path)


def test_the_columns_have_names(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv"
    path.write_text("from,customer_id\na,b\n")
    with pytest.raises(
        InputError, match="no column alias; the columns are from, customer_id; name the columns"
    ):
        load_identities(path)
