"""A customer is read while a step is being committed: what is said is what is committed, and nobody waits in vain."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest
from kernel_shards import event
from live_stage import Stage
from live_world import START_US, ScriptedLog, World
from oracle_days import DAY_US

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.lookup import rows_of
from rfmstream.engine.live.model import Step
from rfmstream.engine.live.runner import Runner
from rfmstream.schemas.errors import TransportError

CUSTOMERS = [f"c{at}" for at in range(8)]
LATER_US = START_US + 500 * DAY_US

Rows = dict[str, list[dict[str, Any]]]


class SlowLog(ScriptedLog):
    """Commits a step when it is told to."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.has_begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.may_end.set()
        self.fails = False

    async def commit(self, step: Step, token: str) -> None:
        self.has_begun.set()
        await self.may_end.wait()
        if self.fails:
            raise TransportError("nobody answers")
        await super().commit(step, token)


async def told(runner: Runner, as_of_us: int) -> Rows:
    """Return what is committed of every customer."""

    def rows(engine: Engine) -> Rows:
        return {id_: rows_of(engine, [id_], as_of_us).to_pylist() for id_ in CUSTOMERS}

    return await runner.ask(rows)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ruleset", ["rfm8-annual", "types7"])
def test_all_but_those_of_the_step_are_read_as_they_are_committed(
    tmp_path: Path, ruleset: str, seed: int
) -> None:
    random = Random(seed)  # noqa: S311
    stage, seen = Stage(tmp_path), 0

    async def scene() -> None:
        nonlocal seen
        log = SlowLog(stage.world)
        runner = stage.runner(ruleset, log)
        await runner.recover()
        days = 0.0
        for number in range(30):
            days += random.choice([0.1, 1, 7, 40])
            touched = random.sample(CUSTOMERS, random.randrange(4))
            amounts = [random.choice([100, 120_000]) for _ in touched]
            now_us = START_US + int(days * DAY_US)
            as_of_us = random.choice([now_us, LATER_US, LATER_US + 400 * DAY_US])
            before = await told(runner, as_of_us) if runner.live else {}
            log.has_begun.clear()
            log.may_end.clear()
            if touched:
                orders = zip(touched, amounts, strict=True)
                stage.put(*(event(id_, f"o{number}", 0, minor) for id_, minor in orders), days=days)
                moving = asyncio.create_task(stage.read(runner))
            else:
                stage.world.now_us = now_us
                moving = asyncio.create_task(runner.idle(runner.position, now_us))
            begun = asyncio.create_task(log.has_begun.wait())
            await asyncio.wait([moving, begun], return_when=asyncio.FIRST_COMPLETED)
            if before and log.has_begun.is_set():
                assert runner.committed(touched, as_of_us) is None or not touched
                assert runner.committed(CUSTOMERS, as_of_us) is None or not touched
                anyone = runner.committed([], as_of_us)
                assert anyone is not None
                # What was an instant ago is nobody's to tell any more.
                assert runner.committed([], anyone.clock_us - 1) is None
                for id_ in set(CUSTOMERS) - set(touched):
                    engine = runner.committed([id_], as_of_us)
                    assert engine is not None
                    assert rows_of(engine, [id_], as_of_us).to_pylist() == before[id_]
                    seen += 1
            log.may_end.set()
            begun.cancel()
            await moving
            assert runner.committed(CUSTOMERS, as_of_us) is not None

    asyncio.run(scene())
    assert seen > 50


def test_a_step_in_doubt_is_waited_for(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    async def scene() -> None:
        log = SlowLog(stage.world)
        runner = stage.runner("rfm8", log, retries=0)
        await runner.recover()
        stage.put(event("c1", "o1", 0, 100))
        await stage.read(runner)
        assert runner.committed(["c1"], LATER_US) is not None
        log.fails = True
        stage.put(event("c2", "o2", 0, 100))
        with pytest.raises(TransportError):
            await stage.read(runner)
        # Whether it is committed is not known, nor who is going to say so.
        assert runner.committed(["c1"], LATER_US) is None
        with pytest.raises(TransportError, match="recovered"):
            await told(runner, LATER_US)
        log.fails = False
        await runner.resume()
        assert runner.committed(["c1", "c2"], LATER_US) is not None

    asyncio.run(scene())
