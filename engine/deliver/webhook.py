"""Webhooks: one structured CloudEvent a request, signed as Standard Webhooks 1.0 says.

Source  Standard Webhooks 1.0.0, spec/standard-webhooks.md; CloudEvents 1.0.2, HTTP protocol binding, structured mode
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

import orjson

from rfmstream.engine.deliver.forms import event_key
from rfmstream.engine.deliver.model import Answer, Event, Item, Request, Verdict, verdict_of

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the public beginning of secrets
_SECRET_BYTES: Final = range(24, 65)


def secret_bytes(text: str) -> bytes | None:
    """Return the key that a whsec_... secret holds; None: it is none of 24 to 64 bytes."""
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) in _SECRET_BYTES else None


def sign(key: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """Return the signature of one secret."""
    signed = hmac.digest(key, f"{message_id}.{timestamp_s}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"


def envelope(event: Event) -> bytes:
    """Return an event as a structured CloudEvent; its data is byte for byte what came."""
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": event.id,
            "source": event.source,
            "type": event.type,
            "subject": event.subject,
            "time": event.time,
            "datacontenttype": "application/json",
            "data": orjson.Fragment(event.raw),
        }
    )


class WebhookForm:
    """Signed webhooks to one URL.

    In  secrets  every one signs, so that a receiver may be given a new one while it still knows the old
    """

    def __init__(self, url: str, secrets: Sequence[bytes], headers: dict[str, str]) -> None:
        self.url = url
        self._secrets = tuple(secrets)
        self._headers = {**headers, "content-type": CONTENT_TYPE}

    def parts(self, event: Event) -> tuple[bytes, ...]:
        """Return the body."""
        return (envelope(event),)

    def request(self, items: Sequence[Item], now_s: float) -> Request:
        """Sign the only item as of now."""
        [item] = items
        [body] = item.parts
        message_id, timestamp_s = event_key(item.event), int(now_s)
        signatures = " ".join(sign(key, message_id, timestamp_s, body) for key in self._secrets)
        headers = {
            **self._headers,
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signatures,
        }
        return Request("POST", self.url, headers, body)

    def verdict(self, _: Sequence[Item], answer: Answer) -> Verdict:
        """Judge by the status alone."""
        return verdict_of(answer)
