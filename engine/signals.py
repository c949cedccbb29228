"""The signals that end a process, which then cleans up as it does after Ctrl-C."""

import signal


def ending_signals() -> list[signal.Signals]:
    """Return SIGTERM and the SIGHUP of a terminal that closes, without what is ignored: nohup asks for that."""
    # Not every system has a SIGHUP.
    ends = [signal.SIGTERM, *(number for number in signal.Signals if number.name == "SIGHUP")]
    return [number for number in ends if signal.getsignal(number) is not signal.SIG_IGN]


def exit_code(number: int) -> int:
    """Return the exit code that shells give a process which a signal ended."""
    return 128 + number
