"""A form says how events become requests of one kind of destination, and what its answers mean."""

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

from rfmstream.engine.deliver.model import Answer, Event, Item, Request, Verdict
from rfmstream.schemas.currencies import CURRENCY_EXPONENTS

EVENT_NAMES: Final = {
    "change": "RFM Tier Changed",
    "warning": "RFM Tier Warning",
    "dwell": "RFM Tier Dwell",
    "milestone": "RFM Milestone",
}
"""What tools call the events: a tier change, and the kinds of signals."""


class UnfitError(ValueError):
    """An event that cannot be sent in this form, ever; the text says why."""


class Form(Protocol):
    """How one destination is spoken to."""

    @property
    def url(self) -> str:
        """Where requests go; what of it depends on the event is behind the host."""
        ...

    def parts(self, event: Event) -> tuple[bytes, ...]:
        """Return what the event adds to a body, one text a row group.

        Errors  UnfitError  it cannot be sent
        """
        ...

    def request(self, items: Sequence[Item], now_s: float) -> Request:
        """Return the request that carries items. `now_s` is unix time, of this attempt."""
        ...

    def verdict(self, items: Sequence[Item], answer: Answer) -> Verdict:
        """Say what an answer means."""
        ...


def event_key(event: Event) -> str:
    """Return the same short text for an event for ever: what receivers drop duplicates by.

    It holds no dot and nothing that a user has written, as Standard Webhooks asks for.
    """
    whole = f"{event.source}\n{event.id}".encode()
    return "rfm_" + hashlib.blake2b(whole, digest_size=20).hexdigest()


def event_name(event: Event) -> str:
    """Return what tools call the event."""
    kind = event.kind if event.kind == "change" else str(event.data.get("kind"))
    return EVENT_NAMES.get(kind, f"RFM {kind.replace('_', ' ').title()}")


def major_units(minor: int, currency: str | None) -> str:
    """Return minor units as exact decimal digits of major ones."""
    places = CURRENCY_EXPONENTS.get(currency or "", 2)
    digits = f"{abs(minor):0{places + 1}d}"
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"-{text}" if minor < 0 else text
