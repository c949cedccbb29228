"""The tier change log and the snapshot of rfm8 and rfm8-annual as batch DataFrames on Polars.

Input: a Parquet file of paid orders, no duplicates: customer_id, order_id, occurred_at, amount_minor.
Source of the rules: docs/semantics.md sections 2 to 6; days are UTC days.

What makes it fast, measured: customers as categories, so that sorting compares integers; one sort, after which every
customer is a run of rows and running sums and neighbours need no `over`; the string ids only at the end.
Threads: POLARS_MAX_THREADS, read when Polars is imported (the --threads option sets it).
"""

import argparse
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

if __name__ == "__main__" and "--threads" in sys.argv:
    os.environ["POLARS_MAX_THREADS"] = sys.argv[sys.argv.index("--threads") + 1]

import polars as pl

WINDOW_DAYS = {"rfm8": None, "rfm8-annual": 365}

_DAY_US = 86_400_000_000
_REASONS = pl.Enum(["first_order", "order", "recency_expired", "window_expired"])
_TIERS = ["000", "001", "010", "011", "100", "101", "110", "111"]
_IDS = pl.Series(_TIERS, dtype=pl.Enum(_TIERS))

_customer = pl.col("customer_id").to_physical()
_begins = (_customer != _customer.shift()).fill_null(value=True)
_same_next = (_customer == _customer.shift(-1)).fill_null(value=False)
_position = pl.int_range(pl.len())


def _since(marks: pl.Expr, value: pl.Expr) -> pl.Expr:
    """Return `value` as it was at the latest row of `marks`; with _begins, at the customer's first row."""
    return pl.when(marks).then(value).forward_fill()


def _tier(recent: pl.Expr, f: pl.Expr, m: pl.Expr) -> pl.Expr:
    return 4 * recent.cast(pl.Int8) + 2 * (f >= 3).cast(pl.Int8) + (m >= 100_000).cast(pl.Int8)


def _read(parquet_path: Path) -> pl.LazyFrame:
    """Scan the orders, by customer and within one by time and arrival: two stable sorts by one integer each."""
    at_us = pl.col("occurred_at").dt.cast_time_unit("us").to_physical()
    return (
        pl.scan_parquet(parquet_path)
        .select(
            pl.col("customer_id").cast(pl.Categorical),
            at_us.alias("at_us"),
            (at_us // _DAY_US * _DAY_US).alias("day_us"),
            "amount_minor",
        )
        .sort("at_us", maintain_order=True)
        .sort(_customer, maintain_order=True)
    )


def _lifetime(orders: pl.LazyFrame, as_of_us: int) -> pl.LazyFrame:
    """Over a lifetime F and M only grow: both sides of an order follow from running sums.

    A customer ages out where the next order comes after the midnight, or at it, as time comes first.
    """
    running = orders.with_columns(
        (pl.col("day_us") + 31 * _DAY_US).alias("drop_us"),
        (_position - _since(_begins, _position) + 1).alias("f"),
        _begins.alias("begins"),
        pl.when(_same_next).then(pl.col("at_us").shift(-1)).otherwise(as_of_us).alias("next_us"),
        (
            pl.col("amount_minor").cum_sum()
            - _since(_begins, pl.col("amount_minor").cum_sum().shift(fill_value=0))
        ).alias("m"),
    )
    tiers = running.with_columns(
        _tier(pl.lit(value=True), pl.col("f"), pl.col("m")).alias("tier"),
        pl.when(~pl.col("begins"))
        .then(
            _tier(
                pl.col("drop_us").shift() > pl.col("at_us"),
                pl.col("f") - 1,
                pl.col("m") - pl.col("amount_minor"),
            )
        )
        .alias("tier_before"),
        (pl.col("drop_us") <= pl.col("next_us")).alias("drops"),
    ).with_columns(pl.col("tier").ne_missing(pl.col("tier_before")).alias("moves"))
    counted = tiers.with_columns(
        (pl.col("moves").cast(pl.Int64) + pl.col("drops")).cum_sum().alias("seq")
    ).with_columns(
        pl.col("seq") - _since(pl.col("begins"), pl.col("seq") - pl.col("moves") - pl.col("drops"))
    )
    moved = counted.filter("moves").select(
        "customer_id",
        pl.col("seq") - pl.col("drops"),
        "at_us",
        pl.col("tier_before").alias("from_tier"),
        pl.col("tier").alias("to_tier"),
        pl.when("begins")
        .then(pl.lit("first_order", _REASONS))
        .otherwise(pl.lit("order", _REASONS))
        .alias("reason"),
    )
    dropped = counted.filter("drops").select(
        "customer_id",
        "seq",
        pl.col("drop_us").alias("at_us"),
        pl.col("tier").alias("from_tier"),
        (pl.col("tier") - 4).alias("to_tier"),
        pl.lit("recency_expired", _REASONS).alias("reason"),
    )
    return pl.concat([moved, dropped])


def _windowed(orders: pl.LazyFrame, as_of_us: int, window_days: int) -> pl.LazyFrame:
    """Within a window every order is up to three points on its customer's line.

    It comes in, it stops being recent unless another came before that, it leaves. Leaving counts even behind the end:
    so the sums of every customer end at zero, and running sums over all rows are those of each customer. Of the points
    that time makes at one instant only the last one counts.
    """
    next_us = pl.when(_same_next).then(pl.col("at_us").shift(-1)).otherwise(as_of_us)
    drop_us = pl.col("day_us") + 31 * _DAY_US
    leave_us = pl.col("day_us") + (window_days + 1) * _DAY_US
    zero, none = pl.lit(0, pl.Int64), pl.lit(None, pl.Int64)
    # Time first: the sort by time is stable.
    points = pl.concat(
        [
            orders.filter(drop_us <= next_us).select(
                "customer_id", drop_us.alias("at_us"), none.alias("drop_us"), zero.alias("f"), zero.alias("m")
            ),
            orders.select(
                "customer_id",
                leave_us.alias("at_us"),
                none.alias("drop_us"),
                zero.alias("f") - 1,
                -pl.col("amount_minor").alias("m"),
            ),
            orders.select(
                "customer_id",
                "at_us",
                drop_us.alias("drop_us"),
                zero.alias("f") + 1,
                pl.col("amount_minor").alias("m"),
            ),
        ]
    )
    by_time = pl.col("drop_us").is_null()
    more_to_come = by_time & by_time.shift(-1) & _same_next & (pl.col("at_us") == pl.col("at_us").shift(-1))
    tiers = (
        points.sort("at_us", maintain_order=True)
        .sort(_customer, maintain_order=True)
        .select(
            "customer_id",
            "at_us",
            by_time.alias("by_time"),
            _tier(
                pl.col("drop_us").forward_fill() > pl.col("at_us"),
                pl.col("f").cum_sum(),
                pl.col("m").cum_sum(),
            ).alias("to_tier"),
            more_to_come.fill_null(value=False).alias("more_to_come"),
        )
        .filter(~pl.col("more_to_come") & (pl.col("at_us") <= as_of_us))
    )
    return (
        tiers.with_columns(pl.when(~_begins).then(pl.col("to_tier").shift()).alias("from_tier"))
        .filter(pl.col("from_tier").ne_missing(pl.col("to_tier")))
        .select(
            "customer_id",
            (_position - _since(_begins, _position) + 1).alias("seq"),
            "at_us",
            "from_tier",
            "to_tier",
            pl.when(pl.col("from_tier").is_null())
            .then(pl.lit("first_order", _REASONS))
            .when(~pl.col("by_time"))
            .then(pl.lit("order", _REASONS))
            .when((pl.col("from_tier") >= 4) & (pl.col("to_tier") < 4))
            .then(pl.lit("recency_expired", _REASONS))
            .otherwise(pl.lit("window_expired", _REASONS))
            .alias("reason"),
        )
    )


def run(parquet_path: Path, ruleset_name: str, as_of: datetime, out_parquet: Path) -> None:
    """Write every tier change up to `as_of`: customer_id, seq, effective_at, from_tier, to_tier, reason."""
    orders, as_of_us, window_days = _read(parquet_path), _microseconds(as_of), WINDOW_DAYS[ruleset_name]
    changes = _lifetime(orders, as_of_us) if window_days is None else _windowed(orders, as_of_us, window_days)
    changes.select(
        pl.col("customer_id").cast(pl.String),
        "seq",
        _instant("at_us").alias("effective_at"),
        _ids("from_tier"),
        _ids("to_tier"),
        "reason",
    ).collect().write_parquet(out_parquet)


def run_snapshot(parquet_path: Path, ruleset_name: str, as_of: datetime, out_parquet: Path) -> None:
    """Write one row a customer as of `as_of`: tier, R, F and M, first order and lifetime totals."""
    as_of_us, window_days = _microseconds(as_of), WINDOW_DAYS[ruleset_name]
    at_us = pl.col("occurred_at").dt.cast_time_unit("us").to_physical()
    amount = pl.col("amount_minor")
    within = (
        pl.lit(value=True) if window_days is None else at_us // _DAY_US + window_days >= as_of_us // _DAY_US
    )
    measured = (
        pl.scan_parquet(parquet_path)
        .group_by("customer_id")
        .agg(
            at_us.max().alias("last_us"),
            at_us.min().alias("first_us"),
            (within & at_us.is_not_null()).sum().cast(pl.Int64).alias("frequency"),
            pl.when(within).then(amount).otherwise(0).sum().alias("monetary_minor"),
            pl.len().cast(pl.Int64).alias("lifetime_orders"),
            amount.sum().alias("lifetime_monetary_minor"),
        )
    )
    days = (as_of_us // _DAY_US - pl.col("last_us") // _DAY_US).alias("recency_days")
    tier = _tier(days <= 30, pl.col("frequency"), pl.col("monetary_minor")).alias("tier")
    measured.with_columns(days, tier).select(
        "customer_id",
        _ids("tier"),
        _instant("last_us").alias("last_paid_at"),
        "recency_days",
        "frequency",
        "monetary_minor",
        _instant("first_us").alias("first_paid_at"),
        "lifetime_orders",
        "lifetime_monetary_minor",
        (pl.col("lifetime_monetary_minor") // pl.col("lifetime_orders")).alias("average_order_minor"),
    ).sink_parquet(out_parquet)


def _ids(name: str) -> pl.Expr:
    """Return the tier ids of a column of codes; null stays null."""
    return pl.lit(_IDS).gather(pl.col(name)).alias(name)


def _instant(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Datetime("us", "UTC"))


def _microseconds(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("orders", type=Path)
    parser.add_argument("ruleset", choices=WINDOW_DAYS)
    parser.add_argument(
        "as_of", type=datetime.fromisoformat, help="with its offset, such as 2026-01-01T00:00:00Z"
    )
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--snapshot", action="store_true", help="write the snapshot instead of the change log"
    )
    parser.add_argument("--threads", type=int, help="default: POLARS_MAX_THREADS, else all cores")
    arguments = parser.parse_args()
    started = time.perf_counter()
    job = run_snapshot if arguments.snapshot else run
    job(arguments.orders, arguments.ruleset, arguments.as_of, arguments.out)
    print(f"polars {pl.__version__}, {pl.thread_pool_size()} threads: {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
