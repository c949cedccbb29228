"""Kafka records as events: CloudEvents in binary or structured mode.

Source  CloudEvents 1.0.2, Kafka protocol binding and JSON format
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import orjson

from rfmstream.engine.deliver.model import Event, Place

_STRUCTURED: Final = b"application/cloudevents+json"


class UnreadableError(ValueError):
    """A record that is no CloudEvent with a customer in it; the text says why."""


class Record(Protocol):
    """A record as aiokafka gives it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


def read_event(kind: str, record: Record) -> Event:
    """Return the event in a record.

    In      kind  change or signal, by its topic
    Errors  UnreadableError
    """
    value = record.value
    if value is None:
        raise UnreadableError("the record has no value")
    named = dict(record.headers)
    try:
        whole = orjson.loads(value)
        if named.get("content-type", b"").startswith(_STRUCTURED) or (
            "ce_id" not in named and isinstance(whole, dict) and "specversion" in whole
        ):
            attributes: dict[str, Any] = whole
            data = whole["data"]
            raw = orjson.dumps(data)
        else:
            attributes = {
                "id": named["ce_id"].decode(),
                "source": named["ce_source"].decode(),
                "type": named["ce_type"].decode(),
                "subject": named.get("ce_subject", b"").decode(),
                "time": named.get("ce_time", b"").decode(),
            }
            data, raw = whole, value
        if not isinstance(data["customer_id"], str):
            raise UnreadableError("its customer_id is no text")
        return Event(
            kind,
            str(attributes["id"]),
            str(attributes["source"]),
            str(attributes["type"]),
            str(attributes.get("subject", "")),
            str(attributes.get("time") or data.get("effective_at")),
            data,
            raw,
            Place(record.topic, record.partition),
            record.offset,
            record.timestamp,
            record.key,
        )
    except (orjson.JSONDecodeError, UnicodeDecodeError) as error:
        raise UnreadableError(f"it is not JSON in UTF-8: {error}") from None
    except (KeyError, TypeError) as error:
        raise UnreadableError(f"it is no CloudEvent of a customer: {error} is missing") from None


def unread_event(kind: str, record: Record) -> Event:
    """Return a stand-in for a record that holds no event, to be kept among the rejected rows."""
    place = Place(record.topic, record.partition)
    identity = f"{place.topic}/{place.partition}/{record.offset}"
    return Event(
        kind,
        identity,
        "",
        "",
        "",
        "",
        {},
        record.value or b"",
        place,
        record.offset,
        record.timestamp,
        record.key,
    )
