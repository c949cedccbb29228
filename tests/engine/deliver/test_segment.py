import base64

import orjson
import pytest
from deliver_events import change

from rfmstream.engine.deliver.forms import UnfitError
from rfmstream.engine.deliver.lanes import Lanes, Pace
from rfmstream.engine.deliver.model import Event, Item
from rfmstream.engine.deliver.segment import BATCH_BYTES_MAX, CALL_BYTES_MAX, SegmentForm
from rfmstream.engine.deliver.trial import trial_event


def form() -> SegmentForm:
    return SegmentForm("https://api.segment.io/v1/batch", "key", {"x-strict-mode": "1"})


def items_of(events: list[Event]) -> list[Item]:
    items = []
    for event in events:
        parts = form().parts(event)
        items.append(Item(event, event.customer_id, parts, len(parts[0])))
    return items


def test_a_change_sets_traits_and_is_an_event() -> None:
    event = change("c1", 2)
    request = form().request(items_of([event]), 0)
    identify, track = orjson.loads(request.body)["batch"]
    assert identify["type"] == "identify"
    assert identify["userId"] == track["userId"] == "c1"
    assert identify["traits"]["rfm_tier"] == "011"
    assert identify["traits"]["rfm_tier_since"] == event.data["effective_at"]
    assert identify["traits"]["rfm_next_tier"] is None
    assert identify["traits"]["rfm_monetary"] == 1234.5
    assert b'"rfm_monetary":1234.50' in request.body
    assert track["event"] == "RFM Tier Changed"
    assert track["properties"] == event.data
    assert identify["messageId"] != track["messageId"]
    assert request.headers["authorization"] == "Basic " + base64.b64encode(b"key:").decode()
    assert request.headers["x-strict-mode"] == "1"
    assert request.body == form().request(items_of([event]), 99).body


def test_a_signal_is_an_event_alone() -> None:
    [track] = orjson.loads(form().request(items_of([trial_event("signal")]), 0).body)["batch"]
    assert (track["type"], track["event"]) == ("track", "RFM Tier Warning")


def test_batches_and_calls_stay_within_what_segment_takes() -> None:
    items = items_of([change(f"c{number}" + "é" * 100, 1, offset=number) for number in range(2000)])
    lanes = Lanes(Pace(batch=100_000, batch_bytes=BATCH_BYTES_MAX, concurrency=100, in_flight=100_000))
    for item in items:
        lanes.offer(item)
    batches = lanes.take(0)
    assert sum(len(batch.items) for batch in batches) == 2000
    sizes = [len(form().request(batch.items, 0).body) for batch in batches]
    assert max(sizes) <= 500_000
    assert len(batches) <= sum(sizes) // 400_000 + 1
    assert all(
        len(orjson.dumps(call)) <= CALL_BYTES_MAX
        for call in orjson.loads(form().request(batches[0].items, 0).body)["batch"]
    )
    with pytest.raises(UnfitError, match="is larger than the 32000"):
        form().parts(change("c", 1, note="x" * 32_000))
