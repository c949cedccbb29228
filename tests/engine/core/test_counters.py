"""Counters: every row that was read is applied, a duplicate, or rejected."""

from copy import deepcopy

from rfmstream.engine.core.counters import Counters


def test_what_was_read_is_the_sum_of_what_became_of_it() -> None:
    counters = Counters()
    counters.apply(5, 2)
    counters.reject(["future_time", "malformed", "future_time"])
    assert counters.rejected == {"future_time": 2, "malformed": 1}
    assert counters.read == 10 == counters.applied + counters.duplicates + sum(counters.rejected.values())


def test_what_was_counted_since() -> None:
    counters = Counters(input_rows=3)
    counters.apply(1, 1)
    counters.reject(["malformed"])
    counters.changes["order"] = 4
    before = deepcopy(counters)
    counters.apply(2, 0)
    counters.reject(["no_rate"])
    counters.changes["order"] = 6
    counters.input_rows = 10
    assert counters.since(before) == Counters(
        read=3, applied=2, rejected={"no_rate": 1}, changes={"order": 2}, input_rows=7
    )
    assert counters.since(counters) == Counters()
