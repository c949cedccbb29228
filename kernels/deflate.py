"""Records that are like one another as a DEFLATE stream, without a search for what repeats (`kernels.repeats`).

Source: RFC 1951, DEFLATE 1.3
"""

from typing import Final

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit, store_word
from rfmstream.kernels.encode_text import LINE_BYTES
from rfmstream.kernels.huffman import make_code
from rfmstream.kernels.repeats import find_repeats, room_for

_DISTANCE_MAX = 32_768
_LENGTH_MAX = 258
_LENGTH_MIN = 3
_END = 256  # the symbol behind the last one
_FIXED, _DYNAMIC = 1, 2
_SIZES = 19  # symbols of the alphabet in which the sizes of words are written
_LONGEST, _LONGEST_SIZE = 15, 7
_SIZES_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15], dtype=np.int64)


def _classes(first: int, extras: list[int]) -> tuple[list[int], list[int]]:
    """Return the base and the extra bits of each class of numbers that follow each other from `first` on."""
    bases = [first]
    for bits in extras[:-1]:
        bases.append(bases[-1] + (1 << bits))
    return bases, extras


_LENGTHS: Final = _classes(3, [0] * 8 + [bits for bits in range(1, 6) for _ in range(4)])
_DISTANCES: Final = _classes(1, [0] * 4 + [bits for bits in range(1, 14) for _ in range(2)])
# The greatest length has a class of its own.
_LENGTH_BASE = np.array([*_LENGTHS[0], _LENGTH_MAX], dtype=np.int64)
_LENGTH_BITS = np.array([*_LENGTHS[1], 0], dtype=np.int64)
_LENGTH_CLASS = np.searchsorted(_LENGTH_BASE, np.arange(_LENGTH_MAX + 1), "right") - 1
_DISTANCE_BASE = np.array(_DISTANCES[0], dtype=np.int64)
_DISTANCE_BITS = np.array(_DISTANCES[1], dtype=np.int64)
# Classes of distances up to 256, and from there on of each 128 of them.
_NEAR_CLASS = np.searchsorted(_DISTANCE_BASE, np.arange(1, 257), "right") - 1
_FAR_CLASS = np.searchsorted(_DISTANCE_BASE, np.arange(1, _DISTANCE_MAX + 1, 128), "right") - 1
_SYMBOLS = _END + 1 + _LENGTH_BASE.size


def bytes_max(size: int) -> int:
    """Return the bytes that `out` of `deflate_records` has to have for `size` bytes: nine bits for eight, at most."""
    return size + size // 8 + 16 + LINE_BYTES


@inline
def _class_of(distance):
    if distance <= 256:
        return np.int64(_NEAR_CLASS[distance - 1])
    return np.int64(_FAR_CLASS[(distance - 1) >> 7])


@inline
def _part_of(length):
    """Return how much of a match goes into its next pair: what is left is no shorter than a pair may be."""
    if length <= _LENGTH_MAX:
        return length
    return min(np.int64(_LENGTH_MAX), length - _LENGTH_MIN)


@inline
def _put(out, at, bits, held, word, size):
    """Write a word behind the bits that are held; return the place, the bits and how many are held: fewer than 8.

    The word has 56 bits at the most.
    """
    bits |= np.uint64(word) << np.uint64(held)
    store_word(out, at, bits)
    held += size
    return at + (held >> 3), bits >> np.uint64(held & ~7), held & 7


@inline
def _count(data, size, found, matches, symbols, distances):
    """Count what the stream is made of."""
    done = np.int64(0)
    for i in range(matches):
        for k in range(done, found[i, 0]):
            symbols[data[k]] += 1
        done = np.int64(found[i, 1])
        left = done - found[i, 0]
        while left > 0:
            length = _part_of(left)
            symbols[_END + 1 + _LENGTH_CLASS[length]] += 1
            distances[_class_of(found[i, 2])] += 1
            left -= length
    for k in range(done, size):
        symbols[data[k]] += 1
    symbols[_END] += 1


@inline
def _use_fixed(sizes, codes, distance_sizes, distance_codes):
    """Fill in the code that every decoder knows."""
    symbol = np.int64(0)
    for first, end, size, word in (
        (0, 144, 8, 0x30),
        (144, 256, 9, 0x190),
        (256, 280, 7, 0),
        (280, 286, 8, 0xC0),
    ):
        for symbol in range(first, end):
            sizes[symbol] = size
            codes[symbol] = _turned(word + symbol - first, size)
    for symbol in range(distance_sizes.size):
        distance_sizes[symbol] = 5
        distance_codes[symbol] = _turned(symbol, 5)


@inline
def _turned(word, size):
    turned = np.int64(0)
    for _ in range(size):
        turned = turned << 1 | word & 1
        word >>= 1
    return turned


@inline
def _runs(sizes, runs):
    """Write sizes as (symbol, extra bits, their value), runs of one size together; return how many that are."""
    count, at = np.int64(0), np.int64(0)
    while at < sizes.size:
        size, end = sizes[at], at + 1
        while end < sizes.size and sizes[end] == size:
            end += 1
        if size > 0:
            runs[count, 0], runs[count, 1], runs[count, 2] = size, 0, 0
            count += 1
            at += 1
        while at < end:
            left = end - at
            if size == 0 and left >= 11:
                take = min(left, 138)
                runs[count, 0], runs[count, 1], runs[count, 2] = 18, 7, take - 11
            elif size == 0 and left >= 3:
                take = left
                runs[count, 0], runs[count, 1], runs[count, 2] = 17, 3, take - 3
            elif left >= 3:
                take = min(left, 6)
                runs[count, 0], runs[count, 1], runs[count, 2] = 16, 2, take - 3
            else:
                take = np.int64(1)
                runs[count, 0], runs[count, 1], runs[count, 2] = size, 0, 0
            count += 1
            at += take
    return count


@jit
def deflate_records(data, size, marks, rows, repeats, out):
    """Write the records data[:size] as a stream of one block.

    In      data     u8[]  LINE_BYTES to spare at the end
            marks, rows, repeats  as of `kernels.repeats.find_repeats`
    Out     out      u8[bytes_max(size)]
    Returns the bytes written
    Cost    O(bytes), and some ten microseconds for the code
    """
    data, out = borrow(data), borrow(out)
    found = np.empty((room_for(marks, rows), 3), dtype=np.int32)
    matches = find_repeats(data, size, marks, rows, repeats, np.int64(_DISTANCE_MAX), found)
    symbols = np.zeros(_SYMBOLS, dtype=np.int64)
    distances = np.zeros(_DISTANCE_BASE.size, dtype=np.int64)
    _count(data, size, found, matches, symbols, distances)
    # Sizes of both alphabets stand one behind the other, as they are written.
    sizes = np.zeros(_SYMBOLS + _DISTANCE_BASE.size, dtype=np.int64)
    codes = np.zeros(sizes.size, dtype=np.int64)
    _use_fixed(sizes[:_SYMBOLS], codes[:_SYMBOLS], sizes[_SYMBOLS:], codes[_SYMBOLS:])
    fixed_bits = (symbols * sizes[:_SYMBOLS]).sum() + (distances * sizes[_SYMBOLS:]).sum()
    own, own_codes = np.zeros_like(sizes), np.zeros_like(codes)
    make_code(symbols, own[:_SYMBOLS], own_codes[:_SYMBOLS], _LONGEST)
    make_code(distances, own[_SYMBOLS:], own_codes[_SYMBOLS:], _LONGEST)
    runs = np.empty((sizes.size, 3), dtype=np.int64)
    n_runs = _runs(own, runs)
    of_runs = np.zeros(_SIZES, dtype=np.int64)
    for i in range(n_runs):
        of_runs[runs[i, 0]] += 1
    run_sizes, run_codes = np.zeros(_SIZES, dtype=np.int64), np.zeros(_SIZES, dtype=np.int64)
    make_code(of_runs, run_sizes, run_codes, _LONGEST_SIZE)
    told = np.int64(_SIZES)
    while told > 4 and run_sizes[_SIZES_ORDER[told - 1]] == 0:
        told -= 1
    own_bits = np.int64(14) + 3 * told + (symbols * own[:_SYMBOLS]).sum() + (distances * own[_SYMBOLS:]).sum()
    for i in range(n_runs):
        own_bits += run_sizes[runs[i, 0]] + runs[i, 1]
    at, bits, held = np.int64(0), np.uint64(0), np.int64(0)
    if own_bits < fixed_bits:
        sizes, codes = own, own_codes
        at, bits, held = _put(out, at, bits, held, np.int64(1 | _DYNAMIC << 1), np.int64(3))
        counts = _SYMBOLS - 257 | _DISTANCE_BASE.size - 1 << 5 | told - 4 << 10
        at, bits, held = _put(out, at, bits, held, counts, np.int64(14))
        for i in range(told):
            at, bits, held = _put(out, at, bits, held, run_sizes[_SIZES_ORDER[i]], np.int64(3))
        for i in range(n_runs):
            symbol = runs[i, 0]
            word = run_codes[symbol] | runs[i, 2] << run_sizes[symbol]
            at, bits, held = _put(out, at, bits, held, word, run_sizes[symbol] + runs[i, 1])
    else:
        at, bits, held = _put(out, at, bits, held, np.int64(1 | _FIXED << 1), np.int64(3))
    done = np.int64(0)
    for i in range(matches + 1):
        until = np.int64(found[i, 0]) if i < matches else size
        for k in range(done, until):
            at, bits, held = _put(out, at, bits, held, codes[data[k]], sizes[data[k]])
        if i == matches:
            break
        done = np.int64(found[i, 1])
        kind = _class_of(np.int64(found[i, 2]))
        far, far_size = codes[_SYMBOLS + kind], sizes[_SYMBOLS + kind]
        far |= (found[i, 2] - _DISTANCE_BASE[kind]) << far_size
        far_size += _DISTANCE_BITS[kind]
        left = done - until
        while left > 0:
            length = _part_of(left)
            kind = np.int64(_LENGTH_CLASS[length])
            symbol = _END + 1 + kind
            word = codes[symbol] | (length - _LENGTH_BASE[kind]) << sizes[symbol]
            word_size = sizes[symbol] + _LENGTH_BITS[kind]
            at, bits, held = _put(out, at, bits, held, word | far << word_size, word_size + far_size)
            left -= length
    at, bits, held = _put(out, at, bits, held, codes[_END], sizes[_END])
    out[at] = bits & np.uint64(0xFF)
    return at + (held > 0)
