"""How a command that talks to brokers runs, and ends when it is told to."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from rfmstream.engine.files.interrupts import ending_signals, exit_code

_T = TypeVar("_T")


def run_async(doing: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine and return its result; an ending signal cancels it, and it alone, as asyncio has it for Ctrl-C.

    An exit raised amidst the loop would cancel everything at once, also what it needs to end well.
    """
    import asyncio

    async def main() -> _T:
        task = asyncio.current_task()
        assert task is not None
        for number in ending_signals():
            asyncio.get_running_loop().add_signal_handler(number, end, task, number)
        return await doing

    def end(task: asyncio.Task[Any], number: int) -> None:
        ended_by.append(number)
        task.cancel()

    ended_by: list[int] = []
    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise SystemExit(exit_code(ended_by[0])) from None
