"""When checkpoints are due."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rfmstream.engine.live.model import Source
from rfmstream.engine.live.saver import Saver
from rfmstream.engine.live.stats import PartitionStats
from rfmstream.engine.live.store import Store

HOUR_US = 3_600_000_000


async def run(function: Callable[[], Any], *, small: bool = False) -> Any:  # noqa: ANN401, ARG001
    return await asyncio.to_thread(function)


def test_a_clock_that_is_set_back_does_not_put_checkpoints_off(tmp_path: Path) -> None:
    now_us = 1000 * HOUR_US
    saver = Saver(
        Source("orders", 0),
        Store(str(tmp_path), app_id="app"),
        law="",
        interval_s=60,
        run=run,
        now_us=lambda: now_us,
        stats=PartitionStats(),
    )
    saver.begin(None)
    assert not saver.is_due()
    now_us += 60_000_000
    assert saver.is_due()
    assert not saver.is_due()
    now_us -= HOUR_US
    assert saver.is_due()
    assert not saver.is_due()
    now_us += 60_000_000
    assert saver.is_due()
