"""Huffman codes of bounded length, as DEFLATE has them.

Source  RFC 1951, 3.2.2; A. Moffat, J. Katajainen, "In-Place Calculation of Minimum-Redundancy Codes" (1995)
"""

import numpy as np

from rfmstream.kernels._jit import inline, part


@inline
def _sorted_used(counts, symbols, weights):
    """Write the symbols that are used, and how often, the seldom ones first; return how many there are."""
    used = np.int64(0)
    for symbol in range(counts.size):
        count = counts[symbol]
        if count > 0:
            at = used
            while at > 0 and weights[at - 1] > count:
                weights[at], symbols[at] = weights[at - 1], symbols[at - 1]
                at -= 1
            weights[at], symbols[at] = count, symbol
            used += 1
    return used


@inline
def _depths(weights, used):
    """Replace ascending weights[:used], two at least, by the depths of their leaves in the tree; these fall."""
    weights[0] += weights[1]
    root, leaf = np.int64(0), np.int64(2)
    for inner in range(1, used - 1):
        for take in range(2):
            if leaf >= used or (root < inner and weights[root] < weights[leaf]):
                value = weights[root]
                weights[root] = inner
                root += 1
            else:
                value = weights[leaf]
                leaf += 1
            weights[inner] = value if take == 0 else weights[inner] + value
    weights[used - 2] = 0
    for inner in range(used - 3, -1, -1):
        weights[inner] = weights[weights[inner]] + 1
    free, depth = np.int64(1), np.int64(0)
    root, at = used - 2, used - 1
    while free > 0:
        inners = np.int64(0)
        while root >= 0 and weights[root] == depth:
            inners += 1
            root -= 1
        while free > inners:
            weights[at] = depth
            at -= 1
            free -= 1
        free = 2 * inners
        depth += 1


@part
def make_code(counts, sizes, codes, longest):
    """Make the code of an alphabet, the shortest there is where no word is longer than `longest`.

    In      counts  i64[s]  how often each symbol occurs; fewer than two: some get a word that need none, as decoders
                    want a whole tree
    Out     sizes   i64[s]  bits of each symbol's word; 0: it has none
            codes   i64[s]  the words, as they stand in a stream: their first bit is the lowest
    Cost    O(used symbols ** 2), some hundred at the most
    """
    symbols = np.empty(counts.size, dtype=np.int64)
    weights = np.empty(counts.size, dtype=np.int64)
    used = _sorted_used(counts, symbols, weights)
    while used < 2:
        counts[1 if counts[0] else 0] = 1
        used = _sorted_used(counts, symbols, weights)
    _depths(weights, used)
    of_size = np.zeros(longest + 1, dtype=np.int64)
    for i in range(used):
        of_size[min(weights[i], longest)] += 1
    room = np.int64(0)  # what is taken of all words of the longest size
    for size in range(1, longest + 1):
        room += of_size[size] << (longest - size)
    while room > 1 << longest:
        # A word of the longest size goes, and a shorter one has two below it instead.
        of_size[longest] -= 1
        size = longest - 1
        while of_size[size] == 0:
            size -= 1
        of_size[size] -= 1
        of_size[size + 1] += 2
        room -= 1
    sizes[:] = 0
    at, size = used, np.int64(1)
    for size in range(1, longest + 1):
        for _ in range(of_size[size]):
            at -= 1
            sizes[symbols[at]] = size
    following = np.zeros(longest + 2, dtype=np.int64)
    for size in range(1, longest + 1):
        following[size + 1] = (following[size] + of_size[size]) << 1
    for symbol in range(sizes.size):
        size = sizes[symbol]
        word = following[size]
        following[size] += 1
        turned = np.int64(0)
        for _ in range(size):
            turned = turned << 1 | word & 1
            word >>= 1
        codes[symbol] = turned
