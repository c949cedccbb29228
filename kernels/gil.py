"""Who keeps Python's lock (the GIL) while a kernel runs.

Kernels let it go, so that others can work meanwhile. A thread whose kernels take microseconds, an event loop's for
example, loses by that: each time it has to wait until somebody gives the lock back. numba decides when a kernel is
compiled; here a thread can be excepted at run time.
"""

import ctypes
import threading
from typing import Any, Final

import llvmlite.binding as llvm

_SAVE: Final = "PyEval_SaveThread"
_RESTORE: Final = "PyEval_RestoreThread"

# Nothing was saved where no state is returned, and nothing is restored.
_LLVM_IR: Final = """
define i8* @save() {{
  %ident = call i64 inttoptr (i64 {ident} to i64 ()*)()
  %is_keeper = icmp eq i64 %ident, {keeper}
  br i1 %is_keeper, label %keep, label %release
keep:
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


def keep_gil_on_this_thread() -> None:
    """Have kernels that are loaded from now on keep the lock on the thread that calls this, and on no other.

    What numba's compiled code knows as CPython's pair for letting go and taking back becomes one that looks at the
    thread first. It holds for the whole process, so it is the process's main program that may call this.
    """
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
    _code.append(code)  # kernels call it for as long as there are any
    llvm.add_symbol(_SAVE, code.get_function_address("save"))
    llvm.add_symbol(_RESTORE, code.get_function_address("restore"))


def _address(name: str) -> int | None:
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
