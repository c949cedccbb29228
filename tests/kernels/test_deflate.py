"""DEFLATE streams against zlib, which reads them."""

import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings

from rfmstream.kernels.deflate import bytes_max, deflate_records
from rfmstream.kernels.encode_text import LINE_BYTES
from tests.support.repeating import laid_out, tables


def packed(steps, rows):
    """Return records of rows, and the stream that they become."""
    data, laid = laid_out(steps, rows)
    out = np.full(bytes_max(len(data)) + 8, 0xEE, np.uint8)
    size = deflate_records(*laid, out[:-8])
    assert size <= bytes_max(len(data)) - LINE_BYTES
    assert (out[-8:] == 0xEE).all()
    return data, out[:size].tobytes()


def unpacked(stream):
    reader = zlib.decompressobj(-zlib.MAX_WBITS)
    data = reader.decompress(stream) + reader.flush()
    assert reader.eof
    assert not reader.unused_data
    return data


@settings(deadline=None)
@given(tables())
@example(([([b"a" * 40], 0, -1)], []))
@example(([([b""], 0, -1)], [[(0, b"")]]))
def test_a_stream_is_what_it_was_made_of(table):
    data, stream = packed(*table)
    assert unpacked(stream) == data


@pytest.mark.parametrize("length", [*range(250, 270), 515, 516, 517, 518, 519, 777, 5000, 70_000])
def test_matches_of_all_lengths(length):
    data, stream = packed([([b"x" * length], 0, -1), ([b"."], 0, -1)], [[(0, b""), (0, b"")]] * 3)
    assert unpacked(stream) == data


@pytest.mark.parametrize("apart", [1, 4, 5, 255, 256, 257, 258, 8192, 16_000, 16_385, 32_700, 32_768, 40_000])
def test_matches_from_all_distances(apart):
    noise = np.random.default_rng(0).bytes(apart)
    piece = np.random.default_rng(1).bytes(100)
    data, stream = packed([([piece], 0, -1), ([b"."], 0, -1)], [[(0, noise), (0, b"")]] * 3)
    assert unpacked(stream) == data


def test_noise_does_not_outgrow_its_room():
    noise = [np.random.default_rng(number).bytes(30_000) for number in range(3)]
    data, stream = packed([([b""], 0, -1), ([b""], 0, -1)], [[(0, each), (0, b"")] for each in noise])
    assert unpacked(stream) == data
    assert len(stream) < 1.01 * len(data)


def test_rows_that_differ_in_a_field_take_few_bytes_each():
    steps = [([b"a piece of fixed text"], 0, -1), ([b"and another one at the end"], 0, -1)]
    rows = [[(0, b"%04d" % (i * 7919 % 10_000)), (0, b"")] for i in range(1000)]
    data, stream = packed(steps, rows)
    assert unpacked(stream) == data
    assert len(stream) <= len(zlib.compress(data, 1))
