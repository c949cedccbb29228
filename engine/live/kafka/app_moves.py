"""The state of an app, copied to another name, or dropped: while no worker moves any of it.

It is in three places, of which two can be written at once. So the order in which they are written is such that what was
broken off is a state to go on from, or one that a worker refuses.
"""

from collections import defaultdict
from typing import NamedTuple

import orjson
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from rfmstream.engine.live.kafka.app_state import DOING, App, AppState, state_of
from rfmstream.engine.live.kafka.clock_notes import Note as ClockNote
from rfmstream.engine.live.kafka.clock_notes import clock_notes, in_transaction
from rfmstream.engine.live.kafka.groups import delete_group, group_of
from rfmstream.engine.live.kafka.offset_notes import OffsetNote
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.stored import Note
from rfmstream.engine.service.kafka.client import administrator
from rfmstream.schemas.errors import ConfigError, StateError


class Copied(NamedTuple):
    """What a copy holds."""

    partitions: int
    notes: int
    checkpoints: int


async def copy_app(app: App, to: App, current_topic: str | None = None) -> Copied:
    """Copy the state of an app to another name, which nothing of may be there yet.

    The checkpoints first, then offsets and notes of time in one transaction: what was broken off is no state, and can
    be begun again with another place.

    A partition with checkpoints gets the notes that are behind the oldest of them, and not the one that begins its
    history: without its checkpoints nobody could repeat that, and a worker refuses to try.

    In      current_topic  where the copy will keep the newest changes, as its history notes it; None: as before
    Errors  ConfigError     there is no such app
            StateError      workers of one of the two run, the other has a state, or offsets are not a worker's
            TransportError  the brokers do not answer
    """
    state = await state_of(app)
    _refuse_running(state)
    await _refuse_taken(to)
    foreign = [str(source) for source, one in state.partitions.items() if one.is_foreign]
    if foreign:
        raise StateError(
            f"the committed offset of {', '.join(foreign)} was set by something other than a worker",
            fix="start a worker of it once with --accept-gap, stop it, and copy then",
        )
    behind: dict[Source, int] = {}
    checkpoints = 0
    for source, one in state.partitions.items():
        usable = [
            found for found in one.checkpoints if one.committed is None or found.offset <= one.committed
        ]
        for found in usable:
            app.store.copy_to(to.store, source, found.name)
        # What ended a worker is left out of the copy's history, too.
        to.store.note(source, app.store.noted(source))
        checkpoints += len(usable)
        behind[source] = min((found.mark for found in usable), default=0)
    notes = await _copy_log(app, to, behind, current_topic)
    return Copied(len(state.partitions), notes, checkpoints)


async def _copy_log(app: App, to: App, behind: dict[Source, int], current_topic: str | None) -> int:
    """Copy offsets and notes in one transaction; return how many of them are of time."""
    async with administrator(app.client, DOING) as admin:
        group = await group_of(admin, app.app_id)
    name = f"{to.app_id}/state"
    offsets = {
        TopicPartition(*source): OffsetAndMetadata(
            one.offset, str(OffsetNote(one.token, name, inputs=one.inputs))
        )
        for source, one in group.offsets.items()
    }
    kept: defaultdict[Source, list[ClockNote]] = defaultdict(list)
    async for note in clock_notes(app.client, app.clock_topic):
        source = note.source
        if note.app_id != app.app_id:
            continue
        if note.value is None:
            kept.pop(source, None)
        elif note.offset >= behind.get(source, 0):
            kept[source].append(note)
    async with in_transaction(to.client, name) as producer:
        for source, notes in kept.items():
            key = f"{to.app_id}/{source.topic}".encode()
            for note in notes:
                value = _renamed(note, current_topic)
                await producer.send(to.clock_topic, value, key=key, partition=source.partition)
        if offsets:
            await producer.send_offsets_to_transaction(offsets, to.app_id)
    return sum(note.is_of_time for notes in kept.values() for note in notes)


def _renamed(note: ClockNote, current_topic: str | None) -> bytes | None:
    tick = orjson.loads(note.value or b"null")
    if current_topic is None or "current" not in tick:
        return note.value
    return orjson.dumps(tick | {"current": current_topic})


async def reset_app(app: App, *, dry_run: bool = False) -> AppState:
    """Drop the state of an app, so that its next worker begins anew; return what there was.

    The checkpoints first, then the offsets, then the notes: whatever it is broken off at, a worker either repeats the
    history as it was or refuses to start.

    Errors  ConfigError     there is no such app
            StateError      workers of it run
            TransportError  the brokers do not answer
    """
    state = await state_of(app)
    _refuse_running(state)
    if dry_run:
        return state
    for source, one in state.partitions.items():
        app.store.drop(source, [found.name for found in one.checkpoints])
    async with administrator(app.client, "the group cannot be deleted") as admin:
        await delete_group(admin, app.app_id)
    noted = [source for source, one in state.partitions.items() if one.is_noted]
    if noted:
        async with in_transaction(app.client, f"{app.app_id}/state") as producer:
            for source in noted:
                key = f"{app.app_id}/{source.topic}".encode()
                await producer.send(app.clock_topic, None, key=key, partition=source.partition)
    for source in state.partitions:
        app.store.note(source, Note())
    return state


def _refuse_running(state: AppState) -> None:
    if state.workers:
        runs = "a worker" if state.workers == 1 else f"{state.workers} workers"
        raise StateError(
            f"{runs} of {state.app_id} {'runs' if state.workers == 1 else 'run'}",
            fix="stop all of them first; one that died is forgotten after its session_timeout_s",
        )


async def _refuse_taken(to: App) -> None:
    try:
        found = await state_of(to)
    except ConfigError:
        return
    places = ", ".join(str(source) for source in found.partitions)
    raise StateError(
        f"there is a state of {to.app_id} already: {places}",
        fix=f"name another app, or drop it: rfmstream state reset --app-id {to.app_id}",
    )
