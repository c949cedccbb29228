"""Signals: what has to be heard although no tier changed.

Source  docs/semantics.md section 9
"""

from typing import Any, Final

import pyarrow as pa

from rfmstream.schemas.changes import CHANGE_COLUMNS
from rfmstream.schemas.codes import SignalKind
from rfmstream.schemas.columns import TIMESTAMP, WORD, Column, arrow_schema, json_object
from rfmstream.schemas.ruleset import Ruleset

SIGNAL_KINDS: Final = tuple(kind.name.lower() for kind in SignalKind)
"""The wire values of `kind`; position = SignalKind code."""

_CHANGE: Final = {column.name: column for column in CHANGE_COLUMNS}

SIGNAL_COLUMNS: Final = (
    Column("customer_id", pa.string(), "id", "The customer the signal is about.", nullable=False),
    Column(
        "kind",
        WORD,
        "word",
        "warning: the tier will be lost; dwell: still in it; orders, spend, single_order: a milestone is reached.",
        nullable=False,
        json={"enum": list(SIGNAL_KINDS)},
    ),
    Column("effective_at", TIMESTAMP, "µs since 1970 UTC", "When it became true.", nullable=False),
    Column("tier", WORD, "tier id", "The customer's tier after this instant; null: none."),
    Column(
        "seq",
        pa.int64(),
        "count",
        "The customer's changes of tier so far, those of this instant included.",
        nullable=False,
        json={"minimum": 0},
    ),
    Column("days", pa.int64(), "days", "Of a warning and a dwell: which of the tier's days gave it."),
    Column("count", pa.int64(), "orders", "Of orders: the milestone, lifetime orders."),
    Column(
        "amount_minor",
        pa.int64(),
        "minor units",
        "Of spend and single_order: the milestone, in the ruleset's currency.",
    ),
    Column("at", TIMESTAMP, "µs since 1970 UTC", "Of a warning: when the tier will change."),
    Column("next_tier", WORD, "tier id", "Of a warning: the tier the customer will then have."),
    Column(
        "stay_orders",
        pa.int64(),
        "orders",
        "Of a warning: the fewest further orders just before `at` that keep the tier; null: no number does.",
    ),
    Column(
        "stay_minor",
        pa.int64(),
        "minor units",
        "Of a warning: the least amount of those orders together that keeps the tier; null: nothing does.",
    ),
    Column("order_id", pa.string(), "id", "The order_id of the event that brought it; null for time."),
    _CHANGE["view"],
    _CHANGE["population"],
    _CHANGE["ruleset"],
    _CHANGE["mode"],
    _CHANGE["holdout"],
)

SIGNAL_SCHEMA: Final = arrow_schema(SIGNAL_COLUMNS)

SIGNAL_TYPE: Final = "io.rfmstream.signal.v1"
"""The CloudEvents type of a signal."""


def signal_schema(ruleset: Ruleset) -> pa.Schema:
    """Build SIGNAL_SCHEMA with currency, time zone and fingerprint as metadata: see `Ruleset.metadata`."""
    return SIGNAL_SCHEMA.with_metadata(ruleset.metadata)


def signal_json_schema(ruleset: Ruleset | None = None) -> dict[str, Any]:
    """Build the JSON Schema (draft 2020-12) of one signal, as files and the worker's topic hold it.

    With a ruleset its tier ids are the only ones allowed.
    """
    schema = json_object(
        SIGNAL_COLUMNS,
        title="Signal",
        description=(
            "What has to be heard of a customer although no tier changed. (view, population, customer_id, kind, "
            "effective_at, days, count, amount_minor, order_id) identifies the signal. Numbers are integers of 64 bits "
            "with all their digits; instants are UTC with microseconds and Z; null where there is nothing to say."
        ),
    )
    if ruleset is not None:
        ids = [tier.id for tier in ruleset.tiers]
        for name in ("tier", "next_tier"):
            schema["properties"][name]["enum"] = [*ids, None]
    return schema
