"""Keep Python's global interpreter lock (GIL) on one thread while its kernels run.

Kernels let it go, so that others can work meanwhile. A thread whose kernels take microseconds, an event loop's for
example, loses by that: each time it has to wait until somebody gives the lock back. So a thread can be excepted.
"""

import threading

from rfmstream.kernels._kernel import keep_lock_on


def keep_gil_on_this_thread() -> None:
    """Have kernels keep the lock on the thread that calls this, and on no other.

    It holds for the whole process, so it is the process's main program that may call this. It holds for kernels that
    are objects (kernels/_kernel.py); one that numba runs itself lets the lock go on every thread.
    """
    keep_lock_on(threading.get_ident())
