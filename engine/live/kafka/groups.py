"""Consumer groups: asks their coordinators for members and committed offsets, and deletes groups."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.protocol.admin import DeleteGroupsRequest

from rfmstream.engine.live.model import Source
from rfmstream.schemas.errors import StateError

WRITTEN_BY: Final = "@"
"""Separates the commit token from the writer's transactional-id prefix in the offset metadata."""
INPUTS: Final = "&"
"""Precedes the digest of the input topics in the offset metadata, where several are read as one."""

_EMPTY: Final = ("Empty", "Dead")
_TRIES: Final = 50
_AGAIN_S: Final = 0.2
_AT_ONCE: Final = 32
_NOT_READY: Final = (kafka.GroupCoordinatorNotAvailableError, kafka.GroupLoadInProgressError)


class Noted(NamedTuple):
    """A committed offset and its metadata.

    Fields  note  TOKEN@WRITER..., see engine.live.kafka.output; anything else: no worker committed it
    """

    offset: int
    note: str

    def is_of(self, app_id: str) -> bool:
        """Tell whether a worker of an app committed it."""
        return f"{WRITTEN_BY}{app_id}/" in self.note

    @property
    def token(self) -> str:
        """Return what names the commit."""
        return self.note.partition(WRITTEN_BY)[0]

    @property
    def inputs(self) -> str:
        """Return what the note tells of topics that are read as one; "": nothing."""
        return self.note.partition(INPUTS)[2]


@dataclass(frozen=True)
class Group:
    """A consumer group.

    Fields  name, state
            members   of each partition, who has it: client id and host
            workers   how many members
            offsets   committed
    """

    name: str
    state: str
    workers: int
    members: dict[Source, str] = field(default_factory=dict)
    offsets: dict[Source, Noted] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nobody is in it."""
        return self.workers == 0 and self.state in _EMPTY


async def group_of(admin: AIOKafkaAdminClient, name: str) -> Group:
    """Return what the brokers know of a group; of one that is not there that it is dead.

    Errors  aiokafka's
    """
    for _ in range(_TRIES):
        # A coordinator that was named may not have read the log of its groups yet.
        try:
            return await _told_of(admin, name)
        except (kafka.NotCoordinatorForGroupError, kafka.GroupLoadInProgressError):
            await asyncio.sleep(_AGAIN_S)
    raise kafka.GroupCoordinatorNotAvailableError


async def _told_of(admin: AIOKafkaAdminClient, name: str) -> Group:
    node = await _ready(admin, name)
    [response] = await admin.describe_consumer_groups([name], node)
    [(code, _, state, _, _, members, *_)] = response.groups
    if code:
        raise kafka.for_code(code)
    owners: dict[Source, str] = {}
    for _, client_id, host, _, assignment in members:
        for source in _assigned(assignment):
            owners[source] = f"{client_id} {host}".replace(" /", " ")
    offsets = {
        Source(place.topic, place.partition): Noted(found.offset, found.metadata or "")
        for place, found in (await admin.list_consumer_group_offsets(name, node)).items()
        if found.offset >= 0
    }
    return Group(name, state, len(members), owners, offsets)


def _assigned(assignment: bytes) -> Iterable[Source]:
    if not assignment:
        return
    for topic, partitions in ConsumerProtocolMemberAssignment.decode(assignment).assignment:
        for partition in partitions:
            yield Source(topic, partition)


async def groups_of_workers(admin: AIOKafkaAdminClient) -> list[Group]:
    """Return the groups that the user may see in which a worker has committed something.

    Errors  aiokafka's
    """
    names = sorted(name for name, *_ in await admin.list_consumer_groups())
    found: list[Group] = []
    for some in (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE)):
        asked = await asyncio.gather(*(group_of(admin, name) for name in some), return_exceptions=True)
        for group in asked:
            if isinstance(group, Group):
                found.append(group)
            elif not isinstance(group, kafka.GroupAuthorizationFailedError):
                raise group
    return [group for group in found if any(one.is_of(group.name) for one in group.offsets.values())]


async def delete_group(admin: AIOKafkaAdminClient, name: str) -> None:
    """Forget a group and what it has committed; one that is not there is forgotten.

    Errors  StateError  somebody is in it
            aiokafka's
    """
    node = await _ready(admin, name)
    response = await admin._send_request(DeleteGroupsRequest([name]), node)  # noqa: SLF001 - it has no method
    for _, code in response.results:
        error = kafka.for_code(code)
        if error is kafka.NonEmptyGroup:
            raise StateError(f"workers of {name} run", fix="stop them first")
        if error not in (kafka.NoError, kafka.GroupIdNotFound):
            raise error


async def _ready(admin: AIOKafkaAdminClient, name: str) -> int:
    """Return a group's coordinator, once there is one: nobody has asked a new cluster for any."""
    for _ in range(_TRIES):
        try:
            return int(await admin.find_coordinator(name))
        except _NOT_READY:
            await asyncio.sleep(_AGAIN_S)
    raise kafka.GroupCoordinatorNotAvailableError


def by_topic(sources: Iterable[Source]) -> dict[str, list[int]]:
    """Return the partitions of each topic."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for topic, partition in sorted(sources):
        found[topic].append(partition)
    return dict(found)
