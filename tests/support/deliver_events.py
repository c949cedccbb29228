"""Events for tests of delivery."""

from typing import Any

import orjson

from rfmstream.engine.deliver.model import Event, Item, Place

PLACE = Place("changes", 0)


def change(customer: str = "c1", seq: int = 1, *, offset: int = 0, **fields: Any) -> Event:  # noqa: ANN401
    data = {
        "customer_id": customer,
        "seq": seq,
        "effective_at": "2026-11-28T00:00:00.000000Z",
        "from_tier": "111",
        "to_tier": "011",
        "reason": "recency_expired",
        "order_id": None,
        "r_band": 0,
        "f_band": 1,
        "m_band": 1,
        "last_paid_at": "2026-10-28T09:30:00.000000Z",
        "frequency": 5,
        "monetary_minor": 123_450,
        "next_change_at": None,
        "next_tier": None,
        "ruleset": "rfm8-annual[currency=EUR]@3f8a6b7c9d01",
        "mode": "live",
        "currency": "EUR",
        "from_tier_zh": "重要价值客户",
        "from_tier_en": "Champions",
        "to_tier_zh": "重要保持客户",
        "to_tier_en": "Lapsing VIPs",
        "playbook": "wake",
        **fields,
    }
    return Event(
        kind="change",
        id=f"rfm8-annual/{customer}/{seq}",
        source="/rfmstream/shop/orders.v1/0",
        type="io.rfmstream.tier-changed.v1",
        subject=customer,
        time=str(data["effective_at"]),
        data=data,
        raw=orjson.dumps(data),
        place=PLACE,
        offset=offset,
        timestamp_ms=1_795_824_000_000,
        key=customer.encode(),
    )


def item(customer: str = "c1", seq: int = 1, *, offset: int = 0, **fields: Any) -> Item:  # noqa: ANN401
    event = change(customer, seq, offset=offset, **fields)
    return Item(event, customer, (event.raw,), len(event.raw), ("change", None, None))
