"""The threads of an engine: results in order, spans without gaps, and threads of its own in a fork."""

import os
import threading
import time

import pytest

from rfmstream.engine.core.threads import Threads


@pytest.mark.parametrize("count", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    def slow(number: int) -> int:
        time.sleep(0.002 * (9 - number))
        return number

    assert Threads(count).for_each(slow, list(range(9))) == list(range(9))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("rows", [0, 1, 8191, 8192, 16_384, 100_001])
def test_spans_cover_all_rows_once(count: int, rows: int) -> None:
    spans = Threads(count).spans(rows)
    assert [first for first, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert spans[-1][1] == rows
    assert len(spans) <= count
    assert len(spans) == 1 or min(end - first for first, end in spans) >= 8192


def test_an_error_leaves_when_all_are_done() -> None:
    done = []

    def fails_at_once(number: int) -> None:
        if number == 0:
            raise ValueError
        time.sleep(0.05)
        done.append(number)

    with pytest.raises(ValueError, match=r"^$"):
        Threads(3).for_each(fails_at_once, [0, 1, 2])
    assert sorted(done) == [1, 2]


def test_a_fork_has_threads_of_its_own() -> None:
    threads = Threads(2)
    here = set(threads.for_each(lambda _: threading.get_ident(), [0, 1]))
    assert here
    child = os.fork()
    if child == 0:
        os._exit(0 if threads.for_each(lambda number: number + 1, [1, 2]) == [2, 3] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
