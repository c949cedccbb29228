"""A runner of one partition in a world whose log always answers, for particular moments in its life."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pyarrow as pa
from live_world import START_US, Record, ScriptedLog, World, plain
from oracle_days import DAY_US
from twins import plain_rows

from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.options import RunnerOptions
from rfmstream.engine.live.runner import Runner
from rfmstream.engine.live.stats import PartitionStats
from rfmstream.engine.live.store import Store
from rfmstream.schemas.ruleset import Ruleset, load_ruleset

SOURCE = Source("orders", 0)
OPTIONS = RunnerOptions(backoff_s=0, retries=3, checkpoint_interval_s=10**9)


async def run(function: Callable[[], Any], *, small: bool = False) -> Any:  # noqa: ANN401, ARG001
    return function()


class Stage:
    """A world whose log always answers, until it is told otherwise."""

    def __init__(self, root: Path) -> None:
        self.world = World(Random(1))  # noqa: S311 - nothing is left to it here
        self.root = root

    def put(self, *events: dict[str, Any], days: float = 0) -> None:
        """Append a record of each event, some days after the start; an event is dated as its record."""
        at_us = START_US + int(days * DAY_US)
        self.world.now_us = max(self.world.now_us, at_us)
        for each in events:
            dated = each | {"occurred_at_us": at_us}
            value = orjson.dumps(plain(dated))
            self.world.records.append(Record(self.world.end, value, at_us // 1000, [dated]))
            self.world.end += 1

    def runner(
        self,
        ruleset: str | Ruleset = "rfm8",
        log: ScriptedLog | None = None,
        **options: Any,  # noqa: ANN401
    ) -> Runner:
        return Runner(
            SOURCE,
            ruleset=load_ruleset(ruleset).without_signals() if isinstance(ruleset, str) else ruleset,
            options=replace(OPTIONS, **options),
            log=log or ScriptedLog(self.world),
            store=Store(str(self.root), app_id="app"),
            decoder=Decoder(currency="CNY"),
            run=run,
            now_us=lambda: self.world.now_us,
            stats=PartitionStats(),
        )

    async def read(self, runner: Runner) -> None:
        fetched = self.world.fetch(runner.position, 10**6)
        if fetched.offsets:
            await runner.feed(fetched)

    async def live_once(self, *events: dict[str, Any]) -> None:
        """Let a worker come, apply the events, and stop in good order."""
        runner = self.runner()
        await runner.recover()
        self.put(*events)
        await self.read(runner)
        await runner.stop()

    @property
    def signals(self) -> list[dict[str, Any]]:
        return [row for step in self.world.history if step.signals for row in plain_rows(step.signals)]

    @property
    def changes(self) -> list[dict[str, Any]]:
        return plain_rows(
            pa.concat_tables([step.changes for step in self.world.history], promote_options="permissive")
        )
