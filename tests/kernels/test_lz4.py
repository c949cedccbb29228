"""Blocks of LZ4 against the format's own words and against liblz4, which reads them."""

import cramjam
import numpy as np
from hypothesis import example, given, settings

from rfmstream.kernels.encode_text import LINE_BYTES
from rfmstream.kernels.lz4 import bytes_max, pack_records
from tests.support.repeating import laid_out, tables


def unpacked(block):
    """Decode a block, letter by letter; hold it to how a block has to end."""
    out, at, matches = bytearray(), 0, []

    def length(low):
        nonlocal at
        if low < 15:
            return low
        total = low
        while True:
            total += block[at]
            at += 1
            if block[at - 1] < 255:
                return total

    while True:
        token = block[at]
        at += 1
        literals = length(token >> 4)
        out += block[at : at + literals]
        at += literals
        if at == len(block):
            break
        distance = int.from_bytes(block[at : at + 2], "little")
        at += 2
        assert 0 < distance <= len(out)
        matches.append(len(out))
        for _ in range(length(token & 15) + 4):
            out.append(out[-distance])
    assert token & 15 == 0
    if matches:
        assert literals >= 5
        assert matches[-1] <= len(out) - 12
    return bytes(out)


def packed(steps, rows):
    """Return records of rows, and the block that they become."""
    data, laid = laid_out(steps, rows)
    out = np.full(bytes_max(len(data)) + 8, 0xEE, np.uint8)
    size = pack_records(*laid, out[:-8])
    assert size <= bytes_max(len(data)) - LINE_BYTES
    assert (out[-8:] == 0xEE).all()
    return data, out[:size].tobytes()


@settings(deadline=None)
@given(tables())
@example(([([b"a" * 40], 0, -1)], []))
@example(([([b""], 0, -1)], [[(0, b"")]]))
@example(
    (
        [([b""], 0, -1), ([b"", b"abcde"], 0, -1), ([b"end of the row"], 0, -1)],
        [[(0, b"")] * 3, [(1, b"")] * 3],
    )
)
def test_a_block_is_what_it_was_made_of(table):
    data, block = packed(*table)
    assert unpacked(block) == data
    if data:
        assert bytes(cramjam.lz4.decompress_block(block, output_len=len(data))) == data


def test_rows_that_differ_in_a_field_take_a_sequence_each():
    steps = [([b"a piece of fixed text"], 0, -1), ([b"and another one at the end"], 0, -1)]
    rows = [[(0, b"%04d" % (i * 7919 % 10_000)), (0, b"")] for i in range(1000)]
    data, block = packed(steps, rows)
    assert len(data) == 54 * 1000
    assert len(block) <= 10 * 1000


def test_a_field_that_comes_again_is_taken_from_where_it_stood():
    noise = np.random.default_rng(0).bytes(1000)
    steps = [([b"once:"], 0, -1), ([b"again:"], 1, 0), ([b"."], 0, -1)]
    data, block = packed(steps, [[(0, noise), (0, b"\0" + noise), (0, b"")]])
    assert len(data) > 2000
    assert len(block) < 1040


def test_words_of_a_row_are_taken_from_the_last_row_that_has_them():
    words = [np.random.default_rng(i).bytes(100) for i in range(3)]
    steps = [(words, 0, -1), ([b"the same in every row"], 0, -1)]
    data, block = packed(steps, [[(i % 3, b""), (0, b"")] for i in range(300)])
    assert len(data) == 124 * 300
    assert len(block) < 400 + 8 * 300


def test_what_is_further_away_than_a_distance_reaches_is_written_again():
    piece = np.random.default_rng(0).bytes(1000)
    data, block = packed([([piece], 0, -1), ([b"."], 0, -1)], [[(0, b"x" * 70_000), (0, b"")]] * 3)
    assert unpacked(block) == data
    assert len(block) > 3000
