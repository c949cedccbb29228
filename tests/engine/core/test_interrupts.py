"""Interrupts at random instants: an engine is as before the call, or says that it has to be restored."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import pytest
from kernel_shards import event
from oracle_days import DAY_US
from twins import canonical_batch

from rfmstream import Engine, StateError

DEEP = os.environ.get("RFM_DEEP") == "1"
ROUNDS = 20_000 if DEEP else 1_500


class Boom(KeyboardInterrupt):
    """The interrupt of a test."""


class Interrupts:
    """Raises Boom in the main thread at an instant to come, as Ctrl-C does."""

    def __init__(self) -> None:
        self.is_armed = False
        self.count = 0

    def handle(self, _: int, __: FrameType | None) -> None:
        if self.is_armed:
            self.is_armed = False
            self.count += 1
            raise Boom

    def during(self, call: Callable[[Engine], Any], engine: Engine, after_s: float) -> tuple[bool, Any]:
        """Return whether the call came back, and what with.

        call  a Python function: after a call of one written in C Python looks for signals before it keeps the result
        """
        try:
            self.is_armed = True
            signal.setitimer(signal.ITIMER_REAL, after_s)
            found = call(engine)
            self.is_armed = False
        except Boom:
            return False, None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return True, found


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    made = Interrupts()
    before = signal.signal(signal.SIGALRM, made.handle)
    yield made
    signal.signal(signal.SIGALRM, before)


def orders(rows: int, first: int) -> pa.RecordBatch:
    return canonical_batch(
        [event(f"c{i * 7 % 97}", f"o{i}", i * DAY_US // 50, 1_000 + i) for i in range(first, first + rows)]
    )


def as_table(batch: pa.RecordBatch) -> pa.Table:
    return pa.table(
        {
            "customer_id": batch["customer_id"],
            "order_id": batch["order_id"],
            "occurred_at": batch["occurred_at"],
            "amount_minor": batch["amount_minor"],
        }
    )


def warm(engine: Engine, folder: Path) -> None:
    """Call everything once: an interrupt in the middle of a kernel's compilation is the compiler's."""
    batch = orders(3, 0)
    engine.step(as_table(batch))
    engine.step_canonical(batch)
    engine.step_log(batch)
    engine.advance(DAY_US)
    engine.next_due_us(DAY_US)
    engine.snapshot()
    engine.checkpoint(folder)
    Engine.restore(folder, threads=len(engine.shards))


def in_order(table: pa.Table) -> pa.Table:
    """Return changes or a snapshot by customer: a restored engine may tell of one instant in another order."""
    return table.sort_by(
        [(name, "ascending") for name in ("customer_id", "seq") if name in table.column_names]
    )


def is_same(one: Engine, other: Engine) -> bool:
    tables = [in_order(engine.snapshot()) for engine in (one, other)]
    return one.counters == other.counters and one.clock_us == other.clock_us and tables[0].equals(tables[1])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("threads", [1, 2])
def test_whatever_the_instant(interrupts: Interrupts, tmp_path: Path, threads: int) -> None:
    warm(Engine("rfm8", threads=threads), tmp_path / "warm")
    chance = random.Random(threads)  # noqa: S311 - a test
    engine, straight = Engine("rfm8", threads=threads), Engine("rfm8", threads=threads)
    at, broken, kept, came_back = 0, 0, 0, 0
    errors = []
    for number in range(ROUNDS):
        rows = chance.choice([1, 3, 40])
        batch = orders(rows, at)
        now_us = (at + rows) * DAY_US // 50 + chance.choice([0, DAY_US * 40])
        name, call = chance.choice(
            [
                ("step", lambda of, batch=batch: of.step(as_table(batch)).changes),
                ("step_canonical", lambda of, batch=batch: of.step_canonical(batch).changes),
                ("step_log", lambda of, batch=batch: of.step_log(batch)[0]),
                ("advance", lambda of, now_us=now_us: of.advance(now_us)),
                ("snapshot", lambda of: of.snapshot()),
                ("checkpoint", lambda of: of.checkpoint(tmp_path / "state")),
            ]
        )
        if name == "checkpoint" and chance.random() > 0.2:  # the disk is slow
            continue
        after_s = chance.random() * chance.choice([0.0003, 0.001, 0.003, 0.02])
        has_come_back, found = interrupts.during(call, engine, after_s)
        if has_come_back:
            came_back += 1
            expected = call(straight) if name != "checkpoint" else None
            assert expected is None or in_order(found).equals(in_order(expected)), (number, name)
            at += rows if name.startswith("step") else 0
            continue
        try:
            engine.next_due_us(now_us)
        except StateError as error:
            errors.append(str(error))
            assert name not in ("snapshot", "checkpoint"), (number, name)
            for refused in (engine.snapshot, partial(engine.step_canonical, batch), engine.frozen):
                with pytest.raises(StateError, match="restore it"):
                    refused()
            broken += 1
            straight.checkpoint(tmp_path / "straight")
            engine = Engine.restore(tmp_path / "straight", threads=threads)
        else:
            kept += 1
        if number % 8 == 0 or name in ("snapshot", "checkpoint"):
            assert is_same(engine, straight), (number, name)
    assert is_same(engine, straight)
    engine.checkpoint(tmp_path / "state")
    assert is_same(Engine.restore(tmp_path / "state"), straight)
    # Python drops what comes while it frees an object.
    assert interrupts.count >= broken + kept
    # All three happen, or the test tells nothing.
    assert min(broken, kept, came_back) > ROUNDS // 100, (broken, kept, came_back)
    assert all("restore it from its checkpoint" in error for error in errors)


def test_who_is_interrupted_keeps_no_other_thread_waiting(interrupts: Interrupts) -> None:
    """The main thread is interrupted again and again while others use the same engine."""
    chance, engine = random.Random(3), Engine("rfm8", threads=2)  # noqa: S311 - a test
    engine.step_canonical(orders(500, 0))
    is_over, failed = threading.Event(), []
    turns = [0, 0]

    def ask(number: int) -> None:
        try:
            while not is_over.is_set():
                assert engine.snapshot().num_rows == 97
                turns[number] += 1
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            failed.append(error)

    others = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for other in others:
        other.start()
    came_back = 0
    for _ in range(ROUNDS // 5):
        came_back += interrupts.during(Engine.snapshot, engine, chance.random() * 0.004)[0]
        assert failed == []
    before, give_up = list(turns), time.monotonic() + 60
    while any(now <= then for now, then in zip(turns, before, strict=True)) and time.monotonic() < give_up:
        time.sleep(0.01)
    is_over.set()
    for other in others:
        other.join(60)
        assert not other.is_alive()
    assert failed == []
    assert interrupts.count > 10
    engine.step_canonical(orders(10, 500))
    assert engine.counters.applied == 510


def test_an_error_in_one_shard_waits_for_the_others() -> None:
    """Nobody is at work on the state when an error leaves."""
    from rfmstream.engine.core.threads import Threads  # noqa: PLC0415 - of the engine's inside

    ended = []

    def work(number: int) -> int:
        if number == 0:
            raise MemoryError
        time.sleep(0.2)
        ended.append(number)
        return number

    with pytest.raises(MemoryError):
        Threads(3).for_each(work, [0, 1, 2])
    assert sorted(ended) == [1, 2]
    assert Threads(3).for_each(str, [1, 2, 3, 4, 5]) == ["1", "2", "3", "4", "5"]


def test_a_signals_handler_that_uses_the_engine_in_the_middle_of_a_step_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rfmstream.engine.core.shard import Shard  # noqa: PLC0415 - of the engine's inside

    engine, told = Engine("rfm8"), []
    whole = Shard.fold

    def folding(*args: Any) -> None:  # noqa: ANN401
        whole(*args)
        for use in (engine.snapshot, lambda: engine.advance(10**15)):
            with pytest.raises(StateError, match="under way in this thread") as error:
                use()
            told.append(str(error.value))

    monkeypatch.setattr(Shard, "fold", folding)
    engine.step_canonical(orders(5, 0))
    monkeypatch.undo()
    assert len(told) == 2
    engine.step_canonical(orders(5, 5))
    assert engine.counters.applied == 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_forked_in_the_middle_of_another_threads_step_says_so() -> None:
    engine = Engine("rfm8", threads=2)
    engine.step_canonical(orders(300, 0))
    is_in, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with engine._guard.lock:
            is_in.set()
            may_go.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    is_in.wait(60)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            engine.snapshot()
        except StateError as error:
            code = 0 if "forked while another thread used the engine" in str(error) else 2
        fresh = Engine("rfm8", threads=2)
        fresh.step_canonical(orders(20_000, 0))
        os._exit(code if fresh.counters.applied == 20_000 else 3)
    may_go.set()
    other.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    engine.step_canonical(orders(10, 300))
    assert engine.counters.applied == 310
