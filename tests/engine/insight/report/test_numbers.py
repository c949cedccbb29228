"""Every number of a report against what DuckDB counts in the same Parquet files."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from report_cases import Case, order_table, replayed

from rfmstream.engine.insight.flaps import read_flaps
from rfmstream.engine.insight.report.build import Question, build
from rfmstream.engine.insight.report.model import Move
from rfmstream.engine.insight.report.movement import FLAP_DAYS

ZONE = "America/New_York"


@pytest.fixture(scope="module")
def sql(shop: Case) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    for name, path in (("changes", shop.changes), ("snapshot", shop.snapshot), ("orders", shop.orders)):
        connection.execute(f"create view {name} as select * from '{path}'")  # noqa: S608
    connection.execute(
        f"""create table kept as
        with off as (select customer_id, order_id, sum(amount_minor) filter (type = 'refunded') as refunded,
                            bool_or(type = 'cancelled') as is_cancelled
                     from orders where type in ('refunded', 'cancelled') group by all)
        select customer_id, timezone('{ZONE}', occurred_at)::date as day,
               amount_minor - coalesce(refunded, 0) as left_minor
        from orders left join off using (customer_id, order_id)
        where type = 'paid' and not coalesce(is_cancelled, false)
          and (refunded is null or refunded < amount_minor or amount_minor = 0)"""  # noqa: S608
    )
    return connection


def rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query).fetchall()


def test_tiers(shop: Case, sql: duckdb.DuckDBPyConnection) -> None:
    told = {
        (tier.id, tier.customers, tier.orders, tier.revenue_minor)
        for tier in shop.report.tiers
        if tier.customers
    }
    counted = rows(
        sql,
        """select tier, count(*), sum(lifetime_orders)::bigint, sum(lifetime_monetary_minor)::bigint
           from snapshot group by 1""",
    )
    assert told == set(counted)
    assert sum(tier.customer_share or 0 for tier in shop.report.tiers) == pytest.approx(1)


@pytest.mark.parametrize("most", [1, 7, 10**6])
def test_the_best_customers_of_each_tier(shop: Case, sql: duckdb.DuckDBPyConnection, most: int) -> None:
    assert shop.report.listed is None
    listed = build(Question([shop.changes], shop.snapshot, customers=most)).listed
    assert listed is not None
    told = [tuple(vars(customer).values()) for customer in listed]
    counted = rows(
        sql,
        f"""select tier, customer_id, null, recency_days, frequency, monetary_minor, lifetime_orders,
                   lifetime_monetary_minor
            from snapshot
            qualify row_number() over (partition by tier order by lifetime_monetary_minor desc, customer_id) <= {most}
            order by list_position({[tier.id for tier in shop.report.tiers if tier.id]}, tier) nulls last,
                     lifetime_monetary_minor desc, customer_id""",  # noqa: S608
    )
    assert told == counted
    assert len(told) > (0 if most > 1 else 7)


def test_the_grid(shop: Case, sql: duckdb.DuckDBPyConnection) -> None:
    told = {
        (cell.r_band, cell.f_band): (cell.customers, cell.monetary_minor)
        for cell in shop.report.grid
        if cell.customers
    }
    counted = rows(
        sql,
        """select r_band, f_band, count(*), sum(monetary_minor)::bigint from snapshot where tier is not null
           group by 1, 2""",
    )
    assert told == {(r, f): (number, money) for r, f, number, money in counted}


@pytest.mark.parametrize("measure", ["recency", "frequency", "monetary"])
def test_distributions(shop: Case, sql: duckdb.DuckDBPyConnection, measure: str) -> None:
    column = {"recency": "recency_days", "frequency": "frequency", "monetary": "monetary_minor"}[measure]
    (found,) = [given for given in shop.report.distributions if given.measure == measure]
    for bin_ in found.bins:
        low, high = (
            bin_.low if bin_.low is not None else -(2**62),
            bin_.high if bin_.high is not None else 2**62,
        )
        ((number, money),) = rows(
            sql,
            f"""select count(*), coalesce(sum(lifetime_monetary_minor), 0)::bigint from snapshot
                where tier is not null and {column} between {low} and {high}""",  # noqa: S608
        )
        assert (bin_.customers, bin_.revenue_minor) == (number, money)
    ((everybody,),) = rows(sql, "select count(*) from snapshot where tier is not null")
    assert sum(bin_.customers for bin_ in found.bins) == everybody
    ((median,),) = rows(
        sql,
        f"select quantile_disc({column}, 0.5) from snapshot where tier is not null",  # noqa: S608
    )
    assert found.median == median


def test_spend_bands(shop: Case, sql: duckdb.DuckDBPyConnection) -> None:
    for band in shop.report.bands:
        high = 2**62 if band.high_minor is None else band.high_minor
        low = -(2**62) if band.low_minor is None else band.low_minor
        ((number, money, below, below_money),) = rows(
            sql,
            f"""select count(*) filter (m >= {low}), sum(m) filter (m >= {low}),
                       count(*) / any_value(n), sum(m) / any_value(s)
                from (select lifetime_monetary_minor as m, count(*) over () as n, sum(m) over () as s
                      from snapshot where lifetime_orders > 0) where m < {high}""",  # noqa: S608
        )
        assert (band.customers, band.revenue_minor) == (number, money or 0)
        assert band.below_customer_share == pytest.approx(below)
        assert band.below_revenue_share == pytest.approx(below_money)


def test_the_pareto_curve(shop: Case, sql: duckdb.DuckDBPyConnection) -> None:
    for point in shop.report.pareto:
        ((money,),) = rows(
            sql,
            f"""select sum(m)::bigint from (select lifetime_monetary_minor as m from snapshot
                where lifetime_orders > 0 order by m desc limit {point.customers})""",  # noqa: S608
        )
        assert point.revenue_minor == money


def test_months(shop: Case, sql: duckdb.DuckDBPyConnection) -> None:
    counted = {
        month: (orders, money, buyers)
        for month, orders, money, buyers in rows(
            sql,
            """select strftime(day, '%Y-%m'), count(*), sum(left_minor)::bigint, count(distinct customer_id)
               from kept group by 1""",
        )
    }
    assert {m.month: (m.orders, m.revenue_minor, m.buyers) for m in shop.report.months} == counted
    for column, name in (("first_paid_at", "first_orders"), ("last_paid_at", "last_orders")):
        counted_once = dict(
            rows(
                sql,
                f"""select strftime(timezone('{ZONE}', {column}), '%Y-%m'), count(*) from snapshot
                    where {column} is not null group by 1""",  # noqa: S608
            )
        )
        assert {m.month: getattr(m, name) for m in shop.report.months if getattr(m, name)} == counted_once


def test_the_ladders(shop: Case, sql: duckdb.DuckDBPyConnection) -> None:
    by_orders, by_days = shop.report.ladders
    for ladder, source in (
        (by_orders, "select lifetime_orders as k from snapshot where lifetime_orders > 0"),
        (by_days, "select count(distinct day) as k from kept group by customer_id"),
    ):
        for step in ladder.steps:
            ((reached, again),) = rows(
                sql,
                f"select count(*) filter (k >= {step.count}), count(*) filter (k > {step.count}) from ({source})",  # noqa: S608
            )
            assert (step.customers, step.repeated) == (reached, again)


def test_the_transition_matrix(shop: Case, sql: duckdb.DuckDBPyConnection) -> None:
    found = shop.report.transitions
    # arg_max skips nulls, and a customer can be without a tier again.
    last = """(select distinct on (customer_id) customer_id, to_tier as tier from changes
               where effective_at <= '{}'::timestamptz order by customer_id, seq desc)"""
    counted = rows(
        sql,
        f"""select b.tier, e.tier, count(*) from {last.format(found.until)} e
            left join {last.format(found.since)} b using (customer_id)
            where b.tier is not null or e.tier is not null group by 1, 2""",  # noqa: S608
    )
    assert {move for move in found.moves if move.from_tier or move.to_tier} == {Move(*row) for row in counted}
    assert found.stayed == sum(number for came, went, number in counted if came == went)
    assert found.moved == sum(number for came, went, number in counted if came != went)
    assert found.moved > 100


def test_flows(shop: Case, sql: duckdb.DuckDBPyConnection) -> None:
    local = f"strftime(timezone('{ZONE}', effective_at), '%Y-%m')"
    by_reason = rows(sql, f"select {local}, reason, count(*) from changes group by 1, 2")  # noqa: S608
    assert {
        (month.month, reason, number)
        for month in shop.report.flows
        for reason, number in month.by_reason.items()
    } == set(by_reason)
    moves = rows(sql, f"select {local}, from_tier, to_tier, count(*) from changes group by 1, 2, 3")  # noqa: S608
    assert {
        (month.month, move.from_tier, move.to_tier, move.customers)
        for month in shop.report.flows
        for move in month.moves
    } == set(moves)


def test_sizes(shop: Case, sql: duckdb.DuckDBPyConnection) -> None:
    found = shop.report.sizes
    for at in range(0, len(found.days), 37):
        counted = dict(
            rows(
                sql,
                f"""select tier, count(*) from (select distinct on (customer_id) customer_id, to_tier as tier
                    from changes where timezone('{ZONE}', effective_at)::date <= '{found.days[at]}'
                    order by customer_id, seq desc) where tier is not null group by 1""",  # noqa: S608
            )
        )
        assert dict(zip(found.tiers, found.customers[at], strict=True)) == {
            tier: counted.get(tier, 0) for tier in found.tiers
        }


def test_the_days_ahead(shop: Case, sql: duckdb.DuckDBPyConnection) -> None:
    ahead = shop.report.ahead
    for day, leaving in zip(ahead.days, ahead.leaving, strict=True):
        counted = dict(
            rows(
                sql,
                f"""select tier, count(*) from snapshot where tier is not null
                    and timezone('{ZONE}', next_change_at)::date = '{day}' group by 1""",  # noqa: S608
            )
        )
        assert dict(zip(shop.report.sizes.tiers, leaving, strict=True)) == {
            tier: counted.get(tier, 0) for tier in shop.report.sizes.tiers
        }
    assert sum(map(sum, ahead.leaving)) > 100


def test_flaps(shop: Case, sql: duckdb.DuckDBPyConnection) -> None:
    found = shop.report.flaps
    for days, undone in zip(FLAP_DAYS, found.undone, strict=True):
        ((changes, counted),) = rows(
            sql,
            f"""select count(*), count(*) filter (back is not distinct from from_tier and next_at is not null
                                                  and next_at - effective_at <= interval '{days * 24} hours')
                from (select *, lead(to_tier) over w as back, lead(effective_at) over w as next_at from changes
                      window w as (partition by customer_id order by seq))""",  # noqa: S608
        )
        assert (found.changes, undone) == (changes, counted)
    assert found.undone == tuple(sum(pair.undone[at] for pair in found.pairs) for at in range(len(FLAP_DAYS)))


def test_flaps_are_those_of_insight(shop: Case) -> None:
    found, other = shop.report.flaps, read_flaps(shop.changes, FLAP_DAYS[-1])
    assert (found.changes, found.undone[-1]) == (other.changes, other.undone)
    assert {(pair.from_tier, pair.to_tier, pair.changes, pair.undone[-1]) for pair in found.pairs} == {
        (pair.from_tier, pair.to_tier, pair.changes, pair.undone) for pair in other.pairs if pair.undone
    }


def test_cohorts(shop: Case, sql: duckdb.DuckDBPyConnection) -> None:
    counted = rows(
        sql,
        f"""select strftime(timezone('{ZONE}', first_paid_at), '%Y-%m'), count(*),
                   count(*) filter (lifetime_orders > 1), count(*) filter (r_band = 1),
                   sum(lifetime_monetary_minor)::bigint
            from snapshot where lifetime_orders > 0 group by 1""",  # noqa: S608
    )
    assert {
        (c.month, c.customers, c.repeated, c.recent, c.revenue_minor) for c in shop.report.cohorts
    } == set(counted)
    active = rows(
        sql,
        """select strftime(first, '%Y-%m'), datediff('month', first, day), count(distinct customer_id)
           from (select *, min(day) over (partition by customer_id) as first from kept) group by 1, 2""",
    )
    assert {
        (c.month, at, number)
        for c in shop.report.cohorts
        for at, number in enumerate(c.active or ())
        if number
    } == set(active)


def test_nothing_takes_off_an_order_that_is_forgotten_and_its_id_is_free(tmp_path: Path) -> None:
    (tmp_path / "forgets.toml").write_text('name = "f"\nextends = "rfm8"\nforget_orders_after_days = 30\n')
    day_us = 86_400_000_000
    told = [
        *(("kept", 0, 100, "paid"), ("kept", 31, 100, "refunded"), ("kept", 32, 70, "paid")),
        *(("part", 0, 100, "paid"), ("part", 30, 40, "refunded"), ("part", 31, 0, "cancelled")),
        *(("void", 0, 100, "paid"), ("void", 9, 0, "cancelled"), ("void", 31, 100, "paid")),
    ]
    events = [
        {
            "customer_id": "x",
            "order_id": order,
            "type": kind,
            "occurred_at_us": day * day_us,
            "amount_minor": amount,
            "event_id": None,
        }
        for order, day, amount, kind in sorted(told, key=lambda row: row[1])
    ]
    table = order_table(events)
    case = replayed(tmp_path, table, str(tmp_path / "forgets.toml"))
    (row,) = pq.read_table(case.snapshot).to_pylist()
    assert (row["lifetime_orders"], row["lifetime_monetary_minor"]) == (4, 330)
    months = [(month.month, month.orders, month.revenue_minor) for month in case.report.months]
    assert months == [("1970-01", 2, 160), ("1970-02", 2, 170)]


def test_published_figures_of_cdnow(whole_cdnow: Case) -> None:
    _, days = whole_cdnow.report.ladders
    assert [round(step.probability or 0, 4) for step in days.steps[:5]] == [
        0.4886,
        0.6492,
        0.7051,
        0.7276,
        0.7416,
    ]
    assert round(days.one_time_share or 0, 4) == 0.5114
    (fifth,) = [point for point in whole_cdnow.report.pareto if point.customer_share == 0.2]
    assert round(fifth.revenue_share or 0, 4) == 0.6778
    assert whole_cdnow.report.revenue_minor == 250_031_563
    assert [round(share or 0, 2) for share in whole_cdnow.report.flaps.undone_share][-1] == 0.07
