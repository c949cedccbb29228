"""What keys say of their producers; the hashes against those of the clients."""

import random
import zlib

import numpy as np
import pytest
from aiokafka.partitioner import murmur2

from rfmstream.engine.live.placement import Placement, places_of
from rfmstream.engine.live.spans import Piece, Spans

CHANCE = random.Random(4)  # noqa: S311
KEYS = [CHANCE.randbytes(CHANCE.randrange(1, 40)) for _ in range(500)]
COUNT = 4


def fnv1a(key: bytes) -> int:
    """Return Sarama's hash of a key, a signed integer of 32 bits."""
    value = 0x811C9DC5
    for byte in key:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value - (value >> 31 << 32)


def test_partitions_are_those_of_the_clients() -> None:
    assert places_of(KEYS, 12).tolist() == [(murmur2(key) & 0x7FFFFFFF) % 12 for key in KEYS]
    assert places_of(KEYS, 12, "crc32").tolist() == [zlib.crc32(key) % 12 for key in KEYS]
    assert places_of(KEYS, 12, "fnv1a").tolist() == [abs(fnv1a(key)) % 12 for key in KEYS]


def kept(partitioner: str) -> list[bytes]:
    """Return the keys that a partitioner puts into partition 1."""
    return [key for key, place in zip(KEYS, places_of(KEYS, COUNT, partitioner), strict=True) if place == 1]


@pytest.mark.parametrize("kind", ["murmur2", "crc32", "fnv1a"])
def test_producers_that_are_alike_are_not_mixed(kind: str) -> None:
    placement = Placement(1, COUNT)
    keys = kept(kind)
    for at in range(0, len(keys), 7):
        placement.count(keys[at : at + 7])
        assert not placement.is_mixed
    assert placement.murmur2 + placement.elsewhere == len(keys)
    assert (placement.elsewhere == 0) == (kind == "murmur2")


@pytest.mark.parametrize("other", ["crc32", "fnv1a"])
def test_two_kinds_of_producers_are_told_apart(other: str) -> None:
    placement = Placement(1, COUNT)
    placement.count(kept("murmur2"))
    placement.count([key for key in kept(other) if key not in kept("murmur2")])
    assert placement.is_mixed
    # A worker that starts again goes on from what was counted.
    again = Placement(1, COUNT)
    again.begin(placement.counts.tolist())
    assert again.is_mixed


def test_keys_within_a_fetch_are_counted_as_they_are() -> None:
    data = np.frombuffer(b"".join(KEYS), np.uint8)
    sizes = np.array([len(key) for key in KEYS])
    spans = Spans([Piece(data, np.cumsum(sizes) - sizes, sizes)])
    placement, plain = Placement(1, COUNT), Placement(1, COUNT)
    placement.count(spans)
    plain.count(KEYS)
    assert placement.counts.tolist() == plain.counts.tolist()
    assert placement.counts.sum() == len(KEYS)
    plain.count([None, b""])
    assert plain.counts.sum() == len(KEYS)
