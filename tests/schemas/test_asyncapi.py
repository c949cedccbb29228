"""The document of the topics against the rules of AsyncAPI 3.0 and against what the worker reads and writes.

No Python package ships AsyncAPI's own JSON Schema, so the rules that matter here are checked one by one; the document
was also checked against that schema (npm @asyncapi/specs, 3.0.0) when it was written.
"""

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from jsonschema import Draft7Validator

from rfmstream import Engine
from rfmstream.engine.live.config import OutputTopics
from rfmstream.engine.live.encode import Encoder, Record
from rfmstream.engine.live.law import Law
from rfmstream.engine.live.model import Rejection, Source, Tick
from rfmstream.schemas.asyncapi import (
    CHANGES_TOPIC,
    CLOCK_TOPIC,
    CURRENT_TOPIC,
    REJECTED_TOPIC,
    SHADOW_TOPIC,
    SIGNALS_TOPIC,
    asyncapi_document,
    asyncapi_text,
)
from rfmstream.schemas.orders import ORDER_SCHEMA
from rfmstream.schemas.ruleset import load_ruleset

RULESET = load_ruleset("rfm8")
DOCUMENT = asyncapi_document(RULESET)
DOCS = Path(__file__).resolve().parents[2] / "docs" / "asyncapi.json"

FIELDS = {
    "channel": {"address", "description", "messages", "bindings"},
    "operation": {"action", "channel", "summary", "messages"},
    "message": {"name", "summary", "contentType", "headers", "payload", "bindings"},
    "channel binding": {"topic", "topicConfiguration", "bindingVersion"},
    "message binding": {"key", "bindingVersion"},
}
"""What the specification lets stand there, of what we use."""


def resolve(reference: str) -> Any:  # noqa: ANN401 - any part of the document
    node: Any = DOCUMENT
    assert reference.startswith("#/")
    for step in reference[2:].split("/"):
        node = node[step]
    return node


def references(node: Any) -> Iterator[str]:  # noqa: ANN401 - any part of the document
    if isinstance(node, dict):
        if "$ref" in node:
            assert set(node) == {"$ref"}, "what stands beside a reference is ignored"
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def whole(node: Any) -> Any:  # noqa: ANN401 - any part of the document
    """Return a part of the document with what its references stand for."""
    if isinstance(node, dict):
        return (
            whole(resolve(node["$ref"]))
            if "$ref" in node
            else {name: whole(part) for name, part in node.items()}
        )
    return [whole(part) for part in node] if isinstance(node, list) else node


MESSAGES = {name: whole(message) for name, message in DOCUMENT["components"]["messages"].items()}


def test_the_committed_document_is_the_generated_one() -> None:
    """If it is not: print `rfmstream.schemas.asyncapi.asyncapi_text()` into docs/asyncapi.json."""
    assert DOCS.read_text(encoding="utf-8") == asyncapi_text()
    assert json.loads(asyncapi_text(RULESET)) == DOCUMENT


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert all(resolve(reference) for reference in found)
    for kind in ("messages", "schemas"):
        names = DOCUMENT["components"][kind]
        assert {f"#/components/{kind}/{name}" for name in names} <= found
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)


def test_the_document_has_what_the_specification_asks_for() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(DOCUMENT["info"])
    assert set(DOCUMENT) == {
        "asyncapi",
        "info",
        "defaultContentType",
        "channels",
        "operations",
        "components",
    }
    for channel in DOCUMENT["channels"].values():
        assert set(channel) == FIELDS["channel"]
        binding = channel["bindings"]["kafka"]
        assert set(binding) <= FIELDS["channel binding"]
        assert binding["topic"] == channel["address"]
        assert set(binding.get("topicConfiguration", {}).get("cleanup.policy", [])) <= {"compact", "delete"}
        assert all(
            message["$ref"].startswith("#/components/messages/") for message in channel["messages"].values()
        )
    for message in DOCUMENT["components"]["messages"].values():
        assert set(message) <= FIELDS["message"]
        assert set(message["bindings"]["kafka"]) == FIELDS["message binding"]


def test_operations_speak_of_their_channels_messages() -> None:
    for operation in DOCUMENT["operations"].values():
        assert set(operation) == FIELDS["operation"]
        assert operation["action"] in ("send", "receive")
        channel = operation["channel"]["$ref"]
        assert re.fullmatch("#/channels/[A-Za-z]+", channel)
        named = [message["$ref"] for message in operation["messages"]]
        assert named == [f"{channel}/messages/{name}" for name in resolve(channel)["messages"]]


def test_schemas_are_of_asyncapis_dialect() -> None:
    for message in MESSAGES.values():
        for schema in (message["payload"], message.get("headers", {}), message["bindings"]["kafka"]["key"]):
            Draft7Validator.check_schema(schema)
            text = json.dumps(schema)
            assert not re.search(r'"(\$schema|\$defs|prefixItems|dependentRequired|unevaluated\w+)":', text)
        assert message.get("headers", {"type": "object"})["type"] == "object"


def test_topics_are_those_the_worker_writes_by_default() -> None:
    addresses = [channel["address"] for channel in DOCUMENT["channels"].values()]
    assert len(set(addresses)) == len(addresses) == 7
    topics = OutputTopics()
    assert (topics.changes, topics.current) == (CHANGES_TOPIC, CURRENT_TOPIC)
    assert (topics.rejected, topics.clock) == (REJECTED_TOPIC, CLOCK_TOPIC)
    assert (topics.signals, topics.shadow) == (SIGNALS_TOPIC, SHADOW_TOPIC)
    assert set(vars(topics).values()) < set(addresses)


def is_valid(schema: dict[str, Any], value: Any) -> bool:  # noqa: ANN401 - any JSON
    return Draft7Validator(schema, format_checker=Draft7Validator.FORMAT_CHECKER).is_valid(value)


def check(name: str, records: Iterable[Record]) -> None:
    message = MESSAGES[name]
    for key, value, headers in records:
        as_text = {header: text.decode() for header, text in headers}
        assert is_valid(message["headers"], as_text), as_text
        assert not is_valid(message["headers"], dict(list(as_text.items())[1:])), "each of ours is required"
        assert "json" not in message["contentType"] or is_valid(
            message["payload"], orjson.loads(value or b"")
        )
        assert is_valid(message["bindings"]["kafka"]["key"], None if key is None else key.decode())
        assert as_text.get("content-type", message["contentType"]) == message["contentType"]


@pytest.mark.parametrize("structured", [False, True])
def test_tier_changes_fit_their_message(structured: bool) -> None:  # noqa: FBT001 - drawn
    orders = pa.table(
        {
            "customer_id": ["a", 'b"%\x01', "客户", "a"],
            "order_id": ["1", "2", "3", "4"],
            "occurred_at": [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)],
            "amount": ["1", "2000", "3", "4000"],
        }
    )
    engine = Engine(RULESET, mode="live")
    changes = pa.concat_tables([engine.step(orders).changes, engine.advance("2027-01-01T00:00:00Z")])
    encoder = Encoder(RULESET, source="/rfmstream/shop", structured=structured)
    name = "tierChangeEvent" if structured else "tierChange"
    records = list(encoder.changes(changes))
    assert len(records) == 7
    check(name, records)
    [(_, current)] = encoder.parts(changes)
    check(name, current)
    payload = orjson.loads(records[0].value or b"")
    data = payload["data"] if structured else payload
    data["to_tier"] = "vip"
    assert not is_valid(MESSAGES[name]["payload"], payload)
    assert is_valid(whole(asyncapi_document()["components"]["schemas"]["tierChange"]), data)


@pytest.mark.parametrize("structured", [False, True])
def test_signals_fit_their_message(structured: bool) -> None:  # noqa: FBT001 - drawn
    orders = pa.table(
        {
            "customer_id": ["a", 'b"%\x01', "客户", "a"],
            "order_id": ["1", "2", "3", "4"],
            "occurred_at": [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)],
            "amount": ["1", "2000", "3", "4000"],
        }
    )
    engine = Engine(RULESET, mode="live")
    first = engine.step(orders).signals
    engine.advance("2027-06-01T00:00:00Z")
    signals = pa.concat_tables([first, engine.signals])
    assert set(signals["kind"].to_pylist()) == {"orders", "dwell"}
    encoder = Encoder(RULESET, source="/rfmstream/shop", structured=structured)
    name = "signalEvent" if structured else "signal"
    records = [record for records in encoder.signals(signals) for record in records]
    check(name, records)
    payload = orjson.loads(records[0].value or b"")
    data = payload["data"] if structured else payload
    data["kind"] = "surprise"
    assert not is_valid(MESSAGES[name]["payload"], payload)


def test_rejected_rows_fit_their_message() -> None:
    rows = [
        Rejection("malformed", None, b"{", 7, 0, 1_767_225_600_000_000),
        Rejection("unknown_order", b"k", None, 8, 2, -1000),
        Rejection("malformed", b"k" * 2000, b"v" * 9000, 9, 0, 0),
    ]
    encoder = Encoder(RULESET, source="/rfmstream/shop", rejected_bytes_max=5000)
    check("rejectedOrder", encoder.rejections(rows, Source("orders.v1", 3)))


@pytest.mark.parametrize(
    "ruleset",
    [
        None,
        *(
            str(Law.of(RULESET, clock, 300_000_000, m))
            for clock in ("log", "event")
            for m in (None, "0f" * 8)
        ),
    ],
)
def test_ticks_fit_their_message(ruleset: str | None) -> None:
    payload = orjson.loads(orjson.dumps(Tick(12, 1_767_225_600_000_000, ruleset)._asdict()))
    assert is_valid(MESSAGES["tick"]["payload"], payload)
    assert not is_valid(MESSAGES["tick"]["payload"], payload | {"position": -1})
    assert not is_valid(MESSAGES["tick"]["payload"], payload | {"ruleset": "rfm8"})


def test_orders_may_come_in_every_form() -> None:
    order = {"customer_id": "a", "order_id": "1", "occurred_at": "2026-01-01T00:00:00Z", "amount": "1.50"}
    for name, payload in (("order", order), ("orderArray", [order, order]), ("orderEvent", {"data": order})):
        message = MESSAGES[name]
        assert is_valid(message["payload"], payload)
        assert not is_valid(message["payload"], {"order": order})
        assert is_valid(message["headers"], {"content-type": message["contentType"] + "; charset=utf-8"})
        assert not is_valid(message["headers"], {"content-type": "text/plain"})
    columns = MESSAGES["orderArrow"]["payload"]["x-arrow-columns"]
    assert [(column["name"], column["type"]) for column in columns] == [
        (field.name, str(field.type)) for field in ORDER_SCHEMA
    ]
