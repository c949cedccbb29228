"""Who has which partition, and where: told with assignments, and read by no one who does not know of it."""

from types import SimpleNamespace

import pytest
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from rfmstream.engine.live.kafka.assignor import UrlAssignor, assignor_of, owners_in, url_in
from rfmstream.engine.live.model import Source

CLUSTER = SimpleNamespace(partitions_for_topic=lambda _: {0, 1, 2, 3}, topics=lambda: {"orders"})


def assigned(leader: type[StickyPartitionAssignor], **members: type[UrlAssignor]) -> None:
    """Let a leader assign, and tell every member."""
    told = leader.assign(CLUSTER, {name: member.metadata(["orders"]) for name, member in members.items()})
    for name, member in members.items():
        member.on_assignment(told[name])
        member.on_generation_assignment(1)


def owned(member: type[UrlAssignor]) -> set[Source]:
    return {Source(*tp) for tp in member.member_assignment or ()}


def test_every_member_knows_where_the_others_are() -> None:
    first, second, third = (assignor_of(url) for url in ("http://a:1", "http://b:2", ""))
    for _ in range(2):  # with what each had before, too
        assigned(second, first=first, second=second, third=third)
        expected = dict.fromkeys(owned(first), "http://a:1") | dict.fromkeys(owned(second), "http://b:2")
        assert expected
        assert first.owners == second.owners == third.owners == expected
    kept = owned(first)
    assigned(first, first=first, second=second, third=third)
    assert owned(first) == kept


def test_a_leader_that_knows_nothing_of_it_assigns_as_ever() -> None:
    first, second = assignor_of("http://a:1"), assignor_of("http://b:2")
    leader = type("Plain", (StickyPartitionAssignor,), {})
    for _ in range(2):
        assigned(leader, first=first, second=second)
        assert len(owned(first)) == len(owned(second)) == 2
        assert first.owners == {}


def test_partitions_of_a_number_go_together_where_topics_are_read_as_one() -> None:
    topics = ["web", "pos", "refunds"]
    cluster = SimpleNamespace(partitions_for_topic=lambda _: {0, 1, 2, 3}, topics=lambda: {*topics})
    first, second, third = (assignor_of(url, topics) for url in ("http://a:1", "http://b:2", ""))

    def told(**members: type[UrlAssignor]) -> dict[str, set[int]]:
        found = first.assign(cluster, {name: member.metadata(topics) for name, member in members.items()})
        numbers = {}
        for name, member in members.items():
            member.on_assignment(found[name])
            member.on_generation_assignment(1)
            own = found[name].partitions()
            numbers[name] = {number for _, number in own}
            assert sorted(own) == sorted((topic, number) for topic in topics for number in numbers[name])
        assert sorted(number for own in numbers.values() for number in own) == [0, 1, 2, 3]
        return numbers

    alone = told(first=first)
    assert len(alone["first"]) == 4
    both = told(first=first, second=second)
    assert {len(own) for own in both.values()} == {2}
    assert told(first=first, second=second) == both, "nobody loses what it has"
    three = told(first=first, second=second, third=third)
    assert all(three[name] <= own for name, own in both.items())
    assert first.owners[Source("web", min(three["second"]))] == "http://b:2"


@pytest.mark.parametrize(
    "said", [None, b"", b"\xff", b"[]", b"[1]", b'{"u":[1]}', b'{"u":[["t","x"]]}', b"7"]
)
def test_what_is_no_map_of_owners_is_none(said: bytes | None) -> None:
    assert owners_in(said) == {}


def test_what_is_no_url_is_none() -> None:
    assert url_in(None) == url_in(b"abc") == ""
    assert url_in(b"\0rfmstream-url\0" + b"x" * 2000) == ""
