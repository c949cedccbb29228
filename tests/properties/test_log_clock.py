"""The log's clock, and when time is next due: docs/semantics.md 5."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from oracle import Oracle, next_change
from oracle_days import DAY_US, FIRST_US, LAST_US
from oracle_log import LogOracle
from strategies import HOUR_US, Case, cases, splits
from twins import assert_in_order_per_customer, canonical_batch, in_order, plain_rows, ruleset_of

from rfmstream import Engine
from rfmstream.schemas.codes import FOREVER_US, Outcome

LOG_SHIFTS_US = [0, 0, 0, 1, -1, HOUR_US, -HOUR_US, DAY_US, -DAY_US, 40 * DAY_US]


@given(cases(), st.sampled_from([0, 1, HOUR_US, 3 * DAY_US]), st.data())
def test_the_log_is_the_clock(case: Case, tolerance_us: int, data: st.DataObject) -> None:
    times_us = [
        min(max(event["occurred_at_us"] + data.draw(st.sampled_from(LOG_SHIFTS_US)), FIRST_US), LAST_US)
        for event in case.events
    ]
    oracle = LogOracle(case.rules, tolerance_us)
    for log_us, event in zip(times_us, case.events, strict=True):
        oracle.receive(log_us, event)
    assume(not oracle.is_open)
    engine = Engine(ruleset_of(case.rules), mode="live")
    changes, outcomes = [], []
    for part in data.draw(splits(len(case.events))):
        clock_us = np.maximum.accumulate(
            np.maximum(np.array(times_us[part], dtype=np.int64), engine.clock_us)
        )
        made, codes = engine.step_log(
            canonical_batch(case.events[part], part.start), clock_us, tolerance_us=tolerance_us
        )
        changes += plain_rows(made)
        outcomes += [Outcome(code).name.lower() for code in codes]
    assert outcomes == oracle.outcomes
    assert in_order(changes) == in_order(oracle.changes)
    assert_in_order_per_customer(changes)
    assert (None if engine.clock is None else engine.clock_us) == oracle.clock_us
    assert {name: count for name, count in vars(engine.counters).items() if count} == {
        name: count for name, count in oracle.counters.items() if count
    }


@given(cases(), st.data())
def test_asking_when_time_is_due_changes_nothing(case: Case, data: st.DataObject) -> None:
    oracle = Oracle(case.rules)
    engine, asked = Engine(ruleset_of(case.rules)), Engine(ruleset_of(case.rules))
    changes, others = [], []
    for part in data.draw(splits(len(case.events))):
        batch = canonical_batch(case.events[part], part.start)
        oracle.step(case.events[part])
        changes += plain_rows(engine.step_canonical(batch).changes)
        others += plain_rows(asked.step_canonical(batch).changes)
        for _ in range(2):
            ahead_us = data.draw(st.sampled_from([0, 1, HOUR_US, DAY_US, 31 * DAY_US, 400 * DAY_US]))
            until_us = min(max(engine.clock_us, FIRST_US) + ahead_us, LAST_US)
            due_us = asked.next_due_us(until_us)
            first_us = earliest_change_us(oracle)
            assert due_us > asked.clock_us
            assert due_us <= first_us or first_us > until_us
            assert due_us <= until_us or due_us == FOREVER_US
            # A window of few orders is measured to its end, so then the bound is the instant itself.
            assert due_us == (first_us if first_us <= until_us else FOREVER_US) or len(case.events) >= 8
    until_us = min(max(engine.clock_us, FIRST_US) + 400 * DAY_US, LAST_US)
    changes += plain_rows(engine.advance(until_us))
    others += plain_rows(asked.advance(until_us))
    assert in_order(others) == in_order(changes)


def earliest_change_us(oracle: Oracle) -> int:
    """Return when time alone next changes somebody's tier."""
    if oracle.clock_us is None:
        return FOREVER_US
    instants = [
        next_change(oracle.rules, customer, oracle.clock_us)[0] for customer in oracle.customers.values()
    ]
    return min((at_us for at_us in instants if at_us is not None), default=FOREVER_US)
