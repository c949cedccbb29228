from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from jsonschema import Draft202012Validator

from rfmstream.schemas.orders import (
    CANONICAL_SCHEMA,
    ORDER_SCHEMA,
    ORDER_TYPES,
    REJECTED_SCHEMA,
    REJECTION_REASONS,
    order_json_schema,
)

UTC_US = pa.timestamp("us", tz="UTC")
PAID = {"customer_id": "00042", "order_id": "a-1", "occurred_at": "2024-03-31T01:30:00Z", "amount": "99.90"}


def is_valid(order: dict[str, Any]) -> bool:
    return Draft202012Validator(order_json_schema()).is_valid(order)


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in PAID.items() if name != key}


def test_order_columns_of_the_contract() -> None:
    assert ORDER_SCHEMA.names == [
        *("customer_id", "order_id", "type", "occurred_at"),
        *("amount", "amount_minor", "currency", "event_id"),
    ]
    assert ORDER_SCHEMA.field("occurred_at").type == UTC_US
    required = [field.name for field in ORDER_SCHEMA if not field.nullable]
    assert required == ["customer_id", "order_id", "occurred_at"]
    assert ORDER_TYPES == ("paid", "refunded", "cancelled", "adjusted", "refunded_total", "erased")


def test_canonical_columns_in_their_order() -> None:
    assert [(field.name, field.type, field.nullable) for field in CANONICAL_SCHEMA] == [
        ("customer_id", pa.string(), False),
        ("order_id", pa.string(), False),
        ("type", pa.uint8(), False),
        ("occurred_at", UTC_US, False),
        ("amount_minor", pa.int64(), False),
        ("event_id", pa.string(), True),
        ("row", pa.int64(), False),
    ]


def test_rejected_columns_keep_the_text_as_it_came() -> None:
    assert [(field.name, field.type, field.nullable) for field in REJECTED_SCHEMA] == [
        ("row", pa.int64(), False),
        ("source", pa.string(), True),
        ("reason", pa.string(), False),
        *(
            (name, pa.string(), True)
            for name in (
                "customer_id",
                "order_id",
                "type",
                "occurred_at",
                "amount",
                "currency",
                "event_id",
                "raw",
            )
        ),
    ]
    reasons = (
        *("malformed", "missing_customer_id", "missing_order_id", "bad_time", "future_time", "bad_amount"),
        *("negative_amount", "currency_mismatch", "unknown_type", "unknown_order", "conflicting_duplicate"),
        *("refund_exceeds_order", "rounded_id", "erased_customer", "no_rate"),
    )
    assert reasons == REJECTION_REASONS


@pytest.mark.parametrize("schema", [ORDER_SCHEMA, CANONICAL_SCHEMA, REJECTED_SCHEMA])
def test_every_field_tells_its_unit_and_meaning(schema: pa.Schema) -> None:
    for field in schema:
        assert field.metadata[b"unit"]
        assert field.metadata[b"description"].endswith(b".")


@pytest.mark.parametrize("amount", [10**12, -(10**12), "0.0001"])
def test_the_amount_column_holds_the_limits(amount: int | str) -> None:
    value = Decimal(amount)
    assert pa.array([value], ORDER_SCHEMA.field("amount").type).to_pylist() == [value]


def test_json_schema_is_itself_valid() -> None:
    schema = order_json_schema()
    Draft202012Validator.check_schema(schema)
    assert list(schema["properties"]) == ORDER_SCHEMA.names


@pytest.mark.parametrize(
    "order",
    [
        PAID,
        PAID | {"amount": 99.9},
        PAID | {"amount": 100},
        PAID | {"amount": "1e2"},
        PAID | {"type": "adjusted", "amount": "-5"},
        PAID | {"type": None, "currency": None, "event_id": None, "amount_minor": None},
        PAID | {"currency": "CNY", "event_id": "e-1", "shop": "unknown columns are ignored"},
        PAID | {"customer_id": "客户" * 40},
        PAID | {"occurred_at": "2024-03-31 01:30:00"},
        PAID | {"occurred_at": "2024-03-31T01:30:00.123456+08:00"},
        PAID | {"occurred_at": "2024-03-31"},
        PAID | {"occurred_at": "2024-03-31T01:30"},
        PAID | {"occurred_at": "2024-03-31 01:30:00 UTC"},
        without("amount") | {"amount_minor": 9990},
        without("amount") | {"amount_minor": 10**12},
        without("amount") | {"type": "cancelled"},
        PAID | {"type": "cancelled", "amount": None},
        PAID | {"type": "refunded_total"},
        without("amount") | {"type": "erased"},
        {"customer_id": "c", "occurred_at": "2024-03-31", "type": "erased", "order_id": None},
    ],
)
def test_good_orders_pass(order: dict[str, Any]) -> None:
    assert is_valid(order)


@pytest.mark.parametrize(
    "order",
    [
        without("customer_id"),
        without("order_id"),
        without("occurred_at"),
        without("amount"),
        PAID | {"customer_id": 42},
        PAID | {"customer_id": ""},
        PAID | {"customer_id": "x" * 257},
        PAID | {"customer_id": None},
        PAID | {"type": "returned"},
        PAID | {"type": "PAID"},
        PAID | {"amount": None},
        PAID | {"amount": "1,000.00"},
        PAID | {"amount": ""},
        PAID | {"amount": True},
        PAID | {"currency": "yuan"},
        PAID | {"occurred_at": "31/03/2024 01:30"},
        PAID | {"occurred_at": 1711848600},
        PAID | {"occurred_at": "2024-03-31 UTC"},
        PAID | {"occurred_at": ""},
        without("amount") | {"amount_minor": 99.5},
        without("amount") | {"amount_minor": 10**12 + 1},
        without("amount") | {"amount_minor": "9990"},
        without("amount") | {"type": "refunded"},
        without("amount") | {"type": "refunded_total"},
        without("order_id") | {"type": "cancelled"},
        PAID | {"order_id": None},
        {"customer_id": "c", "type": "erased"},
    ],
)
def test_bad_orders_fail(order: dict[str, Any]) -> None:
    assert not is_valid(order)
