"""Several views in one runner: each gives what a run of its own gives, whatever becomes of the worker."""

import asyncio
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from live_views import (
    ALL,
    BY_STORE,
    HONG_KONG,
    PLAN,
    RFM8,
    SCORES,
    SHADOW,
    TYPES,
    ViewsStage,
    alone,
    by_customer,
    by_id,
    history,
    read_some,
)
from oracle_days import DAY_US
from twins import plain_rows

from rfmstream.engine.live.runner import Runner
from rfmstream.schemas.errors import StateError
from rfmstream.schemas.plan import Plan, View


@pytest.fixture
def stage(tmp_path: Path) -> ViewsStage:
    return ViewsStage(tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_each_view_gives_what_a_run_of_its_own_gives(stage: ViewsStage, seed: int) -> None:
    events, random = history(seed, 400), Random(seed)  # noqa: S311 - no secret
    end_us = events[-1]["occurred_at_us"] + 400 * DAY_US

    async def scene() -> Runner:
        for start in range(0, len(events), 80):
            stage.put_orders(events[start : start + 80])
            runner = stage.views(PLAN, step_changes=20)
            await runner.recover()
            await read_some(stage, runner, random)
            if random.random() < 0.5:
                await runner.checkpoint()
            if random.random() < 0.3:
                await runner.stop()  # else it is killed
        runner = stage.views(PLAN)
        await runner.recover()
        await read_some(stage, runner, random)
        stage.world.now_us = end_us
        await runner.idle(stage.world.end, end_us)
        return runner

    runner = asyncio.run(scene())
    for view in PLAN.views:
        expected = alone(view, events, end_us)
        assert expected["changes"]
        assert by_customer(stage.told("changes", view.name)) == by_customer(expected["changes"]), view.name
        assert by_customer(stage.told("signals", view.name)) == by_customer(expected["signals"]), view.name
        found = plain_rows(asyncio.run(runner.snapshot(end_us, view.name)))
        assert by_id(found) == by_id(expected["snapshot"])
        own = runner.stats.views[view.name]
        assert own.customers == len(found)
        assert own.tiers.total() == sum(row["tier"] is not None for row in found)
    rejected = [row for step in stage.world.history for row in step.rejections]
    keys = Counter((row.offset, row.row, row.reason) for row in rejected)
    assert set(keys.values()) == {1}
    absent = {row.offset for row in rejected if row.reason == "malformed"}
    assert absent == {
        offset for offset, each in enumerate(events) if each["store"] is None and each["type"] != "erased"
    }
    assert {row.views for row in rejected if row.reason == "malformed"} == {("by-store",)}
    unknown = {row.views for row in rejected if row.reason == "unknown_order"}
    assert all(set(views) <= set(PLAN.names) for views in unknown)


def test_views_join_and_leave_a_running_state(stage: ViewsStage) -> None:
    events = history(9, 300)
    before, after = events[:200], events[200:]
    one, two = Plan((ALL, SHADOW)), Plan((BY_STORE, ALL, HONG_KONG))
    end_us = events[-1]["occurred_at_us"] + 100 * DAY_US

    async def scene() -> Runner:
        random = Random(1)  # noqa: S311 - no secret
        runner = stage.views(one)
        await runner.recover()
        stage.put_orders(before)
        await read_some(stage, runner, random)
        await runner.stop()
        # Killed on its way, again and again: what was told by then is told, and it begins again in silence.
        for count in (50, 20, 70, 120):
            told = len(stage.world.history)
            runner = stage.views(two, step_changes=5)
            await runner.recover()
            assert runner.position == 0
            while runner.position < count:
                await runner.feed(stage.world.fetch(runner.position, 10))
            assert (len(stage.world.history) > told) == (count != 20)
            assert not await runner.checkpoint()
        for _ in range(2):
            # Killed after it has joined, before it could write a checkpoint.
            runner = stage.views(two)
            await runner.recover()
            await read_some(stage, runner, random)
        stage.put_orders(after)
        await read_some(stage, runner, random)
        stage.world.now_us = end_us
        await runner.idle(stage.world.end, end_us)
        return runner

    runner = asyncio.run(scene())
    alls = alone(ALL, events, end_us)
    assert by_customer(stage.told("changes", "all")) == by_customer(alls["changes"])
    for view in (BY_STORE, HONG_KONG):
        expected = alone(view, events, end_us)
        for kind in ("changes", "signals"):
            found = by_customer(stage.told(kind, view.name))
            # All of it, as a replay up to where the others were.
            live = {key: [row | {"mode": "live"} for row in rows] for key, rows in found.items()}
            assert live == by_customer(expected[kind])
            assert all(
                row["mode"] == ("replay" if row["effective_at"] <= before[-1]["occurred_at_us"] else "live")
                for rows in found.values()
                for row in rows
            )
        assert by_id(plain_rows(asyncio.run(runner.snapshot(end_us, view.name)))) == by_id(
            expected["snapshot"]
        )
        # What it rejects on its way is told, too, once, however often it was killed.
        rejected = Counter(
            (row.offset, row.row, row.reason)
            for step in stage.world.history
            for row in step.rejections
            if view.name in row.views
        )
        assert set(rejected.values()) == {1}
        assert sum(reason != "malformed" for _, _, reason in rejected) == expected["rejected"] > 0
        assert {offset for offset, _, reason in rejected if reason == "malformed"} == {
            offset
            for offset, each in enumerate(events)
            if view is BY_STORE and each["store"] is None and each["type"] != "erased"
        }
    assert [view.name for view in (of.view for of in runner._ownership.partition.state.views)] == [
        "by-store",
        "all",
        "hk",
    ]


def test_a_view_that_changed_is_refused_or_resegmented(stage: ViewsStage) -> None:
    async def scene() -> None:
        random = Random(1)  # noqa: S311 - no secret
        runner = stage.views(Plan((ALL, HONG_KONG)))
        await runner.recover()
        stage.put_orders(history(2, 60))
        await read_some(stage, runner, random)
        await runner.stop()
        told = len(stage.told("changes", "hk"))
        other = View("hk", SCORES, HONG_KONG.where)
        with pytest.raises(StateError, match=r"belongs to views all .*hk .types7.*resegment"):
            await stage.views(Plan((ALL, other))).recover()
        moved = View("hk", TYPES, (("store", ("tw",)),))
        with pytest.raises(StateError, match=r"view hk was made from other events.*another name"):
            await stage.views(Plan((ALL, moved)), resegment=True).recover()
        with pytest.raises(StateError, match="of which none is asked for"):
            await stage.views(Plan((View("new", RFM8),))).recover()
        with pytest.raises(StateError, match=r"belongs to views all .*resegment"):
            await stage.views(Plan((ALL, other)), resegment=("all",)).recover()
        runner = stage.views(Plan((ALL, other)), resegment=("hk",))
        await runner.recover()
        changed = stage.told("changes", "hk")[told:]
        assert changed
        assert {(row["reason"], row["ruleset"]) for row in changed} == {("rules_changed", "scores4")}
        assert not [row for row in stage.told("changes", "all") if row["reason"] == "rules_changed"]

    asyncio.run(scene())


def test_a_state_of_one_ruleset_takes_views_in_and_gives_them_up_again(stage: ViewsStage) -> None:
    plain_view = View(RFM8.name, RFM8)
    plan = Plan((plain_view, BY_STORE))
    events = history(5, 120)

    async def scene() -> None:
        random = Random(1)  # noqa: S311 - no secret
        for plan_, some in (
            (Plan((plain_view,)), events[:40]),
            (plan, events[40:80]),
            (Plan((plain_view,)), events[80:]),
        ):
            runner = stage.views(plan_)
            await runner.recover()
            stage.put_orders(some)
            await read_some(stage, runner, random)
            await runner.stop()

    asyncio.run(scene())
    expected = alone(plain_view, events, events[-1]["occurred_at_us"])["changes"]
    assert by_customer(stage.told("changes", RFM8.name)) == by_customer(expected)


def test_one_ruleset_takes_over_from_another_and_goes_on(stage: ViewsStage) -> None:
    events = history(6, 90)

    async def scene() -> None:
        random = Random(1)  # noqa: S311 - no secret
        for ruleset, some in ((RFM8, events[:30]), (TYPES, events[30:60]), (TYPES, events[60:])):
            runner = stage.views(Plan((View(ruleset.name, ruleset),)), resegment=True)
            await runner.recover()
            stage.put_orders(some)
            await read_some(stage, runner, random)
            await runner.stop()

    asyncio.run(scene())
    told = stage.told("changes", RFM8.name), stage.told("changes", TYPES.name)
    assert [{row["ruleset"] for row in rows} for rows in told] == [{RFM8.identity}, {TYPES.identity}]
    seqs: dict[str, list[int]] = {}
    for row in [*told[0], *told[1]]:
        seqs.setdefault(row["customer_id"], []).append(row["seq"])
    assert all(seq == list(range(1, len(seq) + 1)) for seq in seqs.values())
    [position] = {path.parent.parent.name for path in stage.root.rglob("position.json")}
    assert position
    assert not list(stage.root.rglob("view-*"))
