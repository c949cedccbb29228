"""Memory that grows keeps what it holds, and the rest of it is zero."""

import mmap

import numpy as np
import pytest

from rfmstream.engine.core import arena
from rfmstream.engine.core.arena import Arena
from rfmstream.kernels.layout import CUSTOMER


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, CUSTOMER, np.dtype((np.uint32, (64,)))])
def test_growth_keeps_the_content(dtype: object) -> None:
    memory = Arena(dtype, 3)
    bytes_of = memory.array.view(np.uint8).reshape(-1)
    bytes_of[:] = np.arange(bytes_of.size) % 251
    before = bytes_of.copy()
    del bytes_of
    for capacity in (4, 5, 1000, 100_000):
        memory.grow(capacity)
        assert memory.array.shape[0] >= capacity
        now = memory.array.view(np.uint8).reshape(-1)
        assert (now[: before.size] == before).all()
        assert not now[before.size :].any()
        del now


def test_grows_to_what_is_asked_for_but_at_least_twice() -> None:
    memory = Arena(np.int64, 10)
    memory.grow(11)
    assert memory.array.size == 20
    memory.grow(1000)
    assert memory.array.size == 1000


def test_grows_where_mappings_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rigid(mmap.mmap):
        def resize(self, _size: int) -> None:
            raise SystemError("mmap: resizing not available--no mremap()")

    monkeypatch.setattr(arena.mmap, "mmap", Rigid)
    memory = Arena(np.int64, 4)
    memory.array[:] = 7
    memory.grow(600)
    assert memory.array[:4].tolist() == [7] * 4
    assert not memory.array[4:].any()


def test_large_memory_is_whole_large_pages() -> None:
    memory = Arena(np.uint8, 3 << 20)
    assert len(memory._mapping) == 3 << 20
    memory.grow((6 << 20) + 16)
    assert (memory.array.size, len(memory._mapping)) == ((6 << 20) + 16, 8 << 20)
