"""Flaps as they happen: tier changes that the customer's next one undoes soon (A → B → A).

What a customer's record says of its newest change is enough, so that following them takes no memory for a customer and
goes on over restarts. Erasures undo nothing: of who was erased nobody knows what went before.

Source: docs/insight.md; `engine.insight.flaps` counts the same in a file of changes.
"""

from collections import Counter
from typing import TYPE_CHECKING, Final

from rfmstream.schemas.codes import NO_TIER

if TYPE_CHECKING:
    from rfmstream.engine.core.engine import Engine

FLAP_DAYS: Final = 30
"""Days, of 24 hours, within which a change that is undone is a flap."""


def follow_flaps(engine: "Engine", within_days: int = FLAP_DAYS) -> None:
    """Count an engine's flaps from now on."""
    for shard in engine.shards:
        shard.follow_flaps(within_days * 86_400_000_000)


def take_flaps(engine: "Engine") -> Counter[tuple[str, str]]:
    """Return how many changes were undone since the last call, by the tiers they led from and to; "" for none."""
    flaps: Counter[tuple[str, str]] = Counter()
    for shard in engine.shards:
        for before, after, count in shard.take_flaps():
            tiers = engine.ruleset.tiers
            names = ("" if code == NO_TIER else tiers[code].id for code in (before, after))
            flaps[tuple(names)] += count  # type: ignore[index] # two of them
    return flaps
