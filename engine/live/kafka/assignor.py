"""Who has which partition, and at which URL: told to all members of the group with their assignments.

The sticky assignor of aiokafka, version 0, whose members tell what they had. Behind that each member writes its URL,
which others that know nothing of it do not read; whoever leads the group sends all members what it knows of the others.
A group that another kind of worker leads assigns as ever, and nobody knows the others' URLs.

Read at: aiokafka 0.12, coordinator/assignors/sticky.
"""

import json
from collections.abc import Iterable, Mapping
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
            owners  the URL of each partition's member, as the newest assignment told it
    """

    url: ClassVar[str] = ""
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
        assigned: dict[str, ConsumerProtocolMemberAssignment] = super().assign(cluster, members)
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
        cls.owners = owners_in(assignment.user_data)


def assignor_of(url: str) -> type[UrlAssignor]:
    """Return an assignor of a consumer's own, which tells the others a URL; "" for none."""
    made: type[UrlAssignor] = type("Assignor", (UrlAssignor,), {"url": url})
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
