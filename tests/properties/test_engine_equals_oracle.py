"""The engine tells exactly what the oracle tells: docs/semantics.md 1 to 7, on histories made to differ."""

from hypothesis import given
from hypothesis import strategies as st
from oracle import BUILT_IN, Oracle
from strategies import Case, cases, later_instants
from twins import Driven, assert_same, ruleset_of

from rfmstream.schemas.ruleset import list_rulesets, load_ruleset


@given(cases())
def test_in_order_of_arrival(case: Case) -> None:
    oracle, driven = Oracle(case.rules), Driven(case.rules)
    oracle.step(case.events)
    driven.step(case.events)
    assert_same(driven, oracle)


@given(cases(max_size=40))
def test_in_order_of_time(case: Case) -> None:
    case = case.sorted()
    oracle, driven = Oracle(case.rules), Driven(case.rules)
    oracle.step(case.events)
    driven.step(case.events)
    assert_same(driven, oracle)


@given(cases(), st.data())
def test_time_passes_between_events(case: Case, data: st.DataObject) -> None:
    oracle, driven = Oracle(case.rules), Driven(case.rules)
    for event in case.events:
        if data.draw(st.booleans()):
            now_us = data.draw(later_instants(case.rules, case.events[:1]))
            oracle.advance(now_us)
            driven.advance(now_us)
        oracle.step([event])
        driven.step([event])
    assert_same(driven, oracle)


@given(cases(), st.data())
def test_snapshot_as_of_later(case: Case, data: st.DataObject) -> None:
    oracle, driven = Oracle(case.rules), Driven(case.rules)
    oracle.step(case.events)
    driven.step(case.events)
    for _ in range(3):
        as_of_us = max(data.draw(later_instants(case.rules, case.events)), oracle.clock_us or 0)
        assert driven.snapshot(as_of_us) == oracle.snapshot(as_of_us)
    # Looking ahead leaves no trace.
    assert_same(driven, oracle)


@given(cases(), st.data())
def test_snapshot_as_of_later_is_to_advance_and_look(case: Case, data: st.DataObject) -> None:
    driven = Driven(case.rules)
    driven.step(case.events)
    as_of_us = max(data.draw(later_instants(case.rules, case.events)), driven.clock_us or 0)
    forecast = driven.snapshot(as_of_us)
    driven.advance(as_of_us)
    assert forecast == driven.snapshot()


@given(cases())
def test_sum_of_lines(case: Case) -> None:
    driven = Driven(case.rules)
    driven.step(case.events)
    counters = driven.engine.counters
    assert counters.read == len(case.events)
    assert counters.applied + counters.duplicates + sum(counters.rejected.values()) == counters.read
    assert sum(counters.changes.values()) == len(driven.changes)


def test_shipped_rulesets_are_those_of_the_page() -> None:
    assert set(list_rulesets()) == set(BUILT_IN)
    for name in list_rulesets():
        shipped, page = load_ruleset(name), ruleset_of(BUILT_IN[name]())
        assert shipped.identity == name
        for decisive in ("time_zone", "day_unit", "window_days", "recency_cuts_days", "frequency_cuts"):
            assert getattr(shipped, decisive) == getattr(page, decisive)
        assert shipped.monetary_cuts_minor == page.monetary_cuts_minor
        assert {tier.id for tier in shipped.tiers} == {tier.id for tier in page.tiers}
        for cell, code in enumerate(shipped.lookup.flat):
            assert shipped.tiers[code].id == page.tiers[page.lookup.flat[cell]].id
