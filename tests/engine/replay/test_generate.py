import hashlib
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from oracle import BUILT_IN, Oracle

from rfmstream.engine.replay import generate as generating
from rfmstream.engine.replay.generate import HISTORY_SCHEMA, LOAD_SCHEMA, START, generate, generate_batches
from rfmstream.kernels import generate as kernel
from rfmstream.schemas.errors import ConfigError

HISTORY = {"customers": 2_000, "orders": 40_000, "seed": 7}


@pytest.fixture(scope="module")
def history() -> pl.DataFrame:
    return pl.from_arrow(pa.Table.from_batches(generate_batches(**HISTORY)))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# The hash of the first machine it ran on: any other machine and any later version must draw the same rows.
def test_rows_are_these_for_ever(tmp_path: Path) -> None:
    generate(customers=300, orders=5_000, seed=42, out=tmp_path / "a.csv")
    assert digest(tmp_path / "a.csv").startswith("9c0476eac8f7a7f6")
    generate(customers=300, orders=5_000, seed=42, keys="zipf:1.2", out=tmp_path / "b.csv")
    assert digest(tmp_path / "b.csv").startswith("9ded5121f245416f")


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv", ".jsonl"])
def test_same_seed_same_bytes_and_another_seed_others(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in "abc"]
    for path, seed in zip(paths, (3, 3, 4), strict=True):
        generate(customers=100, orders=1_000, seed=seed, out=path)
    first, again, other = map(digest, paths)
    assert first == again
    assert first != other
    assert sorted(tmp_path.iterdir()) == paths


@pytest.mark.parametrize("keys", ["realistic", "uniform", "zipf:1.2"])
def test_batch_size_changes_no_row(keys: str) -> None:
    whole = pa.Table.from_batches(generate_batches(customers=50, orders=900, seed=1, keys=keys))
    for batch_rows in (1, 7, 256):
        batches = list(generate_batches(customers=50, orders=900, seed=1, keys=keys, batch_rows=batch_rows))
        assert {batch.num_rows for batch in batches[:-1]} <= {batch_rows}
        assert pa.Table.from_batches(batches).equals(whole)


def test_formats_hold_the_same_rows(tmp_path: Path) -> None:
    rows = pa.Table.from_batches(generate_batches(customers=100, orders=1_000, seed=3))
    for suffix in (".parquet", ".arrow", ".csv", ".jsonl"):
        generate(customers=100, orders=1_000, seed=3, out=tmp_path / f"a{suffix}")
    expected = pl.from_arrow(rows)
    assert pl.read_parquet(tmp_path / "a.parquet").equals(expected)
    assert pl.read_ipc(tmp_path / "a.arrow").equals(expected)
    as_text = expected.with_columns(pl.col("occurred_at").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
    assert pl.read_csv(tmp_path / "a.csv").equals(as_text)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == as_text.to_dicts()


def test_summary_counts_the_rows(tmp_path: Path) -> None:
    seen = []
    summary = generate(**HISTORY, out=tmp_path / "a.parquet", on_progress=seen.append)
    frame = pl.read_parquet(tmp_path / "a.parquet")
    kinds = Counter(frame.unique()["type"].to_list())
    assert summary.rows == len(frame)
    assert summary.duplicates == len(frame) - len(frame.unique())
    assert (summary.paid, summary.refunded, summary.cancelled) == (
        kinds["paid"],
        kinds["refunded"],
        kinds["cancelled"],
    )
    assert summary.rows == summary.paid + summary.refunded + summary.cancelled + summary.duplicates
    assert summary.paid == HISTORY["orders"] == seen[-1]


def test_columns_and_ids(history: pl.DataFrame) -> None:
    assert pa.Table.from_batches(generate_batches(**HISTORY)).schema.equals(HISTORY_SCHEMA)
    customers = set(history["customer_id"])
    assert customers == {f"c{number:011d}" for number in range(HISTORY["customers"])}
    orders = history.filter(pl.col("type") == "paid").unique()["order_id"]
    assert sorted(orders) == [f"o{number:010d}" for number in range(HISTORY["orders"])]
    assert history["occurred_at"].min() >= START
    assert history["occurred_at"].max() < START + timedelta(days=730)


def test_refunds_follow_their_order_and_never_exceed_it(history: pl.DataFrame) -> None:
    seen: dict[str, dict[str, Any]] = {}
    left: dict[str, int] = {}
    refunds, cancelled = Counter[str](), set[str]()
    for row in history.unique(maintain_order=True).iter_rows(named=True):
        order, amount = row["order_id"], row["amount_minor"]
        if row["type"] == "paid":
            assert order not in seen
            assert amount >= 100
            seen[order], left[order] = row, amount
            continue
        # The file shows an order before what becomes of it, even where the order is late.
        assert row["customer_id"] == seen[order]["customer_id"]
        assert row["occurred_at"] > seen[order]["occurred_at"]
        if row["type"] == "cancelled":
            assert amount == 0
            assert order not in cancelled
            cancelled.add(order)
        else:
            assert amount > 0
            left[order] -= amount
            refunds[order] += 1
    assert min(left.values()) == 0
    assert not cancelled & set(refunds)
    assert set(refunds.values()) == {1, 2}


@pytest.mark.parametrize("late_share", [0, 0.02])
def test_oracle_rejects_no_row_even_in_file_order(tmp_path: Path, late_share: float) -> None:
    out = tmp_path / "a.parquet"
    summary = generate(customers=100, orders=3_000, seed=9, days=90, late_share=late_share, out=out)
    events = pl.read_parquet(out).with_columns(
        pl.col("occurred_at").to_physical().alias("occurred_at_us"), event_id=None
    )
    oracle = Oracle(BUILT_IN["rfm8"]())
    oracle.step(events.to_dicts())
    assert not oracle.counters["rejected"]
    assert oracle.counters["duplicates"] == summary.duplicates > 0


def test_shares_are_as_promised(history: pl.DataFrame) -> None:
    paid = HISTORY["orders"]
    kinds = Counter(history.unique()["type"].to_list())
    refunded_orders = history.filter(pl.col("type") == "refunded")["order_id"].n_unique()
    assert refunded_orders / paid == pytest.approx(0.03, abs=0.004)
    assert kinds["cancelled"] / paid == pytest.approx(0.01, abs=0.002)
    assert (len(history) - len(history.unique())) / len(history) == pytest.approx(0.005, abs=0.0015)


def test_late_rows_are_few_and_hours_late_at_most() -> None:
    frame = pl.from_arrow(pa.Table.from_batches(generate_batches(**HISTORY, days=20)))
    at_us = frame["occurred_at"].to_physical().to_numpy()
    lag_us = np.maximum.accumulate(at_us) - at_us
    assert (lag_us > 0).mean() == pytest.approx(0.023, abs=0.004)
    assert 3_600_000_000 < lag_us.max() < 7 * 3_600_000_000


def test_without_late_rows_the_file_is_sorted() -> None:
    frame = pl.from_arrow(pa.Table.from_batches(generate_batches(**HISTORY, late_share=0)))
    assert frame["occurred_at"].is_sorted()
    assert len(frame) > len(frame.unique())


def test_history_looks_like_a_shop(history: pl.DataFrame) -> None:
    paid = history.filter(pl.col("type") == "paid").unique()
    orders = paid.group_by("customer_id").len()["len"]
    # A gamma mix: few customers place most orders and many place one, which a Poisson of mean 20 never does.
    assert orders.sort(descending=True).head(200).sum() > 0.4 * len(paid)
    assert (orders == 1).mean() > 0.15
    spend = paid.group_by("customer_id").agg(pl.col("amount_minor").mean())["amount_minor"]
    assert spend.quantile(0.9) > 3 * spend.quantile(0.1)
    hours = Counter(paid["occurred_at"].dt.hour().to_list())
    assert hours[20] > 8 * hours[3]
    last_year = paid.filter(pl.col("occurred_at") >= datetime(2025, 1, 1, tzinfo=UTC))
    months = Counter(last_year["occurred_at"].dt.month().to_list())
    assert months[11] == max(months.values())
    # Some customers of the first year are gone in the second.
    early = set(paid.filter(pl.col("occurred_at") < datetime(2024, 7, 1, tzinfo=UTC))["customer_id"])
    assert 0.1 < len(early - set(last_year["customer_id"])) / len(early) < 0.9


@pytest.mark.parametrize(
    ("customers", "orders", "days"),
    [(1, 1, 1), (1, 500, 1), (1, 50, 3), (30, 30, 1), (5, 3_000, 2), (400, 401, 900)],
)
def test_extremes_keep_the_count(customers: int, orders: int, days: int) -> None:
    frame = pl.from_arrow(
        pa.Table.from_batches(generate_batches(customers=customers, orders=orders, seed=0, days=days))
    )
    paid = frame.filter(pl.col("type") == "paid").unique()
    assert len(paid) == orders
    assert paid["customer_id"].n_unique() == customers
    assert frame["occurred_at"].max() < START + timedelta(days=days)


def test_history_before_1970() -> None:
    start = datetime(1969, 12, 31, 23, 45)  # noqa: DTZ001 - naive is read as UTC
    frame = pl.from_arrow(
        pa.Table.from_batches(
            generate_batches(customers=20, orders=200, seed=0, days=2, start=start, late_share=0)
        )
    )
    assert frame["occurred_at"].is_sorted()
    assert frame["occurred_at"].min() >= datetime(1969, 12, 31, 23, tzinfo=UTC)


@pytest.mark.parametrize("keys", ["uniform", "zipf:1.2", "zipf:0"])
def test_loads_are_plain(keys: str) -> None:
    table = pa.Table.from_batches(
        generate_batches(customers=1_000, orders=50_000, seed=5, days=100, keys=keys)
    )
    frame = pl.from_arrow(table)
    assert table.schema.equals(LOAD_SCHEMA)
    assert len(frame) == 50_000 == frame["order_id"].n_unique()
    assert frame["occurred_at"].is_sorted()
    assert frame["occurred_at"].max() - frame["occurred_at"].min() > timedelta(days=99)
    assert frame["amount_minor"].min() >= 2_000
    assert frame["amount_minor"].max() <= 50_000
    assert frame["amount_minor"].mean() == pytest.approx(26_000, rel=0.02)
    assert {len(customer) for customer in frame["customer_id"]} == {12}


def test_uniform_customers_are_uniform() -> None:
    counts = order_counts("uniform")
    assert chi_square(counts, np.full(100, 1 / 100)) < 150  # 99 degrees of freedom: 1 in 1000 is above 148


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.2, 2.0])
def test_zipf_customers_follow_the_power_of_their_rank(exponent: float) -> None:
    weight = np.arange(1, 101) ** -exponent
    assert chi_square(order_counts(f"zipf:{exponent}"), weight / weight.sum()) < 150


def order_counts(keys: str) -> np.ndarray:
    frame = pl.from_arrow(
        pa.Table.from_batches(generate_batches(customers=100, orders=100_000, seed=11, keys=keys))
    )
    numbers = frame["customer_id"].str.slice(1).cast(pl.Int64).to_numpy()
    return np.bincount(numbers, minlength=100)


def chi_square(counts: np.ndarray, shares: np.ndarray) -> float:
    expected = shares * counts.sum()
    return ((counts - expected) ** 2 / expected).sum()


def test_alias_table_holds_exactly_the_weights() -> None:
    weight = np.array([1, 5, 0, 100, 3, 3, 40], np.uint64)
    alias = np.empty((len(weight), 2), np.uint32)
    kernel.fill_alias(weight, (len(weight) << 32) / int(weight.sum()), alias)
    share = np.zeros(len(weight))
    for column, (threshold, other) in enumerate(alias):
        share[column] += threshold / 2**32
        share[other] += 1 - threshold / 2**32
    assert share / len(weight) == pytest.approx(weight / weight.sum(), abs=1e-8)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"customers": 0}, "customers"),
        ({"orders": 0}, "orders"),
        ({"orders": 1_999}, "orders"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"days": 0}, "days"),
        ({"days": 3_000_000}, "days"),
        ({"late_share": 1.5}, "late_share"),
        ({"keys": "zipf"}, "keys"),
        ({"keys": "zipf:nan"}, "keys"),
        ({"keys": "pareto:1"}, "keys"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        generate(**{**HISTORY, **change}, out=tmp_path / "a.csv")
    assert refused.value.key == key
    assert not list(tmp_path.iterdir())


def test_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(".parquet .arrow .csv .jsonl")):
        generate(**HISTORY, out=tmp_path / "a.xlsx")


def test_interruption_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def interrupt(_orders: int) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "a.parquet"
    out.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        generate(**HISTORY, out=out, on_progress=interrupt)
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_largest_seed_and_plain_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generating, "BATCH_ROWS", 100)
    monkeypatch.chdir(tmp_path)
    summary = generate(customers=10, orders=250, seed=2**64 - 1, keys="uniform", out=Path("a.arrow"))
    assert (summary.rows, summary.paid, summary.late) == (250, 250, 0)
    assert pa.ipc.open_file("a.arrow").read_all().num_rows == 250
