"""The peers of the benchmarks do the same job: the oracle, DuckDB, Polars and the engine agree row by row."""

import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from oracle import BUILT_IN, Oracle, replay
from twins import in_order, plain_rows

from rfmstream import Engine
from rfmstream.engine.replay.generate import LOAD_SCHEMA, generate_batches

pytest.importorskip("duckdb")
sys.path.insert(0, str(Path(__file__).parents[2] / "bench" / "peers"))
import change_log_duckdb as by_duckdb
import change_log_polars as by_polars

CHANGE_COLUMNS = ("customer_id", "seq", "effective_at", "from_tier", "to_tier", "reason")
SNAPSHOT_COLUMNS = (
    *("customer_id", "tier", "last_paid_at", "recency_days", "frequency", "monetary_minor"),
    *("first_paid_at", "lifetime_orders", "lifetime_monetary_minor", "average_order_minor"),
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PEERS = {"duckdb": by_duckdb, "polars": by_polars}

Rows = list[dict[str, Any]]


def drawn() -> pa.Table:
    """Draw two and a half years of orders of customers who come back after 30 days on average."""
    return pa.Table.from_batches(
        generate_batches(customers=30, orders=900, seed=5, days=900, keys="zipf:0.7")
    )


def contrived() -> pa.Table:
    """Draw orders that meet: several at one instant, at midnight, on the day others drop or leave, unsorted, free."""
    choose = random.Random(8).choice  # noqa: S311 - seeded, so that a failure repeats
    days = sorted({base + step for base in (0, 31, 62, 366, 397, 732) for step in (-1, 0, 1)})
    rows = [
        {
            "customer_id": choose("ab") * choose([1, 1, 40]),
            "order_id": str(number),
            "occurred_at": EPOCH + timedelta(days=15_000 + choose(days), hours=choose([0, 0, 0, 12])),
            "amount_minor": choose([0, 1, 50_000, 99_999, 100_000]),
        }
        for number in range(60)
    ]
    return pa.Table.from_pylist(rows, schema=LOAD_SCHEMA)


@pytest.fixture(scope="module", params=[drawn, contrived])
def orders(request: pytest.FixtureRequest) -> pa.Table:
    table: pa.Table = request.param()
    return table


@pytest.fixture(scope="module")
def path(orders: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("orders") / "orders.parquet"
    pq.write_table(orders, out)
    return out


@pytest.fixture(scope="module", params=["rfm8", "rfm8-annual"])
def ruleset(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# At the last order, at a midnight, in between, and when everything has expired.
@pytest.fixture(scope="module", params=[0, "midnight", 40, 400])
def as_of(request: pytest.FixtureRequest, orders: pa.Table) -> datetime:
    last: datetime = orders["occurred_at"].to_numpy().max().item().replace(tzinfo=UTC)
    if request.param == "midnight":
        return datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=31)
    return last + timedelta(days=request.param)


@pytest.fixture(scope="module")
def oracle(orders: pa.Table, ruleset: str, as_of: datetime) -> Oracle:
    events = [
        {"type": "paid", "event_id": None, "occurred_at_us": row.pop("occurred_at"), **row}
        for row in plain_rows(orders)
    ]
    return replay(BUILT_IN[ruleset](), events, (as_of - EPOCH) // timedelta(microseconds=1))


def only(columns: tuple[str, ...], rows: Rows) -> Rows:
    return [{name: row[name] for name in columns} for row in rows]


@pytest.mark.parametrize("peer", PEERS)
def test_peers(peer: str, path: Path, oracle: Oracle, ruleset: str, as_of: datetime) -> None:
    out = path.with_name(f"{peer}.parquet")
    PEERS[peer].run(path, ruleset, as_of, out)
    assert in_order(read(out, CHANGE_COLUMNS)) == only(CHANGE_COLUMNS, in_order(oracle.changes))
    PEERS[peer].run_snapshot(path, ruleset, as_of, out)
    snapshot = sorted(read(out, SNAPSHOT_COLUMNS), key=lambda row: row["customer_id"])
    assert snapshot == only(SNAPSHOT_COLUMNS, oracle.snapshot())


def read(path: Path, columns: tuple[str, ...]) -> Rows:
    frame = pl.read_parquet(path).cast({pl.Enum: pl.String})
    assert frame.columns == list(columns)
    return plain_rows(frame.to_arrow())


def test_engine(orders: pa.Table, oracle: Oracle, ruleset: str, as_of: datetime) -> None:
    engine = Engine(ruleset)
    # The engine steps through a sorted history; sort_by alone is not stable.
    numbered = orders.append_column("row", pa.array(range(len(orders))))
    ordered = numbered.sort_by([("occurred_at", "ascending"), ("row", "ascending")]).drop_columns(["row"])
    changes = plain_rows(engine.step(ordered).changes) + plain_rows(engine.advance(as_of))
    assert only(CHANGE_COLUMNS, in_order(changes)) == only(CHANGE_COLUMNS, in_order(oracle.changes))
    snapshot = sorted(plain_rows(engine.snapshot(as_of)), key=lambda row: row["customer_id"])
    assert only(SNAPSHOT_COLUMNS, snapshot) == only(SNAPSHOT_COLUMNS, oracle.snapshot())
