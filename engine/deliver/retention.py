"""How old what waits is, and whether its topic is about to delete it."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rfmstream.engine.deliver.broker import BrokerConfig
from rfmstream.engine.deliver.kafka.admin import retention_ms
from rfmstream.engine.deliver.model import Event
from rfmstream.schemas.errors import TransportError

_log = logging.getLogger(__name__)

_LOOK_S: Final = 2.0
_YOUNG_MS: Final = 60_000
_TOO_OLD: Final = 0.5
"""Share of a topic's retention from which on the age of an undelivered event is told."""

_SAY_AGAIN_S: Final = 60.0


@dataclass
class Facts:
    """What is shown of a destination beside its lanes."""

    lag: int = 0
    oldest_ms: int | None = None
    retention_left_s: float | None = None
    lost: int = 0
    has_joined: bool = False


async def watch_retention(
    facts: Facts, unfinished: Callable[[], Sequence[Event]], broker: BrokerConfig, name: str
) -> None:
    """Keep `oldest_ms` and `retention_left_s` of a destination true, and tell when half of a retention has passed."""
    told_s = -_SAY_AGAIN_S
    while True:
        oldest: dict[str, int] = {}
        for event in unfinished():
            topic = event.place.topic
            oldest[topic] = min(oldest.get(topic, event.timestamp_ms), event.timestamp_ms)
        facts.oldest_ms = min(oldest.values(), default=None)
        now_ms = time.time_ns() // 1_000_000
        left = await _left_ms(oldest, now_ms, broker)
        facts.retention_left_s = min((left_ms / 1000 for left_ms, _ in left.values()), default=None)
        if time.monotonic() - told_s >= _SAY_AGAIN_S:
            for topic, (left_ms, whole_ms) in left.items():
                if left_ms < whole_ms * (1 - _TOO_OLD):
                    told_s = time.monotonic()
                    _log.error(
                        "undelivered events will be deleted by the topic's retention",
                        extra={"destination": name, "topic": topic, "left_s": left_ms // 1000},
                    )
        await asyncio.sleep(_LOOK_S)


async def _left_ms(
    oldest: Mapping[str, int], now_ms: int, broker: BrokerConfig
) -> dict[str, tuple[int, int]]:
    """Return, of topics with old events, how long the oldest is still kept, and how long all are."""
    old = [topic for topic, at_ms in oldest.items() if now_ms - at_ms >= _YOUNG_MS]
    if not old:
        return {}
    try:
        kept = await retention_ms(broker, old)
    except TransportError:
        return {}
    return {topic: (whole_ms - (now_ms - oldest[topic]), whole_ms) for topic, whole_ms in kept.items()}
