"""Python's lock is kept on the thread that asked for it, and let go on all others."""

import os
import subprocess
import sys

import pytest

# A kernel looks at a flag which only another Python thread can raise. That thread wants the lock from before the
# kernel begins, but is not given it, since the interval after which it could ask for it is longer than all of this.
_PROGRAM = """
import sys
import threading

import numpy as np

from rfmstream.kernels.gil import keep_gil_on_this_thread

if sys.argv[1] == "keep":  # before anything has been compiled, as a worker does
    keep_gil_on_this_thread()

from rfmstream.kernels._jit import part, touch_word


@part
def spins_until(flag, address, most):
    for spins in range(most):
        if flag[0]:
            return spins
        touch_word(address)
    return most


def sees_another_thread(most):
    flag, gate = np.zeros(1, np.int64), threading.Lock()
    gate.acquire()

    def other():
        with gate:
            flag[0] = 1

    thread = threading.Thread(target=other)
    thread.start()
    gate.release()
    seen = spins_until(flag, flag.ctypes.data, most) < most
    thread.join()
    return seen


sys.setswitchinterval(1000)
spins_until(np.ones(1, np.int64), 0, 1)
most = int(sys.argv[3])
found = []
if sys.argv[2] == "here":
    found.append(sees_another_thread(most))
else:
    thread = threading.Thread(target=lambda: found.append(sees_another_thread(most)))
    thread.start()
    thread.join()
print(found)
"""


@pytest.mark.parametrize(
    ("asked", "thread", "lets_go"), [("keep", "here", False), ("keep", "another", True), ("no", "here", True)]
)
def test_kernels_keep_the_lock_on_one_thread_alone(asked: str, thread: str, lets_go: bool) -> None:  # noqa: FBT001
    most = 2_000_000_000 if lets_go else 20_000_000
    program = subprocess.run(
        [sys.executable, "-c", _PROGRAM, asked, thread, str(most)],
        env={**os.environ, "NUMBA_DISABLE_JIT": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert program.stdout.strip() == f"[{lets_go}]", program.stderr
