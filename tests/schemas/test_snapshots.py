import pyarrow as pa

from rfmstream.schemas.changes import CHANGE_SCHEMA
from rfmstream.schemas.ruleset import load_ruleset
from rfmstream.schemas.snapshots import SNAPSHOT_SCHEMA, snapshot_schema


def test_columns_of_the_contract() -> None:
    assert SNAPSHOT_SCHEMA.names == [
        *(
            "customer_id",
            "tier",
            "tier_since",
            "seq",
            "from_tier",
            "to_tier",
            "reason",
            "order_id",
            "effective_at",
        ),
        *("r_band", "f_band", "m_band", "last_paid_at", "recency_days", "frequency", "monetary_minor"),
        *("first_paid_at", "lifetime_orders", "lifetime_monetary_minor", "average_order_minor"),
        *("next_change_at", "next_tier", "ruleset", "mode", "view", "population"),
    ]
    for name in ("recency_days", "lifetime_orders", "lifetime_monetary_minor", "average_order_minor"):
        assert SNAPSHOT_SCHEMA.field(name).type == pa.int64()
    assert SNAPSHOT_SCHEMA.field("tier").type == pa.dictionary(pa.int8(), pa.string())


def test_every_column_of_a_change_is_there_with_its_type() -> None:
    for field in CHANGE_SCHEMA:
        if field.name == "holdout":
            continue  # docs/semantics.md 11: on changes and signals, which automation acts on
        assert SNAPSHOT_SCHEMA.field(field.name).type == field.type


def test_a_customer_without_orders_has_nulls_where_there_is_nothing_to_say() -> None:
    nullable = {field.name for field in SNAPSHOT_SCHEMA if field.nullable}
    assert nullable == {
        *("tier", "tier_since", "seq", "from_tier", "to_tier", "reason", "order_id", "effective_at"),
        *(
            "last_paid_at",
            "recency_days",
            "first_paid_at",
            "average_order_minor",
            "next_change_at",
            "next_tier",
            "population",
        ),
    }


def test_the_schema_of_a_ruleset_tells_the_currency() -> None:
    metadata = snapshot_schema(load_ruleset("rfm8")).metadata
    assert metadata[b"rfmstream.currency"] == b"CNY"
    assert metadata[b"rfmstream.ruleset"] == b"rfm8"
