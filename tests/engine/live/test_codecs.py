"""Decompression: what the client's functions say of whole bytes, and a bound that nothing can talk its way around."""

import tracemalloc

import cramjam
import pyarrow as pa
import pytest
from aiokafka import codec as client
from aiokafka.errors import CorruptRecordException
from kafka_batches import CODECS, Batch, Record, as_lists, is_raw, read

from rfmstream.engine.live.kafka import fetches
from rfmstream.engine.live.kafka.codecs import (
    BATCH_BYTES_MAX,
    NAMES,
    DamagedError,
    TooLargeError,
    decode,
    refusal,
)
from rfmstream.engine.live.kafka.fetches import bound_batches, read_fetch

VERSIONS = bytes((0, 0, 0, 1, 0, 0, 0, 1))
"""Of a frame of snappy: the client reads no other, so neither do we."""
FRAMES = [(codec & 7 if codec < 5 else 2, encode) for codec, encode in CODECS.items() if codec]


@pytest.mark.parametrize(("codec", "encode"), FRAMES)
@pytest.mark.parametrize("size", [0, 1, 100, 70_000, 3_000_000])
def test_what_is_whole_is_what_the_client_reads(codec: int, encode: object, size: int) -> None:
    data = bytes(range(251)) * (size // 251) + b"x" * (size % 251)
    packed = encode(data)  # type: ignore[operator]
    assert decode(codec, packed, BATCH_BYTES_MAX) == data
    if size:  # the client cannot read its own empty frame of snappy
        assert getattr(client, f"{NAMES[codec]}_decode")(packed) == data
    assert decode(codec, packed, size) == data
    if size:
        with pytest.raises(TooLargeError):
            decode(codec, packed, size - 1)


@pytest.mark.parametrize(("codec", "encode"), FRAMES)
def test_frames_that_are_cut_off_or_no_frames_are_damaged(codec: int, encode: object) -> None:
    packed = encode(b"orders" * 5000)  # type: ignore[operator]
    for damaged in (
        packed[:-3],
        packed[: len(packed) // 2],
        b"",
        b"\x00" * 40,
        b"\x82SNAPPY\0" + b"\xff" * 40,
        packed.replace(VERSIONS, bytes((1, *VERSIONS[1:])), 1) if packed.startswith(b"\x82") else b"",
    ):
        with pytest.raises(CorruptRecordException):
            decode(codec, damaged, BATCH_BYTES_MAX)


def test_a_block_of_snappy_with_a_size_below_nothing_does_not_go_round_for_ever() -> None:
    frame = b"\x82SNAPPY\0" + VERSIONS + (-4).to_bytes(4, "big", signed=True) + b"x" * 20
    with pytest.raises(DamagedError, match="cut off"):
        decode(2, frame, BATCH_BYTES_MAX)


@pytest.mark.parametrize("name", ["zstd", "gzip", "lz4"])
def test_gigabytes_take_the_memory_of_the_bound(name: str) -> None:
    sink, piece = pa.BufferOutputStream(), bytes(8 << 20)
    with pa.CompressedOutputStream(sink, name) as stream:
        for _ in range(128):
            stream.write(piece)
    packed = sink.getvalue().to_pybytes()
    codec = next(number for number, each in NAMES.items() if each == name)
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            decode(codec, packed, 4 << 20)
        assert tracemalloc.get_traced_memory()[1] < 96 << 20
    finally:
        tracemalloc.stop()


def test_a_block_of_snappy_says_its_size_before_it_is_read() -> None:
    block = bytes([255, 255, 255, 255, 15]) + b"\0" * 10
    assert cramjam.snappy.decompress_raw_len(block) == 2**32 - 1
    with pytest.raises(TooLargeError):
        decode(2, block, BATCH_BYTES_MAX)


@pytest.mark.parametrize("codec", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("attributes", [0, 8])
def test_a_batch_that_holds_too_much_is_one_record_by_both_paths(codec: int, attributes: int) -> None:
    large = [Record(n, n, b"k", b"v" * 100_000) for n in range(12)]
    rows = [Record(0, 5, b"k", b"{}"), Record(3, -5, None, None)]
    batches = (
        Batch(10, rows, codec=codec),
        Batch(20, large, codec=codec, attributes=attributes, last_delta=15),
        Batch(40, rows, codec=codec),
    )
    bound_batches(1_000_000)
    try:
        for offset in (10, 25, 36):
            data = b"".join(batch.encoded() for batch in batches if batch.end > offset)
            raw, ordinary = (read_fetch(data, offset, is_raw=way) for way in (True, False))
            assert is_raw(raw)
            assert as_lists(raw) == as_lists(ordinary)
            kept = [at for at in (10, 13, 35, 40, 43) if at >= offset]
            assert list(raw.offsets) == kept
            if 35 in kept:
                place = kept.index(35)
                assert raw.values[place] == refusal(20, 35)
                assert (raw.keys[place], list(raw.headers[place])) == (None, [])
                assert raw.timestamps_ms[place] == 1_767_225_600_999 - (0 if attributes else 999)
        assert raw.position == 44
    finally:
        bound_batches(BATCH_BYTES_MAX)


def test_a_batch_of_too_many_records_is_one_record_by_both_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetches, "BATCH_RECORDS_MAX", 99)
    monkeypatch.setattr("rfmstream.engine.live.kafka.raw_batches.BATCH_RECORDS_MAX", 99)
    for codec in (0, 4):
        some, many = (Batch(5, [Record(n) for n in range(size)], codec=codec).encoded() for size in (99, 100))
        assert len(list(read_fetch(some, 0).offsets)) == 99
        for way in (True, False):
            found = read_fetch(many, 0, is_raw=way)
            assert (list(found.offsets), list(found.values), found.position) == (
                [104],
                [refusal(5, 104)],
                105,
            )


def test_the_reader_of_names_that_are_no_utf8_is_bounded_too() -> None:
    rows = [Record(0, 0, None, b"v" * 300_000, ((b"\xff", b"x"),)) for _ in range(1)]
    data = Batch(0, rows, codec=4).encoded()
    bound_batches(100_000)
    try:
        assert list(read_fetch(data, 0, is_raw=False).values) == [refusal(0, 0)]
    finally:
        bound_batches(BATCH_BYTES_MAX)
    assert not isinstance(read(data, 0), type)
    assert list(read_fetch(data, 0).values) == [b"v" * 300_000]
