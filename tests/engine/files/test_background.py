import threading
import time
from collections.abc import Iterator

import pytest

from rfmstream.engine.files.background import WriteBehind, read_ahead


def test_everything_arrives_in_order() -> None:
    assert list(read_ahead(iter(range(100)), lambda: None)) == list(range(100))
    assert list(read_ahead(iter(()), lambda: None)) == []


def test_reading_is_ahead_but_not_far() -> None:
    drawn = []

    def items() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield number

    ahead = read_ahead(items(), lambda: None)
    assert next(ahead) == 0
    time.sleep(0.05)
    assert 1 < len(drawn) < 10
    ahead.close()  # type: ignore[attr-defined]


def test_an_error_comes_where_it_would_have_come() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    ahead = read_ahead(items(), lambda: None)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


def test_leaving_early_stops_the_reader() -> None:
    stopped = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        while not stopped.wait(0.01):
            pass

    for _ in read_ahead(items(), stopped.set):
        break
    assert stopped.is_set()


def test_what_was_not_drawn_is_closed() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    drawn = items()
    for _ in read_ahead(drawn, lambda: None):
        break
    assert closed


def test_writes_come_in_order_and_are_done_at_the_end() -> None:
    written: list[int] = []
    with WriteBehind(written.append) as behind:
        for number in range(100):
            behind.put(number)
    assert written == list(range(100))


def test_a_failed_write_is_told() -> None:
    def write(_: int) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"), WriteBehind(write) as behind:
        behind.put(1)


def test_the_end_comes_behind_everything_and_is_not_waited_for() -> None:
    done: list[object] = []
    may_end = threading.Event()

    def finish() -> None:
        assert may_end.wait(10)
        done.append("end")

    with WriteBehind(done.append, finish) as behind:
        for number in range(10):
            behind.put(number)
        behind.end()
        may_end.set()
    assert done == [*range(10), "end"]


def test_a_failed_end_is_told() -> None:
    def finish() -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"), WriteBehind[int](lambda _: None, finish) as behind:
        behind.end()
