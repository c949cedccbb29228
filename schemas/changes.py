"""Tier changes: one row whenever a customer's tier differs from the tier before.

Source  docs/semantics.md section 6
"""

from typing import Any, Final

import pyarrow as pa

from schemas.codes import ChangeReason
from schemas.columns import TIMESTAMP, WORD, Column, arrow_schema, json_object
from schemas.ruleset import Ruleset

MODES: Final = ("live", "replay")

CHANGE_REASONS: Final = tuple(reason.name.lower() for reason in ChangeReason)
"""The wire values of `reason`; position = ChangeReason code."""

_BAND: Final = {"minimum": 0}

CHANGE_COLUMNS: Final = (
    Column("customer_id", pa.string(), "id", "The customer whose tier changed.", nullable=False),
    Column(
        "seq",
        pa.int64(),
        "count",
        "Counts the customer's changes from 1; (ruleset, customer_id, seq) identifies one for ever.",
        nullable=False,
        json={"minimum": 1},
    ),
    Column(
        "effective_at",
        TIMESTAMP,
        "µs since 1970 UTC",
        "The instant at which the new tier began.",
        nullable=False,
    ),
    Column("from_tier", WORD, "tier id", "The tier before; null: none."),
    Column("to_tier", WORD, "tier id", "The new tier; null: none."),
    Column(
        "reason", WORD, "word", "What changed the tier.", nullable=False, json={"enum": list(CHANGE_REASONS)}
    ),
    Column("order_id", pa.string(), "id", "The order_id of the event behind the change; null for time."),
    Column(
        "r_band",
        pa.int16(),
        "band",
        "Recency band; the highest is the most recent.",
        nullable=False,
        json=_BAND,
    ),
    Column("f_band", pa.int16(), "band", "Frequency band: the cuts reached.", nullable=False, json=_BAND),
    Column("m_band", pa.int16(), "band", "Monetary band: the cuts reached.", nullable=False, json=_BAND),
    Column(
        "last_paid_at",
        TIMESTAMP,
        "µs since 1970 UTC",
        "R: newest date of an order not void; null: no such order.",
    ),
    Column("frequency", pa.int64(), "orders", "F: orders, not void, within the window.", nullable=False),
    Column(
        "monetary_minor",
        pa.int64(),
        "minor units",
        "M: what is left of those orders, plus the adjustments within the window, in the ruleset's currency.",
        nullable=False,
    ),
    Column(
        "next_change_at",
        TIMESTAMP,
        "µs since 1970 UTC",
        "When the tier will change if no further event comes; null: never.",
    ),
    Column(
        "next_tier", WORD, "tier id", "The tier the customer will then have; null: next_change_at is null."
    ),
    Column("ruleset", WORD, "id", "Identity of the ruleset that decided.", nullable=False),
    Column(
        "mode",
        WORD,
        "word",
        "live, or replay: history that automation must not act on.",
        nullable=False,
        json={"enum": list(MODES)},
    ),
)

CHANGE_SCHEMA: Final = arrow_schema(CHANGE_COLUMNS)


def change_schema(ruleset: Ruleset) -> pa.Schema:
    """Build CHANGE_SCHEMA with currency, time zone and fingerprint as metadata: see `Ruleset.metadata`."""
    return CHANGE_SCHEMA.with_metadata(ruleset.metadata)


def change_json_schema(ruleset: Ruleset | None = None) -> dict[str, Any]:
    """Build the JSON Schema (draft 2020-12) of one tier change.

    With a ruleset its tier ids are the only ones allowed.
    """
    schema = json_object(
        CHANGE_COLUMNS,
        title="Tier change",
        description="A customer's tier changed. (ruleset, customer_id, seq) identifies the change.",
    )
    if ruleset is not None:
        ids = [tier.id for tier in ruleset.tiers]
        for name in ("from_tier", "to_tier", "next_tier"):
            schema["properties"][name]["enum"] = [*ids, None]
    return schema
