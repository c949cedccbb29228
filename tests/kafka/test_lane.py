"""A lane between a consumer and a runner that note what they are asked; no broker."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from rfmstream.engine.live.kafka.lane import BACKLOG_BYTES_MAX, Lane
from rfmstream.engine.live.kafka.transport import Fetched
from rfmstream.engine.live.model import FencedError, RawRecords, Source
from rfmstream.engine.live.stats import PartitionStats
from rfmstream.schemas.errors import StateError

SOURCE = Source("orders", 0)


class Runs:
    """A runner that is at offset 10 and notes its calls; `gate` holds up its feeds."""

    finished = False

    def __init__(self, *failures: BaseException) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.position = 10
        self.live = True
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures = list(failures)

    async def recover(self) -> int:
        self.calls.append(("recover", None))
        return self.position

    async def resume(self) -> int:
        self.calls.append(("resume", None))
        return self.position

    async def feed(self, records: RawRecords) -> None:
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.calls.append(("feed", list(records.offsets)))
        self.position = records.position

    async def idle(self, position: int, confirmed_us: int) -> None:
        self.calls.append(("idle", (position, confirmed_us)))

    async def park(self) -> None:
        self.calls.append(("park", None))

    async def stop(self) -> None:
        self.calls.append(("stop", None))

    async def close(self) -> None:
        self.calls.append(("close", None))


class Notes:
    """A consumer that notes what it is asked, and the lane's errors."""

    def __init__(self) -> None:
        self.seeks: list[tuple[int, int]] = []
        self.withheld = False
        self.errors: list[BaseException] = []

    async def seek_lane(self, source: Source, offset: int, epoch: int) -> bool:
        assert source == SOURCE
        self.seeks.append((offset, epoch))
        return True

    def withhold(self, source: Source) -> None:
        self.withheld = source == SOURCE

    def release(self, source: Source) -> None:
        self.withheld = self.withheld and source != SOURCE


def fetched(
    epoch: int, begin: int, end: int, *, value: bytes | None = None, confirmed_us: int | None = None
) -> Fetched:
    offsets = range(begin, end)
    nothing, values = [None] * len(offsets), [value] * len(offsets)
    records = RawRecords(nothing, values, [()] * len(offsets), [0] * len(offsets), offsets, end)
    return Fetched(epoch, begin, records, end, confirmed_us)


def drive(test: Callable[[Lane, Any, Notes], Awaitable[None]], *failures: BaseException) -> None:
    async def run() -> None:
        runner: Any = Runs(*failures)
        notes = Notes()
        lane = Lane(
            SOURCE,
            runner,
            PartitionStats(),
            parked=False,
            reads=notes,
            gather_s=0,
            failed=notes.errors.append,
            finished=lambda: None,
        )
        await settled()
        assert notes.seeks == [(10, 1)]
        await test(lane, runner, notes)
        await lane.stop()

    asyncio.run(run())


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_what_waits_is_fed_as_one() -> None:
    async def test(lane: Lane, runner: Runs, notes: Notes) -> None:
        runner.gate.clear()
        lane.receive(fetched(1, 10, 12))
        await settled()
        lane.receive(fetched(1, 12, 13, value=bytes(BACKLOG_BYTES_MAX)))
        lane.receive(fetched(1, 13, 15, confirmed_us=99))
        assert notes.withheld
        runner.gate.set()
        await settled()
        assert not notes.withheld
        assert runner.calls[1:] == [("feed", [10, 11]), ("feed", [12, 13, 14]), ("idle", (15, 99))]

    drive(test)


def test_time_passes_behind_records_no_oftener_than_in_a_silent_partition() -> None:
    async def test(lane: Lane, runner: Runs, _: Notes) -> None:
        for number, confirmed_us in enumerate(
            (1_000_000, 1_000_001, 1_199_999, None, 1_200_000, 1_200_001), 10
        ):
            lane.receive(fetched(1, number, number + 1, confirmed_us=confirmed_us))
            await settled()
        lane.receive(fetched(1, 16, 16, confirmed_us=1_200_002))
        await settled()
        assert [each for what, each in runner.calls if what == "feed"] == [
            [number] for number in range(10, 16)
        ]
        idles = [each for what, each in runner.calls if what == "idle"]
        assert idles == [(11, 1_000_000), (15, 1_200_000), (16, 1_200_002)]

    drive(test)


def test_that_the_end_is_another_one_is_no_work() -> None:
    async def test(lane: Lane, runner: Runs, _: Notes) -> None:
        lane.receive(fetched(1, 10, 10))
        await settled()
        assert runner.calls[1:] == [("idle", (10, None))], "after a seek it is told"
        lane.receive(fetched(1, 10, 10)._replace(end=40))
        lane.receive(fetched(1, 10, 12))
        lane.receive(fetched(1, 12, 12)._replace(end=50))
        await settled()
        assert runner.calls[2:] == [("feed", [10, 11])]
        assert lane.stats.end == 50
        runner.live = False
        lane.receive(fetched(1, 12, 12)._replace(end=60))
        await settled()
        assert runner.calls[3:] == [("idle", (12, None))]

    drive(test)


def test_a_gap_is_found_by_what_brings_nothing() -> None:
    async def test(lane: Lane, runner: Runs, notes: Notes) -> None:
        lane.receive(fetched(1, 10, 12))
        await settled()
        lane.receive(fetched(1, 15, 15)._replace(end=40))
        await settled()
        assert notes.seeks == [(10, 1), (12, 2)]
        assert [each for what, each in runner.calls if what == "feed"] == [[10, 11]]

    drive(test)


def test_a_lane_that_is_behind_asks_for_no_more() -> None:
    async def test(lane: Lane, runner: Runs, notes: Notes) -> None:
        runner.gate.clear()
        for begin in range(10, 14):
            assert not notes.withheld
            lane.receive(fetched(1, begin, begin + 1, value=bytes(BACKLOG_BYTES_MAX // 4)))
        assert notes.withheld
        runner.gate.set()

    drive(test)


def test_a_gap_is_read_again() -> None:
    async def test(lane: Lane, runner: Runs, notes: Notes) -> None:
        lane.receive(fetched(1, 10, 12))
        await settled()
        lane.receive(fetched(1, 13, 15))
        await settled()
        assert notes.seeks[1:] == [(12, 2)]
        lane.receive(fetched(1, 15, 17))
        lane.receive(fetched(2, 12, 15))
        await settled()
        assert runner.calls[1:] == [("feed", [10, 11]), ("feed", [12, 13, 14])]

    drive(test)


def test_a_parked_lane_takes_nothing_more_and_keeps_its_state() -> None:
    async def test(lane: Lane, runner: Runs, notes: Notes) -> None:
        assert await lane.park() is runner
        lane.receive(fetched(1, 10, 12))
        await settled()
        assert runner.calls == [("recover", None), ("park", None)]
        assert notes.errors == []

    drive(test)


def test_an_error_ends_the_worker_and_the_state_is_dropped() -> None:
    error = StateError("damaged")

    async def test(lane: Lane, runner: Runs, notes: Notes) -> None:
        lane.receive(fetched(1, 10, 12))
        await settled()
        assert notes.errors == [error]
        assert await lane.park() is None
        assert runner.calls == [("recover", None), ("close", None)]

    drive(test, error)


def test_a_lane_that_was_fenced_waits_for_the_group() -> None:
    async def test(lane: Lane, runner: Runs, notes: Notes) -> None:
        lane.receive(fetched(1, 10, 12))
        await settled()
        assert notes.errors == []
        assert notes.seeks == [(10, 1)]
        assert await lane.park() is runner

    drive(test, FencedError("taken over"))
