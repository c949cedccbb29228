import numpy as np
import pyarrow as pa
import pytest

from rfmstream.engine.core.buffers import offsets_and_data
from rfmstream.engine.core.populations import Populations

IDS = ["a", "", "0042", "ü" * 128, "x" * 252, "x" * 253, "x" * 256, "y" * 256, "\x00"]


def test_keys_and_back() -> None:
    populations = Populations()
    names = pa.array(["books", "書", "books", "b" * 5000, "書", "n", "books", "n", "o"])
    numbers = populations.numbers(names)
    assert numbers.tolist() == [1, 2, 1, 3, 2, 4, 1, 4, 5]  # in order of first appearance; 0 is nobody's
    keys = populations.keys(numbers, pa.array(IDS))
    assert max(len(key.encode()) for key in keys.to_pylist()) <= 256
    assert len(set(keys.to_pylist())) == len(IDS)
    parted, (offsets, data) = populations.split(offsets_and_data(keys))
    again = pa.StringArray.from_buffers(len(IDS), pa.py_buffer(offsets), pa.py_buffer(data))
    assert (parted.to_pylist(), again.to_pylist()) == (names.to_pylist(), IDS)


def test_slices_and_nothing() -> None:
    populations = Populations(["a", "b"])
    ids = pa.array(["left", "one", "two", "right"]).slice(1, 2)
    keys = populations.keys(np.array([2, 1]), ids)
    for part, expected in ((keys, ["b", "a"]), (keys.slice(1), ["a"]), (keys.slice(2), [])):
        parted, (offsets, _) = populations.split(offsets_and_data(part))
        assert parted.to_pylist() == expected
        assert offsets.size == len(expected) + 1
    assert populations.keys(np.empty(0, np.int64), pa.array([], pa.string())).to_pylist() == []


@pytest.mark.parametrize("number", [1, 127, 128, 1 << 14, 1 << 21, (1 << 27) - 1])
def test_numbers_of_every_length(number: int) -> None:
    keys = Populations().keys(np.array([number]), pa.array(["id"]))
    (key,) = keys.to_pylist()
    assert key.isascii()
    assert len(key) == 6
    value = [ord(byte) for byte in key[:4]]
    assert sum(part << shift for part, shift in zip(value, (21, 14, 7, 0), strict=True)) == number


def test_the_short_key_of_an_abandoned_record_says_nothing() -> None:
    populations = Populations(["a"])
    keys = pa.array(["\x00", *populations.keys(np.array([1]), pa.array(["id"])).to_pylist()])
    parted, (offsets, _) = populations.split(offsets_and_data(keys))
    assert parted.to_pylist() == ["", "a"]
    assert offsets.tolist() == [0, 0, 2]


def test_a_frozen_one_stays_as_it_was() -> None:
    populations = Populations(["a"], ["x" * 256], {"c": 5})
    frozen = populations.frozen()
    populations.numbers(pa.array(["b"]))
    populations.erased_us["d"] = 6
    assert (frozen.names, frozen.long_ids, frozen.erased_us) == (["", "a"], ["x" * 256], {"c": 5})
    assert populations.names == ["", "a", "b"]
