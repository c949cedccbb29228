"""Particular moments in the life of a runner: other rules, another clock, the end of a backfill, a step in doubt."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kernel_shards import event
from live_stage import Stage
from live_world import START_US, Record, ScriptedLog
from oracle_days import DAY_US
from twins import canonical_batch, in_order, plain_rows

from rfmstream import Engine
from rfmstream.engine.live.model import FencedError, Step
from rfmstream.schemas.errors import StateError, TransportError
from rfmstream.schemas.ruleset import load_ruleset


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


Scene = Callable[[], Awaitable[None]]


def orders(count: int, amount_minor: int = 50_000) -> list[dict[str, Any]]:
    return [event(f"c{i % 3}", f"o{i}", 0, amount_minor) for i in range(count)]


def test_a_record_of_the_past_does_not_take_the_present_back(stage: Stage) -> None:
    async def scene() -> None:
        runner = stage.runner()
        await runner.recover()
        now_us = START_US + 40 * DAY_US
        await runner.idle(0, now_us)
        assert len(stage.world.ticks) == 1  # the law's: a quiet day is not noted
        stage.put(*orders(1))
        await stage.read(runner)
        [change] = stage.changes
        assert (change["to_tier"], change["reason"], change["effective_at"]) == ("000", "first_order", now_us)
        assert stage.world.ticks[-1].clock_us == now_us
        noted = len(stage.world.ticks)
        # What the tolerance covers was on its way.
        await runner.idle(runner.position, now_us + 1000 * DAY_US)
        stage.put(event("late", "o", 0, 1), days=1040 - 299 / 86_400)
        await stage.read(runner)
        assert len(stage.world.ticks) == noted
        assert stage.changes[-1]["effective_at"] == now_us + 1000 * DAY_US - 299_000_000
        state = in_order(plain_rows(await runner.snapshot()))
        again = stage.runner()
        await again.recover()
        await stage.read(again)
        assert in_order(plain_rows(await again.snapshot())) == state

    asyncio.run(scene())


@pytest.mark.parametrize("clean", [True, False])
def test_a_worker_goes_on_from_a_state_of_before_its_ruleset_asked_for_signals(
    stage: Stage,
    clean: bool,  # noqa: FBT001 - drawn
) -> None:
    rules = load_ruleset("rfm8")
    # Then the fingerprint was that of the tiers.
    old = replace(rules.without_signals(), fingerprint=rules.tier_fingerprint)

    async def scene() -> None:
        first = stage.runner(old)
        await first.recover()
        stage.put(*orders(3))
        await stage.read(first)
        await first.checkpoint()
        stage.put(*orders(6)[3:], days=1)
        await stage.read(first)
        if clean:
            await first.stop()
        assert stage.signals == []
        # The second order of each was told by nobody and stays untold; the fourth is due.
        second = stage.runner(rules)
        await second.recover()
        stage.put(*orders(12)[6:], days=2)
        await stage.read(second)
        fourth = {(row["customer_id"], row["kind"], row["count"]) for row in stage.signals}
        assert fourth == {(f"c{number}", "orders", 4) for number in range(3)}
        assert len(stage.signals) == 3
        # It is gone before it could write a checkpoint.
        third = stage.runner(rules)
        await third.recover()
        await stage.read(third)
        assert len(stage.signals) == 3
        assert plain_rows(await third.snapshot()) == plain_rows(await second.snapshot())
        shutil.rmtree(stage.root)
        last = stage.runner(rules)
        await last.recover()
        await stage.read(last)
        assert len(stage.signals) == 3
        assert plain_rows(await last.snapshot()) == plain_rows(await second.snapshot())

    asyncio.run(scene())


def test_what_is_due_when_a_ruleset_begins_to_ask_is_told_once_without_any_order(stage: Stage) -> None:
    rules = load_ruleset("rfm8")
    old = replace(rules.without_signals(), fingerprint=rules.tier_fingerprint)

    async def scene() -> None:
        first = stage.runner(old)
        await first.recover()
        stage.put(*orders(12))
        await stage.read(first)
        ends_us = max(row["next_change_at"] for row in plain_rows(await first.snapshot()))
        stage.put(event("other", "o", 0, 1), days=(ends_us - START_US) / DAY_US - 3)
        await stage.read(first)
        await first.stop()
        told = len(stage.changes)
        for count in (1, 2):
            # The first is gone before it could write a checkpoint.
            worker = stage.runner(rules)
            await worker.recover()
            await worker.idle(worker.position, stage.world.now_us + count * 60_000_000)
            warned = {(row["customer_id"], row["kind"], row["days"], row["at"]) for row in stage.signals}
            assert warned == {(f"c{number}", "warning", 7, ends_us) for number in range(3)}
            assert len(stage.signals) == 3
        assert len(stage.changes) == told

    asyncio.run(scene())


def test_other_rules_take_over_in_the_present(stage: Stage) -> None:
    async def scene() -> None:
        await stage.live_once(*orders(7))
        before = len(stage.changes)
        stage.world.now_us = START_US + 40 * DAY_US
        await stage.runner("types7", resegment=True).recover()
        made = stage.changes[before:]
        assert [row["reason"] for row in made] == ["rules_changed"] * 3
        assert {row["effective_at"] for row in made} == {stage.world.now_us + 1}
        assert {row["r_band"] for row in made} == {0}
        again = stage.runner("types7")
        await again.recover()
        assert {row["tier"] for row in plain_rows(await again.snapshot())} == {row["to_tier"] for row in made}

    asyncio.run(scene())


def test_other_rules_take_over_after_a_clean_stop(stage: Stage) -> None:
    async def scene() -> None:
        await stage.live_once(*orders(7))
        before = len(stage.changes)

        with pytest.raises(StateError, match="belongs to ruleset rfm8, not to types7"):
            await stage.runner("types7").recover()
        second = stage.runner("types7", resegment=True)
        await second.recover()
        made = stage.changes[before:]
        assert {row["reason"] for row in made} == {"rules_changed"}
        assert {row["ruleset"] for row in made} == {"types7"}
        assert [row["seq"] for row in in_order(made)] == [
            row["seq"] + 1 for row in newest(stage.changes[:before])
        ]
        tiers = {row["customer_id"]: row["tier"] for row in plain_rows(await second.snapshot())}
        assert tiers == {row["customer_id"]: row["to_tier"] for row in made}

        # It is gone before it could write a checkpoint; the change of rules is not told again.
        stage.put(*orders(9)[7:], days=1)
        await stage.read(second)
        after = stage.changes
        third = stage.runner("types7")
        await third.recover()
        await stage.read(third)
        assert stage.changes == after
        assert plain_rows(await third.snapshot()) == plain_rows(await second.snapshot())
        await third.checkpoint()

        with pytest.raises(StateError, match="belongs to ruleset types7, not to rfm8"):
            await stage.runner().recover()

    asyncio.run(scene())


def newest(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({row["customer_id"]: row for row in in_order(changes)}.values())


def test_other_rules_do_not_take_over_after_a_crash(stage: Stage) -> None:
    async def scene() -> None:
        first = stage.runner()
        await first.recover()
        stage.put(*orders(3))
        await stage.read(first)
        await first.checkpoint()
        stage.put(*orders(5)[3:])
        await stage.read(first)
        with pytest.raises(StateError, match="clean stop"):
            await stage.runner("types7", resegment=True).recover()

    asyncio.run(scene())


def test_a_backfill_is_a_replay_and_then_goes_live(stage: Stage) -> None:
    async def scene() -> None:
        events = [event(f"c{i % 3}", f"o{i}", 0, 50_000) for i in range(9)]
        for number, each in enumerate(events):
            stage.put(each, days=number * 20)
        as_of_us = START_US + 400 * DAY_US
        backfill = {"clock": "event", "until_end": True, "as_of_us": as_of_us, "step_changes": 1}
        first = stage.runner(**backfill)
        await first.recover()
        stage.put(event("late", "x", 0), days=500)  # after the start: not part of it
        await stage.read(first)
        assert first.finished
        expected = Engine("rfm8")
        rows = [each | {"occurred_at_us": START_US + n * 20 * DAY_US} for n, each in enumerate(events)]
        told = plain_rows(expected.step_canonical(canonical_batch(rows)).changes) + plain_rows(
            expected.advance(as_of_us)
        )
        assert in_order(stage.changes) == in_order(told)
        assert {row["mode"] for row in told} == {"replay"}
        assert plain_rows(await first.snapshot()) == plain_rows(expected.snapshot())

        # Again, after a crash in the end: nothing is told twice.
        again = stage.runner(**backfill)
        await again.recover()
        assert again.position == 0
        await stage.read(again)
        await again.idle(stage.world.end, 0)
        assert [row for row in stage.changes if row["customer_id"] != "late"] == stage.changes[: len(told)]
        assert [row["mode"] for row in stage.changes[len(told) :]] == ["replay"]
        await again.stop()

        live = stage.runner()
        assert await live.recover() == 10
        stage.put(event("later", "x", 0), days=501)
        await stage.read(live)
        assert [(row["customer_id"], row["mode"]) for row in stage.changes[len(told) + 1 :]] == [
            ("later", "live")
        ]

    asyncio.run(scene())


class Deaf(ScriptedLog):
    """A log that does not answer any more from some call on."""

    is_deaf = False
    does_commit = False

    async def commit(self, step: Step, token: str) -> None:
        if self.does_commit:
            await super().commit(step, token)
        if self.is_deaf:
            raise TransportError("nobody answers")
        if not self.does_commit:
            await super().commit(step, token)

    async def open(self) -> Any:  # noqa: ANN401
        if self.is_deaf:
            raise TransportError("nobody answers")
        return await super().open()


@pytest.mark.parametrize("does_commit", [False, True])
def test_a_step_in_doubt_is_in_no_checkpoint_and_no_snapshot(stage: Stage, *, does_commit: bool) -> None:
    async def scene() -> None:
        log = Deaf(stage.world)
        runner = stage.runner(log=log)
        await runner.recover()
        stage.put(*orders(3))
        await stage.read(runner)
        assert await runner.checkpoint()
        told = len(stage.changes)
        log.is_deaf, log.does_commit = True, does_commit
        late_us = START_US + 100 * DAY_US
        with pytest.raises(TransportError, match="after 3 retries"):
            await runner.idle(stage.world.end, late_us)
        assert not await runner.checkpoint()
        with pytest.raises(TransportError):
            await runner.snapshot()
        with pytest.raises(StateError, match="not resumed"):
            await runner.idle(stage.world.end, late_us)
        log.is_deaf = False
        assert await runner.resume() == 3
        assert len(stage.changes) == told + 3
        assert await runner.checkpoint()
        assert not await runner.checkpoint()
        assert runner.stats.changes.total() == told + 3

    asyncio.run(scene())


def test_who_was_replaced_is_fenced_and_tells_nothing(stage: Stage) -> None:
    async def scene() -> None:
        old, new = stage.runner(), stage.runner()
        await old.recover()
        stage.put(*orders(3))
        await new.recover()
        await stage.read(new)
        told = stage.changes
        with pytest.raises(FencedError):
            await stage.read(old)
        assert stage.changes == told
        assert old.stats.state == "fenced"
        # It is given the partition back, and finds that others were there.
        await old.resume()
        await stage.read(old)
        assert stage.changes == told

    asyncio.run(scene())


def test_parked_it_goes_on_without_loading_anything(stage: Stage) -> None:
    async def scene() -> None:
        runner = stage.runner()
        await runner.recover()
        stage.put(*orders(5))
        await stage.read(runner)
        await runner.park()
        stage.put(*orders(9)[5:])
        await stage.read(runner)  # arrives too late
        assert runner.position == 5
        assert await runner.resume() == 5
        await stage.read(runner)
        assert runner.stats.replayed == 0
        assert runner.stats.applied == 9

    asyncio.run(scene())


def test_a_year_passes_in_steps(stage: Stage) -> None:
    async def scene() -> None:
        runner = stage.runner("rfm8-annual", step_changes=1)
        await runner.recover()
        for number in range(30):
            stage.put(event(f"c{number}", "o", 0, 1), days=number)
        await stage.read(runner)
        before = len(stage.world.history)
        await runner.idle(stage.world.end, START_US + 800 * DAY_US)
        passed = stage.world.history[before:]
        assert len(passed) >= 30
        assert all(step.tick is not None and step.position == 30 for step in passed)
        expected = Engine("rfm8-annual", mode="live")
        rows = [event(f"c{n}", "o", START_US + n * DAY_US, 1) for n in range(30)]
        told = plain_rows(expected.step_canonical(canonical_batch(rows)).changes)
        told += plain_rows(expected.advance(START_US + 800 * DAY_US))
        assert in_order(stage.changes) == in_order(told)
        # Nothing is due any more: nothing is committed.
        await runner.idle(stage.world.end, START_US + 801 * DAY_US)
        assert len(stage.world.history) == before + len(passed)

    asyncio.run(scene())


def test_a_checkpoint_that_fails_is_counted_and_the_work_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        runner = stage.runner(checkpoint_interval_s=1)
        await runner.recover()

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        for number in range(3):
            stage.world.now_us += 10_000_000
            stage.put(*orders(number + 1)[number:])
            await stage.read(runner)
            await asyncio.sleep(0.01)
        assert runner.stats.checkpoint_failures >= 2
        assert runner.stats.checkpoints == 0
        monkeypatch.setattr(os, "fsync", lambda _: None)
        await runner.stop()
        assert runner.stats.checkpoints == 1
        assert runner.stats.checkpoint_offset == 3

    asyncio.run(scene())


def test_the_counts(stage: Stage) -> None:
    async def scene() -> None:
        runner = stage.runner()
        await runner.recover()
        stage.put(*orders(4), orders(1)[0], event("c0", "nobody knows", 0, type="refunded"))
        stage.world.records.append(Record(stage.world.end, b"{", START_US // 1000, [None]))
        stage.world.end += 1
        await stage.read(runner)
        stats = runner.stats
        assert (stats.records, stats.applied, stats.duplicates) == (7, 4, 1)
        assert stats.rejected == {"unknown_order": 1, "malformed": 1}
        assert stats.changes.total() == len(stage.changes)
        assert stats.changes["first_order", "100"] == 3
        assert (stats.position, stats.committed, stats.end, stats.lag) == (7, 7, 7, 0)
        assert (stats.customers, stats.orders) == (3, 4)
        assert stats.log_us == START_US
        assert sum(stats.commit.counts) == 2

    asyncio.run(scene())
