"""An erased customer leaves the files of a runner's checkpoints in time, whatever else happens, and its last change."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from kernel_shards import event
from live_stage import Stage
from live_world import START_US
from oracle_days import DAY_US
from twins import in_order, plain_rows

from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.runner import Runner
from rfmstream.schemas.ruleset import load_ruleset

WEEK_US = 7 * DAY_US
MINUTE_US = 60_000_000


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def holding(root: Path, *texts: bytes) -> list[str]:
    """Return the checkpoints that hold one of the texts."""
    found = {
        path.parent.name
        for path in root.rglob("*")
        if path.is_file() and any(text in path.read_bytes() for text in texts)
    }
    return sorted(found)


def erased(customer: str) -> dict[str, Any]:
    return event(customer, "", 0, 0, type="erased")


def paid(customer: str, *orders: str) -> list[dict[str, Any]]:
    return [event(customer, order, 0, 50_000, event_id=f"event-of-{order}") for order in orders]


async def passed(stage: Stage, runner: Runner, us: int) -> None:
    """Let time go by and the runner look."""
    stage.world.now_us += us
    await runner.idle(runner.position, stage.world.now_us)
    if runner._writer is not None:
        await runner._writer


def test_a_checkpoint_that_holds_an_erased_customer_goes_in_time(stage: Stage) -> None:
    async def scene() -> None:
        runner = stage.runner(erase_within_us=WEEK_US)
        await runner.recover()
        for n in range(3):
            stage.put(*paid("who-goes", f"secret-{n}"), *paid("who-stays", f"order-{n}"), days=n)
            await stage.read(runner)
            assert await runner.checkpoint()
        secret = b"secret-", b"event-of-secret-"
        assert len(holding(stage.root, *secret)) == 3
        stage.put(erased("who-goes"), days=3)
        await stage.read(runner)
        assert await runner.checkpoint()
        assert len(holding(stage.root, *secret)) == 2  # as many are kept, and the newest has nothing of it
        await passed(stage, runner, WEEK_US - MINUTE_US)
        assert len(holding(stage.root, *secret)) == 2
        await passed(stage, runner, 2 * MINUTE_US)
        assert holding(stage.root, *secret) == []
        assert len(holding(stage.root, b"order-")) == 1
        again = stage.runner()
        await again.recover()
        assert in_order(plain_rows(await again.snapshot())) == in_order(plain_rows(await runner.snapshot()))
        assert again.stats.checkpoint_failures == runner.stats.checkpoint_failures == 0

    asyncio.run(scene())


@pytest.mark.parametrize("has_saved", [True, False])
def test_it_goes_in_time_after_a_kill_too(stage: Stage, has_saved: bool) -> None:  # noqa: FBT001 - drawn
    async def scene() -> None:
        first = stage.runner(erase_within_us=WEEK_US)
        await first.recover()
        stage.put(*paid("who-goes", "secret"), *paid("who-stays", "order"))
        await stage.read(first)
        assert await first.checkpoint()
        stage.put(erased("who-goes"), days=1)
        await stage.read(first)
        if has_saved:
            assert await first.checkpoint()
        # It is killed. Another comes days later, and nothing happens any more.
        stage.world.now_us = START_US + 3 * DAY_US
        second = stage.runner(erase_within_us=WEEK_US)
        await second.recover()
        await stage.read(second)
        assert len(holding(stage.root, b"secret")) == 1
        await passed(stage, second, 5 * DAY_US - MINUTE_US)
        assert len(holding(stage.root, b"secret")) == 1
        await passed(stage, second, 2 * MINUTE_US)
        assert holding(stage.root, b"secret") == []
        assert holding(stage.root, b"order")
        assert second._ownership is not None
        assert second._ownership.partition.erasures.noted == []

    asyncio.run(scene())


def test_a_place_that_cannot_be_cleaned_is_tried_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        runner = stage.runner(erase_within_us=WEEK_US)
        await runner.recover()
        stage.put(*paid("who-goes", "secret"))
        await stage.read(runner)
        assert await runner.checkpoint()
        stage.put(erased("who-goes"), days=1)
        await stage.read(runner)

        with monkeypatch.context() as patch:
            patch.setattr(runner._context.store, "_fs", Refusing(runner._context.store._fs))
            await passed(stage, runner, WEEK_US + MINUTE_US)
            assert holding(stage.root, b"secret")
            assert runner.stats.checkpoint_failures == 1
        await passed(stage, runner, MINUTE_US)
        assert holding(stage.root, b"secret") == []

    asyncio.run(scene())


class Refusing:
    """A file system that removes nothing."""

    def __init__(self, fs: Any) -> None:  # noqa: ANN401 - pyarrow's
        self._fs = fs

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._fs, name)

    def delete_dir(self, path: str) -> None:
        raise OSError(30, f"read-only: {path}")


def test_the_topic_of_newest_changes_forgets_who_has_not_come_back(stage: Stage) -> None:
    rules = load_ruleset("rfm8").without_signals()

    async def scene() -> None:
        runner = stage.runner(rules)
        await runner.recover()
        stage.put(
            *paid("had-a-tier", "a"), *paid("had-none", "b"), *paid("is-back", "c"), *paid("stays", "d")
        )
        stage.put(event("had-none", "b", 0, 0, type="cancelled"), days=1)
        await stage.read(runner)
        for customer in ("had-a-tier", "had-none", "is-back", "nobody-knew"):
            stage.put(erased(customer), days=2)
        stage.put(*paid("is-back", "c2"), *paid("stays", "d2"), days=3)
        stage.put(event("had-none", "x", 0, -5, type="adjusted"), days=3)
        await stage.read(runner)

    asyncio.run(scene())
    encoder = Encoder(rules, source="/test")
    current = {}
    for step in stage.world.history:
        for _, records in encoder.parts(step.changes, step.forgotten):
            current |= {record.key: record.value for record in records}
    assert {key: value is None for key, value in current.items()} == {
        b"had-a-tier": True,
        b"had-none": True,
        b"is-back": False,
        b"nobody-knew": True,
        b"stays": False,
    }
    assert [row["customer_id"] for row in stage.changes if row["reason"] == "erased"] == [
        "had-a-tier",
        "is-back",
    ]
