from typing import Any

import pyarrow as pa
import pytest
from jsonschema import Draft202012Validator

from rfmstream.schemas.changes import CHANGE_REASONS, CHANGE_SCHEMA, MODES, change_json_schema, change_schema
from rfmstream.schemas.ruleset import load_ruleset

UTC_US = pa.timestamp("us", tz="UTC")
WORD = pa.dictionary(pa.int8(), pa.string())
CHANGE = {
    "customer_id": "00042",
    "seq": 1,
    "effective_at": "2024-03-31T01:30:00Z",
    "from_tier": None,
    "to_tier": "100",
    "reason": "first_order",
    "order_id": "a-1",
    "r_band": 1,
    "f_band": 0,
    "m_band": 0,
    "last_paid_at": "2024-03-31T01:30:00Z",
    "frequency": 1,
    "monetary_minor": 9990,
    "next_change_at": "2024-05-01T00:00:00Z",
    "next_tier": "000",
    "ruleset": "rfm8",
    "mode": "replay",
    "view": "rfm8",
}


def test_columns_and_types_of_the_contract() -> None:
    assert [(field.name, field.type) for field in CHANGE_SCHEMA] == [
        ("customer_id", pa.string()),
        ("seq", pa.int64()),
        ("effective_at", UTC_US),
        ("from_tier", WORD),
        ("to_tier", WORD),
        ("reason", WORD),
        ("order_id", pa.string()),
        ("r_band", pa.int16()),
        ("f_band", pa.int16()),
        ("m_band", pa.int16()),
        ("last_paid_at", UTC_US),
        ("frequency", pa.int64()),
        ("monetary_minor", pa.int64()),
        ("next_change_at", UTC_US),
        ("next_tier", WORD),
        ("ruleset", WORD),
        ("mode", WORD),
        ("holdout", pa.bool_()),
        ("view", WORD),
        ("population", pa.string()),
    ]
    nullable = {"from_tier", "to_tier", "order_id", "last_paid_at", "next_change_at", "next_tier"}
    nullable |= {"holdout", "population"}
    assert {field.name for field in CHANGE_SCHEMA if field.nullable} == nullable
    assert all(field.metadata[b"unit"] and field.metadata[b"description"] for field in CHANGE_SCHEMA)


def test_words_are_those_of_the_contract() -> None:
    expected = (
        *("first_order", "order", "refund", "cancellation", "adjustment"),
        *("recency_expired", "window_expired", "rules_changed", "erased"),
    )
    assert expected == CHANGE_REASONS
    assert MODES == ("live", "replay")


def test_the_schema_of_a_ruleset_tells_the_currency() -> None:
    schema = change_schema(load_ruleset("rfm8", currency="JPY"))
    assert schema == CHANGE_SCHEMA
    assert schema.metadata[b"rfmstream.currency"] == b"JPY"
    assert schema.field("seq").metadata == CHANGE_SCHEMA.field("seq").metadata


def test_json_schema_has_the_same_columns() -> None:
    schema = change_json_schema()
    Draft202012Validator.check_schema(schema)
    assert list(schema["properties"]) == CHANGE_SCHEMA.names
    assert schema["required"] == [field.name for field in CHANGE_SCHEMA if not field.nullable]


@pytest.mark.parametrize(
    ("patch", "valid"),
    [
        ({}, True),
        ({"reason": "recency_expired", "order_id": None}, True),
        ({"to_tier": None, "last_paid_at": None, "next_change_at": None, "next_tier": None}, True),
        ({"monetary_minor": -5}, True),
        ({"reason": "whim"}, False),
        ({"reason": None}, False),
        ({"seq": 0}, False),
        ({"seq": 2**63}, False),
        ({"r_band": -1}, False),
        ({"mode": "dry"}, False),
        ({"customer_id": 42}, False),
    ],
)
def test_json_schema_against_examples(patch: dict[str, Any], valid: bool) -> None:  # noqa: FBT001
    assert Draft202012Validator(change_json_schema()).is_valid(CHANGE | patch) == valid


def test_json_schema_of_a_ruleset_knows_its_tiers() -> None:
    validator = Draft202012Validator(change_json_schema(load_ruleset("rfm8")))
    assert validator.is_valid(CHANGE)
    assert not validator.is_valid(CHANGE | {"to_tier": "vip"})
    assert Draft202012Validator(change_json_schema()).is_valid(CHANGE | {"to_tier": "vip"})
