"""The delivery of one destination: its group, its lanes, its guard, and the commits of what has arrived.

    read     records of the topics become items in the lanes; too many wait: reading pauses
    send     the lanes let items go (`sender`)
    commit   the lowest unfinished offset of each partition, and the finished ones beyond it
    scout    with a guard: counts ahead of all that (`scout`)

Order of effects: an event is finished when the destination has answered or the rejected row is kept; only then its
offset can be committed. So a process may die anywhere, and what it had not committed is sent again.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from rfmstream.engine.deliver.broker import BrokerConfig
from rfmstream.engine.deliver.client import HttpClient
from rfmstream.engine.deliver.config import Destination
from rfmstream.engine.deliver.kafka.admin import committed, partition_counts
from rfmstream.engine.deliver.kafka.group import GroupConsumer
from rfmstream.engine.deliver.kafka.plain import PlainConsumer
from rfmstream.engine.deliver.kafka.producer import Producer
from rfmstream.engine.deliver.lanes import Commit
from rfmstream.engine.deliver.model import Event, Item, Place
from rfmstream.engine.deliver.progress import decode_finished
from rfmstream.engine.deliver.records import Record, UnreadableError, read_event, unread_event
from rfmstream.engine.deliver.retention import Facts, watch_retention
from rfmstream.engine.deliver.scout import Scout
from rfmstream.engine.deliver.sender import Sender
from rfmstream.schemas.errors import TransportError

_log = logging.getLogger(__name__)

WAITING_MAX: Final = 20_000
"""Records that were read and are not finished: beyond that reading pauses, and Kafka keeps the queue."""

COMMIT_S: Final = 0.02
_TOPICS_S: Final = 15.0
_REVOKE_S: Final = 5.0


class Runner:
    """One destination at work.

    In  customers  how many there are, for the guard; None: counted
    """

    def __init__(self, destination: Destination, broker: BrokerConfig, customers: int | None = None) -> None:
        self.destination = destination
        self.group = broker.group(destination.name)
        self.facts = Facts()
        self.sender: Sender | None = None
        self.scout: Scout | None = None
        if destination.guard is not None:
            self.scout = Scout(
                destination.guard,
                broker,
                destination.name,
                customers,
                with_replay="replay" in destination.filter.modes,
            )
        self._broker = broker
        self._begin_anew()
        self._released_ms = 0

    def renew(self) -> None:
        """Forget what a run that failed has left, before the next one."""
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._kinds: dict[str, str] = {}
        self._later: set[str] = set()
        self._finished: dict[Place, set[int]] = {}
        self._staged: deque[tuple[int, Item]] = deque()
        self._last_commits: dict[Place, Commit] = {}
        self._positions: dict[Place, int] = {}
        self._consumer: GroupConsumer | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set, then end in good order.

        Errors  ConfigError, TransportError
        """
        place = self.destination
        client = HttpClient(
            timeout_s=place.timeout_s,
            allow_private=place.allow_private,
            ca_file=place.ca_file,
            concurrency=place.pace.concurrency,
        )
        producer = Producer(self._broker)
        try:
            await producer.start()
            self.sender = Sender(place, client, producer, seed=time.time_ns())
            self._hold()
            topics = await self._topics(stop)
            if topics:
                self._consumer = GroupConsumer(self._broker, self.group, self._came, self._went)
                await self._consumer.start(topics)
                self.facts.has_joined = True
                await self._work(stop)
        finally:
            if self._consumer is not None:
                await self._consumer.stop()
            await producer.stop()
            await client.close()

    def release(self, until_ms: int) -> None:
        """Go on, as far as the guard or an answer that parked the destination is concerned."""
        self._released_ms = max(self._released_ms, until_ms)
        if self.scout is not None:
            self.scout.release(until_ms)
        sender = self.sender
        if sender is not None:
            if sender.lanes.parked and until_ms >= sender.parked_ms:
                sender.lanes.unpark()
            sender.wake.set()

    async def _work(self, stop: asyncio.Event) -> None:
        sender = self._sender()
        stopping = asyncio.create_task(stop.wait())
        tasks = [
            asyncio.create_task(one)
            for one in (
                self._read(),
                sender.run(),
                self._commit(),
                self._watch_topics(),
                watch_retention(self.facts, self._unfinished, self._broker, self.destination.name),
                *((self.scout.run(), self._watch_guard(self.scout)) if self.scout else ()),
            )
        ]
        try:
            done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            failed = [task for task in done if task is not stopping]
        finally:
            stopping.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            sender.lanes.held = "stopping"
            await sender.drain()
            await self._commit_once()
        for task in failed:
            task.result()

    def _sender(self) -> Sender:
        assert self.sender is not None, "the runner runs"
        return self.sender

    def _group(self) -> GroupConsumer:
        assert self._consumer is not None, "the runner runs"
        return self._consumer

    # Topics

    async def _topics(self, stop: asyncio.Event) -> list[str]:
        """Return the topics to read once that of changes is there; none if stopped before."""
        wanted = (self._broker.changes_topic, self._broker.signals_topic)
        has_told = False
        while not stop.is_set():
            found = await partition_counts(self._broker, wanted)
            if self._broker.changes_topic in found:
                kinds = zip(wanted, ("change", "signal"), strict=True)
                self._kinds = {topic: kind for topic, kind in kinds if topic in found}
                return list(self._kinds)
            if not has_told:
                _log.warning("waiting for topic %s: start a worker", self._broker.changes_topic)
                has_told = True
            try:
                async with asyncio.timeout(2):
                    await stop.wait()
            except TimeoutError:
                continue
        return []

    async def _watch_topics(self) -> None:
        """Read signals, too, once somebody has created their topic."""
        topic = self._broker.signals_topic
        while topic not in self._kinds:
            await asyncio.sleep(_TOPICS_S)
            try:
                if topic in await partition_counts(self._broker, [topic]):
                    self._kinds[topic] = "signal"
                    self._later.add(topic)
                    self._group().subscribe(list(self._kinds))
            except TransportError:
                continue
        await asyncio.Event().wait()

    # Partitions

    async def _came(self, places: list[Place]) -> Mapping[Place, int]:
        """Take partitions over: from what was committed, or from where the destination begins."""
        if not places:
            return {}
        lanes = self._sender().lanes
        before = await committed(self._broker, self.group, places)
        plain = PlainConsumer(self._broker)
        try:
            await plain.start()
            firsts, ends = await plain.firsts(places), await plain.ends(places)
        finally:
            await plain.stop()
        positions = {}
        begins: dict[Place, Commit] = {}
        for place in places:
            offset, metadata = before[place]
            if offset is None:
                # A topic that appeared after the start is read from its beginning: nothing of it was there before.
                is_latest = self.destination.start == "latest" and place.topic not in self._later
                offset = ends[place] if is_latest else firsts[place]
                begins[place] = Commit(offset, "")
            elif offset < firsts[place]:
                lost = firsts[place] - offset
                self.facts.lost += lost
                _log.error(
                    "records were deleted before they were delivered",
                    extra={"destination": self.destination.name, "topic": place.topic, "records": lost},
                )
                offset = firsts[place]
            else:
                self._last_commits[place] = Commit(offset, metadata)
            self._finished[place] = decode_finished(metadata, offset)
            lanes.begin(place, offset)
            positions[place] = offset
        self._positions |= positions
        if begins:
            # What comes from now on is not to be missed by a death before the first delivery.
            await self._group().commit(begins)
            self._last_commits |= begins
        self._look_ahead()
        return positions

    async def _went(self, places: list[Place]) -> None:
        """Give partitions up: let what is under way arrive, commit, forget the rest."""
        if not places:
            return
        sender = self._sender()
        sender.lanes.held = "rebalance"
        await sender.drain(_REVOKE_S)
        await self._commit_once()
        gone = set(places)
        sender.lanes.drop(gone)
        self._staged = deque(one for one in self._staged if one[1].event.place not in gone)
        for place in gone:
            self._finished.pop(place, None)
            self._positions.pop(place, None)
            self._last_commits.pop(place, None)
        self._hold()
        self._look_ahead()
        sender.wake.set()

    def _look_ahead(self) -> None:
        if self.scout is not None:
            commits = self._sender().lanes.commits()
            changes = {
                place: one.offset
                for place, one in commits.items()
                if self._kinds.get(place.topic) == "change"
            }
            self.scout.look(changes)
            self._hold()

    # Reading

    async def _read(self) -> None:
        lanes = self._sender().lanes
        is_paused = False
        while True:
            if is_paused != (lanes.unfinished > WAITING_MAX):
                is_paused = not is_paused
                self._group().pause(is_paused=is_paused)
            try:
                found = await self._group().read()
            except TransportError as error:
                _log.warning(
                    "reading broke off", extra={"destination": self.destination.name, "error": str(error)}
                )
                await asyncio.sleep(1)
                continue
            for place, records in found.items():
                await self._take(place, records)
            await self._note_positions()
            self._unstage()
            if found:
                self._sender().wake.set()

    async def _take(self, place: Place, records: list[Record]) -> None:
        lanes = self._sender().lanes
        kind = self._kinds[place.topic]
        finished = self._finished.get(place)
        for record in records:
            if place not in self._positions:
                return  # it was given up while these were on their way here
            if record.offset < self._positions[place]:
                continue
            lanes.note(place, record.offset)
            if finished and record.offset in finished:
                finished.remove(record.offset)
                lanes.done(place, record.offset)
                continue
            try:
                event = read_event(kind, record)
            except UnreadableError as error:
                await self._sender().reject_unsent(unread_event(kind, record), str(error))
                continue
            await self._offer(event)

    async def _offer(self, event: Event) -> None:
        sender = self._sender()
        if self.scout is None:
            await sender.offer(event)
            return
        item = await sender.item(event)
        if item is not None:
            self._staged.append((event.timestamp_ms + self.scout.hold_ms, item))

    async def _note_positions(self) -> None:
        lanes, lag = self._sender().lanes, 0
        for place, (position, end) in (await self._group().positions()).items():
            if place in self._positions:
                # Marks of transactions are no records: nothing of ours moves past them.
                lanes.skip(place, position)
                lag += max(end - position, 0)
        self.facts.lag = lag + lanes.unfinished
        if not lanes.unfinished:
            self.facts.oldest_ms = None

    # The guard

    def _hold(self) -> None:
        if self.scout is None:
            self._sender().lanes.held = None
        else:
            self._sender().lanes.held = None if self.scout.is_open else "guard"

    def _unstage(self) -> None:
        """Let what was held long enough into the lanes."""
        if self.scout is None or not self.scout.is_open:
            return
        now_ms = time.time_ns() // 1_000_000
        lanes = self._sender().lanes
        while self._staged and self._staged[0][0] <= now_ms:
            _, item = self._staged.popleft()
            if not item.is_dropped:
                lanes.offer(item)

    async def _watch_guard(self, scout: Scout) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await scout.changed.wait()
            scout.changed.clear()
            lanes = self._sender().lanes
            if lanes.held in (None, "guard"):
                self._hold()
            self._unstage()
            self._sender().wake.set()

    def _unfinished(self) -> list[Event]:
        waiting = [item.event for item in self._sender().lanes.waiting()]
        return waiting + [item.event for _, item in self._staged]

    # Commits

    async def _commit(self) -> None:
        arrived = self._sender().has_arrived
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await arrived.wait()
            arrived.clear()
            if not await self._commit_once():
                await asyncio.sleep(0.2)
            self._sender().wake.set()
            await asyncio.sleep(COMMIT_S)

    async def _commit_once(self) -> bool:
        """Commit what has changed; False: it could not be."""
        lanes = self._sender().lanes
        counts: Counter[Place] = lanes.unsettled()
        commits = {
            place: one for place, one in lanes.commits().items() if self._last_commits.get(place) != one
        }
        if not commits:
            lanes.settled(counts)
            return True
        try:
            if not await self._group().commit(commits):
                return False
        except TransportError as error:
            _log.warning(
                "offsets cannot be committed yet",
                extra={"destination": self.destination.name, "error": str(error)},
            )
            return False
        self._last_commits |= commits
        lanes.settled(counts)
        return True
