"""The signals that end a process, which then cleans up as it does after Ctrl-C."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread


def ending_signals() -> list[signal.Signals]:
    """Return SIGTERM and the SIGHUP of a terminal that closes, without what is ignored: nohup asks for that."""
    # Not every system has a SIGHUP.
    ends = [signal.SIGTERM, *(number for number in signal.Signals if number.name == "SIGHUP")]
    return [number for number in ends if signal.getsignal(number) is not signal.SIG_IGN]


def exit_code(number: int) -> int:
    """Return the exit code that shells give a process which a signal ended."""
    return 128 + number


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and its like do nothing."""
    if current_thread() is not main_thread():
        yield  # only the main thread is interrupted
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *ending_signals())}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
