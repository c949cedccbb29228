"""Snapshots: one row a customer, as of an instant.

Source  docs/semantics.md section 7
"""

from typing import Final

import pyarrow as pa

from rfmstream.schemas.changes import CHANGE_COLUMNS
from rfmstream.schemas.columns import TIMESTAMP, WORD, Column, arrow_schema
from rfmstream.schemas.ruleset import Ruleset

_CHANGE: Final = {column.name: column for column in CHANGE_COLUMNS}


def _newest(name: str) -> Column:
    """Return a column of the customer's newest change: null if there has been none."""
    change = _CHANGE[name]
    return Column(name, change.type, change.unit, f"Of the newest change: {change.description}")


SNAPSHOT_COLUMNS: Final = (
    Column("customer_id", pa.string(), "id", "The customer.", nullable=False),
    Column("tier", WORD, "tier id", "The tier as of the instant; null: no order that is not void."),
    Column(
        "tier_since", TIMESTAMP, "µs since 1970 UTC", "Since when the customer is in it; null: never had one."
    ),
    *(_newest(name) for name in ("seq", "from_tier", "to_tier", "reason", "order_id", "effective_at")),
    *(_CHANGE[name] for name in ("r_band", "f_band", "m_band", "last_paid_at")),
    Column("recency_days", pa.int64(), "days", "Whole days since last_paid_at, in the ruleset's day unit."),
    *(_CHANGE[name] for name in ("frequency", "monetary_minor")),
    Column(
        "first_paid_at",
        TIMESTAMP,
        "µs since 1970 UTC",
        "Oldest date of an order not void; null: no such order.",
    ),
    Column("lifetime_orders", pa.int64(), "orders", "All orders not void.", nullable=False),
    Column(
        "lifetime_monetary_minor",
        pa.int64(),
        "minor units",
        "What is left of all orders, plus all adjustments, in the ruleset's currency.",
        nullable=False,
    ),
    Column(
        "average_order_minor",
        pa.int64(),
        "minor units",
        "lifetime_monetary_minor // lifetime_orders, rounded down; null without orders.",
    ),
    *(_CHANGE[name] for name in ("next_change_at", "next_tier", "ruleset", "mode", "view", "population")),
)

SNAPSHOT_SCHEMA: Final = arrow_schema(SNAPSHOT_COLUMNS)


def snapshot_schema(ruleset: Ruleset) -> pa.Schema:
    """Build SNAPSHOT_SCHEMA with currency, time zone and fingerprint as metadata: see `Ruleset.metadata`."""
    return SNAPSHOT_SCHEMA.with_metadata(ruleset.metadata)
