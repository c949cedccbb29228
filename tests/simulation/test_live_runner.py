"""Whatever happens to workers, logs and disks: no tier change is lost, none repeated, all in order, all as they should.

A schedule is drawn from a seed: records, polls, passing time, commits that fail in all ways, two owners at once,
crashes after every effect, damaged checkpoints. Afterwards what was committed must be what one undisturbed partition
makes of the same records and ticks, and what the oracle does. A failure names its seed: RFM_SIMULATION_SEED=17 repeats
it, RFM_SIMULATIONS=5000 runs more.
"""

import asyncio
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from live_world import Crash, ScriptedLog, World, damage
from oracle import BUILT_IN, Rules
from oracle_days import DAY_US
from oracle_log import LogOracle
from schedules import some
from twins import assert_in_order_per_customer, in_order, plain_rows, ruleset_of

from rfmstream import Engine
from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.model import FencedError, LogBatch, RawRecords, Source, Step
from rfmstream.engine.live.options import RunnerOptions
from rfmstream.engine.live.partition import Partition
from rfmstream.engine.live.runner import Runner
from rfmstream.engine.live.spans import cut_out
from rfmstream.engine.live.stats import PartitionStats
from rfmstream.engine.live.store import Store
from rfmstream.schemas.errors import TransportError

PER_TEST = 20
COUNT = int(os.environ.get("RFM_SIMULATIONS", some(300)))
CHOSEN = os.environ.get("RFM_SIMULATION_SEED")
SEEDS = (
    [range(int(CHOSEN), int(CHOSEN) + 1)]
    if CHOSEN
    else [range(first, first + PER_TEST) for first in range(0, COUNT, PER_TEST)]
)
SOURCE = Source("orders", 3)
TOLERANCE_US = 60_000_000
LENGTH = 40
ACTIONS = {
    "append": 30,
    "jump": 12,
    "poll": 12,
    "race": 6,
    "idle": 17,
    "checkpoint": 3,
    "interrupt": 3,
    "rebalance": 5,
    "stop": 4,
    "kill": 3,
    "harm": 5,
}
"""What happens, and how often."""

JUMPS_US = [200_000, DAY_US // 24, DAY_US // 2, DAY_US, 2 * DAY_US, 5 * DAY_US, 31 * DAY_US, 400 * DAY_US]


def rules_of(seed: int) -> Rules:
    """Return rules under which customers age within days."""
    rules = BUILT_IN[sorted(BUILT_IN)[seed % len(BUILT_IN)]](
        time_zone=["UTC", "Europe/Berlin", "America/St_Johns"][seed // 5 % 3],
        day_unit=["calendar_day", "duration"][seed // 3 % 2],
    )
    return replace(
        rules,
        recency_cuts_days=tuple(range(1, len(rules.recency_cuts_days) + 1)),
        window_days=None if rules.window_days is None else 5,
    )


class Piecemeal(Decoder):
    """Decodes some of the first records, as if all were too many."""

    def decode(self, records: RawRecords) -> LogBatch:
        return super().decode(cut_out(records, 0, (len(records.offsets) + 2) // 3))


class Owner:
    """One worker's view: a runner, and where its consumer reads."""

    def __init__(self, life: "Life") -> None:
        self.life = life
        self.position = 0
        self.is_ready = False
        self.runner = Runner(
            SOURCE,
            ruleset=life.ruleset,
            options=life.options,
            log=ScriptedLog(life.world),
            store=Store(str(life.root), app_id="app", keep=life.world.random.choice([1, 2, 3])),
            decoder=life.decoder,
            run=life.run,
            now_us=lambda: life.world.now_us,
            stats=PartitionStats(),
        )

    async def begin(self) -> None:
        self.position = await self.runner.recover()
        self.is_ready = True

    async def return_(self) -> None:
        self.is_ready = False
        self.position = await self.runner.resume()
        self.is_ready = True

    async def poll(self) -> None:
        world = self.life.world
        fetched = world.fetch(self.position, world.random.choice([1, 2, 7, 50, 1000]))
        self.position = fetched.position
        if fetched.offsets:
            await self.runner.feed(fetched)

    async def idle(self) -> None:
        world = self.life.world
        while world.fetch(self.position, 1).offsets:
            await self.poll()
        self.position = world.end
        await self.runner.idle(world.end, world.now_us)


class Life:
    """A schedule, and those who live through it."""

    def __init__(self, seed: int, root: Path) -> None:
        self.random = Random(seed)  # noqa: S311 - repeatable, which is the point
        self.world = World(
            self.random,
            lateness=self.random.choice([0, 0.2, 0.8]),
            earliness=self.random.choice([0, 0, 0.1, 0.5]),
        )
        self.root = root
        self.rules = rules_of(seed)
        self.ruleset = ruleset_of(self.rules)
        self.decoder = [Decoder, Piecemeal][seed // 3 % 2](currency="CNY")
        self.options = RunnerOptions(
            tolerance_us=TOLERANCE_US,
            checkpoint_interval_s=self.random.choice([0.5, 3600, 86_400, 10**7]),
            retries=self.random.choice([0, 1, 4]),
            backoff_s=0,
            step_changes=self.random.choice([1, 5, 1 << 16]),
            feed_bytes_max=[1, 500, 1 << 28][seed % 3],
        )
        self.jumps = self.random.choice([5, 6, 8])
        self.owners: list[Owner] = []

    async def run(self, function: Callable[[], Any], *, small: bool = False) -> Any:  # noqa: ANN401, ARG002 - always apart
        await self.world.pause()
        result = function()
        await self.world.pause()
        return result

    async def live(self) -> None:
        for _ in range(LENGTH):
            self.world.trouble = self.random.choice([0, 0, 0.1, 0.4])
            self.world.mortality = self.random.choice([0, 0, 0, 0.02])
            await self.act()
        self.world.trouble = self.world.mortality = 0
        # Everybody who still believes to own the partition goes on until he learns better; then the last one finishes.
        for owner in list(self.owners):
            await self.survive(owner, owner.poll if owner.is_ready else owner.return_)
        for _ in range(self.random.choice([0, 0, 1, 3])):
            damage(self.random, self.root)
        if self.random.random() < 0.4:
            shutil.rmtree(self.root, ignore_errors=True)
        last = Owner(self)
        await last.begin()
        self.world.now_us += self.random.choice([1, 40 * DAY_US])
        while last.position < self.world.end or not last.runner.live:
            await last.poll()
            await last.idle()
        await last.idle()
        self.last = last
        await self.settle()

    async def act(self) -> None:
        random = self.random
        if not self.owners or (len(self.owners) < 2 and random.random() < 0.08):
            owner = Owner(self)
            self.owners.append(owner)
            await self.survive(owner, owner.begin)
            return
        owner = random.choice(self.owners)
        if not owner.is_ready:
            # What others may ask at any time must do no harm.
            await self.survive(owner, random.choice([owner.return_, owner.return_, owner.runner.checkpoint]))
            return
        (action,) = random.choices(list(ACTIONS), list(ACTIONS.values()))
        await getattr(self, action)(owner)

    async def append(self, _: Owner) -> None:
        self.world.append()

    async def jump(self, _: Owner) -> None:
        self.world.now_us += self.random.choice(JUMPS_US[: self.jumps])

    async def poll(self, owner: Owner) -> None:
        await self.survive(owner, owner.poll)

    async def race(self, _: Owner) -> None:
        """Let everybody who believes to own the partition read at once."""
        ready = [one for one in self.owners if one.is_ready]
        await asyncio.gather(*(self.survive(one, one.poll) for one in ready))

    async def idle(self, owner: Owner) -> None:
        if self.random.random() < 0.5:
            await self.jump(owner)
        await self.survive(owner, owner.idle)

    async def checkpoint(self, owner: Owner) -> None:
        await self.survive(owner, owner.runner.checkpoint)

    async def interrupt(self, owner: Owner) -> None:
        """Break off whatever it does, at any place."""
        work = asyncio.ensure_future(self.survive(owner, self.random.choice([owner.poll, owner.idle])))
        for _ in range(self.random.randrange(12)):
            await asyncio.sleep(0)
        work.cancel()
        await asyncio.wait([work])
        owner.is_ready = False

    async def rebalance(self, owner: Owner) -> None:
        await self.survive(owner, lambda: self.leave_and_return(owner))

    async def stop(self, owner: Owner) -> None:
        await self.survive(owner, owner.runner.stop)
        self.bury(owner)

    async def kill(self, owner: Owner) -> None:
        self.bury(owner)

    async def harm(self, _: Owner) -> None:
        damage(self.random, self.root)

    async def leave_and_return(self, owner: Owner) -> None:
        """Lose the partition in the middle of things, and get it back."""
        work = asyncio.ensure_future(self.survive(owner, owner.poll))
        await self.world.pause()
        await owner.runner.park()
        await work
        await owner.return_()

    async def survive(self, owner: Owner, action: Callable[[], Any]) -> None:
        try:
            await action()
        except Crash:
            self.bury(owner)
        except (FencedError, TransportError):
            owner.is_ready = False
            if self.random.random() < 0.3:
                self.bury(owner)

    def bury(self, owner: Owner) -> None:
        if owner in self.owners:
            self.owners.remove(owner)

    async def settle(self) -> None:
        """Let checkpoints in the background end."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)


def undisturbed(life: Life) -> tuple[list[Step], Engine]:
    """Return what one partition makes of the records one by one, and of the ticks."""
    world = life.world
    engine = Engine(life.ruleset, mode="live")
    partition = Partition(engine, clock="log", tolerance_us=TOLERANCE_US, position=0)
    partition.caps = world.caps
    steps: list[Step] = []
    ticks = world.passing[1:]
    for record in world.records:
        while ticks and ticks[0].position <= record.offset:
            steps += partition.pass_time(ticks.pop(0).clock_us, to_the_end=True)
        one = world.fetch(record.offset, 1)
        steps += partition.apply(life.decoder.decode(one))
    for tick in ticks:
        steps += partition.pass_time(tick.clock_us, to_the_end=True)
    return steps, engine


def told_by_oracle(life: Life) -> LogOracle:
    oracle = LogOracle(life.rules, TOLERANCE_US)
    ticks = life.world.passing[1:]
    for record in life.world.records:
        while ticks and ticks[0].position <= record.offset:
            oracle.advance(ticks.pop(0).clock_us)
        log_us = record.timestamp_ms * 1000
        for cap in life.world.caps:
            if cap.position <= record.offset < cap.until and log_us > cap.clock_us + TOLERANCE_US:
                log_us = cap.clock_us
        for event in record.events:
            if record.timestamp_ms >= 0:
                oracle.receive(log_us, event)
            elif oracle.clock_us is not None:
                oracle.receive(oracle.clock_us, event)
            else:
                oracle.is_open = True
    for tick in ticks:
        oracle.advance(tick.clock_us)
    return oracle


def rows_of(steps: list[Step]) -> list[dict[str, Any]]:
    return plain_rows(pa.concat_tables([step.changes for step in steps]))


def signals_of(steps: list[Step]) -> list[tuple[Any, ...]]:
    """Return the signals of steps, sorted: each is there once."""
    tables = [step.signals for step in steps if step.signals is not None]
    rows = [tuple(row.items()) for table in tables for row in plain_rows(table)]
    assert len(set(rows)) == len(rows)
    return sorted(rows, key=repr)


def check(life: Life) -> None:
    world = life.world
    steps, engine = undisturbed(life)
    committed = rows_of(world.history)
    assert in_order(committed) == in_order(rows_of(steps))
    assert_in_order_per_customer(committed)
    assert signals_of(world.history) == signals_of(steps)
    rejections = [rejection for step in world.history for rejection in step.rejections]
    assert rejections == [rejection for step in steps for rejection in step.rejections]
    ownership = life.last.runner._ownership
    assert ownership is not None
    final = ownership.partition.engine
    assert final.clock_us == engine.clock_us
    assert final.counters == engine.counters
    assert by_customer(final.snapshot()) == by_customer(engine.snapshot())
    oracle = told_by_oracle(life)
    # Nobody is taken further than the wall clock by what a record says of itself.
    assert final.clock_us <= world.now_us + TOLERANCE_US
    if not oracle.is_open:
        assert in_order(committed) == in_order(oracle.changes)
        refused = [outcome for outcome in oracle.outcomes if outcome not in ("applied", "duplicate")]
        known = [reason for reason, *_ in rejections if reason in REASONS_OF_STATE]
        assert known == refused


REASONS_OF_STATE = ("future_time", "unknown_order", "conflicting_duplicate", "refund_exceeds_order")


def by_customer(table: pa.Table) -> list[dict[str, Any]]:
    return sorted(plain_rows(table), key=lambda row: row["customer_id"])


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.parametrize("seeds", SEEDS, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_exactly_once(seeds: range, tmp_path: Path) -> None:
    for seed in seeds:
        life = Life(seed, tmp_path / str(seed))
        try:
            asyncio.run(life.live())
            check(life)
        except BaseException as error:
            error.add_note(f"RFM_SIMULATION_SEED={seed}")
            raise
