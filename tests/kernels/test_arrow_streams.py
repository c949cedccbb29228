"""What an Arrow stream says it holds, against what Arrow makes of it."""

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import some

from rfmstream.kernels.arrow_streams import DAMAGED, unpacked_bytes

V4 = pa.ipc.MetadataVersion.V4
TEXTS = ["", "a", "some text that comes again " * 9, None]


def said(value: bytes) -> int:
    return int(unpacked_bytes(np.frombuffer(value, np.uint8)))


def made(value: bytes) -> int:
    """Return how many bytes Arrow gives the buffers of a stream whose batches are all compressed."""
    seen: dict[int, int] = {}
    with pa.ipc.open_stream(value) as reader:
        batches = list(reader)
    for batch in batches:
        for column in batch.columns:
            arrays = [column, column.dictionary] if pa.types.is_dictionary(column.type) else [column]
            for array in arrays:
                seen |= {buffer.address: buffer.size for buffer in array.buffers() if buffer is not None}
    return sum(seen.values())


def stream(*batches: pa.RecordBatch, custom: dict[str, str] | None = None, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch, custom_metadata=custom)
    return sink.getvalue().to_pybytes()


def batch(rows: int = 300) -> pa.RecordBatch:
    words = pa.array([TEXTS[at * at % 4] for at in range(rows)])
    return pa.record_batch(
        {
            "word": words,
            "entry": words.dictionary_encode(),
            "number": pa.array(np.arange(rows)),
            "none": pa.nulls(rows),
        }
    )


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_buffers_say_how_long_they_are(codec: str, *, legacy: bool) -> None:
    for rows in (1, 300):
        value = stream(batch(rows), compression=codec, use_legacy_format=legacy)
        assert said(value) == made(value) > 0
    many = stream(*[batch()] * 5, compression=codec, use_legacy_format=legacy)
    # The dictionary is the same, and comes once.
    assert said(many) == made(many)


def test_buffers_that_are_not_compressed_say_nothing() -> None:
    assert said(stream(batch())) == said(stream(batch(), metadata_version=V4)) == said(b"") == 0
    custom = {"ARROW:experimental_compressio": "zstd", "x": "experimental_compressio"}
    assert said(stream(batch(), custom=custom, metadata_version=V4)) == 0


def test_the_key_of_the_version_before() -> None:
    texts = pa.record_batch({"word": pa.array(["abc" * 10] * 100)})
    value = stream(
        texts, custom={"ARROW:experimental_compression": "zstd"}, compression="zstd", metadata_version=V4
    )
    assert pa.ipc.open_stream(value).read_all() == pa.Table.from_batches([texts])
    assert said(value) == made(value) > 0
    plain = stream(texts, custom={"ARROW:experimental_compression": "zstd"}, metadata_version=V4)
    # What stands before a buffer is then read as its length, as Arrow does.
    assert said(plain) > 1 << 40


def test_a_length_is_what_is_said_and_not_what_is_there() -> None:
    value = bytearray(stream(pa.record_batch({"x": pa.array([7] * 1000)}), compression="zstd"))
    at = value.find((8000).to_bytes(8, "little"), value.find(b"\x28\xb5\x2f\xfd") - 8)
    for length in (0, 1, 1 << 40, (1 << 63) - 1):
        value[at : at + 8] = length.to_bytes(8, "little")
        assert said(bytes(value)) == min(length, 1 << 56)


@pytest.mark.parametrize("codec", [None, "zstd"])
def test_cut_anywhere(codec: str | None) -> None:
    value = stream(batch(20), batch(10), compression=codec)
    whole = said(value)
    for size in range(len(value)):
        assert DAMAGED <= said(value[:size]) <= whole
    assert said(value + b"\x01\x02\x03") == whole


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("number", [2**63 - 1, 2**63 - 8, 2**62, -(2**63), -8])
def test_a_number_whose_sum_would_overflow_leads_nowhere(codec: str, number: int) -> None:
    """Of an offset so large the place in the body lies before the stream's beginning."""
    value = stream(batch(8), compression=codec)
    found = []
    for at in range(0, len(value) - 8, 8):
        found.append(said(value[:at] + struct.pack("<q", number) + value[at + 8 :]))
        # Arrow's sizes are bounded by _MUCH, so that they can be added.
        assert DAMAGED <= found[-1] < 2**62
    assert DAMAGED in found


@settings(max_examples=some(1000), deadline=None)
@given(data=st.data(), codec=st.sampled_from([None, "zstd", "lz4"]), legacy=st.booleans())
def test_damaged_anywhere(data: st.DataObject, codec: str | None, *, legacy: bool) -> None:
    value = bytearray(stream(batch(8), compression=codec, use_legacy_format=legacy))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(value) - 1))
        value[at] = data.draw(st.sampled_from([0, 1, 4, 8, 127, 128, 255]) | st.integers(0, 255))
    found = said(bytes(value))
    assert found >= DAMAGED
    try:
        with pa.ipc.open_stream(bytes(value)) as reader:
            table = reader.read_all()
    except (pa.ArrowException, OSError, ValueError):
        return
    # Arrow does not look at the bits of a column without nulls, wherever they are said to be.
    assert found >= 0 or table.equals(pa.Table.from_batches([batch(8)])), "Arrow can read it"
