"""Memory made resident ahead of its use: nothing but the time it takes can show."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rfmstream import Engine
from rfmstream.engine.core import touch
from rfmstream.engine.core.arena import Arena
from rfmstream.engine.core.buffers import Slabs
from rfmstream.engine.core.touch import LARGE_PAGE, has_idle_processor
from rfmstream.engine.replay.generate import generate_batches


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_touching_keeps_the_content() -> None:
    memory = np.arange(1 << 20, dtype=np.uint8)
    for first, size in ((0, memory.size), (3, 5000), (4095, 8), (17, 0)):
        touch.touch(memory, memory.ctypes.data + first, size).wait()
    assert (memory == np.arange(1 << 20, dtype=np.uint8)).all()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_an_arena_has_its_next_steps_made_resident() -> None:
    arena = Arena(np.uint8, 64 * LARGE_PAGE)
    arena.array[: 4 * LARGE_PAGE] = 1
    before = _resident_bytes()
    arena.touch_ahead(4 * LARGE_PAGE)
    assert arena._touching is not None
    arena._touching.wait()
    assert _resident_bytes() - before >= 8 * LARGE_PAGE
    assert not arena.array[4 * LARGE_PAGE : 40 * LARGE_PAGE].any()


def test_an_arena_that_stands_still_touches_nothing() -> None:
    arena = Arena(np.uint8, 64 * LARGE_PAGE)
    arena.touch_ahead(100)
    arena.touch_ahead(100)
    assert arena._touching is None


def test_an_arena_grows_while_it_is_touched() -> None:
    arena = Arena(np.int64, LARGE_PAGE)
    arena.array[:1000] = 7
    arena.touch_ahead(LARGE_PAGE // 2)
    arena.grow(4 * LARGE_PAGE)
    assert (arena.array[:1000] == 7).all()
    assert not arena.array[1000:].any()


def test_slabs_do_not_share_memory() -> None:
    slabs = Slabs()
    size = 2 * LARGE_PAGE
    sizes = [size + more for more in (0, 9, size, 0)]
    made = [slabs.take(each, touch_ahead=True).take(1, each, np.uint8)[0] for each in sizes]
    for value, array in enumerate(made):
        array[:] = value
    assert [np.unique(array).tolist() for array in made] == [[0], [1], [2], [3]]


def test_small_slabs_are_not_made_ahead() -> None:
    slabs = Slabs()
    slabs.take(1000, touch_ahead=True)
    slabs.take(2 * LARGE_PAGE, touch_ahead=False)
    assert slabs._next.size == 0


def test_only_a_replay_with_an_idle_processor_touches_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert has_idle_processor(1)
    assert not has_idle_processor(2)
    engine = Engine("rfm8")
    assert engine.shards[0].touches_ahead
    engine.use_mode("live")
    assert not engine.shards[0].touches_ahead
    assert not any(shard.touches_ahead for shard in Engine("rfm8", threads=2).shards)


def test_the_same_changes_with_and_without() -> None:
    batches = list(generate_batches(customers=20_000, orders=150_000, seed=5, days=400))

    def replay(touches: bool) -> pa.Table:  # noqa: FBT001 - the one thing that differs
        engine = Engine("rfm8-annual")
        engine.shards[0].touches_ahead = touches
        return pa.concat_tables([engine.step(batch).changes for batch in batches])

    assert replay(touches=True).equals(replay(touches=False))
