"""A partition of a log and everything around it, in memory: scripted by a seed, and without mercy.

A transaction may fail before anything happened, after everything did, or leave it open until the log is opened again.
Only the owner that opened last can commit. Every call gives way to others, and may be the last thing a process does.
"""

import asyncio
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import orjson
from oracle import Event
from oracle_days import DAY_US

from rfmstream.engine.live.model import Bounds, Committed, FencedError, RawRecords, Source, Step, Tick
from rfmstream.schemas.errors import TransportError

START_US = 1_700_000_000_000_000
HOUR_US = DAY_US // 24
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

POISON = [
    b"",
    None,
    b"{",
    b'"text"',
    b"\xff\xfe",
    b'{"customer_id": "c0"}',
    b'{"customer_id": "c1", "order_id": 5}',
]


class Crash(BaseException):
    """The process is gone."""


@dataclass
class Record:
    """A record as the log keeps it, and the events in it; None for a row that is no order."""

    offset: int
    value: bytes | None
    timestamp_ms: int
    events: list[Event | None]


@dataclass
class World:
    """The log of one partition, its outputs, and the wall clock."""

    random: Random
    now_us: int = START_US
    records: list[Record] = field(default_factory=list)
    end: int = 0
    committed: Committed = field(default_factory=lambda: Committed(None, ""))
    history: list[Step] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)
    owner: int = 0
    limbo: tuple[Step, str] | None = None
    trouble: float = 0.0
    mortality: float = 0.0
    lateness: float = 0.0
    earliness: float = 0.0
    events: list[Event] = field(default_factory=list)

    # The log

    def append(self) -> None:
        """Add a record or a few, and let the wall clock go on."""
        for _ in range(self.random.choice([1, 1, 2, 5, 20])):
            self.now_us += self.random.choice([0, 0, 1000, 1_000_000, 60_000_000])
            self.end += self.random.choice([0] * 9 + [1, 3])  # what a transaction's markers leave
            value, events = self._value()
            late_ms = self.random.choice([1, 1000, 3_600_000, 3 * 86_400_000, 40 * 86_400_000])
            late_ms *= self.random.random() < self.lateness
            if self.random.random() < self.earliness:
                late_ms = -self.random.choice([59_000, 3_600_000, 86_400_000, 400 * 86_400_000])
            timestamp_ms = self.random.choice([-1] + [self.now_us // 1000 - late_ms] * 30)
            self.records.append(Record(self.end, value, timestamp_ms, events))
            self.end += 1
        if self.random.random() < 0.1:
            self.end += 1

    def _value(self) -> tuple[bytes | None, list[Event | None]]:
        roll = self.random.random()
        if roll < 0.06:
            return self.random.choice(POISON), [None]
        if roll < 0.85:
            event = self._event()
            return orjson.dumps(plain(event)), [event]
        events = [
            self._event() if self.random.random() < 0.9 else None for _ in range(self.random.randrange(2, 6))
        ]
        rows = [b"{}" if event is None else orjson.dumps(plain(event)) for event in events]
        if self.random.random() < 0.5:
            return b"[" + b", ".join(rows) + b"]", events
        return b"\n".join(rows), events

    def _event(self) -> Event:
        roll = self.random.random()
        if self.events and roll < 0.08:
            return self.random.choice(self.events[-50:])  # delivered again
        ago_us = self.random.choice(
            [0, 0, 0, 1, 5_000_000, HOUR_US, DAY_US, 40 * DAY_US, -3_000_000, -HOUR_US]
        )
        paid = [event for event in self.events if event["type"] == "paid"]
        event: dict[str, Any] = {
            "customer_id": f"c{self.random.randrange(12)}".ljust(self.random.choice([2, 30]), "-"),
            "order_id": f"o{len(self.events)}",
            "type": "paid",
            "occurred_at_us": self.now_us - ago_us,
            "amount_minor": self.random.choice([0, 1, 100, 40_000, 100_000]),
            "event_id": self.random.choice([None] * 15 + ["e1"]),
        }
        if paid and roll < 0.3:
            order = self.random.choice(paid)
            event |= {name: order[name] for name in ("customer_id", "order_id", "amount_minor")}
            event["type"] = self.random.choice(["refunded", "refunded", "cancelled", "adjusted"])
            if event["type"] == "cancelled":
                event["amount_minor"] = 0
            elif self.random.random() < 0.4:
                event["amount_minor"] = event["amount_minor"] // 3
        self.events.append(event)
        return event

    def fetch(self, position: int, limit: int) -> RawRecords:
        """Return up to `limit` records from a position on."""
        found = [record for record in self.records if record.offset >= position]
        taken = found[:limit]
        behind = taken[-1].offset + 1 if taken else position
        if len(taken) == len(found) and self.random.random() < 0.5:
            behind = max(self.end, behind)  # the client may have seen what follows them, or not yet
        return RawRecords(
            keys=[b"key"] * len(taken),
            values=[record.value for record in taken],
            headers=[()] * len(taken),
            timestamps_ms=[record.timestamp_ms for record in taken],
            offsets=[record.offset for record in taken],
            position=behind,
        )

    def take(self, step: Step, token: str) -> None:
        """Make a transaction's content part of history."""
        assert self.committed.position is None or step.position >= self.committed.position
        assert token != self.committed.token
        self.committed = Committed(step.position, token)
        self.history.append(step)
        if step.tick is not None:
            if step.tick.joining is not None and step.tick.ruleset is None:
                assert step.tick.position == step.position
            elif step.tick.until is None:
                assert step.tick.position <= step.position
                assert not self.passing or step.tick.clock_us > self.passing[-1].clock_us
            else:
                assert step.position <= step.tick.position < step.tick.until
                assert not self.caps or self.caps[-1].until <= step.tick.position
            self.ticks.append(step.tick)

    @property
    def passing(self) -> list[Tick]:
        """The ticks by which time passes."""
        is_note = (tick.joining is not None and tick.ruleset is None for tick in self.ticks)
        return [
            tick for tick, notes in zip(self.ticks, is_note, strict=True) if tick.until is None and not notes
        ]

    @property
    def caps(self) -> list[Tick]:
        """The notes of times that count as others."""
        return [tick for tick in self.ticks if tick.until is not None]

    async def pause(self) -> None:
        """Let others go on; perhaps for ever."""
        for _ in range(self.random.choice([0, 0, 1, 3])):
            await asyncio.sleep(0)
        if self.random.random() < self.mortality:
            raise Crash

    async def trouble_now(self) -> None:
        await self.pause()
        if self.random.random() < self.trouble:
            raise TransportError("nobody answers")


class ScriptedLog:
    """rfmstream.engine.live.model.PartitionLog over a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.epoch = -1
        self._mark = 0

    async def open(self) -> Committed:
        world = self.world
        await world.trouble_now()
        world.owner += 1
        self.epoch = world.owner
        limbo, world.limbo = world.limbo, None
        if limbo is not None and world.random.random() < 0.5:
            world.take(*limbo)
        if world.random.random() < world.trouble:
            raise TransportError("taken over, but the answer was lost")
        await world.pause()
        return world.committed

    async def bounds(self) -> Bounds:
        await self.world.trouble_now()
        return Bounds(0, self.world.end)

    @property
    def mark(self) -> int:
        return self._mark

    async def ticks(self, mark: int = 0) -> list[Tick]:
        await self.world.trouble_now()
        self._mark = len(self.world.ticks)
        return self.world.ticks[mark:]

    def place(self, offset: int) -> tuple[Source, int]:
        return Source("orders", 0), offset

    async def commit(self, step: Step, token: str) -> None:
        world = self.world
        await world.trouble_now()
        if self.epoch != world.owner:
            raise FencedError("another owner")
        assert world.limbo is None, "a transaction is open: only opening the log anew ends it"
        roll = world.random.random()
        if roll < world.trouble / 2:
            world.limbo = step, token
            raise TransportError("nobody knows")
        world.take(step, token)
        await world.pause()
        if roll < world.trouble:
            raise TransportError("done, but the answer was lost")
        if step.tick is not None:
            self._mark = len(world.ticks)

    async def close(self) -> None:
        self.epoch = -1


def plain(event: Event) -> dict[str, Any]:
    """Return an event as a producer writes it."""
    at = EPOCH + timedelta(microseconds=event["occurred_at_us"])
    row = {
        name: event[name]
        for name in ("customer_id", "order_id", "type", "event_id")
        if event[name] is not None
    }
    return {**row, "amount_minor": event["amount_minor"], "occurred_at": at.isoformat()}


def damage(random: Random, root: Path) -> None:
    """Do what disks, crashes and people do to checkpoints."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    if not files:
        return
    path = random.choice(files)
    kind = random.choice(["delete", "cut", "flip", "flip", "empty", "checkpoint", "all", "all"])
    if kind == "delete":
        path.unlink()
    elif kind in ("cut", "empty"):
        path.write_bytes(path.read_bytes()[: 0 if kind == "empty" else path.stat().st_size // 2])
    elif kind == "flip":
        content = bytearray(path.read_bytes())
        if content:
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        path.write_bytes(content)
    else:
        for other in itertools.chain(files) if kind == "all" else path.parent.iterdir():
            other.unlink()
