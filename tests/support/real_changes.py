"""The tier changes of real histories by built-in rulesets, as the product's tables, made once a session."""

from datetime import datetime
from functools import cache

import pyarrow as pa
from real_orders import cdnow, complete_journey, instant_us
from twins import canonical_batch

from rfmstream import Engine, load_ruleset


@cache
def complete_journey_orders() -> pa.RecordBatch:
    return canonical_batch(sorted(complete_journey(), key=lambda event: event["occurred_at_us"]))


@cache
def cdnow_orders() -> pa.RecordBatch:
    return canonical_batch(sorted(cdnow(), key=lambda event: event["occurred_at_us"]))


@cache
def complete_journey_changes(ruleset: str) -> pa.Table:
    """Replay up to the last order, with the days of New York."""
    engine = Engine(load_ruleset(ruleset, time_zone="America/New_York", currency="USD"))
    return engine.step_canonical(complete_journey_orders()).changes


@cache
def cdnow_changes(ruleset: str = "rfm8") -> pa.Table:
    """Replay, and let time pass to the end of June 1998."""
    engine = Engine(load_ruleset(ruleset, currency="USD"))
    changes = engine.step_canonical(cdnow_orders()).changes
    return pa.concat_tables([changes, engine.advance(instant_us(datetime(1998, 7, 1)))])  # noqa: DTZ001
