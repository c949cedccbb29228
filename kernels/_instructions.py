"""The machine instructions that numba has no name for, as kernels/_jit.py offers them (imported with numba alone)."""

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rfmstream.kernels._jit import inline


@intrinsic
def _prefetch(typingctx: Any, array: Any, index: Any, offset: Any) -> Any:  # noqa: ARG001
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array_type = signature.args[0]
        data = context.make_array(array_type)(context, builder, args[0]).data
        word, half, byte_ptr = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
        stride = ir.Constant(word, context.get_abi_sizeof(context.get_data_type(array_type.dtype)))
        address = builder.add(
            builder.ptrtoint(data, word), builder.add(builder.mul(args[1], stride), args[2])
        )
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte_ptr, half, half, half]), "llvm.prefetch.p0"
        )
        # write intent (1), keep in all levels (3), data cache (1)
        builder.call(function, [builder.inttoptr(address, byte_ptr), half(1), half(3), half(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), codegen


@intrinsic
def _load_word(typingctx: Any, array: Any, index: Any) -> Any:  # noqa: ARG001
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.add(builder.ptrtoint(data, ir.IntType(64)), args[1])
        return builder.load(builder.inttoptr(address, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(array, types.int64), codegen


@intrinsic
def _store_word(typingctx: Any, array: Any, index: Any, value: Any) -> Any:  # noqa: ARG001
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.add(builder.ptrtoint(data, ir.IntType(64)), args[1])
        builder.store(args[2], builder.inttoptr(address, ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.uint64), codegen


@intrinsic
def _copy_line(typingctx: Any, out: Any, at: Any, source: Any, start: Any) -> Any:  # noqa: ARG001
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word, line = ir.IntType(64), ir.VectorType(ir.IntType(64), 4)

        def pointer(number: int) -> Any:
            data = context.make_array(signature.args[number])(context, builder, args[number]).data
            address = builder.add(builder.ptrtoint(data, word), args[number + 1])
            return builder.inttoptr(address, line.as_pointer())

        builder.store(builder.load(pointer(2), align=1), pointer(0), align=1)
        return context.get_dummy_value()

    return types.void(out, types.int64, source, types.int64), codegen


@intrinsic
def _touch_word(typingctx: Any, address: Any) -> Any:  # noqa: ARG001
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        word = ir.IntType(64)
        place = builder.inttoptr(args[0], word.as_pointer())
        # Zero for zero: the one exchange that is a write to the system and none to anybody else.
        builder.cmpxchg(place, word(0), word(0), "monotonic")
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def _fold_multiply(typingctx: Any, a: Any, b: Any) -> Any:  # noqa: ARG001
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        low = builder.trunc(product, ir.IntType(64))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))
        return builder.xor(low, high)

    return types.uint64(types.uint64, types.uint64), codegen


@intrinsic
def _match_line(typingctx: Any, array: Any, index: Any, tag: Any) -> Any:  # noqa: ARG001
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word, line = ir.IntType(64), ir.VectorType(ir.IntType(64), 8)
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.add(builder.ptrtoint(data, word), builder.shl(args[1], word(3)))
        slots = builder.load(builder.inttoptr(address, line.as_pointer()), align=8)
        wanted = ir.Constant(line, ir.Undefined)
        for k in range(8):
            wanted = builder.insert_element(wanted, args[2], ir.IntType(32)(k))
        zeros = ir.Constant(line, [word(0)] * 8)
        is_used = builder.icmp_unsigned("!=", slots, zeros)
        tags = builder.lshr(slots, ir.Constant(line, [word(32)] * 8))
        is_hit = builder.and_(builder.icmp_unsigned("==", tags, wanted), is_used)
        masks = [builder.zext(builder.bitcast(bits, ir.IntType(8)), word) for bits in (is_hit, is_used)]
        return context.make_tuple(builder, signature.return_type, masks)

    return types.UniTuple(types.int64, 2)(array, types.int64, types.int64), codegen


@intrinsic
def _count_trailing_zeros(typingctx: Any, value: Any) -> Any:  # noqa: ARG001
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.cttz(args[0], ir.IntType(1)(0))

    return types.int64(types.int64), codegen


@intrinsic
def _pointer(typingctx: Any, address: Any) -> Any:  # noqa: ARG001
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), codegen


@intrinsic
def _borrow(typingctx: Any, array: Any) -> Any:  # noqa: ARG001
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, args[0])
        view.meminfo = ir.Constant(view.meminfo.type, None)
        view.parent = ir.Constant(view.parent.type, None)
        return view._getvalue()  # noqa: SLF001 - how numba's own intrinsics end

    return array(array), codegen


@intrinsic
def _keep_apart(typingctx: Any) -> Any:  # noqa: ARG001
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


keep_apart = _keep_apart
"""Said in a function, forbids inlining it: a kernel of one copy of each helper compiles in a third of the time."""


@inline
def borrow(array: Any) -> Any:
    """Return the array without a reference count: handing an owned one to a helper costs two atomic operations."""
    return _borrow(array)


@inline
def array_at(address: Any, shape: Any, dtype: Any) -> Any:
    """Return the C-ordered array of a shape at an address; the caller keeps its memory alive."""
    return numba.carray(_pointer(address), shape, dtype)


@inline
def match_line(array: Any, index: Any, tag: Any) -> Any:
    """Return two bit masks of the eight i64 slots from `index` on: upper half equals `tag`, and not zero."""
    return _match_line(array, index, tag)


@inline
def count_trailing_zeros(value: Any) -> Any:
    """Return the number of the lowest bit that is set; 64 if there is none."""
    return _count_trailing_zeros(value)


@inline
def prefetch(array: Any, index: Any, offset: Any) -> Any:
    """Ask for the cache line `offset` bytes into element `index`; never faults."""
    _prefetch(array, index, offset)


@inline
def load_word(array: Any, index: Any) -> Any:
    """Return the eight bytes at `index` of a u8 array as a little-endian u64; unchecked, any alignment."""
    return _load_word(array, index)


@inline
def store_word(array: Any, index: Any, value: Any) -> Any:
    """Write a u64 as eight little-endian bytes at `index` of a u8 array; unchecked, any alignment."""
    _store_word(array, index, value)


@inline
def copy_line(out: Any, at: Any, source: Any, start: Any) -> Any:
    """Copy 32 bytes from `start` of one u8 array to `at` of another; unchecked, any alignment."""
    _copy_line(out, at, source, start)


@inline
def touch_word(address: Any) -> Any:
    """Write to the aligned word at an address without changing it, whatever another thread writes there."""
    _touch_word(address)


@inline
def fold_multiply(a: Any, b: Any) -> Any:
    """Return the xor of the two halves of the 128-bit product of two u64."""
    return _fold_multiply(a, b)
