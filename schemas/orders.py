"""Order events in their three forms: as anyone may send them, as the core reads them, and as rejected.

Source  docs/semantics.md section 1
"""

from typing import Any, Final

import pyarrow as pa

from rfmstream.schemas.codes import AMOUNT_MINOR_MAX, ID_BYTES_MAX, REJECTIONS, OrderType
from rfmstream.schemas.columns import TIMESTAMP, Column, arrow_schema, json_object

ORDER_TYPES: Final = tuple(order_type.name.lower() for order_type in OrderType)
"""The wire values of `type`; position = OrderType code."""

REJECTION_REASONS: Final = tuple(outcome.name.lower() for outcome in REJECTIONS)
"""The wire values of a rejected row's `reason`, in order of precedence."""

AMOUNT_TYPE: Final = pa.decimal128(17, 4)
"""Major units, exact: room for AMOUNT_MINOR_MAX without decimals, and for the four of the finest currency."""

_DATE: Final = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME: Final = "[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?"
_ZONE: Final = "( ?([Zz]|UTC|[+-][0-9]{2}(:?[0-9]{2})?))"

# JSON Schema counts characters and cannot count bytes, so its limit is necessary, not sufficient.
_ID: Final = {"minLength": 1, "maxLength": ID_BYTES_MAX}

_CUSTOMER_ID: Final = Column(
    "customer_id",
    pa.string(),
    "id",
    f"Opaque customer id, 1-{ID_BYTES_MAX} bytes of UTF-8; never a number ('00042' is not '42').",
    nullable=False,
    json=_ID,
)
_ORDER_ID: Final = Column(
    "order_id",
    pa.string(),
    "id",
    f"Identifies the order inside its customer's history, 1-{ID_BYTES_MAX} bytes of UTF-8.",
    nullable=False,
    json=_ID,
)
_OCCURRED_AT: Final = Column(
    "occurred_at",
    TIMESTAMP,
    "µs since 1970 UTC",
    "When it happened; for paid the payment time. Without a zone: in the input map's zone, else in the ruleset's.",
    nullable=False,
    # What the readers take: RFC 3339, and also a date alone, a time without seconds or without a zone.
    json={"type": "string", "pattern": f"^{_DATE}({_TIME}{_ZONE}?)?$"},
)
_EVENT_ID: Final = Column(
    "event_id",
    pa.string(),
    "id",
    "Identity for deduplication, of any length."
    " Default: order_id for paid, (type, order_id, occurred_at) for the others.",
    json={"minLength": 1},
)
_AMOUNT_LIMITS: Final = {"minimum": -AMOUNT_MINOR_MAX, "maximum": AMOUNT_MINOR_MAX}

ORDER_COLUMNS: Final = (
    _CUSTOMER_ID,
    _ORDER_ID,
    Column(
        "type",
        pa.string(),
        "word",
        "What happened: paid (the default), refunded or cancelled (of that order), adjusted (signed amount),"
        " refunded_total (of that order, so far in all), erased (forget the customer).",
        json={"enum": list(ORDER_TYPES)},
    ),
    _OCCURRED_AT,
    Column(
        "amount",
        AMOUNT_TYPE,
        "major units",
        "Exact decimal amount; not needed for cancelled and erased, signed only for adjusted.",
        json={**_AMOUNT_LIMITS, "pattern": r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"},
    ),
    Column(
        "amount_minor",
        pa.int64(),
        "minor units",
        "The amount as an integer of minor units, instead of `amount`.",
        json=_AMOUNT_LIMITS,
    ),
    Column(
        "currency",
        pa.string(),
        "ISO 4217 code",
        "Default: the ruleset's; another one is rejected.",
        json={"pattern": "^[A-Z]{3}$"},
    ),
    _EVENT_ID,
)
"""What a producer sends. `type`, `amount` or `amount_minor`, `currency` and `event_id` may be absent."""

CANONICAL_COLUMNS: Final = (
    _CUSTOMER_ID,
    _ORDER_ID,
    Column("type", pa.uint8(), "OrderType code", "What happened.", nullable=False),
    _OCCURRED_AT,
    Column(
        "amount_minor", pa.int64(), "minor units", "The amount; 0 for cancelled and erased.", nullable=False
    ),
    _EVENT_ID,
    Column("row", pa.int64(), "row", "0-based ordinal of the input row over all inputs.", nullable=False),
)
"""What readers hand to the core: every row valid in itself, the amounts exact integers."""

_AS_IT_CAME: Final = {
    name: name
    for name in ("customer_id", "order_id", "type", "occurred_at", "amount", "currency", "event_id")
} | {"amount": "amount_minor, or else its amount"}

REJECTED_COLUMNS: Final = (
    Column("row", pa.int64(), "row", "0-based ordinal of the input row over all inputs.", nullable=False),
    Column("source", pa.string(), "file name", "The file of the row; null when it came through the API."),
    Column(
        "reason",
        pa.string(),
        "word",
        "Why it was rejected: the first that holds, in the order of the contract.",
        nullable=False,
        json={"enum": list(REJECTION_REASONS)},
    ),
    *(
        Column(name, pa.string(), "text", f"The row's {shown}, as it came.")
        for name, shown in _AS_IT_CAME.items()
    ),
    Column(
        "raw",
        pa.string(),
        "text",
        "The line or record where the columns do not tell it; of a JSON array as it was read.",
    ),
)
"""A row that changed nothing, and why."""

EXCLUDED_COLUMNS: Final = (
    Column("row", pa.int64(), "row", "0-based ordinal of the input row over all inputs.", nullable=False),
    Column("source", pa.string(), "file name", "The file of the row."),
    Column("why", pa.string(), "text", "What the map's [[exclude]] section says it is.", nullable=False),
    Column("raw", pa.string(), "text", "The columns that the map reads, as a JSON object.", nullable=False),
)
"""A row that an input map leaves out as no order event."""

ORDER_SCHEMA: Final = arrow_schema(ORDER_COLUMNS)
CANONICAL_SCHEMA: Final = arrow_schema(CANONICAL_COLUMNS)
EXCLUDED_SCHEMA: Final = arrow_schema(EXCLUDED_COLUMNS)
REJECTED_SCHEMA: Final = arrow_schema(REJECTED_COLUMNS)


def order_json_schema() -> dict[str, Any]:
    """Build the JSON Schema (draft 2020-12) of one order event, as in JSON lines or a Kafka record.

    Unknown keys are allowed, as the contract ignores unknown columns. An amount is needed unless the order is
    cancelled, and an order_id and an amount unless the customer is erased.
    """
    schema = json_object(
        ORDER_COLUMNS,
        title="Order event",
        description="A payment, refund, cancellation or adjustment of one customer, or its erasure.",
    )
    schema["required"] = [name for name in schema["required"] if name != "order_id"]
    schema["properties"]["order_id"] = {**schema["properties"]["order_id"], "type": ["string", "null"]}
    schema["allOf"] = [
        {
            "if": {"properties": {"type": {"const": "erased"}}, "required": ["type"]},
            "else": {"properties": {"order_id": {"not": {"type": "null"}}}, "required": ["order_id"]},
        }
    ]
    schema["if"] = {"properties": {"type": {"enum": ["cancelled", "erased"]}}, "required": ["type"]}
    schema["else"] = {
        "anyOf": [
            {"properties": {name: {"not": {"type": "null"}}}, "required": [name]}
            for name in ("amount", "amount_minor")
        ]
    }
    return schema
