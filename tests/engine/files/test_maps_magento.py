"""The maps of Magento: its API and the export of the order grid. Each reads a small sample of the documented form."""

import json
from pathlib import Path

from shop_samples import CANCELLED, PAID, TOTAL, run


def test_magento_orders(tmp_path: Path) -> None:
    order = {
        "increment_id": "000000001",
        "state": "complete",
        "customer_id": 5,
        "customer_email": "roni@example.com",
        "created_at": "2024-03-01 10:00:00",
        "updated_at": "2024-03-09 10:00:00",
        "base_currency_code": "USD",
        "base_grand_total": 36.39,
        "base_total_paid": 36.39,
    }
    refunded = {**order, "increment_id": "000000002", "customer_id": None, "base_total_refunded": 6.39}
    unpaid = {**order, "increment_id": "000000003", "state": "new", "base_total_paid": None}
    path = tmp_path / "orders.json"
    path.write_text(json.dumps({"items": [order, refunded, unpaid], "total_count": 3}))
    assert run(path, "magento-orders", "USD") == (
        [
            ("5", "000000001", PAID, "2024-03-01 10:00", 3639),
            ("roni@example.com", "000000002", PAID, "2024-03-01 10:00", 3639),
            ("roni@example.com", "000000002", TOTAL, "2024-03-09 10:00", 639),
        ],
        [],
        1,
    )


def test_magento_orders_as_the_api_leaves_fields_out(tmp_path: Path) -> None:
    guest = {
        "increment_id": "1",
        "state": "processing",
        "customer_email": "Roni@example.com",
        "customer_is_guest": 1,
        "created_at": "2024-03-01 10:00:00",
        "updated_at": "2024-03-09 10:00:00",
        "base_currency_code": "KWD",
        "base_grand_total": 10.125,
        "base_total_due": 10.125,
    }
    path = tmp_path / "authorized.json"
    path.write_text(json.dumps({"items": [guest]}))
    assert run(path, "magento-orders", "KWD") == ([], [], 1)
    paid = {**guest, "base_total_due": 0, "base_total_paid": 10.125}
    free = {**guest, "increment_id": "2", "base_total_due": 0, "base_grand_total": 0, "base_total_paid": 0}
    closed = {**paid, "increment_id": "3", "state": "closed", "base_total_refunded": "10.1250"}
    strange = {**paid, "increment_id": "4", "state": "settling"}
    path = tmp_path / "orders.json"
    path.write_text(json.dumps({"items": [paid, free, closed, strange]}))
    at, who = "2024-03-01 10:00", "roni@example.com"
    assert run(path, "magento-orders", "KWD") == (
        [
            (who, "1", PAID, at, 10_125),
            (who, "2", PAID, at, 0),
            (who, "3", PAID, at, 10_125),
            (who, "3", TOTAL, "2024-03-09 10:00", 10_125),
        ],
        [(3, "unknown_type")],
        0,
    )


def test_magento_order_grid(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text(
        'ID,"Purchase Point","Purchase Date","Bill-to Name","Grand Total (Base)","Grand Total (Purchased)",Status,'
        '"Customer Email","Total Refunded","Braintree Transaction Source"\n'
        '000000001,"Main","Mar 1, 2024 14:05:00 PM",Ann,36.3900,36.3900,Complete,Ann@example.com,,\n'
        '000000002,"Main","Mar 2, 2024 02:05:00 PM",Ann,1236.3900,1236.3900,Processing,Ann@example.com,6.3900,\n'
        '000000003,"Main","Mar 3, 2024 00:05:00 AM",Ann,36.3900,36.3900,Closed,Ann@example.com,36.3900,\n'
        '000000004,"Main","2024-03-04 10:00:00",Ann,36.3900,36.3900,Closed,Ann@example.com,,\n'
        '000000005,"Main","2024-03-04 10:00:00",Ann,36.3900,36.3900,Pending,Ann@example.com,,\n'
        '000000006,"Main","2024-03-04 10:00:00",Ann,36.3900,36.3900,Packed,Ann@example.com,,\n'
    )
    who = "ann@example.com"
    good, bad, excluded = run(path, "magento-grid", "USD")
    assert sorted(good) == [
        (who, "000000001", PAID, "2024-03-01 14:05", 3639),
        (who, "000000002", PAID, "2024-03-02 14:05", 123_639),
        (who, "000000002", TOTAL, "2024-03-02 14:05", 639),
        (who, "000000003", PAID, "2024-03-03 00:05", 3639),
        (who, "000000003", TOTAL, "2024-03-03 00:05", 3639),
        (who, "000000004", PAID, "2024-03-04 10:00", 3639),
        (who, "000000004", CANCELLED, "2024-03-04 10:00", 0),
    ]
    assert (bad, excluded) == ([(5, "unknown_type")], 1)
