"""The worker's topics as an AsyncAPI 3.0 document: what may be sent to it and what it sends.

docs/asyncapi.json is this document for any ruleset; with a ruleset its tier ids are the only ones.

Source  AsyncAPI 3.0.0 and its Kafka bindings 0.5.0; the schemas of this package
"""

import json
import re
from typing import Any, Final

from rfmstream.schemas.changes import CHANGE_TYPE, change_event_json_schema
from rfmstream.schemas.orders import ORDER_COLUMNS, REJECTION_REASONS, order_json_schema
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.signals import SIGNAL_TYPE, signal_json_schema

ORDERS_TOPIC: Final = "orders.v1"
CHANGES_TOPIC: Final = "rfm.tier-changes.v1"
CURRENT_TOPIC: Final = "rfm.tier-current.v1"
REJECTED_TOPIC: Final = "orders.rejected.v1"
CLOCK_TOPIC: Final = "rfm.clock.v1"
SIGNALS_TOPIC: Final = "rfm.signals.v1"
SHADOW_TOPIC: Final = "rfm.shadow-changes.v1"

_BINDING: Final = "0.5.0"
_INT64: Final = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
_DECIMAL: Final = {"type": "string", "pattern": "^-?[0-9]+$"}
_CUSTOMER_KEY: Final = {"type": "string", "description": "The customer id, UTF-8."}

_NEWEST_KEY: Final = {
    "type": "string",
    "description": (
        "The customer id, UTF-8; where there are several views or populations the JSON array of view, population and "
        "customer id."
    ),
}

_ORDER_KEY: Final = {
    "type": "string",
    "description": (
        "Best the customer id, so that all orders of a customer lie in one partition: state belongs to the partition "
        "that an order came from."
    ),
}


def asyncapi_document(ruleset: Ruleset | None = None) -> dict[str, Any]:
    """Build the document; with a ruleset its tier ids are the only ones allowed."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "rfmstream worker",
            "version": "1.0.0",
            "description": (
                "Orders in, tier changes and signals out the moment they happen. What a step of the worker writes is "
                "one Kafka transaction: read with isolation.level=read_committed. Topic names are the defaults; output "
                "has the partition number of its input."
            ),
        },
        "defaultContentType": "application/json",
        "channels": {
            "orders": _channel(
                ORDERS_TOPIC,
                "Order events, in one of five forms told apart by the content-type header, else by the first bytes.",
                ("order", "orderArray", "orderLines", "orderArrow", "orderEvent"),
            ),
            "tierChanges": _channel(
                CHANGES_TOPIC,
                "Every tier change, of each customer in order of seq.",
                ("tierChange", "tierChangeEvent"),
                {"cleanup.policy": ["delete"]},
            ),
            "tierCurrent": _channel(
                CURRENT_TOPIC,
                "The last tier change of each customer: the same records, compacted, where there are several views or "
                "populations under the key [view, population, customer id]. Of a customer that was erased a tombstone.",
                ("tierChange", "tierChangeEvent", "tombstone"),
                {"cleanup.policy": ["compact"]},
            ),
            "shadowChanges": _channel(
                SHADOW_TOPIC,
                "Every tier change of shadow views, for nobody to act on. Written only where there are some.",
                ("tierChange", "tierChangeEvent"),
                {"cleanup.policy": ["delete"]},
            ),
            "signals": _channel(
                SIGNALS_TOPIC,
                "What has to be heard although no tier changed: warnings before a tier is lost, dwells in it, "
                "milestones. Written only where the ruleset asks for signals.",
                ("signal", "signalEvent"),
                {"cleanup.policy": ["delete"]},
            ),
            "rejectedOrders": _channel(
                REJECTED_TOPIC,
                "Rows that changed nothing, with the reason.",
                ("rejectedOrder",),
                {"cleanup.policy": ["delete"]},
            ),
            "clock": _channel(
                CLOCK_TOPIC,
                "The worker's own notes of how far time was let pass, from which a restart repeats the same history. "
                "Nobody else writes here.",
                ("tick",),
                {"cleanup.policy": ["delete"], "retention.ms": -1, "retention.bytes": -1},
            ),
        },
        "operations": {
            "receiveOrders": _operation(
                "receive",
                "orders",
                "Apply orders.",
                ("order", "orderArray", "orderLines", "orderArrow", "orderEvent"),
            ),
            "sendTierChanges": _operation(
                "send", "tierChanges", "Tell every tier change.", ("tierChange", "tierChangeEvent")
            ),
            "sendTierCurrent": _operation(
                "send",
                "tierCurrent",
                "Tell the newest tier change.",
                ("tierChange", "tierChangeEvent", "tombstone"),
            ),
            "sendShadowChanges": _operation(
                "send",
                "shadowChanges",
                "Tell tier changes of shadow views.",
                ("tierChange", "tierChangeEvent"),
            ),
            "sendSignals": _operation("send", "signals", "Tell every signal.", ("signal", "signalEvent")),
            "sendRejectedOrders": _operation(
                "send", "rejectedOrders", "Put rejected rows aside.", ("rejectedOrder",)
            ),
            "sendTicks": _operation("send", "clock", "Note the passing of time.", ("tick",)),
            "receiveTicks": _operation("receive", "clock", "Repeat it after a restart.", ("tick",)),
        },
        "components": {
            "messages": {**_order_messages(), **_event_messages(), **_other_messages()},
            "schemas": {
                "order": _embedded(order_json_schema()),
                "tierChange": _embedded(change_event_json_schema(ruleset)),
                "tierChangeEvent": _envelope("Tier change event", _CHANGE_HEADERS, "tierChange"),
                "signal": _embedded(signal_json_schema(ruleset)),
                "signalEvent": _envelope("Signal event", _SIGNAL_HEADERS, "signal"),
                "tick": _TICK,
            },
        },
    }


def asyncapi_text(ruleset: Ruleset | None = None) -> str:
    """Return the document as JSON text; without a ruleset it is docs/asyncapi.json."""
    return json.dumps(asyncapi_document(ruleset), ensure_ascii=False, indent=2) + "\n"


def _channel(
    address: str, description: str, messages: tuple[str, ...], configuration: dict[str, Any] | None = None
) -> dict[str, Any]:
    kafka: dict[str, Any] = {"topic": address, "bindingVersion": _BINDING}
    if configuration is not None:
        kafka["topicConfiguration"] = configuration
    return {
        "address": address,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"kafka": kafka},
    }


def _operation(action: str, channel: str, summary: str, messages: tuple[str, ...]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages],
    }


def _message(  # noqa: PLR0913 - each by name
    *,
    name: str,
    summary: str,
    content_type: str,
    payload: dict[str, Any],
    key: dict[str, Any],
    headers: dict[str, Any] | None = None,
) -> dict[str, Any]:
    message: dict[str, Any] = {"name": name, "summary": summary, "contentType": content_type}
    if headers is not None:
        message["headers"] = headers
    return {
        **message,
        "payload": payload,
        "bindings": {"kafka": {"key": key, "bindingVersion": _BINDING}},
    }


def _schema(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _headers(properties: dict[str, dict[str, Any]], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }


def _named_type(media_type: str, *, required: bool = False) -> dict[str, Any]:
    """Build the headers of a producer's message: most are known without any, and parameters do not matter."""
    pattern = f"^{re.escape(media_type)} *(;.*)?$"
    headers = _headers({"content-type": {"type": "string", "pattern": pattern}})
    return headers if required else {**headers, "required": []}


def _order_messages() -> dict[str, Any]:
    lines = "application/x-ndjson"
    arrow = "application/vnd.apache.arrow.stream"
    event = "application/cloudevents+json"
    return {
        "order": _message(
            name="order",
            summary="One order.",
            content_type="application/json",
            headers=_named_type("application/json"),
            payload=_schema("order"),
            key=_ORDER_KEY,
        ),
        "orderArray": _message(
            name="order-array",
            summary="Orders as a JSON array.",
            content_type="application/json",
            headers=_named_type("application/json"),
            payload={"type": "array", "items": _schema("order")},
            key=_ORDER_KEY,
        ),
        "orderLines": _message(
            name="order-lines",
            summary="Orders as JSON, one a line.",
            content_type=lines,
            headers=_named_type(lines),
            payload={"type": "string", "description": "Each line is a JSON object: schema `order`."},
            key=_ORDER_KEY,
        ),
        "orderArrow": _message(
            name="order-arrow",
            summary="Orders as an Arrow IPC stream: its batches, each with the schema before it.",
            content_type=arrow,
            headers=_named_type(arrow),
            payload={
                "type": "string",
                "format": "binary",
                "description": "An Arrow IPC stream with these columns; others are ignored.",
                "x-arrow-columns": [
                    {
                        "name": column.name,
                        "type": str(column.type),
                        "nullable": column.nullable,
                        "unit": column.unit,
                        "description": column.description,
                    }
                    for column in ORDER_COLUMNS
                ],
            },
            key=_ORDER_KEY,
        ),
        "orderEvent": _message(
            name="order-event",
            summary="One order as the data of a CloudEvent in structured mode.",
            content_type=event,
            headers=_named_type(event, required=True),
            payload={
                "type": "object",
                "properties": {"data": _schema("order")},
                "required": ["data"],
            },
            key=_ORDER_KEY,
        ),
    }


_ID_TEXT: Final = (
    "Characters that CloudEvents forbids (controls, noncharacters) and the percent sign are percent-encoded; "
    "in the ruleset's identity the slash, too."
)


def _event_headers(event_type: str, identity: str, time: str) -> dict[str, Any]:
    return _headers(
        {
            "ce_specversion": {"const": "1.0"},
            "ce_id": {
                "type": "string",
                "minLength": 1,
                "description": f"{identity}: unique for ever within ce_source. {_ID_TEXT}",
            },
            "ce_source": {"type": "string", "minLength": 1, "description": "The worker, as configured."},
            "ce_type": {"const": event_type},
            "ce_subject": {
                "type": "string",
                "minLength": 1,
                "description": f"The customer id. {_ID_TEXT}",
            },
            "ce_time": {
                "type": "string",
                "format": "date-time",
                "description": f"effective_at: {time}.",
            },
            "content-type": {"const": "application/json"},
        }
    )


_CHANGE_HEADERS: Final = _event_headers(
    CHANGE_TYPE,
    "ruleset/customer/seq, or of several views or populations view/population%2Fcustomer/seq",
    "the instant at which the new tier began",
)

_SIGNAL_HEADERS: Final = _event_headers(
    SIGNAL_TYPE,
    "view/kind/effective_at/days/count/amount_minor/population%2Fcustomer%2Forder",
    "the instant at which it became true",
)


def _event_messages() -> dict[str, Any]:
    event = "application/cloudevents+json; charset=utf-8"
    return {
        "tierChange": _message(
            name="tier-change",
            summary="A tier change: CloudEvents 1.0, binary mode.",
            content_type="application/json",
            headers=_CHANGE_HEADERS,
            payload=_schema("tierChange"),
            key=_CUSTOMER_KEY,
        ),
        "tierChangeEvent": _message(
            name="tier-change-event",
            summary="The same in structured mode, where the worker is configured so.",
            content_type=event,
            headers=_headers({"content-type": {"const": event}}),
            payload=_schema("tierChangeEvent"),
            key=_CUSTOMER_KEY,
        ),
        "tombstone": {
            "name": "tombstone",
            "summary": "The customer was erased: no value and no headers. Drop what you hold of it.",
            "payload": {"type": "null"},
            "bindings": {"kafka": {"key": _NEWEST_KEY, "bindingVersion": _BINDING}},
        },
        "signal": _message(
            name="signal",
            summary="A signal: CloudEvents 1.0, binary mode.",
            content_type="application/json",
            headers=_SIGNAL_HEADERS,
            payload=_schema("signal"),
            key=_CUSTOMER_KEY,
        ),
        "signalEvent": _message(
            name="signal-event",
            summary="The same in structured mode, where the worker is configured so.",
            content_type=event,
            headers=_headers({"content-type": {"const": event}}),
            payload=_schema("signalEvent"),
            key=_CUSTOMER_KEY,
        ),
    }


def _envelope(title: str, of: dict[str, Any], data: str) -> dict[str, Any]:
    """Build the schema of an event in structured mode from the headers of binary mode."""
    headers = of["properties"]
    attributes = {
        name.removeprefix("ce_"): schema for name, schema in headers.items() if name.startswith("ce_")
    }
    properties = {
        **attributes,
        "datacontenttype": headers["content-type"],
        "data": _schema(data),
    }
    return {
        "title": title,
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


def _other_messages() -> dict[str, Any]:
    rejected: dict[str, dict[str, Any]] = {
        "rfm-reason": {"enum": list(REJECTION_REASONS), "description": "Why it was rejected."},
        "rfm-topic": {"type": "string", "description": "Where its record came from."},
        "rfm-partition": _DECIMAL,
        "rfm-offset": _DECIMAL,
        "rfm-row": {**_DECIMAL, "description": "0-based place of the row in its record."},
        "rfm-timestamp": {**_DECIMAL, "description": "The record's time, µs since 1970 UTC."},
        "rfm-detail": {
            "type": "string",
            "description": "What stands there, where the reason alone does not tell.",
        },
        "rfm-views": {"type": "string", "description": "Of several views those that reject it, with commas."},
        "rfm-key-bytes": {**_DECIMAL, "description": "How long the key was that was too long to keep."},
        "rfm-value-bytes": {**_DECIMAL, "description": "How long the value was before its end was cut off."},
    }
    return {
        "rejectedOrder": _message(
            name="rejected-order",
            summary="A row that changed nothing.",
            content_type="application/octet-stream",
            headers=_headers(
                rejected, optional=("rfm-detail", "rfm-views", "rfm-key-bytes", "rfm-value-bytes")
            ),
            payload={
                "type": ["string", "null"],
                "format": "binary",
                "description": "The bytes of the record; where it held several rows, of the row.",
            },
            key={"type": ["string", "null"], "description": "The key of its record, as it came."},
        ),
        "tick": _message(
            name="tick",
            summary="With everything before a position applied, time was let pass up to an instant.",
            content_type="application/json",
            payload=_schema("tick"),
            key={"type": "string", "description": "The worker's app id, a slash and the input topic."},
        ),
    }


_TICK: Final = {
    "title": "Tick",
    "type": "object",
    "properties": {
        "position": {
            **_INT64,
            "minimum": 0,
            "description": "Everything before this input offset was applied.",
        },
        "clock_us": {**_INT64, "description": "Up to where time was let pass, µs since 1970 UTC."},
        "ruleset": {
            "type": ["string", "null"],
            "pattern": r"^\S.* [0-9a-f]{64} (log|event)(\+[0-9a-f]{16})? [0-9]+$",
            "description": "What decides from then on, in the first tick and where it changed: the ruleset's identity "
            "and fingerprint, the clock with the input map's fingerprint if there is one, and the tolerance in µs.",
        },
    },
    "required": ["position", "clock_us"],
}


def _embedded(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without the name of its dialect: it uses nothing that AsyncAPI's own (draft 7) has not."""
    return {name: value for name, value in schema.items() if name != "$schema"}
