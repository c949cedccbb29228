"""A ruleset as the kernels read it: arrays of cuts, the zone's table, and which cells of the lookup are settled."""

from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.core.kernel_records import KernelRecord
from rfmstream.engine.events.zone import zone_table
from rfmstream.kernels.horizon import FAR_US
from rfmstream.kernels.layout import DAY_US, RULES
from rfmstream.schemas.ruleset import Ruleset

LIFETIME: Final = -1
NO_DAYS: Final = -1
_CALENDAR_DAYS: Final = 3
"""Days that a date so many days ago may be nearer than so many times 24 h: a day goes on, and zones skip dates."""


def compile_rules(ruleset: Ruleset) -> KernelRecord:
    """Compile a ruleset for the kernels; see `kernels.layout.RULES`."""
    starts, offsets, cycle_us = zone_table(ruleset.time_zone)
    forget_days = ruleset.forget_orders_after_days
    rules = KernelRecord(
        RULES,
        calendar=ruleset.day_unit == "calendar_day",
        day_can_fall=ruleset.day_unit == "calendar_day" and _day_can_fall(starts, offsets),
        window_days=LIFETIME if ruleset.window_days is None else ruleset.window_days,
        forget_days=NO_DAYS if forget_days is None else forget_days,
        forget_near_us=FAR_US if forget_days is None else (forget_days - _CALENDAR_DAYS) * DAY_US,
        zone_cycle_us=cycle_us,
        signals_max=_signals_max(ruleset),
    )
    rules.point(
        zone_start_us=starts,
        zone_offset_us=offsets,
        recency_cuts=np.array(ruleset.recency_cuts_days, dtype=np.int64),
        frequency_cuts=np.array(ruleset.frequency_cuts, dtype=np.int64),
        monetary_cuts=np.array(ruleset.monetary_cuts_minor, dtype=np.int64),
        lookup=np.ascontiguousarray(ruleset.lookup, dtype=np.int8).reshape(-1),
        settled=_settled(ruleset.lookup, moving_m=False),
        settled_any=_settled(ruleset.lookup, moving_m=True),
        order_milestones=np.array(ruleset.milestones.orders, dtype=np.int64),
        spend_milestones=np.array(ruleset.milestones.spend_minor, dtype=np.int64),
        single_milestones=np.array(ruleset.milestones.single_order_minor, dtype=np.int64),
    )
    for name in ("warn", "dwell"):
        days = [getattr(tier, f"{name}_days") for tier in ruleset.tiers]
        first = np.cumsum([0, *map(len, days)], dtype=np.int64)
        flat = np.array(list(chain.from_iterable(days)), dtype=np.int64)
        rules.point(**{f"{name}_first": first, f"{name}_days": flat})
    return rules


def _signals_max(ruleset: Ruleset) -> int:
    """Return how many signals one look at a customer can give: an order reaches one of the milestones for orders."""
    if not ruleset.asks_signals:
        return 0
    dwells = max((len(tier.dwell_days) for tier in ruleset.tiers), default=0)
    return len(ruleset.milestones.spend_minor) + len(("orders", "single_order", "warning")) + dwells


def _day_can_fall(starts_us: NDArray[np.int64], offsets_us: NDArray[np.int64]) -> bool:
    """Tell whether the local date ever goes back: a clock set back across midnight."""
    before = (starts_us[1:] - 1 + offsets_us[:-1]) // DAY_US
    after = (starts_us[1:] + offsets_us[1:]) // DAY_US
    return bool(np.any(after < before))


def _settled(lookup: NDArray[np.int8], *, moving_m: bool) -> NDArray[np.uint8]:
    """Tell for each cell whether time alone leaves its tier alone.

    Time lets bands fall; with adjustments behind a customer M can move either way.
    """
    least, most = lookup, lookup
    for axis in (1, 2, 3):
        if axis == 3 and moving_m:
            least, most = least.min(axis, keepdims=True), most.max(axis, keepdims=True)
        else:
            least, most = np.minimum.accumulate(least, axis), np.maximum.accumulate(most, axis)
    settled: NDArray[np.uint8] = ((least == lookup) & (most == lookup)).astype(np.uint8).reshape(-1)
    return settled
