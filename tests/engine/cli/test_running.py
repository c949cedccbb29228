"""A command that is told to end finishes what it began, with those it needs for that."""

import asyncio
import os
import signal

import pytest

from rfmstream.engine.cli.running import run_async
from rfmstream.engine.files.interrupts import exit_code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_a_command_needs_to_end_well_outlives_its_end(number: int) -> None:
    """As a producer, whose last records are sent by a task of its own."""
    sent: list[str] = []

    async def send(records: asyncio.Queue[str]) -> None:
        while True:
            sent.append(await records.get())
            records.task_done()

    async def command() -> None:
        records: asyncio.Queue[str] = asyncio.Queue()
        sender = asyncio.create_task(send(records))
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(60)
        finally:
            records.put_nowait("the last one")
            await records.join()
            sender.cancel()

    with pytest.raises(SystemExit) as end:
        run_async(command())
    assert (end.value.code, sent) == (exit_code(number), ["the last one"])


def test_the_result_of_a_command_is_returned() -> None:
    async def command() -> int:
        return 7

    assert run_async(command()) == 7
