"""Each view gives what a run of its own over its own events gives: docs/semantics.md 10, by the oracle."""

import tempfile

from hypothesis import given
from hypothesis import strategies as st
from strategies import later_instants, splits
from view_histories import DrivenViews, ViewCase, assert_same_views, view_cases


@given(view_cases())
def test_in_order_of_arrival(case: ViewCase) -> None:
    driven = DrivenViews(case)
    driven.step(case.events)
    assert_same_views(driven, case)


@given(view_cases(max_size=40), st.data())
def test_however_they_are_cut_and_stopped(case: ViewCase, data: st.DataObject) -> None:
    case = case.sorted()
    driven = DrivenViews(case, threads=data.draw(st.sampled_from([1, 3])))
    with tempfile.TemporaryDirectory() as folder:
        for part in data.draw(splits(len(case.events))):
            driven.step(case.events[part])
            if data.draw(st.booleans()):
                driven.restart(folder, data.draw(st.sampled_from([1, 2])))
    as_of_us = max(
        data.draw(later_instants(case.views[0].rules, case.events)),
        *(event["occurred_at_us"] for event in case.events),
        0,
    )
    driven.advance(as_of_us)
    assert_same_views(driven, case, as_of_us)
