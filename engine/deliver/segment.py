"""The Segment tracking protocol: a batch of identify and track calls.

Segment, RudderStack, the Customer.io Pipelines and Dittofeed take it. A tier change sets the traits of the customer and
is an event; a signal is an event.

Source  https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/ ("batch"): 32 KB a call,
        500 KB a batch; duplicates are dropped by messageId
"""

import base64
from collections.abc import Sequence
from typing import Any, Final

import orjson

from rfmstream.engine.deliver.forms import UnfitError, event_key, event_name, major_units
from rfmstream.engine.deliver.model import Answer, Event, Item, Request, Verdict, verdict_of

CALL_BYTES_MAX: Final = 32_000
BATCH_BYTES_MAX: Final = 490_000
"""Of the calls: what stands around them has room in 500,000."""

DEFAULT_URL: Final = "https://api.segment.io/v1/batch"


class SegmentForm:
    """Batches of calls to one source.

    In  prefix  how the names of traits begin
    """

    def __init__(self, url: str, write_key: str, headers: dict[str, str], prefix: str = "rfm_") -> None:
        self.url = url
        self._names = [(prefix + name, column) for name, column in _TRAITS.items()]
        self._monetary = f"{prefix}monetary"
        login = base64.b64encode(f"{write_key}:".encode()).decode()
        self._headers = {
            **headers,
            "content-type": "application/json",
            "authorization": f"Basic {login}",
        }

    def parts(self, event: Event) -> tuple[bytes, ...]:
        """Return the calls of an event, with commas between them.

        Errors  UnfitError  one is larger than the protocol takes
        """
        key = event_key(event)
        common = {"userId": event.customer_id, "timestamp": event.time, "context": _CONTEXT}
        calls: list[dict[str, Any]] = []
        if event.kind == "change":
            calls.append(
                {"type": "identify", "messageId": f"{key}_i", **common, "traits": self._traits(event)}
            )
        calls.append(
            {
                "type": "track",
                "messageId": key,
                **common,
                "event": event_name(event),
                "properties": orjson.Fragment(event.raw),
            }
        )
        texts = [orjson.dumps(call) for call in calls]
        longest = max(map(len, texts))
        if longest > CALL_BYTES_MAX:
            raise UnfitError(f"a call of {longest} bytes is larger than the {CALL_BYTES_MAX} that fit")
        return (b",".join(texts),)

    def _traits(self, event: Event) -> dict[str, Any]:
        data = event.data
        traits = {name: data.get(column) for name, column in self._names}
        traits[self._monetary] = orjson.Fragment(
            major_units(data.get("monetary_minor") or 0, data.get("currency"))
        )
        return traits

    def request(self, items: Sequence[Item], _: float) -> Request:
        """Put calls into a batch."""
        body = b'{"batch":[' + b",".join([item.parts[0] for item in items]) + b"]}"
        return Request("POST", self.url, self._headers, body)

    def verdict(self, _: Sequence[Item], answer: Answer) -> Verdict:
        """Judge by the status alone."""
        return verdict_of(answer)


_CONTEXT: Final = orjson.Fragment(b'{"library":{"name":"rfmstream"}}')

_TRAITS: Final = {
    "tier": "to_tier",
    "tier_name": "to_tier_en",
    "tier_name_zh": "to_tier_zh",
    "tier_since": "effective_at",
    "previous_tier": "from_tier",
    "playbook": "playbook",
    "next_tier": "next_tier",
    "next_change_at": "next_change_at",
    "last_paid_at": "last_paid_at",
    "frequency": "frequency",
    "currency": "currency",
}
"""Trait to column."""
