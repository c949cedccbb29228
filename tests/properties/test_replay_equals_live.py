"""Batches, threads, restarts and the order of the input make no difference: docs/semantics.md 8."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Oracle, replay
from oracle_days import DAY_US, LAST_US
from schedules import some
from strategies import Case, cases, splits
from twins import Driven, assert_same, canonical_batch, in_order, plain_rows

from rfmstream import Engine
from rfmstream.schemas.ruleset import load_ruleset


def one_pass(case: Case) -> Oracle:
    oracle = Oracle(case.rules)
    oracle.step(case.events)
    return oracle


@given(cases(), st.data())
def test_one_pass_is_many(case: Case, data: st.DataObject) -> None:
    driven = Driven(case.rules)
    for batch in data.draw(splits(len(case.events))):
        driven.step(case.events[batch])
    assert_same(driven, one_pass(case))


@given(cases(max_size=30), st.integers(2, 5), st.data())
def test_threads_make_no_difference(case: Case, threads: int, data: st.DataObject) -> None:
    case = case.sorted()
    driven = Driven(case.rules, threads=threads)
    for batch in data.draw(splits(len(case.events))):
        driven.step(case.events[batch])
    assert_same(driven, one_pass(case))


@settings(max_examples=some(30))
@given(cases(max_size=12))
def test_restart_after_every_event(case: Case) -> None:
    driven = Driven(case.rules)
    with TemporaryDirectory() as root:
        for number, event in enumerate(case.events):
            driven.restart(str(Path(root, str(number))))
            driven.step([event])
        driven.restart(str(Path(root, "last")))
        assert_same(driven, one_pass(case))


@settings(max_examples=some(30))
@given(cases(), st.integers(1, 4), st.integers(1, 4), st.data())
def test_restart_with_another_number_of_threads(
    case: Case, before: int, after: int, data: st.DataObject
) -> None:
    case = case.sorted()
    driven = Driven(case.rules, threads=before)
    at = data.draw(st.integers(0, len(case.events)))
    with TemporaryDirectory() as root:
        driven.step(case.events[:at])
        # The same directory again: a newer checkpoint takes the place of the older.
        driven.restart(root, threads=after)
        driven.step(case.events[at:])
        driven.restart(root, threads=before)
        now_us = min((driven.clock_us or 0) + 400 * DAY_US, LAST_US)
        driven.advance(now_us)
    oracle = one_pass(case)
    oracle.advance(now_us)
    assert_same(driven, oracle)


@given(cases(), st.data())
def test_order_of_the_input_makes_no_difference(case: Case, data: st.DataObject) -> None:
    # Rows of one instant keep their input order by contract, so only distinct instants may be shuffled.
    distinct = {event["occurred_at_us"]: event for event in case.events}
    events = list(distinct.values())
    shuffled = data.draw(st.permutations(events))
    driven = Driven(case.rules)
    driven.step(sorted(shuffled, key=lambda event: event["occurred_at_us"]))
    expected = replay(case.rules, events)
    assert in_order(driven.changes) == in_order(expected.changes)
    assert driven.snapshot() == expected.snapshot()


@pytest.mark.parametrize("mode", ["live", "replay"])
def test_mode_is_only_a_mark(mode: str) -> None:
    event = {"customer_id": "ada", "order_id": "o1", "type": "paid", "amount_minor": 1, "event_id": None}
    engine = Engine(load_ruleset("rfm8"), mode=mode)
    changes = plain_rows(engine.step_canonical(canonical_batch([{**event, "occurred_at_us": 0}])).changes)
    assert [(row["to_tier"], row["mode"]) for row in changes] == [("100", mode)]
