"""How a command that talks to brokers runs, and ends when it is told to."""

import signal
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

EXIT_TERMINATED: Final = 143


def run_async(doing: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine and return its result; SIGTERM cancels it, and it alone, as asyncio has it for Ctrl-C.

    An exit raised amidst the loop would cancel everything at once, also what it needs to end well.
    """
    import asyncio

    async def main() -> _T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await doing

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise SystemExit(EXIT_TERMINATED) from None
