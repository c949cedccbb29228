"""Views that join a running state with files of history: as a run of their own over the files and then the topic."""

import asyncio
import shutil
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from live_views import ALL, BY_STORE, HONG_KONG, ViewsStage, alone, by_customer, by_id, history, read_some
from live_world import plain
from oracle_days import DAY_US
from twins import plain_rows

from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.joining import Joining
from rfmstream.engine.live.runner import Runner
from rfmstream.engine.live.view_history import ViewHistory
from rfmstream.schemas.errors import StateError
from rfmstream.schemas.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

BEFORE = Plan((ALL,))
AFTER = Plan((BY_STORE, ALL, HONG_KONG))
EVENTS = history(11, 400)
OLD, TOPIC, LATER = EVENTS[:240], EVENTS[160:320], EVENTS[320:]
"""What the file holds, the topic before the views join, and the topic from then on: some orders are in both."""
END_US = EVENTS[-1]["occurred_at_us"] + 100 * DAY_US
SEED = 3


@pytest.fixture
def stage(tmp_path: Path) -> ViewsStage:
    return ViewsStage(tmp_path / "state")


@pytest.fixture
def files(tmp_path: Path) -> ViewHistory:
    return ViewHistory([written(tmp_path / "history.jsonl", OLD)], partitions=1)


def written(path: Path, events: list[dict[str, Any]]) -> Path:
    """Write orders to a file in any order: two lines that are none among them."""
    rows = [plain(each) | ({"store": each["store"]} if each["store"] else {}) for each in events]
    Random(SEED).shuffle(rows)  # noqa: S311 - no secret
    lines = [orjson.dumps(row) for row in rows]
    path.write_bytes(b"\n".join([b'{"customer_id": "c0"}', *lines, b"{}"]) + b"\n")
    return path


async def begun(stage: ViewsStage) -> None:
    """Let a worker of one view read the topic and stop in good order."""
    runner = stage.views(BEFORE)
    await runner.recover()
    stage.put_orders(TOPIC)
    await read_some(stage, runner, Random(SEED))  # noqa: S311
    await runner.stop()


async def joined(stage: ViewsStage, runner: Runner) -> None:
    """Take the partition over, and read what is there, without any checkpoint."""
    runner._save_in_time = lambda: None  # type: ignore[method-assign]
    await runner.recover()
    await read_some(stage, runner, Random(SEED))  # noqa: S311 - no secret


async def ended(stage: ViewsStage, runner: Runner) -> None:
    """Read what comes later, and let time pass to the end."""
    stage.put_orders(LATER)
    await read_some(stage, runner, Random(SEED))  # noqa: S311
    stage.world.now_us = END_US
    await runner.idle(stage.world.end, END_US)


def hold_all(stage: ViewsStage, runner: Runner) -> None:
    """Hold that each view told all that it gives by itself, once."""
    for view in (BY_STORE, HONG_KONG):
        expected = alone(view, [*TOPIC, *LATER], END_US, OLD)
        for kind in ("changes", "signals"):
            found = by_customer(stage.told(kind, view.name))
            live = {key: [row | {"mode": "live"} for row in rows] for key, rows in found.items()}
            assert live == by_customer(expected[kind]), (view.name, kind)
        found = by_id(plain_rows(asyncio.run(runner.snapshot(END_US, view.name))))
        assert found == by_id(expected["snapshot"])
    alls = alone(ALL, [*TOPIC, *LATER], END_US)
    assert by_customer(stage.told("changes", "all")) == by_customer(alls["changes"])


class Killed(BaseException):
    """The process is gone."""


def killing(monkeypatch: pytest.MonkeyPatch, name: str, after: int) -> None:
    """Let the process end after so many calls of a method."""
    method: Callable[..., Any] = getattr(Joining, name)
    calls = 0

    def called(*args: Any, **options: Any) -> Any:  # noqa: ANN401
        nonlocal calls
        calls += 1
        if calls > after:
            raise Killed
        return method(*args, **options)

    monkeypatch.setattr(Joining, name, called)


@pytest.mark.parametrize("step_changes", [3, 50, 10_000])
def test_a_view_begins_with_a_file_of_history(
    stage: ViewsStage, files: ViewHistory, monkeypatch: pytest.MonkeyPatch, step_changes: int
) -> None:
    # As many steps of the file as there are batches of it.
    monkeypatch.setattr("rfmstream.engine.live.joining.STEP_ROWS", 20)
    options = {"history": files, "step_changes": step_changes}

    async def scene() -> Runner:
        await begun(stage)
        for name, after in (("read_history", 4), ("read_history", 11), ("read", 2), ("arrive", 0)):
            runner = stage.views(AFTER, **options)
            with monkeypatch.context() as patch:
                killing(patch, name, after)
                with pytest.raises(Killed):
                    await joined(stage, runner)
            assert not runner._ownership or not runner._ownership.is_joined
        for _ in range(2):
            # Killed after it has joined, before it could write a checkpoint.
            runner = stage.views(AFTER, **options)
            await joined(stage, runner)
        await ended(stage, runner)
        return runner

    hold_all(stage, asyncio.run(scene()))
    assert len(stage.world.ticks) - len(stage.world.passing) == 0 or step_changes < 10_000
    # Whoever was erased and has not come back is in no topic of newest changes.
    encoder = {view.name: Encoder(view.ruleset, source="/test", view=view.name) for view in AFTER.views}
    current: dict[bytes, bool] = {}
    for step in stage.world.history:
        for told in step.told:
            for _, records in encoder[told.view].parts(told.changes, told.forgotten):
                current |= {record.key: record.value is None for record in records}
    for view in (BY_STORE, HONG_KONG):
        last = {
            key: rows[-1]["reason"] == "erased"
            for key, rows in by_customer(alone(view, [*TOPIC, *LATER], END_US, OLD)["changes"]).items()
        }
        for (population, customer), is_gone in last.items():
            assert current[orjson.dumps([view.name, population, customer])] == is_gone


def test_a_checkpoint_follows_at_once_and_the_files_are_not_read_again(
    stage: ViewsStage, files: ViewHistory, tmp_path: Path
) -> None:
    async def scene() -> Runner:
        await begun(stage)
        runner = stage.views(AFTER, history=files)
        await runner.recover()
        await read_some(stage, runner, Random(SEED))  # noqa: S311 - no secret
        assert runner._writer is not None
        assert await runner._writer
        (tmp_path / "history.jsonl").unlink()
        # The setting may stay.
        gone = ViewHistory([tmp_path / "history.jsonl"], partitions=1)
        runner = stage.views(AFTER, history=gone)
        await runner.recover()
        await ended(stage, runner)
        return runner

    hold_all(stage, asyncio.run(scene()))


def test_other_files_than_it_began_with_are_refused(
    stage: ViewsStage, files: ViewHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ViewHistory([written(tmp_path / "other.jsonl", OLD[:-1])], partitions=1)

    async def scene() -> Runner:
        await begun(stage)
        first = stage.views(AFTER, history=files, step_changes=3)
        with monkeypatch.context() as patch:
            killing(patch, "read", 0)
            with pytest.raises(Killed):
                await joined(stage, first)
        for wrong in (other, None):
            with pytest.raises(
                StateError, match=r"view by-store had begun to tell its history.*--accept-gap"
            ):
                await stage.views(AFTER, history=wrong).recover()
        runner = stage.views(AFTER, history=files)
        await joined(stage, runner)
        # It has joined, but there is no checkpoint of it.
        for wrong in (other, None):
            with pytest.raises(
                StateError, match=r"joined with files of history .xxh3_128 .*exactly those files"
            ):
                await stage.views(AFTER, history=wrong).recover()
        again = stage.views(AFTER, history=files)
        await again.recover()
        await ended(stage, again)
        # Without any checkpoint the topic alone does not say what the view is.
        shutil.rmtree(stage.root)
        with pytest.raises(
            StateError, match=r"by-store had begun with files of history.*restore a checkpoint"
        ):
            await stage.views(AFTER, history=files).recover()
        return again

    hold_all(stage, asyncio.run(scene()))


def test_a_file_goes_no_further_than_the_state_and_needs_one(
    stage: ViewsStage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    whole = ViewHistory([written(tmp_path / "all.jsonl", EVENTS)], partitions=1)

    async def scene() -> Runner:
        with pytest.raises(StateError, match=r"there is no running state.*produce the history"):
            await stage.views(AFTER, history=whole).recover()
        await begun(stage)
        runner = stage.views(AFTER, history=whole)
        await joined(stage, runner)
        await ended(stage, runner)
        return runner

    runner = asyncio.run(scene())
    expected = alone(BY_STORE, [*TOPIC, *LATER], END_US, EVENTS[:320])
    found = by_customer(stage.told("changes", "by-store"))
    live = {key: [row | {"mode": "live"} for row in rows] for key, rows in found.items()}
    assert live == by_customer(expected["changes"])
    assert runner.stats.committed == stage.world.end
    [told] = [record for record in caplog.records if record.message == "views have joined"]
    # An order without an id is none.
    assert told.after_the_state == sum(each["type"] == "erased" or each["order_id"] != "" for each in LATER)
    begins = [record for record in caplog.records if record.message.startswith("views begin with files")]
    assert [record.files for record in begins] == [str(tmp_path / "all.jsonl")]
    assert any("malformed" in record.message or "missing" in record.message for record in caplog.records)
