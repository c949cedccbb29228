import random
from collections import Counter

import pytest

from rfmstream.engine.deliver.rates import Rate, Rates, parse_rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("350/1s", Rate(350, 1)),
        ("3500/1m", Rate(3500, 60)),
        ("3000/3s", Rate(3000, 3)),
        ("5/h", Rate(5, 3600)),
        ("2/500ms", Rate(2, 0.5)),
        ("0/1s", None),
        ("5/0s", None),
        ("5", None),
        ("-5/s", None),
        ("5/1d", None),
    ],
)
def test_a_rate_is_read(text: str, rate: Rate | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("phase", [0.0, 0.25, 0.5, 0.99])
def test_no_window_of_the_destination_sees_more_than_it_allows_wherever_it_begins(phase: float) -> None:
    chance = random.Random(7)
    rates = Rates([Rate(5, 1.0), Rate(20, 10.0)])
    now, arrivals = 0.0, []
    while now < 60:
        free = rates.free_at_s(now)
        assert free is not None
        now = max(now, free)
        rates.take()
        arrivals.append(now + chance.random() * 0.05)
        now += 0.05 + chance.random() * 0.01
        rates.answered(now)
    for seconds, most in ((1.0, 5), (10.0, 20)):
        windows = Counter(int((at + phase) // seconds) for at in arrivals)
        assert max(windows.values()) <= most
    assert len(arrivals) >= 20 * 5  # the rate is used, too


def test_without_answers_nothing_more_leaves_than_a_window_holds() -> None:
    rates = Rates([Rate(2, 1.0)])
    rates.take()
    assert rates.free_at_s(0.0) == 0.0
    rates.take()
    assert rates.free_at_s(5.0) is None
    rates.answered(5.0)
    assert rates.free_at_s(5.0) == 6.0
