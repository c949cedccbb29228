"""Who has which partition, and at which URL: told to all members of the group with their assignments.

The sticky assignor of aiokafka, version 0, whose members tell what they had. Behind that each member writes its URL,
which others that know nothing of it do not read; whoever leads the group sends all members what it knows of the others.
A group that another kind of worker leads assigns as ever, and nobody knows the others' URLs.

Where several topics are read as one, those of a number belong together: the partitions of the first topic are assigned,
and whoever has one gets those of its number in the other topics.

Read at: aiokafka 0.12, coordinator/assignors/sticky.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from aiokafka.coordinator.assignors.sticky.sticky_assignor import (
    StickyAssignorUserDataV1,
    StickyPartitionAssignor,
)
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from rfmstream.engine.live.model import Source

_MARK: Final = b"\0rfmstream-url\0"
_URL_BYTES_MAX: Final = 1024


class UrlAssignor(StickyPartitionAssignor):
    """Assigns as its base does. A class of its own for each consumer, since all it knows is kept in the class.

    Fields  url     this member's; "": nobody is told one
            topics  that this member reads as one, in order
            owners  the URL of each partition's member, as the newest assignment told it
    """

    url: ClassVar[str] = ""
    topics: ClassVar[Sequence[str]] = ()
    owners: ClassVar[Mapping[Source, str]] = {}

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Return what this member tells whoever leads the group."""
        told = super().metadata(topics)
        if not cls.url:
            return told
        # An empty one cannot be told from none, and nothing could stand behind it.
        own = told.user_data or StickyAssignorUserDataV1([], cls.DEFAULT_GENERATION_ID).encode()
        return ConsumerProtocolMemberMetadata(told.version, told.subscription, own + _MARK + cls.url.encode())

    @classmethod
    def assign(cls, cluster: Any, members: Mapping[str, Any]) -> dict[str, ConsumerProtocolMemberAssignment]:  # noqa: ANN401
        """Assign all partitions, and tell every member who has which, and where."""
        together = sorted({topic for member in members.values() for topic in member.subscription})
        is_merged = len(together) > 1 and all(
            sorted(one.subscription) == together for one in members.values()
        )
        led = {name: _of_first(one, together) for name, one in members.items()} if is_merged else members
        assigned: dict[str, ConsumerProtocolMemberAssignment] = super().assign(cluster, led)
        if is_merged:
            assigned = {name: _of_all(own, together) for name, own in assigned.items()}
        places: dict[str, list[list[object]]] = {}
        for member, own in assigned.items():
            url = url_in(members[member].user_data)
            if url:
                places.setdefault(url, []).extend([topic, number] for topic, number in own.partitions())
        told = json.dumps(places, separators=(",", ":")).encode()
        return {
            member: ConsumerProtocolMemberAssignment(own.version, own.assignment, told)
            for member, own in assigned.items()
        }

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Take note of what this member was assigned, and of who has the rest."""
        super().on_assignment(assignment)
        if len(cls.topics) > 1:
            # What is told of it to whoever leads next is what that one hands out.
            cls.member_assignment = [own for own in cls.member_assignment or () if own.topic == cls.topics[0]]
        cls.owners = owners_in(assignment.user_data)


def _of_first(
    member: ConsumerProtocolMemberMetadata, topics: Sequence[str]
) -> ConsumerProtocolMemberMetadata:
    return ConsumerProtocolMemberMetadata(member.version, list(topics[:1]), member.user_data)


def _of_all(
    assigned: ConsumerProtocolMemberAssignment, topics: Sequence[str]
) -> ConsumerProtocolMemberAssignment:
    numbers = sorted(number for _, number in assigned.partitions())
    places = [(topic, numbers) for topic in topics] if numbers else []
    return ConsumerProtocolMemberAssignment(assigned.version, places, assigned.user_data)


def assignor_of(url: str, topics: Iterable[str] = ()) -> type[UrlAssignor]:
    """Return an assignor of a consumer's own.

    In      url     is told to the others; "": none is
            topics  that it reads, as one
    """
    made: type[UrlAssignor] = type("Assignor", (UrlAssignor,), {"url": url, "topics": sorted(topics)})
    return made


def url_in(user_data: bytes | None) -> str:
    """Return the URL that a member told; "" for none."""
    _, mark, url = (user_data or b"").rpartition(_MARK)
    return url.decode("utf-8", "replace") if mark and len(url) <= _URL_BYTES_MAX else ""


def owners_in(user_data: bytes | None) -> dict[Source, str]:
    """Return the URL of each partition's member as an assignment tells it; empty where it tells none."""
    try:
        places = json.loads(user_data or b"{}")
        return {
            Source(str(topic), int(number)): str(url)
            for url, sources in places.items()
            for topic, number in sources
        }
    except (ValueError, TypeError, AttributeError):
        return {}
