"""From which date on orders are known, against the oracle's midnights, also where a clock is set back across one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_shards import shard_by
from oracle import BUILT_IN
from oracle_days import DAY_US, FIRST_US, LAST_US, local_midnight_us
from strategies import DAYS_MAX, NUDGES_US, ZONE_DAYS, first_days
from twins import ruleset_of

from rfmstream.engine.core.rules import _CALENDAR_DAYS
from rfmstream.kernels.calendar import leaves_us
from rfmstream.kernels.horizon import horizon_of


@settings(deadline=None)
@given(st.sampled_from(sorted(ZONE_DAYS)), st.sampled_from([1, 2, 30, 365, DAYS_MAX]), st.data())
def test_horizon_is_the_midnight_so_many_days_ago(zone: str, days: int, data: st.DataObject) -> None:
    rules = BUILT_IN["rfm8-annual"](time_zone=zone, window_days=days, forget_days=days)
    shard = shard_by("rfm8-annual", time_zone=zone)
    first_day = data.draw(first_days(zone))
    midnight_us = local_midnight_us(zone, first_day + data.draw(st.integers(0, 3)))
    now_us = midnight_us + data.draw(
        st.sampled_from([*NUDGES_US, DAY_US // 2, 30 * 60_000_000, DAY_US // 24])
    )
    now_us = min(max(now_us, FIRST_US), LAST_US)
    known_us = int(horizon_of(shard.rules.rows, days, now_us))
    assert known_us == rules.known_from_us(now_us)
    assert known_us <= horizon_of(shard.rules.rows, days, now_us + 1)
    # What is nearer than this is looked up in no calendar.
    assert known_us <= now_us - (days - _CALENDAR_DAYS) * DAY_US
    # What is forgotten has left the window.
    for nudge in (1, DAY_US // 24, DAY_US):
        stop_us = rules.stop_us(known_us - nudge, days)
        assert stop_us is None or stop_us <= now_us or known_us - nudge < FIRST_US


@pytest.mark.parametrize("days", [1, 400])
def test_spans_of_24_hours_end_at_the_instant(days: int) -> None:
    rules = BUILT_IN["rfm8-annual"](day_unit="duration", window_days=days, forget_days=days)
    shard = shard_by(ruleset_of(rules))
    now_us = 1_700_000_000_000_000
    known_us = int(horizon_of(shard.rules.rows, days, now_us))
    assert leaves_us(shard.rules.rows[0], known_us - 1) <= now_us < leaves_us(shard.rules.rows[0], known_us)
