"""The segments of the R package rfm: the bounds of its documentation, and its published table where its data is."""

import csv
from itertools import product
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from real_orders import SHARED

from rfmstream.engine.replay.replay import Outputs, open_engine, replay
from rfmstream.schemas.ruleset import load_ruleset

RULESET = Path(__file__).resolve().parents[2] / "examples" / "r-rfm.toml"
ORDERS = SHARED / "rfm_data_orders.csv"
"""Its sample data as CSV: customer_id, order_date, revenue."""
AS_OF_US = 1_167_523_200_000_000
"""2006-12-31 in UTC."""

# Lowest and highest score of R, F and M, and what rfm_segment_summary prints: customers, orders, revenue.
PUBLISHED = {
    "Champions": (((5, 5), (5, 5), (5, 5)), (35, 316, 31_646)),
    "Potential Loyalist": (((3, 5), (3, 5), (2, 5)), (342, 2_211, 204_856)),
    "Loyal Customers": (((2, 4), (2, 4), (2, 4)), (170, 799, 76_562)),
    "Promising": (((3, 4), (1, 3), (3, 5)), (9, 28, 4_249)),
    "New Customers": (((4, 5), (1, 3), (1, 5)), (104, 329, 28_837)),
    "Can't Lose Them": (((1, 2), (3, 4), (4, 5)), (47, 274, 32_446)),
    "At Risk": (((1, 2), (2, 5), (4, 5)), (28, 216, 22_227)),
    "Need Attention": (((1, 3), (3, 5), (3, 5)), (10, 57, 4_562)),
    "About To Sleep": (((2, 3), (1, 3), (1, 4)), (102, 283, 23_449)),
    "Lost": (((1, 1), (1, 5), (1, 5)), (148, 393, 35_324)),
}


def test_every_combination_of_scores() -> None:
    ruleset = load_ruleset(RULESET)
    for scores in product(range(1, 6), repeat=3):
        segment = "Others"
        for name, (bounds, _) in PUBLISHED.items():
            if all(low <= score <= high for score, (low, high) in zip(scores, bounds, strict=True)):
                segment = name
                break
        bands = tuple(score - 1 for score in scores)
        assert {ruleset.tiers[ruleset.lookup[(first, *bands)]].label_en for first in (0, 1)} == {segment}


@pytest.mark.skipif(
    not ORDERS.is_file(), reason="the sample data of the R package is not beside the repository"
)
def test_the_published_table(tmp_path: Path) -> None:
    with ORDERS.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    table = pa.table(
        {
            "order_id": [str(number) for number in range(len(lines))],
            "customer_id": [line["customer_id"] for line in lines],
            "type": ["paid"] * len(lines),
            "occurred_at": pa.array([f"{line['order_date']}T00:00:00" for line in lines])
            .cast(pa.timestamp("us"))
            .cast(pa.timestamp("us", "UTC")),
            "amount_minor": [int(line["revenue"]) * 100 for line in lines],
        }
    )
    orders, snapshot = tmp_path / "orders.parquet", tmp_path / "snapshot.parquet"
    pq.write_table(table, orders)
    ruleset = load_ruleset(RULESET)
    replay(open_engine(ruleset), [orders], outputs=Outputs(snapshot=snapshot), as_of_us=AS_OF_US)
    rows = duckdb.execute(
        "SELECT tier, count(*), sum(frequency)::BIGINT, sum(monetary_minor)::BIGINT FROM read_parquet(?) GROUP BY 1",
        [str(snapshot)],
    ).fetchall()
    labels = {tier.id: tier.label_en for tier in ruleset.tiers}
    found = {labels[tier]: (customers, paid, minor // 100) for tier, customers, paid, minor in rows}
    assert found == {name: counted for name, (_, counted) in PUBLISHED.items()}
