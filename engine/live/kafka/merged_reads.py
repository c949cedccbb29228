"""Reads the partitions of several topics for one lane: seeks in each, and merges what each brings."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from rfmstream.engine.live.kafka.lane import BACKLOG_BYTES_MAX, Reads
from rfmstream.engine.live.kafka.merged_log import MergedPartitionLog
from rfmstream.engine.live.kafka.transport import Fetched
from rfmstream.engine.live.merging import Merger
from rfmstream.engine.live.model import RawRecords, Source
from rfmstream.schemas.errors import ConfigError

_NOTHING = RawRecords([], [], [], [], [], -1)


class MergedReads:
    """What the lane of several topics' partitions asks of the consumer.

    In      reads      of single partitions
            log        tells the order of before, and notes that of now
            ranks      of each topic: of records of one time, that of the lowest comes first
            until_end  read each topic only to where it ended when the partition was taken over
            receive    takes what was merged; must not wait
    """

    def __init__(  # noqa: PLR0913 - each by name
        self,
        source: Source,
        reads: Reads,
        log: MergedPartitionLog,
        *,
        ranks: Mapping[str, int],
        until_end: bool,
        receive: Callable[[Source, Fetched], None],
    ) -> None:
        self._source = source
        self._reads = reads
        self._log = log
        self._until_end = until_end
        self._receive = receive
        self._topics = {part: at for at, part in enumerate(source.parts)}
        self._merger = Merger([ranks[part.topic] for part in source.parts])
        self._expected = [0] * len(ranks)
        self._epoch = 0
        self._is_withheld = self._is_due = False

    async def seek_lane(self, source: Source, offset: int, epoch: int) -> bool:
        """Read from a place on; False if the partitions are not ours any more."""
        assert source == self._source
        assert self._log.order is not None
        stops = self._log.ends if self._until_end else None
        offsets = self._merger.begin(self._log.order, offset, stops)
        self._expected, self._epoch = list(offsets), epoch
        self._is_withheld = False
        found = [
            await self._reads.seek_lane(part, at, epoch)
            for part, at in zip(source.parts, offsets, strict=True)
        ]
        return all(found)

    def withhold(self, source: Source) -> None:
        """Bring nothing until `release`."""
        assert source == self._source
        self._is_withheld = True
        self._hold_back()

    def release(self, source: Source) -> None:
        """Bring more."""
        assert source == self._source
        self._is_withheld = False
        self._hold_back()

    def receive(self, part: Source, fetched: Fetched) -> None:
        """Take a fetch of one of the partitions; what can be read is passed on once those of this poll are there."""
        if fetched.epoch != self._epoch:
            return
        topic = self._topics[part]
        if fetched.begin != self._expected[topic]:
            # A fetch was dropped on the way: the lane sees that this is not what it waits for, and seeks.
            self._receive(self._source, Fetched(self._epoch, -1, _NOTHING, 0, None))
            return
        self._expected[topic] = fetched.records.position
        self._merger.receive(
            topic,
            fetched.records,
            fetched.end,
            time.time_ns() // 1_000_000,
            fetched.confirmed_us,
            is_read=fetched.is_read,
        )
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        self._is_due = False
        while (merged := self._merger.take()) is not None:
            self._receive(
                self._source,
                Fetched(self._epoch, merged.begin, merged.records, merged.end, merged.confirmed_us),
            )
        self._hold_back()

    def _hold_back(self) -> None:
        """Ask for no more of a topic while much of it waits, for the lane or for another topic."""
        for part, topic in self._topics.items():
            if self._is_withheld or self._merger.waiting_bytes(topic) >= BACKLOG_BYTES_MAX:
                self._reads.withhold(part)
            else:
                self._reads.release(part)


def read_as_one(topics: Sequence[str], parts: Iterable[Source]) -> list[Source]:
    """Return what partitions of some topics make together.

    Errors  ConfigError  some of a number lack
    """
    given = set(parts)
    sources = sorted({Source.of(topics, part.partition) for part in given})
    for source in sources:
        if not given.issuperset(source.parts):
            raise ConfigError(
                f"the partitions {', '.join(map(str, source.parts))} are read as one, and the group parts them: "
                "workers of this app read other topics",
                key="input_topics",
                fix="give all workers of an app the same input_topics",
            )
    return sources
