"""Which partition each client's default would have chosen for a key.

Source  Kafka's DefaultPartitioner (murmur2, positive, modulo the partitions: Java, kafka-python, aiokafka, KafkaJS,
        franz-go); librdkafka's `consistent` (CRC-32 modulo the partitions: Python's confluent-kafka, .NET, Go, kcat);
        Sarama's hash partitioner (FNV-1a)
"""

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit

PLACES = 4
BOTH, MURMUR2, CRC32, NEITHER = range(PLACES)
"""What a key's partition agrees with."""


def crc32_table():
    """Return u32[256], the remainders of CRC-32 (reflected, polynomial 0xEDB88320)."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(0xEDB88320), table >> np.uint32(1))
    return table


@inline
def _murmur2(data, start, size):
    """Return Kafka's 32-bit murmur2 of some bytes."""
    low = np.uint64(0xFFFFFFFF)
    m = np.uint64(0x5BD1E995)
    h = np.uint64(0x9747B28C) ^ np.uint64(size)
    whole = size // 4 * 4
    for at in range(start, start + whole, 4):
        k = np.uint64(data[at]) | (np.uint64(data[at + 1]) << np.uint64(8))
        k |= (np.uint64(data[at + 2]) << np.uint64(16)) | (np.uint64(data[at + 3]) << np.uint64(24))
        k = (k * m) & low
        k ^= k >> np.uint64(24)
        k = (k * m) & low
        h = ((h * m) & low) ^ k
    rest = size - whole
    if rest:
        for k in range(rest):
            h ^= np.uint64(data[start + whole + k]) << np.uint64(8 * k)
        h = (h * m) & low
    h ^= h >> np.uint64(13)
    h = (h * m) & low
    return h ^ (h >> np.uint64(15))


@inline
def _crc32(data, start, size, table):
    crc = np.uint32(0xFFFFFFFF)
    for at in range(start, start + size):
        crc = table[np.uint8(crc) ^ data[at]] ^ (crc >> np.uint32(8))
    return np.int64(crc ^ np.uint32(0xFFFFFFFF))


@inline
def _fnv1a(data, start, size):
    low = np.uint64(0xFFFFFFFF)
    h = np.uint64(0x811C9DC5)
    for at in range(start, start + size):
        h = ((h ^ np.uint64(data[at])) * np.uint64(0x01000193)) & low
    return h


@jit
def count_places(data, starts, sizes, partition, partitions, table, counts):
    """Count with which clients the partition of keys agrees.

    In      data           u8[]    ro
            starts, sizes  i64[n]  ro   of each key in `data`; a size that is not above 0 is no key
            partition, partitions       where all of them are, of how many
            table          u32[256] ro  crc32_table()
    State   counts         i64[PLACES]  grows
    Cost    O(bytes), no allocation
    """
    data, table = borrow(data), borrow(table)
    for k in range(len(starts)):
        size = sizes[k]
        if size <= 0:
            continue
        murmur2 = np.int64(_murmur2(data, starts[k], size) & np.uint64(0x7FFFFFFF)) % partitions == partition
        crc32 = _crc32(data, starts[k], size, table) % partitions == partition
        if murmur2:
            counts[BOTH if crc32 else MURMUR2] += 1
        else:
            counts[CRC32 if crc32 else NEITHER] += 1


@jit
def place_murmur2(data, starts, sizes, partitions, out):
    """Write the partition that murmur2 chooses for each key: out i64[n]."""
    data = borrow(data)
    for k in range(len(starts)):
        out[k] = np.int64(_murmur2(data, starts[k], sizes[k]) & np.uint64(0x7FFFFFFF)) % partitions


@jit
def place_crc32(data, starts, sizes, partitions, table, out):
    """Write the partition that librdkafka's default chooses for each key: out i64[n]."""
    data, table = borrow(data), borrow(table)
    for k in range(len(starts)):
        out[k] = _crc32(data, starts[k], sizes[k], table) % partitions


@jit
def place_fnv1a(data, starts, sizes, partitions, out):
    """Write the partition that Sarama's default chooses for each key: out i64[n]."""
    data = borrow(data)
    for k in range(len(starts)):
        h = np.int64(_fnv1a(data, starts[k], sizes[k]))
        if h > 0x7FFFFFFF:
            h -= np.int64(1) << np.int64(32)
        # As Go divides: towards zero; then the sign is dropped.
        out[k] = abs(h) % partitions
