"""Compile a kernel for one signature into object code, by numba; imported where something is compiled, never else."""

import gc
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import llvmlite
import llvmlite.binding as llvm
import numba
from numba.core import callconv, codegen, config, errors, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

from rfmstream.kernels import _store
from rfmstream.kernels._entry import Entry, NotExpressible, write_memory
from rfmstream.kernels._link import link
from rfmstream.kernels._manifest import Manifest

_log = logging.getLogger(__name__)

_CPU: Final = {
    "x86_64-v2": "x86-64-v2",
    "x86_64-v3": "x86-64-v3",
    "x86_64-v4": "x86-64-v4",
    "aarch64": "generic",
}
_FROM_OUTSIDE: Final = ("Py", "mem", "malloc", "free", "llvm.", "_Py", "fmod", "pow", "exp", "log", "abort")


def signature_of(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return numba's types of arguments; None if it has none for one of them."""
    try:
        return tuple(numba.typeof(value) for value in args)
    except (errors.NumbaError, ValueError):
        return None


def helper(function: Any, *, is_inlined: bool) -> Any:
    """Return a function's dispatcher for kernels that call it, without entries from Python and C.

    Those of all helpers take as long to compile as all kernels.
    """
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": is_inlined}
    made = numba.njit(nogil=True, error_model="numpy", boundscheck=None, **options)(function)
    made._insert = lambda *_, **__: None  # noqa: SLF001 - there is nothing that could be called
    of_numba = made.get_call_template
    made.get_call_template = lambda args, kws: of_numba(
        tuple(_plain(ty) for ty in args), {name: _plain(ty) for name, ty in kws.items()}
    )
    return made


def _plain(ty: Any) -> Any:
    """Return a type without its value: numba would compile a helper anew for each number it is called with."""
    is_number = isinstance(ty, types.Literal) and isinstance(ty.literal_value, int)
    return types.unliteral(ty) if is_number else ty


def dispatcher(function: Any) -> Any:
    """Return a function's dispatcher for Python: what is taken where there can be no objects."""
    return numba.njit(nogil=True, error_model="numpy", boundscheck=None)(function)


def compile_kernel(name: str, function: Any, signature: tuple[Any, ...]) -> tuple[bytes, Manifest] | None:
    """Return a kernel's object and its manifest; None if something about it cannot be expressed in an object."""
    started = time.perf_counter()
    place = _store.target()
    machine = _store.machine() if place is None else place[1]
    try:
        code, table = _object_code(function, signature, machine)
    except NotExpressible as reason:
        _log.info("a kernel is left to numba: %s: %s", name, reason)
        return None
    linked = link(code)
    manifest = Manifest(
        kernel=name,
        types=str(signature),
        sources=_store.sources(),
        machine=machine,
        linked=linked is not None,
        table=table,
        made_by=f"numba {numba.__version__}, llvmlite {llvmlite.__version__}",
        seconds=round(time.perf_counter() - started, 3),
    )
    return linked or code, manifest


def _object_code(function: Any, signature: tuple[Any, ...], machine: str) -> tuple[bytes, list[list[Any]]]:
    with global_compiler_lock, _without_machine_code(), _without_places(), _without_collecting():
        made = helper(function, is_inlined=False)
        made.compile(signature)
        [compiled] = made.overloads.values()
        module = llvm.parse_bitcode(compiled.library._final_module.as_bitcode())  # noqa: SLF001 - as numba's cache
        entry = Entry(compiled.target_context, compiled.fndesc, compiled.signature)
    for text in (entry.text, write_memory(entry.module)):
        module.link_in(llvm.parse_assembly(text))
    module.verify()
    kept = {"rfm_entry", "rfm_table", "rfm_keeper"}
    for value in (*module.functions, *module.global_variables):
        if value.is_declaration:
            if not value.name.startswith(_FROM_OUTSIDE):
                raise NotExpressible(f"it calls {value.name}")
        elif value.name not in kept and not value.name.startswith("llvm."):
            value.linkage = "internal"
    return _machine_for(machine).emit_object(module), entry.table


def _machine_for(machine: str) -> Any:
    """Return LLVM's target machine: of this very processor, as numba's own, or of a level that many have."""
    options = {"cpu": config.CPU_NAME or llvm.get_host_cpu_name(), "features": config.CPU_FEATURES}
    if machine in _CPU:
        options = {"cpu": _CPU[machine], "features": ""}
    elif options["features"] is None:
        options["features"] = codegen.get_host_cpu_features()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(opt=int(config.OPT), reloc="pic", codemodel="small", **options)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Have Python look for no circles among the millions of objects of a compilation, most of which stay."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def _without_places() -> Iterator[None]:
    """Have exceptions of numba's own helpers not name the folder where numba is: objects go to other machines."""
    of_numba = callconv.CPUCallConv.build_excinfo_struct

    def build_excinfo_struct(self: Any, exc: Any, exc_args: Any, *_: Any) -> Any:
        return of_numba(self, exc, exc_args, None, None)

    callconv.CPUCallConv.build_excinfo_struct = build_excinfo_struct
    try:
        yield
    finally:
        callconv.CPUCallConv.build_excinfo_struct = of_numba


@contextmanager
def _without_machine_code() -> Iterator[None]:
    """Have numba stop at LLVM's optimised module: nobody calls what it would emit, for each helper once more.

    Whatever else numba compiles links helpers as modules, so it misses nothing later.
    """
    context = cpu_target.target_context
    rtsys.initialize(context)  # its own runtime is called by address
    jit, library = codegen.JITCPUCodegen, codegen.JITCodeLibrary
    before = jit._add_module, jit.set_env, library._finalize_specific  # noqa: SLF001
    jit._add_module = lambda *_: None  # noqa: SLF001
    jit.set_env = lambda *_: None
    library._finalize_specific = lambda *_: None  # noqa: SLF001
    try:
        yield
    finally:
        jit._add_module, jit.set_env, library._finalize_specific = before  # noqa: SLF001
