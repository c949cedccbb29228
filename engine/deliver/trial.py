"""A made-up event, to show what a destination would get, or to send it there once."""

from typing import Any

import orjson

from rfmstream.engine.deliver.client import HttpClient
from rfmstream.engine.deliver.config import Destination
from rfmstream.engine.deliver.model import Answer, Event, Item, Request, Verdict

_CHANGE: dict[str, Any] = {
    "customer_id": "rfmstream-trial",
    "seq": 1,
    "effective_at": "2026-01-31T09:30:00.000000Z",
    "from_tier": "111",
    "to_tier": "011",
    "reason": "recency_expired",
    "order_id": None,
    "r_band": 0,
    "f_band": 1,
    "m_band": 1,
    "last_paid_at": "2025-12-31T09:30:00.000000Z",
    "frequency": 4,
    "monetary_minor": 123450,
    "next_change_at": "2026-12-31T00:00:00.000000Z",
    "next_tier": "001",
    "ruleset": "trial",
    "mode": "live",
    "currency": "EUR",
    "from_tier_zh": "重要价值客户",
    "from_tier_en": "Champions",
    "to_tier_zh": "重要保持客户",
    "to_tier_en": "Lapsing VIPs",
    "playbook": "wake",
    "view": None,
    "population": None,
}

_SIGNAL: dict[str, Any] = {
    "customer_id": "rfmstream-trial",
    "kind": "warning",
    "effective_at": "2026-01-31T00:00:00.000000Z",
    "tier": "111",
    "seq": 1,
    "days": 14,
    "count": None,
    "amount_minor": None,
    "at": "2026-02-14T00:00:00.000000Z",
    "next_tier": "011",
    "stay_orders": 1,
    "stay_minor": 0,
    "order_id": None,
    "view": None,
    "population": None,
    "ruleset": "trial",
    "mode": "live",
}


def trial_event(kind: str = "change", customer_id: str | None = None) -> Event:
    """Make an event up; `kind` is change or signal."""
    data = dict(_CHANGE if kind == "change" else _SIGNAL)
    if customer_id is not None:
        data["customer_id"] = customer_id
    customer = str(data["customer_id"])
    return Event(
        kind=kind,
        id=f"trial/{customer}/1",
        source="/rfmstream/trial",
        type="io.rfmstream.tier-changed.v1" if kind == "change" else "io.rfmstream.signal.v1",
        subject=customer,
        time=str(data["effective_at"]),
        data=data,
        raw=orjson.dumps(data),
    )


def trial_request(destination: Destination, event: Event, now_s: float) -> tuple[Item, Request]:
    """Return what would be sent.

    Errors  UnfitError  the destination takes no such event
    """
    parts = destination.form.parts(event)
    item = Item(event, event.customer_id, parts, sum(map(len, parts)))
    return item, destination.form.request([item], now_s)


async def send_trial(destination: Destination, item: Item, request: Request) -> tuple[Answer, Verdict]:
    """Send it once, and say what the answer means."""
    client = HttpClient(
        timeout_s=destination.timeout_s, allow_private=destination.allow_private, ca_file=destination.ca_file
    )
    try:
        answer = await client.send(request)
    finally:
        await client.close()
    return answer, destination.form.verdict([item], answer)
