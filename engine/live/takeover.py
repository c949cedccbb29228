"""Take a partition over: fence earlier owners, weigh log and checkpoint, and begin where they say.

Source: docs/decisions/ (exactly once), docs/semantics.md 5 and 8.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rfmstream.engine.events.instants import FIRST_US
from rfmstream.engine.live.context import PartitionContext
from rfmstream.engine.live.erasures import Erasures
from rfmstream.engine.live.joining import Joining
from rfmstream.engine.live.model import Rejection, Step, Told
from rfmstream.engine.live.ownership import Ownership, mode_of
from rfmstream.engine.live.partition import Partition
from rfmstream.engine.live.recovery import Plan, Progress, first_tick, plan_recovery
from rfmstream.engine.live.state import State
from rfmstream.engine.live.telling import after_another
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import StateError
from rfmstream.schemas.plan import Plan as Views

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Takeover:
    """A partition that was taken over and whose first steps are still to be made.

    Fields  now_us  the wall clock when the log was opened
            loaded  the name of the checkpoint that was loaded; None: there is none
            loaded_us  the instant that it had come to
    """

    context: PartitionContext
    ownership: Ownership
    plan: Plan
    now_us: int
    loaded: str | None
    loaded_us: int = NEVER_US

    async def begin(self) -> None:
        """Make the first steps of a partition that needs no replay."""
        plan, options = self.plan, self.context.options
        if not plan.joins:
            if options.history is not None and plan.begins:
                raise StateError(
                    f"partition {self.context.source}: there is no running state that a view could join with files of "
                    "history",
                    fix="produce the history into the topic (rfmstream produce), or start without view_history",
                )
            if options.history is not None:
                _log.info(
                    "no view joins: the files of history are not read",
                    extra={"partition": str(self.context.source), "files": options.history.named},
                )
            await self._go_on((), (), None)
            return
        # Loaded here, so that a worker that no view joins need not wait for what reads files.
        from rfmstream.engine.live.join_plan import views_to_join  # noqa: PLC0415

        ask = self.context.commits.ask
        ticks = await ask(partial(self.context.log.ticks, 0))
        # Of several topics only now it is known in which order their first records were read.
        plan = replace(plan, begin=(await ask(self.context.log.bounds)).begin)
        passing = [
            tick for tick in ticks if tick.until is None and FIRST_US < tick.clock_us <= self.loaded_us
        ]
        views = Views(tuple(view for view in self.context.plan.views if view.name in plan.joins))
        state = State.begin(views)
        state.use_mode("replay")
        partition = Partition(
            state,
            clock=options.clock,
            tolerance_us=options.tolerance_us,
            position=plan.begin,
            step_changes=options.step_changes,
        )
        partition.caps = [tick for tick in ticks if tick.until is not None]
        clock_us = self.ownership.partition.clock_us
        joining = Joining(
            partition,
            until=plan.offset,
            clock_us=clock_us,
            ticks=passing,
            views=await self.context.run(partial(views_to_join, self.context, plan, ticks, clock_us)),
            tells=plan.law_at_us is None,
            has_clock=options.clock == "log",
            # The order in which several topics were read is forgotten up to where the others are.
            tells_rejected=not self.context.source.is_merged,
        )
        await self.ownership.join(joining, self._go_on)

    async def _go_on(
        self, told: Sequence[Told], rejections: Sequence[Rejection], joining: Mapping[str, Any] | None
    ) -> None:
        """Make the first steps once all views are there.

        In      told     what the views that have joined have not told yet, and rejections the rows they rejected
                joining  how they have joined, to be written down
        """
        context, plan, partition = self.context, self.plan, self.ownership.partition
        commit = context.commits.commit
        if plan.law_at_us is not None:
            await self._change_law(plan.law_at_us)
        if plan.begins:
            await context.run(partial(context.store.discard, context.source))
            options = context.options
            tick = first_tick(plan.offset, context.law, options.topic_id, options.current_topic)
            await commit(partition.nothing(plan.offset, tick))
        if plan.renews:
            await self._renew()
        elif context.options.accept_gap and not plan.begins:
            # What was accepted once needs no accepting again, even if no order comes before the next start.
            await commit(partition.nothing(plan.until))
        if plan.offset >= plan.until:
            await self.ownership.catch_up()
        if plan.changes:
            # Where nothing is left to read, the clock has gone on since.
            is_present = context.options.clock == "log" and plan.offset >= self.ownership.end
            at_us = max(self.now_us, partition.clock_us) + 1 if is_present else None
            step = await self._change_law(at_us)
            if told:
                step = _with_joined(partition.state, step, told, joining)
                step = replace(step, rejections=[*rejections, *step.rejections])
            await commit(step)
            self.ownership.observe()

    async def _renew(self) -> None:
        """Write down that the state goes on in a topic that was made anew; until all is there, nothing has happened."""
        context, partition = self.context, self.ownership.partition
        frozen = partition.state.frozen()
        if not await context.saver.save(frozen, partition.position, context.log.mark):
            raise StateError(f"partition {context.source}: its checkpoint cannot be written")
        step = await self._change_law(max(partition.clock_us, FIRST_US) + 1)
        assert step.tick is not None
        tick = step.tick._replace(ruleset=None, topic_id=context.options.topic_id)
        await context.commits.commit(replace(step, tick=tick))
        self.ownership.observe()
        await context.run(partial(context.store.discard, context.source, context.saver.name))
        partition.erasures.clear()

    async def _change_law(self, at_us: int | None) -> Step:
        ownership, context = self.ownership, self.context
        rulesets = {view.name: view.ruleset for view in context.plan.views}
        if len(rulesets) == len(ownership.partition.state.views) == 1:
            # One ruleset takes over from another, whatever they are called.
            rulesets = dict.fromkeys(ownership.partition.state.names, *rulesets.values())
        return await ownership.compute(partial(ownership.partition.change_law, rulesets, context.law, at_us))


async def take_over(context: PartitionContext, save_in_time: Callable[[], None]) -> Takeover:
    """Open the log, which fences earlier owners, and load the newest checkpoint.

    In      save_in_time  see `Ownership`
    Errors  of `engine.live.runner.Runner`
    """
    options, stats, ask = context.options, context.stats, context.commits.ask
    committed, now_us = await context.commits.open(), context.now_us()
    is_foreign = context.commits.is_foreign
    load = partial(context.store.load, context.source, None if is_foreign else committed, context.plan)
    loaded = await ask(lambda: context.run(load))
    # Without a committed offset the first tick tells whether there was one.
    mark = loaded.mark if loaded is not None and committed is not None and not is_foreign else 0
    ticks = await ask(lambda: context.log.ticks(mark))
    bounds = await ask(context.log.bounds)
    progress = Progress(committed, bounds, ticks, is_foreign, options.topic_id)
    plan = plan_recovery(
        context.source,
        progress,
        loaded,
        context.plan,
        context.law,
        resegment=options.resegment,
        accept_gap=options.accept_gap,
    )
    partition = Partition(
        plan.state,
        clock=options.clock,
        tolerance_us=options.tolerance_us,
        position=plan.offset,
        step_changes=options.step_changes,
    )
    partition.caps = plan.caps
    if loaded is not None:
        partition.erasures = Erasures(loaded.erasures)
    partition.state.follow_flaps()
    partition.state.use_mode(mode_of(options))
    context.saver.begin(None if loaded is None else (loaded.offset, loaded.clock_us))
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
    name, loaded_us = (None, NEVER_US) if loaded is None else (loaded.name, loaded.clock_us)
    return Takeover(context, ownership, plan, now_us, name, loaded_us)


def _with_joined(state: State, step: Step, joined: Sequence[Told], joining: Mapping[str, Any] | None) -> Step:
    """Return the step that changes the law with what views that join tell before it, and with how they have joined."""
    assert step.tick is not None, "it changes the law"
    parts = [*joined, *step.told]
    told = [
        after_another(of, *own)
        for of in state.views
        if (own := [each for each in parts if each.view == of.view.name])
    ]
    [first, *further] = told
    return replace(
        step,
        changes=first.changes,
        signals=first.signals,
        forgotten=first.forgotten,
        view=first.view,
        further=further,
        tick=step.tick._replace(joining=joining),
    )
