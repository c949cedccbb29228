"""The tier change log and the snapshot of rfm8 and rfm8-annual as batch SQL on DuckDB.

Input: a Parquet file of paid orders since 1970, no duplicates: customer_id, order_id, occurred_at, amount_minor.
Source of the rules: docs/semantics.md sections 2 to 6; days are UTC days.

What makes it fast, measured: customers as dense integers (windows over strings take more than twice as long), times as
microseconds, ROWS frames, as many expressions as possible on one window, and no window that arithmetic can replace.
"""

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb

WINDOW_DAYS = {"rfm8": None, "rfm8-annual": 365}

_DAY = "86_400_000_000"
_ID = "['000', '001', '010', '011', '100', '101', '110', '111']"

# Midnights are those at which a day count stops being true: of an order of day d, day d + count + 1.
_ORDERS = f"""
CREATE TEMP TABLE customers AS
    SELECT customer_id, row_number() OVER ()::INT AS customer
    FROM (SELECT DISTINCT customer_id FROM read_parquet($orders));
CREATE TEMP TABLE orders AS
    SELECT customer, epoch_us(occurred_at) AS at_us, at_us - at_us % {_DAY} AS day_us, amount_minor,
        file_row_number AS arrival
    FROM read_parquet($orders, file_row_number = true) JOIN customers USING (customer_id);
"""  # noqa: S608 - made of constants

# Over a lifetime F and M only grow, so both sides of an order follow from running sums, and a customer ages out where
# the next order comes after the midnight (or at it: time comes first).
_LIFETIME = f"""
WITH running AS (
    SELECT customer, at_us, arrival, amount_minor, day_us + 31 * {_DAY} AS drop_us,
        row_number() OVER history AS f,
        sum(amount_minor) OVER history AS m,
        lag(day_us) OVER history + 31 * {_DAY} AS drop_before_us,
        lead(at_us, 1, $as_of_us) OVER history AS next_us
    FROM orders
    WINDOW history AS (PARTITION BY customer ORDER BY at_us, arrival ROWS UNBOUNDED PRECEDING)
), tiers AS (
    SELECT customer, at_us, arrival, drop_us,
        4 + 2 * (f >= 3)::INT + (m >= 100_000)::INT AS tier,
        4 * (drop_before_us > at_us)::INT + 2 * (f > 3)::INT + (m - amount_minor >= 100_000)::INT AS tier_before,
        tier IS DISTINCT FROM tier_before AS moves,
        drop_us <= next_us AS drops
    FROM running
), numbered AS (
    SELECT *, sum(moves::INT + drops::INT) OVER (
        PARTITION BY customer ORDER BY at_us, arrival ROWS UNBOUNDED PRECEDING)::BIGINT AS seq
    FROM tiers
), changes AS (
    SELECT customer, seq - drops::INT AS seq, at_us, tier_before AS from_tier, tier AS to_tier,
        if(tier_before IS NULL, 'first_order', 'order') AS reason
    FROM numbered WHERE moves
    UNION ALL
    SELECT customer, seq, drop_us, tier, tier - 4, 'recency_expired' FROM numbered WHERE drops
)
"""  # noqa: S608 - made of constants

# Within a window every order is up to three points on its customer's line: it comes in, it stops being recent unless
# another came before that, it leaves. Of the points that time makes at one instant only the last one counts.
_WINDOWED = f"""
WITH followed AS (
    SELECT *, lead(at_us, 1, $as_of_us) OVER (PARTITION BY customer ORDER BY at_us, arrival) AS next_us FROM orders
), points AS (
    SELECT customer, at_us, arrival, 1 AS f, amount_minor AS m, day_us + 31 * {_DAY} AS drop_us FROM followed
    UNION ALL
    SELECT customer, day_us + 31 * {_DAY} AS drop_us, -1, 0, 0, NULL FROM followed WHERE drop_us <= next_us
    UNION ALL
    SELECT customer, day_us + ($window_days + 1) * {_DAY} AS leave_us, -1, -1, -amount_minor, NULL
    FROM followed WHERE leave_us <= $as_of_us
), running AS (
    SELECT customer, at_us, arrival, sum(f) OVER line AS f, sum(m) OVER line AS m, max(drop_us) OVER line AS drop_us,
        arrival < 0 AND lead(at_us) OVER line = at_us AND lead(arrival) OVER line < 0 AS more_to_come
    FROM points
    WINDOW line AS (PARTITION BY customer ORDER BY at_us, arrival ROWS UNBOUNDED PRECEDING)
), tiers AS (
    SELECT customer, at_us, arrival,
        4 * (drop_us > at_us)::INT + 2 * (f >= 3)::INT + (m >= 100_000)::INT AS to_tier
    FROM running WHERE more_to_come IS NOT TRUE
), moves AS (
    SELECT *, lag(to_tier) OVER (PARTITION BY customer ORDER BY at_us, arrival) AS from_tier FROM tiers
), changes AS (
    SELECT customer, row_number() OVER (PARTITION BY customer ORDER BY at_us, arrival) AS seq,
        at_us, from_tier, to_tier,
        CASE WHEN from_tier IS NULL THEN 'first_order'
             WHEN arrival >= 0 THEN 'order'
             WHEN from_tier >= 4 AND to_tier < 4 THEN 'recency_expired'
             ELSE 'window_expired' END AS reason
    FROM moves WHERE from_tier IS DISTINCT FROM to_tier
)
"""  # noqa: S608 - made of constants

_CHANGES = f"""
SELECT customer_id, seq, make_timestamptz(at_us) AS effective_at,
    {_ID}[from_tier + 1] AS from_tier, {_ID}[to_tier + 1] AS to_tier, reason
FROM changes JOIN customers USING (customer)
"""  # noqa: S608 - made of constants

_SNAPSHOT = f"""
WITH orders AS (
    SELECT customer_id, epoch_us(occurred_at) AS at_us, amount_minor,
        $window_days IS NULL OR at_us - at_us % {_DAY} + ($window_days + 1) * {_DAY} > $as_of_us AS counts
    FROM read_parquet($orders)
), measured AS (
    SELECT customer_id, max(at_us) AS last_us, min(at_us) AS first_us,
        $as_of_us // {_DAY} - last_us // {_DAY} AS recency_days,
        count(*) FILTER (counts) AS frequency,
        coalesce(sum(amount_minor) FILTER (counts), 0)::BIGINT AS monetary_minor,
        count(*) AS lifetime_orders, sum(amount_minor)::BIGINT AS lifetime_monetary_minor
    FROM orders GROUP BY customer_id
)
SELECT customer_id,
    {_ID}[1 + 4 * (recency_days <= 30)::INT + 2 * (frequency >= 3)::INT + (monetary_minor >= 100_000)::INT]
        AS tier,
    make_timestamptz(last_us) AS last_paid_at,
    recency_days, frequency, monetary_minor, make_timestamptz(first_us) AS first_paid_at,
    lifetime_orders, lifetime_monetary_minor,
    lifetime_monetary_minor // lifetime_orders AS average_order_minor
FROM measured
"""  # noqa: S608 - made of constants


def run(
    parquet_path: Path, ruleset_name: str, as_of: datetime, out_parquet: Path, *, threads: int = 1
) -> None:
    """Write every tier change up to `as_of`: customer_id, seq, effective_at, from_tier, to_tier, reason."""
    window_days = WINDOW_DAYS[ruleset_name]
    query, values = _LIFETIME, {"as_of_us": _microseconds(as_of)}
    if window_days is not None:
        query, values = _WINDOWED, {**values, "window_days": window_days}
    with _connect(threads) as connection:
        for statement in _ORDERS.split(";")[:-1]:
            connection.execute(statement, {"orders": str(parquet_path)})
        connection.execute(f"COPY ({query} {_CHANGES}) TO '{out_parquet}' (FORMAT parquet)", values)


def run_snapshot(
    parquet_path: Path, ruleset_name: str, as_of: datetime, out_parquet: Path, *, threads: int = 1
) -> None:
    """Write one row a customer as of `as_of`: tier, R, F and M, first order and lifetime totals."""
    values = {
        "orders": str(parquet_path),
        "window_days": WINDOW_DAYS[ruleset_name],
        "as_of_us": _microseconds(as_of),
    }
    with _connect(threads) as connection:
        connection.execute(f"COPY ({_SNAPSHOT}) TO '{out_parquet}' (FORMAT parquet)", values)


def _connect(threads: int) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET enable_progress_bar = false")
    return connection


def _microseconds(at: datetime) -> int:
    whole = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * 1_000_000 + whole.microseconds


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
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    started = time.perf_counter()
    job = run_snapshot if arguments.snapshot else run
    job(arguments.orders, arguments.ruleset, arguments.as_of, arguments.out, threads=arguments.threads)
    print(f"duckdb {duckdb.__version__}: {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
