"""From object code to what a process can load (build time, and where there is no linker, at each start)."""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import llvmlite.binding as llvm

_LINKERS: Final = (
    ("ld", ["-shared", "-z", "noexecstack", "-z", "relro"]),
    ("cc", ["-shared", "-nostdlib"]),
    ("gcc", ["-shared", "-nostdlib"]),
    ("clang", ["-shared", "-nostdlib"]),
)


@cache
def _linker() -> tuple[str, ...] | None:
    for name, options in _LINKERS:
        path = shutil.which(name)
        if path is not None:
            return path, *options
    return None


def link(code: bytes) -> bytes | None:
    """Return object code as a shared object; None where there is no linker that can."""
    linker = _linker()
    if linker is None:
        return None
    with tempfile.TemporaryDirectory(prefix="rfmstream-link-") as folder:
        source, out = Path(folder) / "kernel.o", Path(folder) / "kernel.so"
        source.write_bytes(code)
        done = subprocess.run(  # noqa: S603 - the system's linker, on what numba made
            [*linker, "-o", str(out), str(source)], capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
        return out.read_bytes() if done.returncode == 0 else None


def load_unlinked(code: bytes, symbols: Sequence[str], *, linked: bool) -> tuple[Any, dict[str, int]]:
    """Load object code into this process; returns what keeps it alive, and the addresses of symbols.

    linked  it is a shared object after all, which for want of a folder lies in no file
    """
    if linked:
        with tempfile.NamedTemporaryFile(suffix=".so") as file:
            file.write(code)
            file.flush()
            owner = ctypes.PyDLL(file.name)
        return owner, {name: ctypes.addressof(ctypes.c_char.in_dll(owner, name)) for name in symbols}
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine(jit=True)
    # Its sections lie side by side: what is further apart than 2 GiB the code cannot reach, and LLVM ends the process.
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target, use_lmm=True)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine, {name: engine.get_global_value_address(name) for name in symbols}
