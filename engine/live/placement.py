"""Whether all producers choose partitions alike: a customer whose orders lie in two partitions is two customers.

Every keyed record agrees with the partition that Kafka's murmur2 chooses for its key, with that of librdkafka's CRC-32,
with both (by chance), or with neither. Records of both kinds side by side mean two kinds of producers.
"""

import logging
from collections.abc import Sequence
from itertools import accumulate
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.live.model import Source
from rfmstream.engine.live.spans import Spans
from rfmstream.kernels.placement import (
    CRC32,
    MURMUR2,
    NEITHER,
    PLACES,
    count_places,
    crc32_table,
    place_crc32,
    place_fnv1a,
    place_murmur2,
)

PARTITIONERS: Final = ("murmur2", "crc32", "fnv1a")

_TABLE: Final[NDArray[np.uint32]] = crc32_table()
_LOOKED_AT_MAX: Final = 1024
"""Of a fetch of more records so many, spread over it, are looked at: a backlog is read as fast as before."""

_BEYOND_CHANCE: Final = 5.0
"""Standard deviations from which on records in their murmur2 partition are too many to be there by chance."""

_log = logging.getLogger(__name__)


class Placement:
    """What the keys of one partition's records say of their producers.

    In      partition, partitions  where they are, and of how many; 1 says nothing
    Fields  counts  i64[PLACES], keyed records by what they agree with: see kernels.placement
    """

    def __init__(self, partition: int, partitions: int) -> None:
        self.partition = partition
        self.partitions = partitions
        self.counts = np.zeros(PLACES, np.int64)

    @property
    def murmur2(self) -> int:
        """Keyed records that are in the partition murmur2 chooses."""
        return int(self.counts.sum()) - self.elsewhere

    @property
    def elsewhere(self) -> int:
        """Keyed records that are not."""
        return int(self.counts[CRC32] + self.counts[NEITHER])

    @property
    def is_mixed(self) -> bool:
        """Whether there are records of murmur2 and of something else, beyond what chance explains."""
        murmur2, crc32, neither = (int(self.counts[kind]) for kind in (MURMUR2, CRC32, NEITHER))
        if self.partitions < 2 or murmur2 == 0 or crc32 + neither == 0:
            return False
        if neither == 0:
            return True
        # A partitioner of one's own agrees with murmur2 now and then.
        total = int(self.counts.sum())
        chance = 1 / self.partitions
        return self.murmur2 - total * chance > _BEYOND_CHANCE * sqrt(total * chance * (1 - chance))

    @property
    def partitioner(self) -> str | None:
        """What chooses the partitions, of PARTITIONERS; None: neither murmur2 nor CRC-32.

        Without any record that tells it is Kafka's own.
        """
        murmur2, crc32, neither = (int(self.counts[kind]) for kind in (MURMUR2, CRC32, NEITHER))
        if self.partitions > 1 and neither > murmur2 + crc32:
            return None
        return "crc32" if crc32 > murmur2 else "murmur2"

    def begin(self, counts: Sequence[int]) -> None:
        """Go on from what was counted before, as `counts`; nothing: begin with none."""
        self.counts[:] = counts if len(counts) == PLACES else 0

    def count(self, keys: Sequence[bytes | None]) -> None:
        """Take note of the keys of records."""
        if self.partitions < 2:
            return
        if isinstance(keys, Spans):
            for data, starts, sizes in keys.pieces:
                step = -(-len(starts) // _LOOKED_AT_MAX)
                self._count(data, np.ascontiguousarray(starts[::step]), np.ascontiguousarray(sizes[::step]))
        elif len(keys):
            self._count(*_packed([key or b"" for key in keys[:: -(-len(keys) // _LOOKED_AT_MAX)]]))

    def _count(self, data: NDArray[np.uint8], starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        count_places(data, starts, sizes, self.partition, self.partitions, _TABLE, self.counts)


def count_and_warn(placement: Placement, keys: Sequence[bytes | None], source: Source) -> None:
    """Take note of the keys of a partition's records, and warn once producers choose differently."""
    was_mixed = placement.is_mixed
    placement.count(keys)
    if placement.is_mixed and not was_mixed:
        _log.warning(
            "producers choose partitions differently, so a customer may be in two: give all of them murmur2",
            extra={
                "partition": str(source),
                "murmur2": placement.murmur2,
                "elsewhere": placement.elsewhere,
            },
        )


def places_of(keys: Sequence[bytes], partitions: int, partitioner: str = "murmur2") -> NDArray[np.int64]:
    """Return the partition of each key: i64[n].

    In      partitioner  one of PARTITIONERS
    """
    return _placed(*_packed(keys), partitions, partitioner)


def places_of_ids(
    offsets: NDArray[np.int32], data: NDArray[np.uint8], partitions: int, partitioner: str
) -> NDArray[np.int64]:
    """Return the partition of each id as a key: i64[n]. In: offsets i32[n + 1] of the ids' bytes."""
    starts = offsets[:-1].astype(np.int64)
    sizes = np.diff(offsets).astype(np.int64)
    return _placed(np.frombuffer(data, np.uint8), starts, sizes, partitions, partitioner)


def _placed(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    partitions: int,
    partitioner: str,
) -> NDArray[np.int64]:
    out = np.empty(len(starts), np.int64)
    if partitioner == "murmur2":
        place_murmur2(data, starts, sizes, partitions, out)
    elif partitioner == "crc32":
        place_crc32(data, starts, sizes, partitions, _TABLE, out)
    else:
        place_fnv1a(data, starts, sizes, partitions, out)
    return out


def _packed(keys: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    sizes = np.fromiter(map(len, keys), np.int64, len(keys))
    starts = np.array([0, *accumulate(sizes.tolist())][: len(keys)], np.int64)
    # Never empty, and read-only as the bytes of a fetch are: a kernel is compiled for each kind.
    return np.frombuffer(b"".join(keys) + b"\0", np.uint8), starts, sizes
