"""Tier changes: one row whenever a customer's tier differs from the tier before.

Source  docs/semantics.md section 6
"""

from typing import Any, Final

import pyarrow as pa

from rfmstream.schemas.codes import ChangeReason
from rfmstream.schemas.columns import TIMESTAMP, WORD, Column, arrow_schema, json_object
from rfmstream.schemas.ruleset import Ruleset

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
        "Counts the customer's changes from 1; (view, population, customer_id, seq) identifies one for ever.",
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
    Column(
        "holdout",
        pa.bool_(),
        "flag",
        "Whether automation must leave the customer alone, so that acting can be measured; null: the new tier's"
        " playbook holds nobody out.",
    ),
    Column("view", WORD, "id", "The view it belongs to; without views the ruleset's name.", nullable=False),
    Column("population", pa.string(), "text", "The `per` value of the view; null without one."),
)

CHANGE_SCHEMA: Final = arrow_schema(CHANGE_COLUMNS)

LABEL_COLUMNS: Final = (
    Column("currency", pa.string(), "ISO 4217 code", "What monetary_minor is in.", nullable=False),
    Column("from_tier_zh", pa.string(), "text", "The tier before, in Chinese; null: none."),
    Column("from_tier_en", pa.string(), "text", "The tier before, in English; null: none."),
    Column("to_tier_zh", pa.string(), "text", "The new tier, in Chinese; null: none."),
    Column("to_tier_en", pa.string(), "text", "The new tier, in English; null: none."),
    Column("playbook", pa.string(), "key", "The new tier's playbook in the ruleset; null: no tier."),
)
"""What an event says besides, for those who have not the ruleset at hand. Labels may be reworded at any time."""

CHANGE_TYPE: Final = "io.rfmstream.tier-changed.v1"
"""The CloudEvents type of a tier change."""


def change_schema(ruleset: Ruleset) -> pa.Schema:
    """Build CHANGE_SCHEMA with currency, time zone and fingerprint as metadata: see `Ruleset.metadata`."""
    return CHANGE_SCHEMA.with_metadata(ruleset.metadata)


def change_json_schema(ruleset: Ruleset | None = None) -> dict[str, Any]:
    """Build the JSON Schema (draft 2020-12) of one tier change.

    With a ruleset its tier ids are the only ones allowed.
    """
    return _json_schema(
        CHANGE_COLUMNS,
        ruleset,
        title="Tier change",
        description="A customer's tier changed. (view, population, customer_id, seq) identifies the change.",
    )


def change_event_json_schema(ruleset: Ruleset | None = None) -> dict[str, Any]:
    """Build the JSON Schema (draft 2020-12) of a tier change as it is sent: `change_json_schema` and labels."""
    return _json_schema(
        (*CHANGE_COLUMNS, *LABEL_COLUMNS),
        ruleset,
        title="Tier change",
        description=(
            "A customer's tier changed. (view, population, customer_id, seq) identifies the change. "
            "Numbers are integers of 64 bits with all their digits: a reader that keeps numbers as doubles "
            "(JavaScript's JSON.parse) rounds those beyond 2^53. Instants are UTC with microseconds and Z. Every key "
            "is there, null where there is nothing to say."
        ),
    )


def _json_schema(
    columns: tuple[Column, ...], ruleset: Ruleset | None, *, title: str, description: str
) -> dict[str, Any]:
    schema = json_object(columns, title=title, description=description)
    if ruleset is not None:
        ids = [tier.id for tier in ruleset.tiers]
        for name in ("from_tier", "to_tier", "next_tier"):
            schema["properties"][name]["enum"] = [*ids, None]
    return schema
