"""The maps of WooCommerce: exports of its plug-ins, its REST API. Each reads a small sample of the documented form."""

import json
from pathlib import Path

from shop_samples import CANCELLED, PAID, REFUNDED, TOTAL, run

from rfmstream import Engine
from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.replay.replay import replay
from rfmstream.schemas.ruleset import load_ruleset


def test_woocommerce_orders(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(
        "order_id,order_number,order_date,status,order_total,refunded_total,order_currency,customer_id,billing_email\n"
        "101,101,2024-03-01 10:00:00,completed,600.00,0.00,USD,0,Ann@example.com\n"
        "102,102,2024-03-02 10:00:00,wc-processing,0.00,0,USD,0,bob@example.com\n"
        "103,103,2024-03-03 10:00:00,refunded,40.00,40.00,USD,17,cy@example.com\n"
        "104,104,2024-03-04 10:00:00,on-hold,40.00,0.00,USD,17,cy@example.com\n"
        "105,105,2024-03-05 10:00:00,shipped,40.00,5.00,USD,17,cy@example.com\n"
    )
    assert run(path, "woocommerce-orders", "USD") == (
        [
            ("ann@example.com", "101", PAID, "2024-03-01 10:00", 60_000),
            ("bob@example.com", "102", PAID, "2024-03-02 10:00", 0),
            ("17", "103", PAID, "2024-03-03 10:00", 4000),
            ("17", "103", TOTAL, "2024-03-03 10:00", 4000),
        ],
        [(4, "unknown_type")],
        1,
    )


def test_woocommerce_rest(tmp_path: Path) -> None:
    order = {
        "id": 727,
        "status": "processing",
        "currency": "USD",
        "date_created_gmt": "2024-03-22T16:28:02",
        "date_paid_gmt": "2024-03-22T16:28:08",
        "total": "29.35",
        "customer_id": 0,
        "billing": {"email": "John.Doe@example.com"},
        "refunds": [
            {"id": 1, "reason": "", "total": "-10.00"},
            {"id": 2, "reason": "", "total": "-4.35"},
        ],
    }
    waiting = {**order, "id": 728, "status": "on-hold", "date_paid_gmt": None, "refunds": []}
    known = {**order, "id": 729, "customer_id": 26, "refunds": [], "total": "0.00"}
    path = tmp_path / "orders.json"
    path.write_text(json.dumps([order, waiting, known]))
    assert run(path, "woocommerce-rest", "USD") == (
        [
            ("john.doe@example.com", "727", PAID, "2024-03-22 16:28", 2935),
            ("26", "729", PAID, "2024-03-22 16:28", 0),
            ("john.doe@example.com", "727", REFUNDED, "2024-03-22 16:28", 1000),
            ("john.doe@example.com", "727", REFUNDED, "2024-03-22 16:28", 435),
        ],
        [],
        1,
    )
    engine = Engine(load_ruleset("rfm8", currency="USD"))
    replay(engine, [path], input_map=load_map("woocommerce-rest"))
    assert engine.counters.rejected == {}
    assert sorted(engine.snapshot()["monetary_minor"].to_pylist()) == [0, 1500]


def test_woocommerce_orders_of_webtoffee_that_name_no_refunded_sum(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    refund = "amount:{}|reason:|date:2024-03-03 10:00:00"
    path.write_text(
        "order_id,order_date,paid_date,status,order_total,order_currency,customer_user,billing_email,refund_items\n"
        "1,2024-03-01 10:00:00,2024-03-01T10:05:00+02:00,completed,40.00,USD,0,Guest@example.com,\n"
        f"2,2024-03-01 10:00:00,2024-03-01T10:05:00+02:00,completed,40.00,USD,5,a@example.com,{refund.format('5.00')}\n"
        f"3,2024-03-01 10:00:00,2024-03-01T10:05:00+02:00,refunded,40.00,USD,5,a@example.com,{refund.format('40')}\n"
        "4,2024-03-01 10:00:00,2024-03-01T10:05:00+02:00,cancelled,40.00,USD,5,a@example.com,\n"
        "5,2024-03-01 10:00:00,,cancelled,40.00,USD,5,a@example.com,\n"
        "6,2024-03-01 10:00:00,,packed,40.00,USD,5,a@example.com,\n"
    )
    paid_at = "2024-03-01 08:05"
    assert run(path, "woocommerce-orders", "USD") == (
        [
            ("guest@example.com", "1", PAID, paid_at, 4000),
            ("5", "3", PAID, paid_at, 4000),
            ("5", "4", PAID, paid_at, 4000),
            ("5", "3", CANCELLED, paid_at, 0),
            ("5", "4", CANCELLED, paid_at, 0),
        ],
        [(1, "unknown_type"), (5, "unknown_type")],
        1,
    )


def test_woocommerce_orders_in_the_import_format(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(
        "id,order_number,created_at,status,total,total_refunded,currency,customer_user,billing_email\n"
        "7,,2024-03-01 10:00:00,completed,40.00,5.00,USD,0,g@example.com\n"
        "8,,2024-03-01 10:00:00,refunded,40.00,40.00,USD,9,g@example.com\n"
    )
    at = "2024-03-01 10:00"
    assert run(path, "woocommerce-orders", "USD") == (
        [
            ("g@example.com", "7", PAID, at, 4000),
            ("9", "8", PAID, at, 4000),
            ("g@example.com", "7", TOTAL, at, 500),
            ("9", "8", TOTAL, at, 4000),
        ],
        [],
        0,
    )


def test_woocommerce_orders_with_a_row_an_item_count_once(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    row = "9,2024-03-01 10:00:00,completed,40.00,5.00,USD,0,g@example.com,"
    path.write_text(
        "order_id,date,status,order_total,refunded_total,order_currency,customer_id,billing_email,item_id\n"
        f"{row}1\n{row}2\n"
    )
    engine = Engine(load_ruleset("rfm8", currency="USD"))
    replay(engine, [path], input_map=load_map("woocommerce-orders"))
    table = engine.snapshot().to_pylist()
    assert [(row["frequency"], row["monetary_minor"]) for row in table] == [(1, 3500)]


def test_woocommerce_rest_orders_that_were_cancelled_or_refunded_without_a_refund(tmp_path: Path) -> None:
    order = {
        "id": 1,
        "status": "cancelled",
        "currency": "USD",
        "date_created_gmt": "2024-03-22T16:28:02",
        "date_paid_gmt": "2024-03-22T16:28:08",
        "date_modified_gmt": "2024-03-25T00:00:00",
        "total": "29.35",
        "customer_id": 26,
        "refunds": [],
    }
    orders = [
        order,
        {**order, "id": 2, "date_paid_gmt": None},
        {**order, "id": 3, "status": "refunded"},
        {**order, "id": 4, "status": "refunded", "refunds": [{"id": 9, "total": "-29.35"}]},
        {**order, "id": 5, "status": "shipped"},
    ]
    path = tmp_path / "orders.json"
    path.write_text(json.dumps(orders))
    good, bad, excluded = run(path, "woocommerce-rest", "USD")
    paid_at = "2024-03-22 16:28"
    assert sorted(good) == [
        ("26", "1", PAID, paid_at, 2935),
        ("26", "1", CANCELLED, "2024-03-25 00:00", 0),
        ("26", "3", PAID, paid_at, 2935),
        ("26", "3", CANCELLED, "2024-03-25 00:00", 0),
        ("26", "4", PAID, paid_at, 2935),
        ("26", "4", REFUNDED, paid_at, 2935),
    ]
    assert (bad, excluded) == ([(4, "unknown_type")], 1)
