"""Keep Python's global interpreter lock (GIL) on one thread while its kernels run.

A kernel compiled with `nogil=True` releases the lock before it runs and takes it back afterwards, so that other threads
run Python meanwhile. That costs a thread whose kernels take microseconds, such as an event loop's: after each kernel it
waits until another thread gives the lock back. numba fixes `nogil` when a kernel is compiled. This module decides at
run time, by thread.

How it works: numba's compiled code calls CPython's `PyEval_SaveThread` and `PyEval_RestoreThread` by name, and LLVM
looks the names up when it loads a kernel. Two functions of ours take these names. On the chosen thread they do nothing;
on every other thread they call CPython's.

Source  numba/core/pythonapi.py (save_thread, restore_thread), docs/upgrading.md
"""

import ctypes
import threading
from typing import Any, Final

import llvmlite.binding as llvm

from rfmstream.kernels._jit import is_jitted, jit

_SAVE: Final = "PyEval_SaveThread"
_RESTORE: Final = "PyEval_RestoreThread"

# `save` returns null where the lock is kept; `restore` takes that as the sign that there is nothing to take back.
# `kept` counts how often the lock was kept, on the one thread that writes it.
_LLVM_IR: Final = """
@kept = global i64 0

define i8* @save() {{
  %ident = call i64 inttoptr (i64 {ident} to i64 ()*)()
  %is_keeper = icmp eq i64 %ident, {keeper}
  br i1 %is_keeper, label %keep, label %release
keep:
  %count = load i64, i64* @kept
  %next = add i64 %count, 1
  store i64 %next, i64* @kept
  ret i8* null
release:
  %state = call i8* inttoptr (i64 {save} to i8* ()*)()
  ret i8* %state
}}

define void @restore(i8* %state) {{
  %is_kept = icmp eq i8* %state, null
  br i1 %is_kept, label %end, label %acquire
acquire:
  call void inttoptr (i64 {restore} to void (i8*)*)(i8* %state)
  br label %end
end:
  ret void
}}
"""

_code: list[Any] = []


def keep_gil_on_this_thread() -> bool:
    """Make kernels that are loaded from now on keep the lock on the calling thread, and on no other.

    This holds for the whole process, so only the main program of a process may call it, before it loads kernels.

    Returns  whether it holds, by a self-test: a kernel kept the lock on this thread and released it on another one.
             Where the test fails, CPython's functions have their names again
    """
    if not is_jitted():
        return True  # There are no compiled kernels, and nothing releases the lock.
    source = _LLVM_IR.format(
        ident=_address("PyThread_get_thread_ident"),
        keeper=threading.get_ident(),
        save=_address(_SAVE),
        restore=_address(_RESTORE),
    )
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine()
    code = llvm.create_mcjit_compiler(llvm.parse_assembly(source), target)
    code.finalize_object()
    _code.append(code)  # Kernels call it as long as there are any.
    llvm.add_symbol(_SAVE, code.get_function_address("save"))
    llvm.add_symbol(_RESTORE, code.get_function_address("restore"))
    if _keeps_here_alone(ctypes.c_int64.from_address(code.get_global_value_address("kept"))):
        return True
    llvm.add_symbol(_SAVE, _address(_SAVE))
    llvm.add_symbol(_RESTORE, _address(_RESTORE))
    return False


def _keeps_here_alone(kept: ctypes.c_int64) -> bool:
    """Tell whether a kernel that is loaded now keeps the lock on this thread and releases it on another one."""
    probe = jit(_nothing)
    probe()  # Compiles or loads it, which may run other code of numba's.
    before = kept.value
    probe()
    here = kept.value - before
    other = threading.Thread(target=probe)
    other.start()
    other.join()
    return here == 1 and kept.value - before == 1


def _nothing() -> int:
    return 0


def _address(name: str) -> int | None:
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
