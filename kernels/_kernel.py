"""A kernel as Python calls it: its objects, which are loaded at the first call, and numba for what they do not know.

A call goes straight into the entry of the first object (kernels/_entry.py). What that does not take goes to the next
object's, and at last back to here: to be compiled into one more object, which later processes find.
"""

import builtins
import ctypes
import importlib
import logging
import threading
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import nullcontext
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from rfmstream.kernels import _store
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
    Manifest,
    Unusable,
    dtype_of,
)

_log = logging.getLogger(__name__)
_METH_FASTCALL: Final = 0x80
_REFUSED: Final = object()
_keeper = 0
_loaded: list["Overload"] = []
_lock = threading.RLock()


class _Method(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class Overload:
    """An object that is loaded: a kernel for one signature.

    Fields  entry  what Python calls
    """

    def __init__(self, name: str, manifest: Manifest, addresses: dict[str, int], owner: Any) -> None:
        self.manifest = manifest
        self._owner = owner
        self._slots = (ctypes.c_void_p * TABLE_SIZE).from_address(addresses["rfm_table"])
        self._keeper = ctypes.c_uint64.from_address(addresses["rfm_keeper"])
        self._kept: dict[int, Any] = {}  # what the table points to, which would die otherwise
        for number, value in _FIXED.items():
            self._put(number, value)
        self.dtypes: list[int] = []
        for number, content in enumerate(manifest.table[TABLE_FIXED:], TABLE_FIXED):
            self._put(number, _content(content))
            if content[0] == "dtype":
                self.dtypes.append(number)
        self._keeper.value = _keeper
        self._method = _Method(name.encode(), addresses["rfm_entry"], _METH_FASTCALL, None)
        make = ctypes.pythonapi.PyCFunction_NewEx
        make.restype, make.argtypes = (
            ctypes.py_object,
            [ctypes.POINTER(_Method), ctypes.c_void_p, ctypes.c_void_p],
        )
        self.entry: Callable[..., Any] = make(ctypes.byref(self._method), None, None)

    def _put(self, number: int, value: Any) -> None:
        before = self._kept.get(number)  # alive until the table no longer points to it
        self._kept[number] = value
        self._slots[number] = id(value)
        del before

    def follow(self, otherwise: Callable[..., Any]) -> None:
        """Have another callable receive what is not for this one."""
        self._put(SLOW, otherwise)

    def keep(self, thread: int) -> None:
        """Keep the interpreter's lock on one thread."""
        self._keeper.value = thread

    def adopt(self, arrays: list["np.ndarray[Any, Any]"]) -> bool:
        """Take the dtypes of arrays for its own where they are equal: the entry compares their addresses."""
        if len(arrays) != len(self.dtypes):
            return False
        changed = False
        for number, array in zip(self.dtypes, arrays, strict=True):
            if self._kept[number] is not array.dtype:
                if self._kept[number] != array.dtype:
                    return False
                self._put(number, array.dtype)
                changed = True
        return changed


def _content(content: list[Any]) -> Any:
    kind = content[0]
    if kind == "dtype":
        return dtype_of(content[1])
    if kind == "scalar":
        return dtype_of(content[1]).type
    if kind == "type":
        found: Any = importlib.import_module(content[1])
        for name in content[2].split("."):
            found = getattr(found, name)
        return found
    raise Unusable(f"a slot holds {kind}")


class Kernel(partial[Any]):
    """A function of Python that runs compiled, whatever types it is called with.

    As a partial it is called by C alone, without a frame of Python's: an interrupt comes before a kernel or after it,
    where whoever calls it looks for one, and a call costs half as much.
    """

    def __new__(cls, function: Callable[..., Any], *, is_inlined: bool = False) -> Self:  # noqa: ARG004
        return super().__new__(cls, function)

    def __init__(self, function: Callable[..., Any], *, is_inlined: bool = False) -> None:
        self.py_func = function
        self.__name__ = function.__name__
        self.__qualname__ = function.__qualname__
        self.__module__ = function.__module__
        self.__doc__ = function.__doc__
        package, _, module = function.__module__.rpartition(".")
        self.name = f"{module}.{function.__name__}"
        self._is_ours = package == __package__
        self._is_inlined = is_inlined
        self._overloads: list[Overload] = []
        self._left_to_numba: set[str] = set()
        self._calls = threading.local()
        self._answer_by(self._find)

    def _answer_by(self, entry: Callable[..., Any]) -> None:
        """Have calls go to another callable from now on."""
        self.__setstate__((entry, (), {}, self.__dict__))

    def __repr__(self) -> str:
        return f"<kernel {self.name}>"

    @property
    def _numba_type_(self) -> Any:
        """What numba asks of a global variable of a function that it compiles."""
        return self._helper._numba_type_

    @cached_property
    def _helper(self) -> Any:
        """What numba calls from other kernels."""
        return compiler().helper(self.py_func, is_inlined=self._is_inlined)

    @cached_property
    def _by_numba(self) -> Any:
        """What Python calls where an object cannot be made or loaded."""
        return compiler().dispatcher(self.py_func)

    def _find(self, *args: Any) -> Any:
        """Load the objects there are, at the first call."""
        with _lock:
            if self.func == self._find:
                if self._is_ours and _knows_layout():
                    for overload in _load(self.name):
                        self._add(overload)
                if not self._overloads:
                    self._answer_by(self._miss)
        return self.func(*args)

    def _add(self, overload: Overload) -> None:
        """Let an object be asked first; the others follow."""
        overload.follow(self._overloads[0].entry if self._overloads else self._miss)
        self._overloads.insert(0, overload)
        self._answer_by(overload.entry)

    def _miss(self, *args: Any) -> Any:
        """Answer a call that is for none of the objects."""
        if getattr(self._calls, "is_again", False):
            return _REFUSED
        arrays = list(_arrays(args))
        changed = [overload.adopt(arrays) for overload in self._overloads]
        if any(changed):
            value = self._again(args)
            if value is not _REFUSED:
                return value
        while _knows_layout() and self._grow(args):
            for overload in self._overloads:
                overload.adopt(arrays)
            value = self._again(args)
            if value is not _REFUSED:
                return value
        # Numba's own machine code, which dies with the process: slower to begin with, and the same.
        return self._by_numba(*args)

    def _again(self, args: tuple[Any, ...]) -> Any:
        try:
            self._calls.is_again = True
            return self.func(*args)
        finally:
            self._calls.is_again = False

    def _grow(self, args: tuple[Any, ...]) -> bool:
        """Take one object more: what other processes have made by now, else what is compiled for these arguments."""
        with _lock:  # numba registers what it knows once, and not for two threads at a time
            compiling = compiler()
        signature = compiling.signature_of(args)
        if signature is None or str(signature) in self._left_to_numba:
            return False
        before = len(self._overloads)
        with _lock, _store.claim(self.name) if self._is_ours else nullcontext():
            if len(self._overloads) > before:
                return True  # another thread was here first
            known = {overload.manifest.types for overload in self._overloads}
            found = list(_load(self.name, known, is_fresh=True)) if self._is_ours else []
            for overload in found:
                self._add(overload)
            if found:
                return True
            if str(signature) in known:
                self._left_to_numba.add(str(signature))  # an object is there, and does not take it
                return False
            _log.info("compiling a kernel, once: %s", self.name)
            made = compiling.compile_kernel(self.name, self.py_func, signature)
            if made is not None:
                path = _store.write(*made) if self._is_ours else None
                try:
                    self._add(open_object(self.name, *made, path))
                except OSError as reason:  # a disk that nothing may be run from, for example
                    _log.warning("a compiled kernel cannot be loaded: %s: %s", path, reason)
                else:
                    return True
            self._left_to_numba.add(str(signature))
            if not self._overloads:
                self._answer_by(self._by_numba)
            return False


@cache
def compiler() -> Any:
    """Import what compiles, numba with it, and have numba know our instructions."""
    from numba.core.registry import cpu_target  # noqa: PLC0415

    from rfmstream.kernels import _compile, _instructions  # noqa: F401, PLC0415 - registers the instructions

    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()
    return _compile


def typed(value: Any) -> Any:
    """Return the type numba gives a global variable."""
    from numba.core.registry import cpu_target  # noqa: PLC0415

    return cpu_target.typing_context.resolve_value_type(value)


def _arrays(args: tuple[Any, ...]) -> Iterator["np.ndarray[Any, Any]"]:
    for value in args:
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, tuple):
            yield from _arrays(value)


_names: dict[str, list[tuple[Path, str]]] = {}


def _load(name: str, known: AbstractSet[str] = frozenset(), *, is_fresh: bool = False) -> Iterator[Overload]:
    """Load the objects of a kernel whose signatures are not known; looked for once, or anew."""
    if not _names or is_fresh:
        _names.update(_store.names())
    for path, machine in _names.get(name, []):
        try:
            code, manifest = _store.read(path, machine)
            if manifest.types not in known:
                yield open_object(name, code, manifest, path)
        except (Unusable, OSError, AttributeError, ImportError) as reason:
            _log.warning("a compiled kernel is not used, numba takes its place: %s: %s", path, reason)


def open_object(name: str, code: bytes, manifest: Manifest, path: Path | None) -> Overload:
    """Load an object: with the system's loader, or where it is not linked with llvmlite's."""
    symbols = ("rfm_entry", "rfm_table", "rfm_keeper")
    owner: Any
    if manifest.linked and path is not None:
        owner = ctypes.PyDLL(str(path))
        addresses = {symbol: ctypes.addressof(ctypes.c_char.in_dll(owner, symbol)) for symbol in symbols}
    else:
        from rfmstream.kernels._link import load_unlinked  # noqa: PLC0415 - llvmlite

        owner, addresses = load_unlinked(code, symbols, linked=manifest.linked)
    overload = Overload(name, manifest, addresses, owner)
    _loaded.append(overload)
    return overload


def keep_lock_on(thread: int) -> None:
    """Have kernels keep the interpreter's lock on one thread, those loaded already and those to come."""
    global _keeper  # noqa: PLW0603 - the process has one
    _keeper = thread
    for overload in _loaded:
        overload.keep(thread)


def _raise(status: int, address: int) -> None:
    """Raise what a kernel raised: numba leaves a pickle of (class, arguments, place), which is read and never run."""
    data = ctypes.c_void_p.from_address(address).value if address else None
    if status != 1 or data is None:
        raise SystemError(f"a kernel ended with status {status}")
    import pickletools  # noqa: PLC0415 - what is never raised need not be read

    size = ctypes.c_int32.from_address(address + 8).value
    read = [(code.name, word) for code, word, _ in pickletools.genops(ctypes.string_at(data, size))]
    words = [word for name, word in read if "UNICODE" in name and isinstance(word, str)]
    kind = getattr(builtins, words[1], None) if words[:1] == ["builtins"] else None
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = RuntimeError
    # Behind the class come a sentence, if there is one, then the place: a function's name and its file, or None.
    is_placed = not any(name == "NONE" for name, _ in read)
    raise kind(*words[2 : -2 if is_placed else None][:1])


_FIXED: Final[dict[int, Any]] = {
    SLOW: _raise,
    ERROR: _raise,
    NDARRAY: np.ndarray,
    LONG: int,
    FLOAT: float,
    TRUE: True,
    FALSE: False,
    NOTHING: None,
}

_is_known: bool | None = None


def _knows_layout() -> bool:
    """Tell whether objects of CPython and numpy lie in memory as kernels/_entry.py says."""
    global _is_known  # noqa: PLW0603 - found out once
    if _is_known is None:
        _is_known = ctypes.sizeof(ctypes.c_void_p) == 8 and _tests_alike()
        if not _is_known:
            _log.warning("compiled kernels are not used: this Python's objects are laid out differently")
    return _is_known


def _tests_alike() -> bool:
    array = np.arange(6, dtype=np.int16)[::-1].reshape(2, 3)
    frozen = np.ones(1)
    frozen.flags.writeable = False
    scalar = np.int64(-7)
    if ctypes.c_int64.from_address(id(scalar)).value not in range(1, 1 << 20):
        return False  # no count of references comes first: a Python without the lock

    def word(value: object, at: int) -> int | None:
        return ctypes.c_void_p.from_address(id(value) + at).value

    def ints(value: object, at: int) -> list[int]:
        return list((ctypes.c_int64 * 2).from_address(word(value, at) or id(value)))

    def flags(value: object) -> int:
        return ctypes.c_int32.from_address(id(value) + 64).value

    return (
        word(array, 8) == id(np.ndarray)
        and word(scalar, 8) == id(np.int64)
        and ctypes.c_int64.from_address(id(scalar) + 16).value == -7
        and word(array, 16) == array.ctypes.data
        and ctypes.c_int32.from_address(id(array) + 24).value == 2
        and ints(array, 32) == list(array.shape)
        and ints(array, 40) == list(array.strides)
        and word(array, 56) == id(array.dtype)
        and flags(frozen) & 0x501 == 0x101
        and flags(np.ones((2, 2))) & 0x503 == 0x501
        and flags(np.ones((2, 2)).T) & 0x3 == 0x2
    )
