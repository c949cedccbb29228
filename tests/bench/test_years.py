"""The years that `make soak` simulates, few and small: both engines tell the same, and one of them stops to grow."""

import pytest

from bench.live.years import simulate


def test_a_state_that_forgets_stops_to_grow(capsys: pytest.CaptureFixture[str]) -> None:
    found = simulate(years=4, customers=500, orders_a_day=200, ruleset="rfm8-annual", forget_days=365)
    assert (found["is_equal"], found["is_bounded"]) == (True, True)
    years = found["years"]
    assert [row["year"] for row in years] == [1, 2, 3, 4]
    assert years[3]["off_bytes_max"] > 1.25 * years[2]["off_bytes_max"]
    assert years[3]["on_bytes_max"] < years[3]["off_bytes_max"] / 2
    assert years[3]["on_checkpoint_bytes"] < years[3]["off_checkpoint_bytes"] / 3
    assert capsys.readouterr().out.count("on_bytes_max") == 4
