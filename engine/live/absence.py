"""Customers that were looked for and not found: nobody's, another worker's, or not recovered yet.

Only a worker that has looked in every partition of its topics knows that there is no such customer.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rfmstream.engine.live.board import READY_STATES, Board
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.placement import places_of
from rfmstream.schemas.errors import TransportError


@dataclass(frozen=True)
class Absence:
    """What became of ids that were not found.

    Fields  not_found  there are no such customers
            elsewhere  ids that another worker may have, by the URL of the one that has their partition; None: not known
    """

    not_found: Sequence[str]
    elsewhere: dict[str | None, list[str]]


def absence(board: Board, ids: Sequence[str], looked: Collection[Source]) -> Absence:
    """Say of ids that were not found why that may be.

    In      looked  the partitions that were looked in, from the first id to the last
    Errors  TransportError  they may be of partitions that are not ready, or were not when others were looked in
    """
    if not ids:
        return Absence((), {})
    partitions = board.partitions
    is_ready = all(one.stats.state in READY_STATES for one in partitions.values())
    if not board.joined or not is_ready or set(partitions) - set(looked):
        raise TransportError("partitions are being recovered")
    if board.expected and set(looked).issuperset(board.expected):
        return Absence(ids, {})
    elsewhere: dict[str | None, list[str]] = {}
    for id_, owner in zip(ids, _owners(board, ids), strict=True):
        elsewhere.setdefault(owner, []).append(id_)
    return Absence((), elsewhere)


def _owners(board: Board, ids: Sequence[str]) -> Sequence[str | None]:
    """Return for each id the URL of the worker that has its partition, where that is known."""
    elsewhere = [source for source in board.expected if source not in board.partitions]
    owners = {board.owners.get(source) for source in elsewhere}
    if len(owners) == 1:
        return [owners.pop()] * len(ids)
    topics = {source.topic for source in elsewhere}
    if len(topics) != 1 or not _is_murmur2(board):
        return [None] * len(ids)
    [topic] = topics
    count = sum(source.topic == topic for source in board.expected)
    places = places_of([id_.encode() for id_ in ids], count).tolist()
    return [board.owners.get(Source(topic, place)) for place in places]


def _is_murmur2(board: Board) -> bool:
    """Tell whether records lie where Kafka's own hash puts them, as far as any were seen."""
    seen = [one.stats.placement for one in board.partitions.values()]
    return all(placement is not None and not placement.elsewhere for placement in seen)
