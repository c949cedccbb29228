"""The one place that says how kernels are compiled, and the few machine instructions numba has no name for.

Policy: no Python objects, no GIL, no fastmath and no parallel reductions (a replay must be byte-equal). Kernels are
compiled by numba once, into objects that later processes load without it (kernels/_kernel.py): nothing here imports
numba.

With NUMBA_DISABLE_JIT=1 the same names are plain Python, so that a test can step through a kernel.
"""

import ctypes
import math
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from rfmstream.kernels import _store
from rfmstream.kernels._kernel import Kernel, compiler, typed

_MASK64 = (1 << 64) - 1
_IS_PLAIN = os.environ.get("NUMBA_DISABLE_JIT", "0") not in {"", "0"}


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile an entry kernel at its first call, or load it."""
    return function if _IS_PLAIN else Kernel(function)


def inline(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a helper into the kernels that call it: no call. A call from Python finds an object of its own."""
    return function if _IS_PLAIN else Kernel(function, is_inlined=True)


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a helper that is called; with `keep_apart()` as its first line LLVM makes only one copy of it."""
    return function if _IS_PLAIN else Kernel(function)


def is_jitted() -> bool:
    """Tell whether kernels are compiled at all; with NUMBA_DISABLE_JIT=1 they are plain Python."""
    return not _IS_PLAIN


def compiled() -> set[str]:
    """Return the kernels that have an object, as "module.kernel": they load in milliseconds."""
    return set(_store.names())


def is_compiled(kernel: Callable[..., Any]) -> bool:
    """Tell whether a kernel need not be compiled."""
    return not is_jitted() or f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}" in compiled()


class _Instruction:
    """One of kernels/_instructions.py, which is imported when numba compiles a kernel that uses it."""

    def __init__(self, name: str, doc: str) -> None:
        self.__name__, self.__doc__ = name, doc

    def _found(self) -> Any:
        compiler()
        return getattr(import_module("rfmstream.kernels._instructions"), self.__name__)

    def __call__(self, *args: Any) -> Any:
        return self._found()(*args)

    @property
    def _numba_type_(self) -> Any:
        return typed(self._found())


if _IS_PLAIN:

    def keep_apart() -> None:
        """Do nothing: there is nothing to inline."""

    def borrow(array: Any) -> Any:
        """Return the array."""
        return array

    def array_at(address: Any, shape: Any, dtype: Any) -> Any:
        """Return the C-ordered array of a shape at an address; the caller keeps its memory alive."""
        size = math.prod(int(length) for length in shape) * np.dtype(dtype).itemsize
        if size == 0:
            return np.empty(shape, dtype)
        return np.frombuffer((ctypes.c_char * size).from_address(int(address)), dtype).reshape(shape)

    def match_line(array: Any, index: Any, tag: Any) -> tuple[Any, Any]:
        """Return two bit masks of the eight i64 slots from `index` on: upper half equals `tag`, and not zero."""
        slots = [int(slot) & _MASK64 for slot in array[index : index + 8]]
        hits = sum(1 << k for k, slot in enumerate(slots) if slot and slot >> 32 == tag)
        return np.int64(hits), np.int64(sum(1 << k for k, slot in enumerate(slots) if slot))

    def count_trailing_zeros(value: Any) -> Any:
        """Return the number of the lowest bit that is set; 64 if there is none."""
        return np.int64((int(value) & -int(value)).bit_length() - 1 if value else 64)

    def prefetch(array: Any, index: Any, offset: Any) -> None:
        """Do nothing: prefetching is a hint."""

    def load_word(array: Any, index: Any) -> Any:
        """Return the eight bytes at `index` of a u8 array as a little-endian u64."""
        return np.uint64(int.from_bytes(array[index : index + 8].tobytes(), "little"))

    def store_word(array: Any, index: Any, value: Any) -> None:
        """Write a u64 as eight little-endian bytes at `index` of a u8 array."""
        array[index : index + 8] = np.frombuffer(int(value).to_bytes(8, "little"), dtype=np.uint8)

    def copy_line(out: Any, at: Any, source: Any, start: Any) -> None:
        """Copy 32 bytes from `start` of one u8 array to `at` of another."""
        out[at : at + 32] = source[start : start + 32]

    def touch_word(address: Any) -> None:
        """Do nothing: when memory becomes resident shows in no result."""

    def fold_multiply(a: Any, b: Any) -> Any:
        """Return the xor of the two halves of the 128-bit product of two u64."""
        product = int(a) * int(b)
        return np.uint64((product & _MASK64) ^ (product >> 64))

else:
    keep_apart = _Instruction(
        "keep_apart",
        "Said in a function, forbids inlining it: a kernel of one copy of each helper compiles in a third of the time.",
    )
    borrow = _Instruction(
        "borrow",
        "Return the array without a reference count: handing an owned one to a helper costs two atomic operations.",
    )
    array_at = _Instruction(
        "array_at",
        "Return the C-ordered array of a shape at an address; the caller keeps its memory alive.",
    )
    match_line = _Instruction(
        "match_line",
        "Return two bit masks of the eight i64 slots from `index` on: upper half equals `tag`, and not zero.",
    )
    count_trailing_zeros = _Instruction(
        "count_trailing_zeros",
        "Return the number of the lowest bit that is set; 64 if there is none.",
    )
    prefetch = _Instruction(
        "prefetch",
        "Ask for the cache line `offset` bytes into element `index`; never faults.",
    )
    load_word = _Instruction(
        "load_word",
        "Return the eight bytes at `index` of a u8 array as a little-endian u64; unchecked, any alignment.",
    )
    store_word = _Instruction(
        "store_word",
        "Write a u64 as eight little-endian bytes at `index` of a u8 array; unchecked, any alignment.",
    )
    copy_line = _Instruction(
        "copy_line",
        "Copy 32 bytes from `start` of one u8 array to `at` of another; unchecked, any alignment.",
    )
    touch_word = _Instruction(
        "touch_word",
        "Write to the aligned word at an address without changing it, whatever another thread writes there.",
    )
    fold_multiply = _Instruction(
        "fold_multiply",
        "Return the xor of the two halves of the 128-bit product of two u64.",
    )
