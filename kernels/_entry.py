"""The C function by which Python calls a compiled kernel, made once for each signature (build time only).

numba's own entry needs numba in the process. This one needs CPython and numpy alone:

    PyObject *rfm_entry(PyObject *self, PyObject *const *args, Py_ssize_t nargs)

It looks at each argument, calls the kernel and makes a Python object of what it returns. An argument that is not what
the signature says goes to a Python callable, `rfm_table[SLOW]`. The interpreter's lock is let go while the kernel runs,
except on the thread whose identity is in `rfm_keeper`.

Arrays are lent to the kernel: without reference count and owner, since their owner waits for the call to end.

Source  numba.core.callconv (raw functions: `int32 f(ret*, excinfo**, arguments...)`), numba.core.cpu (arguments);
        CPython: PyCFunctionFast; numpy: PyArrayObject_fields. The offsets below are tested when an object is loaded.
"""

from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.np.numpy_support import as_dtype

from rfmstream.kernels._manifest import (
    ERROR,
    FALSE,
    FLOAT,
    LONG,
    NDARRAY,
    NOTHING,
    SLOW,
    TABLE_FIXED,
    TABLE_SIZE,
    TRUE,
    describe_dtype,
)

_BYTE: Final = ir.IntType(8)
_BIT: Final = ir.IntType(1)
_HALF: Final = ir.IntType(32)
_WORD: Final = ir.IntType(64)
_OBJECT: Final = _BYTE.as_pointer()

# PyObject, and the fields of numpy's array after it (64-bit, with the interpreter's lock).
_TYPE_AT: Final = 8
_SCALAR_AT: Final = 16
_DATA_AT, _NDIM_AT, _SHAPE_AT, _STRIDES_AT, _DTYPE_AT, _FLAGS_AT = 16, 24, 32, 40, 56, 64
_C_CONTIGUOUS, _F_CONTIGUOUS, _ALIGNED, _WRITEABLE = 0x1, 0x2, 0x100, 0x400


class NotExpressible(Exception):  # noqa: N818 - not an error: numba goes on being asked
    """A signature holds what this entry does not know."""


class Entry:
    """Writes the entry of one signature; `text` is its LLVM module, `table` what its slots hold."""

    def __init__(self, context: Any, fndesc: Any, signature: Any) -> None:
        self.context = context
        self.table: list[list[Any]] = [[]] * TABLE_FIXED
        self.module = ir.Module("rfmstream.entry")
        self.module.triple = context.codegen()._llvm_module.triple  # noqa: SLF001 - as numba's own modules are made
        self.module.data_layout = context.codegen()._data_layout  # noqa: SLF001
        function = ir.Function(
            self.module, ir.FunctionType(_OBJECT, [_OBJECT, _OBJECT.as_pointer(), _WORD]), "rfm_entry"
        )
        self.args = function.args[1]
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.slow = function.append_basic_block("slow")
        self.keeper = ir.GlobalVariable(self.module, _WORD, "rfm_keeper")
        self.keeper.initializer = _WORD(0)
        places = ir.ArrayType(_OBJECT, TABLE_SIZE)
        self.slots = ir.GlobalVariable(self.module, places, "rfm_table")
        self.slots.initializer = ir.Constant(places, None)
        self._write(fndesc, signature, function.args[2])
        if len(self.table) > TABLE_SIZE:
            raise NotExpressible(f"more than {TABLE_SIZE} slots")
        self.text = cgutils.normalize_ir_text(str(self.module))

    def _write(self, fndesc: Any, signature: Any, nargs: Any) -> None:
        builder = self.builder
        self._require(builder.icmp_signed("==", nargs, _WORD(len(signature.args))))
        values = [
            self._unbox(builder.load(builder.gep(self.args, [_WORD(i)])), ty)
            for i, ty in enumerate(signature.args)
        ]
        kernel = self.context.declare_function(self.module, fndesc)
        is_kept = builder.icmp_unsigned(
            "==", self._call("PyThread_get_thread_ident", _WORD, []), builder.load(self.keeper)
        )
        state = cgutils.alloca_once_value(builder, ir.Constant(_OBJECT, None))
        with builder.if_then(builder.not_(is_kept)):
            builder.store(self._call("PyEval_SaveThread", _OBJECT, []), state)
        status, value = self.context.call_conv.call_function(
            builder, kernel, signature.return_type, signature.args, values
        )
        with builder.if_then(builder.not_(is_kept)):
            self._call("PyEval_RestoreThread", ir.VoidType(), [builder.load(state)])
        with builder.if_then(status.is_error, likely=False):
            code = self._call("PyLong_FromLongLong", _OBJECT, [builder.sext(status.code, _WORD)])
            where = self._call("PyLong_FromVoidPtr", _OBJECT, [builder.bitcast(status.excinfoptr, _OBJECT)])
            call = self._function("PyObject_CallFunctionObjArgs", _OBJECT, [_OBJECT], var_arg=True)
            builder.ret(builder.call(call, [self._slot(ERROR), code, where, ir.Constant(_OBJECT, None)]))
        builder.ret(self._box(value, signature.return_type))
        builder.position_at_end(self.slow)
        handler = self._slot(SLOW)
        builder.ret(
            self._call(
                "PyObject_Vectorcall", _OBJECT, [handler, self.args, nargs, ir.Constant(_OBJECT, None)]
            )
        )

    def _function(self, name: str, result: Any, arguments: list[Any], *, var_arg: bool = False) -> Any:
        wanted = ir.FunctionType(result, arguments, var_arg=var_arg)
        return cgutils.get_or_insert_function(self.module, wanted, name)

    def _call(self, name: str, result: Any, arguments: list[Any]) -> Any:
        return self.builder.call(self._function(name, result, [value.type for value in arguments]), arguments)

    def _slot(self, number: int) -> Any:
        return self.builder.load(self.builder.gep(self.slots, [_WORD(0), _WORD(number)]))

    def _new_slot(self, *content: Any) -> Any:
        self.table.append(list(content))
        return self._slot(len(self.table) - 1)

    def _require(self, condition: Any) -> None:
        following = self.builder.append_basic_block()
        self.builder.cbranch(condition, following, self.slow)
        self.builder.position_at_end(following)

    def _field(self, pointer: Any, at: int, ty: Any) -> Any:
        place = self.builder.gep(pointer, [_WORD(at)])
        return self.builder.load(self.builder.bitcast(place, ty.as_pointer()))

    def _is_type(self, value: Any, ty: Any) -> Any:
        return self.builder.icmp_unsigned("==", self._field(value, _TYPE_AT, _OBJECT), ty)

    def _unbox(self, value: Any, ty: Any) -> Any:
        """Return the native value of a Python object, which has another type than this one: to the slow path."""
        builder = self.builder
        if isinstance(ty, types.Array):
            return self._unbox_array(value, ty)
        if isinstance(ty, types.BaseTuple):
            is_named = isinstance(ty, types.BaseNamedTuple)
            of = ty.instance_class if is_named else tuple
            self._require(self._is_type(value, self._new_slot("type", of.__module__, of.__qualname__)))
            size = self._call("PyTuple_Size", _WORD, [value])
            self._require(builder.icmp_signed("==", size, _WORD(len(ty))))
            items = [
                self._unbox(self._call("PyTuple_GetItem", _OBJECT, [value, _WORD(i)]), item)
                for i, item in enumerate(ty)
            ]
            return self.context.make_tuple(builder, ty, items)
        if isinstance(ty, types.Boolean):
            is_true = builder.icmp_unsigned("==", value, self._slot(TRUE))
            is_false = builder.icmp_unsigned("==", value, self._slot(FALSE))
            self._require(builder.or_(is_true, is_false))
            return is_true
        if isinstance(ty, types.NoneType):
            self._require(builder.icmp_unsigned("==", value, self._slot(NOTHING)))
            return self.context.get_dummy_value()
        if isinstance(ty, types.Integer | types.Float) and not isinstance(ty, types.Literal):
            return self._unbox_number(value, ty)
        raise NotExpressible(str(ty))

    def _unbox_number(self, value: Any, ty: Any) -> Any:
        builder = self.builder
        native = self.context.get_value_type(ty)
        scalar = self._new_slot("scalar", describe_dtype(as_dtype(ty)))
        of_python = {types.int64: LONG, types.float64: FLOAT}.get(ty)
        if of_python is None:
            self._require(self._is_type(value, scalar))
            return self._field(value, _SCALAR_AT, native)
        place = cgutils.alloca_once(builder, native)
        with builder.if_else(self._is_type(value, self._slot(of_python))) as (then, otherwise):
            with then:
                if of_python == FLOAT:
                    builder.store(self._call("PyFloat_AsDouble", native, [value]), place)
                else:
                    overflow = cgutils.alloca_once(builder, _HALF)
                    number = self._call("PyLong_AsLongLongAndOverflow", _WORD, [value, overflow])
                    builder.store(number, place)
                    self._require(builder.icmp_signed("==", builder.load(overflow), _HALF(0)))
            with otherwise:
                self._require(self._is_type(value, scalar))
                builder.store(self._field(value, _SCALAR_AT, native), place)
        return builder.load(place)

    def _unbox_array(self, value: Any, ty: Any) -> Any:
        builder = self.builder
        self._require(self._is_type(value, self._slot(NDARRAY)))
        dtype = as_dtype(ty.dtype)
        self._require(
            builder.icmp_unsigned(
                "==",
                self._field(value, _DTYPE_AT, _OBJECT),
                self._new_slot("dtype", describe_dtype(dtype)),
            )
        )
        self._require(builder.icmp_signed("==", self._field(value, _NDIM_AT, _HALF), _HALF(ty.ndim)))
        wanted = _ALIGNED if ty.aligned else 0
        wanted |= {"C": _C_CONTIGUOUS, "F": _F_CONTIGUOUS}.get(ty.layout, 0)
        wanted |= _WRITEABLE if ty.mutable else 0
        flags = builder.and_(self._field(value, _FLAGS_AT, _HALF), _HALF(wanted))
        self._require(builder.icmp_signed("==", flags, _HALF(wanted)))
        array = self.context.make_array(ty)(self.context, builder)
        sizes = []
        for name, at in (("shape", _SHAPE_AT), ("strides", _STRIDES_AT)):
            words = self._field(value, at, _WORD.as_pointer())
            sizes.append([builder.load(builder.gep(words, [_WORD(i)])) for i in range(ty.ndim)])
            setattr(array, name, cgutils.pack_array(builder, sizes[-1], ty=_WORD))
        count = _WORD(1)
        for length in sizes[0]:
            count = builder.mul(count, length)
        data = self._field(value, _DATA_AT, _OBJECT)
        array.data = builder.bitcast(data, array.data.type)
        array.nitems, array.itemsize = count, _WORD(dtype.itemsize)
        array.meminfo = ir.Constant(array.meminfo.type, None)
        array.parent = ir.Constant(array.parent.type, None)
        return array._getvalue()  # noqa: SLF001 - how numba's own helpers end

    def _box(self, value: Any, ty: Any) -> Any:
        """Return a new Python object of a native value."""
        builder = self.builder
        if isinstance(ty, types.NoneType):
            self._call("Py_IncRef", ir.VoidType(), [self._slot(NOTHING)])
            return self._slot(NOTHING)
        if isinstance(ty, types.Boolean):
            return self._call("PyBool_FromLong", _OBJECT, [builder.zext(value, _WORD)])
        if isinstance(ty, types.Integer):
            if value.type.width < 64:
                value = (builder.sext if ty.signed else builder.zext)(value, _WORD)
            make = "PyLong_FromLongLong" if ty.signed else "PyLong_FromUnsignedLongLong"
            return self._call(make, _OBJECT, [value])
        if ty == types.float64:
            return self._call("PyFloat_FromDouble", _OBJECT, [value])
        if isinstance(ty, types.BaseTuple) and not isinstance(ty, types.BaseNamedTuple):
            made = self._call("PyTuple_New", _OBJECT, [_WORD(len(ty))])
            for i, item in enumerate(ty):
                boxed = self._box(builder.extract_value(value, i), item)
                self._call("PyTuple_SetItem", _HALF, [made, _WORD(i), boxed])
            return made
        raise NotExpressible(str(ty))


def write_memory(like: Any) -> str:
    """Return the module of the functions of numba's runtime that kernels with scratch arrays call, over malloc.

    MemInfo is numba's: count, destructor and its argument, data, size, allocator. The data begin at the last line
    before `base + 64 + align`, which is behind those 48 bytes and leaves `size` bytes.
    """
    module = ir.Module("rfmstream.memory")
    module.triple, module.data_layout = like.triple, like.data_layout
    malloc = ir.Function(module, ir.FunctionType(_OBJECT, [_WORD]), "malloc")
    free = ir.Function(module, ir.FunctionType(ir.VoidType(), [_OBJECT]), "free")
    allocate = ir.Function(module, ir.FunctionType(_OBJECT, [_WORD, _HALF]), "NRT_MemInfo_alloc_aligned")
    builder = ir.IRBuilder(allocate.append_basic_block())
    size, align = allocate.args[0], builder.zext(allocate.args[1], _WORD)
    head = builder.add(align, _WORD(64))
    base = builder.call(malloc, [builder.add(head, size)])
    with builder.if_then(cgutils.is_null(builder, base), likely=False):
        builder.ret(base)
    past = builder.add(builder.ptrtoint(base, _WORD), head)
    line = builder.and_(past, builder.neg(align))
    for at, word in enumerate((_WORD(1), _WORD(0), _WORD(0), line, size, _WORD(0))):
        place = builder.gep(base, [_WORD(8 * at)])
        builder.store(word, builder.bitcast(place, _WORD.as_pointer()))
    builder.ret(base)
    plain = ir.Function(module, ir.FunctionType(_OBJECT, [_WORD]), "NRT_MemInfo_alloc")
    builder = ir.IRBuilder(plain.append_basic_block())
    builder.ret(builder.call(allocate, [plain.args[0], _HALF(16)]))
    for name, called in (("NRT_MemInfo_call_dtor", free), ("NRT_Free", free), ("NRT_Allocate", malloc)):
        function = ir.Function(module, called.function_type, name)
        builder = ir.IRBuilder(function.append_basic_block())
        result = builder.call(called, [function.args[0]])
        if called is free:
            builder.ret_void()
        else:
            builder.ret(result)
    return str(module)
