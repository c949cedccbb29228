import numpy as np
import pytest

from rfmstream.engine.insight.intervals import newcombe, wilson


@pytest.mark.parametrize(
    ("counts", "published"),
    [
        ((56, 70, 48, 80), (0.2000, 0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.6000, 0.1705, 0.8090)),
        ((6, 7, 2, 7), (0.5714, 0.0582, 0.8062)),
        ((5, 56, 0, 29), (0.0893, -0.0381, 0.1926)),
        ((0, 10, 0, 20), (0.0000, -0.1611, 0.2775)),
        ((0, 10, 0, 10), (0.0000, -0.2775, 0.2775)),
        ((10, 10, 0, 20), (1.0000, 0.6791, 1.0000)),
        ((10, 10, 0, 10), (1.0000, 0.6075, 1.0000)),
    ],
)
def test_newcombe_as_its_paper_prints_it(
    counts: tuple[int, int, int, int], published: tuple[float, float, float]
) -> None:
    # Newcombe (1998), table II, method 10.
    assert tuple(round(float(number), 4) for number in newcombe(*counts)) == published


def test_wilson_ends_where_a_score_test_does() -> None:
    # The interval holds the shares p with |hits/n - p| <= z sqrt(p(1-p)/n), so equality holds at its ends.
    for hits, trials in ((3, 10), (81, 263), (15, 148), (1, 29)):
        for end in wilson(hits, trials):
            distance = abs(hits / trials - end)
            assert distance == pytest.approx(1.959963984540054 * np.sqrt(end * (1 - end) / trials))


def test_no_hits_and_nothing_but_hits() -> None:
    low, high = wilson([0, 5, 0], [5, 5, 0])
    assert (low[0], high[1]) == (0, 1)
    assert (low[2], high[2]) == (0, 1)
    assert high[0] == pytest.approx(1 - low[1])


def test_without_trials_there_is_no_difference() -> None:
    assert all(np.isnan(newcombe(0, 0, 1, 2)))
    assert all(np.isnan(newcombe(1, 2, 0, 0)))


def test_many_at_once_are_each_alone() -> None:
    random = np.random.default_rng(1)
    trials, other_trials = random.integers(1, 300, 50), random.integers(1, 300, 50)
    hits, other_hits = random.integers(0, trials + 1), random.integers(0, other_trials + 1)
    together = newcombe(hits, trials, other_hits, other_trials)
    for at in range(50):
        alone = newcombe(hits[at], trials[at], other_hits[at], other_trials[at])
        assert [column[at] for column in together] == pytest.approx(alone)
        assert -1 <= alone[1] <= alone[0] <= alone[2] <= 1
