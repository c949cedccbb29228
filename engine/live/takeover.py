"""Take a partition over: fence earlier owners, weigh log and checkpoint, and begin where they say.

Source: docs/decisions/ (exactly once), docs/semantics.md 5 and 8.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from rfmstream.engine.core.flaps import follow_flaps
from rfmstream.engine.events.instants import FIRST_US
from rfmstream.engine.live.context import PartitionContext
from rfmstream.engine.live.erasures import Erasures
from rfmstream.engine.live.model import Step
from rfmstream.engine.live.ownership import Ownership
from rfmstream.engine.live.partition import Partition
from rfmstream.engine.live.recovery import Plan, Progress, first_tick, plan_recovery
from rfmstream.schemas.errors import StateError


@dataclass(frozen=True)
class Takeover:
    """A partition that was taken over and whose first steps are still to be made.

    Fields  now_us  the wall clock when the log was opened
            loaded  the name of the checkpoint that was loaded; None: there is none
    """

    context: PartitionContext
    ownership: Ownership
    plan: Plan
    now_us: int
    loaded: str | None

    async def begin(self) -> None:
        """Make the first steps of a partition that needs no replay."""
        context, plan, partition = self.context, self.plan, self.ownership.partition
        commit = context.commits.commit
        if plan.law_at_us is not None:
            await self._change_law(plan.law_at_us)
        if plan.begins:
            await context.run(partial(context.store.discard, context.source))
            options = context.options
            tick = first_tick(plan.offset, context.law, options.topic_id, options.current_topic)
            await commit(Step(partition.engine.no_changes, [], plan.offset, tick))
        if plan.renews:
            await self._renew()
        elif context.options.accept_gap and not plan.begins:
            # What was accepted once needs no accepting again, even if no order comes before the next start.
            await commit(Step(partition.engine.no_changes, [], plan.until))
        if plan.offset >= plan.until:
            await self.ownership.catch_up()
        if plan.changes:
            # Where nothing is left to read, the clock has gone on since.
            is_present = context.options.clock == "log" and plan.offset >= self.ownership.end
            at_us = max(self.now_us, partition.engine.clock_us) + 1 if is_present else None
            await commit(await self._change_law(at_us))
            self.ownership.observe()

    async def _renew(self) -> None:
        """Write down that the state goes on in a topic that was made anew; until all is there, nothing has happened."""
        context, partition = self.context, self.ownership.partition
        frozen = partition.engine.frozen()
        if not await context.saver.save(frozen, partition.position, context.log.mark):
            raise StateError(f"partition {context.source}: its checkpoint cannot be written")
        step = await self._change_law(max(partition.engine.clock_us, FIRST_US) + 1)
        assert step.tick is not None
        tick = step.tick._replace(ruleset=None, topic_id=context.options.topic_id)
        await context.commits.commit(replace(step, tick=tick))
        self.ownership.observe()
        await context.run(partial(context.store.discard, context.source, context.saver.name))
        partition.erasures.clear()

    async def _change_law(self, at_us: int | None) -> Step:
        ownership, context = self.ownership, self.context
        return await ownership.compute(
            partial(ownership.partition.change_law, context.ruleset, context.law, at_us)
        )


async def take_over(context: PartitionContext, save_in_time: Callable[[], None]) -> Takeover:
    """Open the log, which fences earlier owners, and load the newest checkpoint.

    In      save_in_time  see `Ownership`
    Errors  of `engine.live.runner.Runner`
    """
    options, stats, ask = context.options, context.stats, context.commits.ask
    committed, now_us = await context.commits.open(), context.now_us()
    bounds = await ask(context.log.bounds)
    is_foreign = context.commits.is_foreign
    load = partial(context.store.load, context.source, None if is_foreign else committed, context.ruleset)
    loaded = await ask(lambda: context.run(load))
    # Without a committed offset the first tick tells whether there was one.
    mark = loaded.mark if loaded is not None and committed is not None and not is_foreign else 0
    ticks = await ask(lambda: context.log.ticks(mark))
    progress = Progress(committed, bounds, ticks, is_foreign, options.topic_id)
    plan = plan_recovery(
        context.source,
        progress,
        loaded,
        context.ruleset,
        context.law,
        resegment=options.resegment,
        accept_gap=options.accept_gap,
    )
    partition = Partition(
        plan.engine,
        clock=options.clock,
        tolerance_us=options.tolerance_us,
        position=plan.offset,
        step_changes=options.step_changes,
    )
    partition.caps = plan.caps
    if loaded is not None:
        partition.erasures = Erasures(loaded.erasures)
    follow_flaps(plan.engine)
    plan.engine.use_mode("replay" if options.clock == "event" else "live")
    context.saver.begin(None if loaded is None else (loaded.offset, plan.engine.clock_us))
    if loaded is not None and stats.placement is not None:
        stats.placement.begin(loaded.placements)
    ownership = Ownership(
        context,
        partition,
        until=plan.until,
        ticks=plan.ticks,
        end=progress.bounds.end,
        mark=mark,
        save_in_time=save_in_time,
    )
    stats.end = progress.bounds.end
    stats.state = "replaying"
    stats.position, stats.committed = plan.offset, plan.until
    return Takeover(context, ownership, plan, now_us, None if loaded is None else loaded.name)
