"""Which checkpoints have to go, and when."""

import numpy as np
from oracle_days import DAY_US

from rfmstream.engine.live.erasures import CLOSE_US, Erasures

WEEK_US = 7 * DAY_US
NOW_US = 1000 * DAY_US


def noted(erasures: Erasures, *each: tuple[int, int]) -> None:
    offsets, instants = zip(*each, strict=True)
    erasures.note(np.array(offsets), np.array(instants))


def test_an_erasure_is_overdue_once_its_time_is_over() -> None:
    erasures = Erasures()
    assert erasures.overdue(NOW_US, WEEK_US) is None
    noted(erasures, (5, NOW_US), (90, NOW_US + 3 * DAY_US))
    assert erasures.overdue(NOW_US + WEEK_US - 1, WEEK_US) is None
    assert erasures.overdue(NOW_US + WEEK_US, WEEK_US) == 5
    assert erasures.overdue(NOW_US + WEEK_US + 3 * DAY_US, WEEK_US) == 90


def test_those_close_to_each_other_are_one_of_the_last_place_and_the_first_instant() -> None:
    erasures = Erasures()
    noted(erasures, *((n, NOW_US + n * 1000) for n in range(10_000)))
    assert erasures.noted == [(9_999, NOW_US)]
    noted(erasures, (10_000, NOW_US + CLOSE_US), (10_001, NOW_US + CLOSE_US - 5))
    assert erasures.noted == [(9_999, NOW_US), (10_001, NOW_US + CLOSE_US - 5)]
    noted(erasures, (9_000, NOW_US), (10_001, NOW_US))  # applied once more after a start
    assert len(erasures.noted) == 2


def test_what_the_oldest_checkpoint_knows_of_is_settled() -> None:
    erasures = Erasures([[5, NOW_US], [9, NOW_US + DAY_US]])
    erasures.settle(None)
    erasures.settle(5)
    assert [offset for offset, _ in erasures.noted] == [5, 9]
    erasures.settle(6)
    assert erasures.noted == [(9, NOW_US + DAY_US)]
    erasures.clear()
    assert erasures.noted == []


def test_a_record_from_the_future_counts_as_of_when_it_was_seen() -> None:
    erasures = Erasures()
    noted(erasures, (5, NOW_US + 400 * DAY_US))
    assert erasures.overdue(NOW_US, WEEK_US) is None
    assert erasures.overdue(NOW_US + WEEK_US, WEEK_US) == 5
    assert Erasures([[5, -(2**63)]]).overdue(NOW_US, WEEK_US) == 5  # a record without a time
