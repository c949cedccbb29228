"""The state of an app as a whole, whoever of its workers has it.

It is in three places that belong together: the group's committed offsets, the notes of time in the clock topic, and the
checkpoints.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import orjson

from rfmstream.engine.live.kafka.clock_notes import clock_notes, ends_of
from rfmstream.engine.live.kafka.groups import Group, group_of, groups_of_workers
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.store import Store
from rfmstream.engine.live.stored import StoredCheckpoint
from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.engine.service.kafka.client import administrator
from rfmstream.schemas.errors import ConfigError

DOING: Final = "the state cannot be read"


class App(NamedTuple):
    """Where an app's state is.

    Fields  client, app_id
            clock_topic  where its notes of time are
            store        where its checkpoints are
    """

    client: ClientConfig
    app_id: str
    clock_topic: str
    store: Store


@dataclass
class PartitionState:
    """What there is of a partition.

    Fields  committed   the offset; None: nothing is
            is_foreign  something other than a worker committed it
            end         one after the topic's last record; None: it is not there
            worker      who has it: client id and host; None: nobody
            is_noted    the clock topic holds something of it
            notes       how many notes of time
            clock_us    the newest of them; None: there is none
            checkpoints newest last
    """

    committed: int | None = None
    is_foreign: bool = False
    end: int | None = None
    worker: str | None = None
    is_noted: bool = False
    notes: int = 0
    clock_us: int | None = None
    checkpoints: list[StoredCheckpoint] = field(default_factory=list)

    @property
    def lag(self) -> int | None:
        """Return how many offsets are still to be committed."""
        if self.end is None or self.committed is None:
            return self.end
        return max(self.end - self.committed, 0)


@dataclass(frozen=True)
class AppState:
    """An app's state.

    Fields  group       state as the brokers name it
            partitions  by name
    """

    app_id: str
    group: str
    workers: int
    partitions: dict[Source, PartitionState]


class Listed(NamedTuple):
    """One app of `list_apps`; lag: None where nobody may know."""

    app_id: str
    topics: tuple[str, ...]
    partitions: int
    workers: int | None
    lag: int | None
    notes: int
    checkpoints: int


async def list_apps(client: ClientConfig, clock_topic: str, store: Store | None) -> list[Listed]:
    """Return the apps that the brokers, the clock topic and the checkpoints know of.

    Errors  ConfigError, TransportError, StateError
    """
    async with administrator(client, DOING) as admin:
        groups = {group.name: group for group in await groups_of_workers(admin)}
    notes = await _notes_of_all(client, clock_topic)
    sources: defaultdict[str, set[Source]] = defaultdict(set)
    for app_id, source in notes:
        sources[app_id].add(source)
    checkpoints: Counter[str] = Counter()
    for source in [] if store is None else store.sources():
        for one in store.stored(source) if store is not None else ():
            sources[one.app_id].add(source)
            checkpoints[one.app_id] += 1
    for name, group in groups.items():
        sources[name] |= set(group.offsets)
    for name, some in sources.items():
        sources[name] = some - _merged_parts(some)
    ends = await ends_of(
        client, {part for some in sources.values() for source in some for part in source.parts}
    )
    return [
        Listed(
            app_id,
            tuple(sorted({part.topic for source in some for part in source.parts})),
            len(some),
            groups[app_id].workers if app_id in groups else None,
            _lag(groups.get(app_id), ends),
            sum(count for (app, _), count in notes.items() if app == app_id),
            checkpoints[app_id],
        )
        for app_id, some in sorted(sources.items())
    ]


def _lag(group: Group | None, ends: dict[Source, int]) -> int | None:
    if group is None:
        return None
    return sum(max(ends[source] - one.offset, 0) for source, one in group.offsets.items() if source in ends)


async def _notes_of_all(client: ClientConfig, topic: str) -> Counter[tuple[str, Source]]:
    counts: Counter[tuple[str, Source]] = Counter()
    async for note in clock_notes(client, topic):
        key = note.app_id, note.source
        if note.value is None:
            counts.pop(key, None)
        else:
            counts[key] += note.is_of_time
    return counts


async def state_of(app: App) -> AppState:
    """Return the state of an app.

    Errors  ConfigError     there is no such app
            TransportError  the brokers do not answer
            StateError      the checkpoints cannot be read
    """
    async with administrator(app.client, DOING) as admin:
        group = await group_of(admin, app.app_id)
    found: defaultdict[Source, PartitionState] = defaultdict(PartitionState)
    for source, noted in group.offsets.items():
        found[source].committed, found[source].is_foreign = noted.offset, not noted.token
    for source, who in group.members.items():
        found[source].worker = who
    async for note in clock_notes(app.client, app.clock_topic):
        if note.app_id != app.app_id:
            continue
        one = found[note.source]
        one.is_noted = note.value is not None
        one.notes = one.notes + note.is_of_time if one.is_noted else 0
        one.clock_us = None if note.value is None else _clock_us(note.value, one.clock_us)
    for source in app.store.sources():
        mine = [one for one in app.store.stored(source) if one.app_id == app.app_id]
        if mine:
            found[source].checkpoints = mine
    for source in [source for source in found if source.is_merged]:
        _fold(found, source, group)
    # What has ended leaves nothing.
    known = {source: one for source, one in found.items() if one != PartitionState()}
    if not known:
        raise ConfigError(
            f"there is no state of an app {app.app_id} there",
            key="app_id",
            fix="rfmstream state list shows the apps there are",
        )
    await _read_ends(app.client, known)
    return AppState(app.app_id, group.state, group.workers, dict(sorted(known.items())))


async def _read_ends(client: ClientConfig, known: Mapping[Source, PartitionState]) -> None:
    ends = await ends_of(client, {part for source in known for part in source.parts})
    for source, one in known.items():
        if all(part in ends for part in source.parts):
            one.end = sum(ends[part] for part in source.parts)


def _merged_parts(sources: Iterable[Source]) -> set[Source]:
    """Return the partitions that are read as one with others."""
    return {part for source in sources if source.is_merged for part in source.parts}


def _fold(found: dict[Source, PartitionState], source: Source, group: Group) -> None:
    """Put what is told of single topics' partitions to what they are read as."""
    parts = [found.pop(part, PartitionState()) for part in source.parts]
    tokens = {group.offsets[part].token for part in source.parts if part in group.offsets}
    one = found[source]
    offsets = [part.committed for part in parts if part.committed is not None]
    if offsets:
        one.committed = sum(offsets)
        one.is_foreign = len(offsets) < len(parts) or len(tokens) > 1 or "" in tokens
    one.worker = next((part.worker for part in parts if part.worker is not None), None)


def _clock_us(value: bytes, before_us: int | None) -> int | None:
    tick = orjson.loads(value)
    # A note of the order of topics, one of record times that were ahead, and the first one, pass no time.
    if "clock_us" not in tick or tick.get("until") is not None or tick["clock_us"] < 0:
        return before_us
    return int(tick["clock_us"]) if before_us is None else max(before_us, int(tick["clock_us"]))
