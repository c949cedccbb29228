"""The maps of Shopify: its API and webhooks. Each reads a small sample of the documented form."""

import json
from pathlib import Path

from shop_samples import CANCELLED, PAID, REFUNDED, run


def test_a_shopify_refund_in_another_currency_is_never_taken_one_to_one(tmp_path: Path) -> None:
    transaction = {"id": 1, "kind": "refund", "status": "success", "amount": "5.00", "currency": "EUR"}
    order = {
        "id": 1,
        "email": "Eve@example.com",
        "financial_status": "partially_refunded",
        "created_at": "2024-01-10T11:00:00-05:00",
        "currency": "USD",
        "total_price": "10.00",
        "refunds": [{"id": 5, "created_at": "2024-03-10T11:00:00-04:00", "transactions": [transaction]}],
    }
    path = tmp_path / "orders.json"
    path.write_text(json.dumps({"orders": [order]}))
    assert run(path, "shopify-api-orders", "USD") == (
        [("eve@example.com", "1", PAID, "2024-01-10 16:00", 1000)],
        [(0, "currency_mismatch")],
        0,
    )


def test_shopify_api_orders_without_their_refunds_are_never_counted_whole(tmp_path: Path) -> None:
    order = {
        "id": 1,
        "email": "Eve@example.com",
        "financial_status": "refunded",
        "created_at": "2024-01-10T11:00:00-05:00",
        "updated_at": "2024-01-12T11:00:00-05:00",
        "currency": "USD",
        "total_price": "10.00",
    }
    partly = {**order, "id": 2, "financial_status": "partially_refunded"}
    paid = {**order, "id": 3, "financial_status": "paid"}
    path = tmp_path / "orders.json"
    path.write_text(json.dumps({"orders": [order, partly, paid, {**paid, "financial_status": "settling"}]}))
    assert run(path, "shopify-api-orders", "USD") == (
        [
            ("eve@example.com", "1", PAID, "2024-01-10 16:00", 1000),
            ("eve@example.com", "3", PAID, "2024-01-10 16:00", 1000),
            ("eve@example.com", "1", CANCELLED, "2024-01-12 16:00", 0),
        ],
        [(1, "unknown_type"), (3, "unknown_type")],
        0,
    )


def test_shopify_api_orders_in_their_envelope_and_as_webhooks(tmp_path: Path) -> None:
    refund = {
        "id": 509562969,
        "created_at": "2024-03-10T11:00:00-04:00",
        "transactions": [
            {"id": 1, "kind": "refund", "status": "success", "amount": "41.94"},
            {"id": 2, "kind": "refund", "status": "failure", "amount": "41.94"},
        ],
    }
    order = {
        "id": 450789469,
        "name": "#1001",
        "test": False,
        "email": "bob@example.com",
        "customer": {"id": 207119551},
        "financial_status": "partially_refunded",
        "created_at": "2024-01-10T11:00:00-05:00",
        "processed_at": "2024-01-10T11:00:00-05:00",
        "cancelled_at": None,
        "currency": "USD",
        "total_price": "598.94",
        "total_outstanding": "0.00",
        "refunds": [refund],
    }
    guest = {**order, "id": 2, "customer": None, "email": "Eve@example.com", "total_outstanding": "98.94"}
    guest |= {"financial_status": "partially_paid", "refunds": [], "cancelled_at": "2024-01-11T00:00:00Z"}
    pending = {**order, "id": 3, "financial_status": "pending"}
    document = tmp_path / "orders.json"
    document.write_text(json.dumps({"orders": [order, guest, pending, {**order, "id": 4, "test": True}]}))
    expected = (
        [
            ("207119551", "450789469", PAID, "2024-01-10 16:00", 59_894),
            ("eve@example.com", "2", PAID, "2024-01-10 16:00", 50_000),
            ("eve@example.com", "2", CANCELLED, "2024-01-11 00:00", 0),
            ("207119551", "450789469", REFUNDED, "2024-03-10 15:00", 4194),
        ],
        [],
    )
    assert run(document, "shopify-api-orders", "USD")[:2] == expected
    hooks = tmp_path / "hooks.jsonl"
    hooks.write_text("".join(json.dumps(one) + "\n" for one in (order, guest, pending)))
    assert run(hooks, "shopify-api-orders", "USD")[:2] == expected


def test_a_shopify_refund_alone_names_no_customer(tmp_path: Path) -> None:
    path = tmp_path / "hooks.jsonl"
    transaction = {"id": 1, "kind": "refund", "status": "success", "amount": "41.94", "currency": "USD"}
    body = {
        "id": 5,
        "order_id": 450789469,
        "created_at": "2024-03-10T11:00:00-04:00",
        "transactions": [transaction],
    }
    path.write_text(json.dumps(body) + "\n")
    assert run(path, "shopify-api-orders", "USD") == ([], [(0, "missing_customer_id")], 0)
