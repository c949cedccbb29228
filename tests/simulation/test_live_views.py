"""Several views in one runner: each gives what a run of its own gives, whatever becomes of the worker."""

import asyncio
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pyarrow as pa
import pytest
from kernel_shards import event
from live_stage import OPTIONS, SOURCE, Stage, run
from live_world import START_US, Record, ScriptedLog, plain
from oracle_days import DAY_US
from twins import canonical_batch, plain_rows

from rfmstream.engine.core.view import NOT_OURS
from rfmstream.engine.core.views import Views
from rfmstream.engine.live.decoders import decoder_for
from rfmstream.engine.live.runner import Runner
from rfmstream.engine.live.stats import PartitionStats
from rfmstream.engine.live.store import Store
from rfmstream.schemas.errors import StateError
from rfmstream.schemas.plan import ATTRIBUTE, Plan, View
from rfmstream.schemas.ruleset import load_ruleset

STORES = [None, "hk", "tw", "hk", "hk"]
RFM8, SCORES, TYPES = (load_ruleset(name) for name in ("rfm8-annual", "scores4", "types7"))
ALL = View("all", RFM8)
HONG_KONG = View("hk", TYPES, where=(("store", ("hk",)),))
BY_STORE = View("by-store", SCORES, per="store")
SHADOW = View("next", TYPES, shadow=True)
PLAN = Plan((ALL, HONG_KONG, BY_STORE, SHADOW))


class ViewsStage(Stage):
    """A stage whose runner has a plan of views."""

    def put_orders(self, events: list[dict[str, Any]]) -> None:
        """Append a record of each event, dated as it is."""
        for each in events:
            self.world.now_us = max(self.world.now_us, each["occurred_at_us"])
            value = plain(each) | ({} if each["store"] is None else {"store": each["store"]})
            record = Record(self.world.end, orjson.dumps(value), each["occurred_at_us"] // 1000, [each])
            self.world.records.append(record)
            self.world.end += 1

    def views(self, plan: Plan, **options: Any) -> Runner:  # noqa: ANN401
        return Runner(
            SOURCE,
            ruleset=plan,
            options=OPTIONS.__class__(**{**vars(OPTIONS), **options}),
            log=ScriptedLog(self.world),
            store=Store(str(self.root), app_id="app"),
            decoder=decoder_for(plan),
            run=run,
            now_us=lambda: self.world.now_us,
            stats=PartitionStats(),
        )

    def told(self, kind: str, view: str) -> list[dict[str, Any]]:
        """Return what a view told, in order."""
        tables = [
            getattr(told, kind)
            for step in self.world.history
            for told in step.told
            if told.view == view and getattr(told, kind) is not None
        ]
        return [row for table in tables for row in plain_rows(table)]


@pytest.fixture
def stage(tmp_path: Path) -> ViewsStage:
    return ViewsStage(tmp_path)


def history(seed: int, count: int) -> list[dict[str, Any]]:
    """Orders, refunds and erasures of a few customers over two years, in order of time."""
    random, events = Random(seed), []  # noqa: S311 - no secret
    for n in range(count):
        at_us = START_US + n * 700 * DAY_US // count
        kind = random.choice(["paid"] * 12 + ["refunded", "cancelled", "erased"])
        customer, store = f"c{random.randrange(9)}", random.choice(STORES)
        row = event(customer, f"o{n}", 0, random.choice([100, 40_000, 150_000])) | {"store": store}
        if kind in ("refunded", "cancelled") and events:
            other = random.choice(events)
            row |= {
                "customer_id": other["customer_id"],
                "order_id": other["order_id"],
                "store": other["store"],
            }
            row |= {"type": kind, "amount_minor": 50 if kind == "refunded" else 0}
        elif kind == "erased" and random.random() < 0.4:
            row |= {"type": kind, "order_id": "", "amount_minor": 0}
        events.append(row | {"occurred_at_us": at_us})
    return events


def alone(view: View, events: list[dict[str, Any]], until_us: int) -> dict[str, Any]:
    """Return what a view gives that runs by itself, and the rows it rejects."""
    [of] = Views(Plan((view,)), mode="live").views.values()
    orders = canonical_batch(events)
    stores = pa.array([each["store"] for each in events], pa.string())
    log_us = pa.array([each["occurred_at_us"] // 1000 * 1000 for each in events]).to_numpy()
    changes, outcome = of.step_log(
        orders.append_column(ATTRIBUTE + "store", stores), log_us, tolerance_us=300_000_000
    )
    signals = [of.engine.signals]
    changes = pa.concat_tables([changes, of.engine.advance(until_us)])
    signals.append(of.engine.signals)
    return {
        "changes": plain_rows(changes),
        "signals": plain_rows(pa.concat_tables(signals)),
        "snapshot": plain_rows(of.engine.snapshot(until_us)),
        "rejected": int(((outcome >= 8) & (outcome != NOT_OURS)).sum()),
    }


def by_customer(rows: list[dict[str, Any]]) -> dict[Any, list[dict[str, Any]]]:
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["population"], row["customer_id"]), []).append(row)
    return found


def by_id(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["population"] or "", row["customer_id"]))


async def read_some(stage: ViewsStage, runner: Runner, random: Random) -> None:
    while not runner.live or runner.position < stage.world.end:
        fetched = stage.world.fetch(runner.position, random.choice([1, 7, 50]))
        if fetched.offsets:
            await runner.feed(fetched)
        else:
            await runner.idle(stage.world.end, None)


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
        told = len(stage.world.history)
        # Killed on its way: nobody was told anything, and it begins again.
        runner = stage.views(two)
        await runner.recover()
        assert runner.position == 0
        await runner.feed(stage.world.fetch(0, 50))
        assert len(stage.world.history) == told
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
        expected = by_customer(alone(view, events, end_us)["changes"])
        found = by_customer(stage.told("changes", view.name))
        for key, rows in found.items():
            # First the newest change of before, as a replay; from there on all.
            assert [row["seq"] for row in rows] == list(range(rows[0]["seq"], rows[0]["seq"] + len(rows)))
            assert [row | {"mode": "live"} for row in rows] == expected[key][-len(rows) :]
            assert all(row["mode"] == "live" for row in rows[1:])
        assert any(row["mode"] == "replay" for rows in found.values() for row in rows)
        gone = set(expected) - set(found)
        assert all(expected[key][-1]["reason"] == "erased" for key in gone)
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
        runner = stage.views(Plan((ALL, other)), resegment=True)
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
