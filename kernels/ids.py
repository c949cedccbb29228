"""Ids as bytes: the keyed hash, comparison, and the customer's id inside its record.

The hash multiplies 64-bit words with keys drawn at random for each engine and folds the 128-bit product (the scheme of
wyhash and its kin), so that nobody can prepare ids that collide. It only ever decides where a thing is looked for;
equality is decided by the bytes.
"""

import numpy as np

from rfmstream.kernels._jit import (
    borrow,
    fold_multiply,
    inline,
    jit,
    keep_apart,
    load_word,
    part,
    prefetch,
    store_word,
)

AHEAD = 32
INLINE_BYTES = 16
SPARE_BYTES = 16
"""The gathers write whole words, so a buffer they write to has this many bytes to spare at its end."""


@inline
def _low_bytes(count):
    """Return the mask of a word's `count` low bytes, 0 to 8."""
    if count >= 8:
        return np.uint64(0xFFFFFFFFFFFFFFFF)
    return (np.uint64(1) << np.uint64(8 * count)) - np.uint64(1)


@part
def _word_bytewise(data, start, count):
    keep_apart()
    word = np.uint64(0)
    for i in range(count):
        word |= np.uint64(data[start + i]) << np.uint64(8 * i)
    return word


@inline
def word_at(data, start, count):
    """Return up to eight bytes of `data` as a zero-padded little-endian word; never reads past the end."""
    if start + 8 <= data.size:
        return load_word(data, start) & _low_bytes(count)
    return _word_bytewise(data, start, count)


@inline
def words_at(data, start, size):
    """Return the first sixteen bytes of an id as two zero-padded words."""
    low = word_at(data, start, min(size, 8))
    high = np.uint64(0)
    if size > 8:
        high = word_at(data, start + 8, min(size - 8, 8))
    return low, high


@part
def _hash_rest(data, start, size, seeds, value):
    keep_apart()
    done = np.int64(0)
    while done < size:
        word = word_at(data, start + done, min(size - done, np.int64(8)))
        value = fold_multiply(value ^ word ^ seeds[0], seeds[3] ^ word)
        done += 8
    return value


@inline
def hash_bytes(data, start, size, seeds):
    """Return the keyed 64-bit hash of `size` bytes."""
    low, high = words_at(data, start, size)
    value = fold_multiply(low ^ seeds[0], high ^ seeds[1] ^ (np.uint64(size) << np.uint64(32)))
    if size > INLINE_BYTES:
        value = _hash_rest(data, start + INLINE_BYTES, size - INLINE_BYTES, seeds, value)
    return fold_multiply(value ^ seeds[2], seeds[3] ^ np.uint64(size))


@inline
def hash_pair(first, second, seeds):
    """Return the hash of two hashes, in this order."""
    return fold_multiply(first ^ seeds[1], second ^ seeds[2])


@jit
def hash_ids(offset, data, seeds, out):
    """Hash a column of ids.

    In      offset  i32[n + 1], data u8[], seeds u64[4]
    Out     out     u64[n]
    """
    data, seeds = borrow(data), borrow(seeds)
    for i in range(out.size):
        start = np.int64(offset[i])
        out[i] = hash_bytes(data, start, np.int64(offset[i + 1]) - start, seeds)


@inline
def same_bytes(left, left_start, right, right_start, size):
    """Tell whether two byte ranges are equal."""
    done = np.int64(0)
    while done < size:
        count = min(size - done, np.int64(8))
        if word_at(left, left_start + done, count) != word_at(right, right_start + done, count):
            return False
        done += 8
    return True


@inline
def is_customer(customer, key_data, data, start, size):
    """Tell whether a customer record carries this id."""
    if np.int64(customer.key_size) + 1 != size:
        return False
    low, high = words_at(data, start, size)
    if size <= INLINE_BYTES:
        return customer.key0 == low and customer.key1 == high
    return customer.key0 == low and same_bytes(key_data, np.int64(customer.key1), data, start, size)


@inline
def set_customer_id(customer, key_data, key_end, data, start, size):
    """Write an id into a new customer record; return the new end of `key_data`."""
    low, high = words_at(data, start, size)
    customer.key_size = size - 1
    customer.key0 = low
    if size <= INLINE_BYTES:
        customer.key1 = high
        return key_end
    customer.key1 = np.uint64(key_end)
    for i in range(size):
        key_data[key_end + i] = data[start + i]
    return key_end + size


@jit
def size_customer_ids(customers, handles, offset):
    """Write the Arrow offsets of the ids of `handles` (u32[n]) into `offset` (i32[n + 1]); return the bytes."""
    customers, handles = borrow(customers), borrow(handles)
    total = np.int64(0)
    offset[0] = 0
    for i in range(handles.size):
        if i + AHEAD < handles.size:
            prefetch(customers, np.int64(handles[i + AHEAD]), 0)
        total += np.int64(customers[handles[i]].key_size) + 1
        offset[i + 1] = total
    return total


@inline
def copy_id(data, source, size, out, target):
    """Write `size` bytes of `data` to `out`, which has SPARE_BYTES at its end."""
    done = np.int64(0)
    while done < size:
        store_word(out, target + done, word_at(data, source + done, min(size - done, np.int64(8))))
        done += 8


@inline
def copy_customer_id(customer, key_data, out, target):
    """Write the id a CUSTOMER or CHANGE carries to `out`, which has SPARE_BYTES at its end."""
    size = np.int64(customer.key_size) + 1
    if size <= INLINE_BYTES:
        store_word(out, target, customer.key0)
        store_word(out, target + 8, customer.key1)
    else:
        copy_id(key_data, np.int64(customer.key1), size, out, target)


@jit
def gather_customer_ids(customers, key_data, handles, offset, out):
    """Write the ids of `handles` to `out`, u8, which has SPARE_BYTES at its end."""
    customers, key_data, out = borrow(customers), borrow(key_data), borrow(out)
    for i in range(handles.size):
        copy_customer_id(customers[handles[i]], key_data, out, np.int64(offset[i]))
