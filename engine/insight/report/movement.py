"""What the tier changes tell: sizes day by day, flows by month, the tiers at two instants, and flaps."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.events.instants import to_text
from rfmstream.engine.insight.report.local_time import (
    DAY_US,
    Ints,
    day_text,
    local_days,
    month_text,
    months_of,
)
from rfmstream.engine.insight.report.model import FlapPair, Flaps, MonthFlows, Move, Sizes, Transitions
from rfmstream.engine.insight.report.sources import Changes, Snapshot
from rfmstream.engine.insight.report.sums import ratio
from rfmstream.schemas.changes import CHANGE_REASONS
from rfmstream.schemas.errors import InputError

FLAP_DAYS: Final = (7, 14, 30)

_SIZE_DAYS_MAX: Final = 400
"""Days listed at most: of a longer history every so many days, always with the last one."""

_ROW_BITS: Final = 24


@dataclass(frozen=True)
class Daily:
    """The changes of each day: `moves` i64[days, tiers + 1, tiers + 1], from and to; the first day is `first_day`."""

    first_day: int
    moves: NDArray[np.int64]


def names_of(snapshot: Snapshot) -> list[str | None]:
    """Return tier ids by code, None last."""
    return [*(tier.id for tier in snapshot.ruleset.tiers), None]


def daily(changes: Changes, snapshot: Snapshot, days: Ints) -> Daily:
    """Count the changes of each local day.

    In      days  of the changes
    """
    size = snapshot.no_tier + 1
    last = int(local_days(np.array([snapshot.as_of_us]), snapshot.ruleset.time_zone)[0])
    if len(days) == 0:
        return Daily(last, np.zeros((1, size, size), np.int64))
    first = int(days.min())
    last = max(last, int(days.max()))
    key = ((days - first) * size + changes.from_tier) * size + changes.to_tier
    return Daily(first, np.bincount(key, minlength=(last - first + 1) * size * size).reshape(-1, size, size))


def sizes(by_day: Daily, snapshot: Snapshot) -> Sizes:
    """Return how many customers each tier had at the end of each day, counted back from the snapshot.

    Errors  InputError  the changes do not lead to the snapshot: a tier would have had less than nobody
    """
    size = snapshot.no_tier
    end = np.bincount(snapshot.tier, minlength=size + 1)[:size]
    net = (by_day.moves.sum(axis=1) - by_day.moves.sum(axis=2))[:, :size]
    at_end = end - (net.sum(axis=0) - net.cumsum(axis=0))
    if int(at_end.min(initial=0)) < 0:
        raise InputError(
            "the changes do not lead to the snapshot: a tier would have had less than nobody",
            fix="name the changes and the snapshot of one replay, or of the runs from one checkpoint",
        )
    count = len(at_end)
    step = -(-count // _SIZE_DAYS_MAX)
    listed = range((count - 1) % step, count, step)
    return Sizes(
        days=tuple(day_text(by_day.first_day + at) for at in listed),
        tiers=tuple(tier.id for tier in snapshot.ruleset.tiers),
        customers=tuple(tuple(int(number) for number in at_end[at]) for at in listed),
    )


def flows(changes: Changes, by_day: Daily, snapshot: Snapshot, days: Ints) -> tuple[MonthFlows, ...]:
    """Return the changes of each month: what brought them, and from where to where."""
    every = np.arange(by_day.first_day, by_day.first_day + len(by_day.moves), dtype=np.int64)
    months = months_of(every)
    first, count = int(months[0]), int(months[-1] - months[0]) + 1
    reasons = len(CHANGE_REASONS)
    key = (months[days - by_day.first_day] - first) * reasons + changes.reason
    by_reason = np.bincount(key, minlength=count * reasons).reshape(count, reasons)
    starts = np.searchsorted(months, np.arange(first, first + count))
    moves = np.add.reduceat(by_day.moves, starts, axis=0)
    return tuple(
        MonthFlows(
            month=month_text(first + at),
            changes=int(by_reason[at].sum()),
            by_reason={
                word: int(number)
                for word, number in zip(CHANGE_REASONS, by_reason[at], strict=True)
                if number
            },
            moves=_moves(moves[at], snapshot),
        )
        for at in range(count)
    )


def transitions(changes: Changes, snapshot: Snapshot, since_us: int, until_us: int) -> Transitions:
    """Return every customer's tier at two instants: who stayed, and who went where.

    In      until_us  not after the snapshot's instant
    """
    size = snapshot.no_tier + 1
    # Tiers at `until` are the snapshot's, with what came later taken back.
    later = changes.at_us > until_us
    end = np.bincount(snapshot.tier, minlength=size) + _net(changes, later, size)
    between = np.flatnonzero((changes.at_us > since_us) & ~later)
    order = between[np.argsort(changes.customer[between], kind="stable")]
    customer = changes.customer[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = customer[1:] != customer[:-1]
    is_last = np.roll(is_first, -1)
    key = changes.from_tier[order[is_first]].astype(np.int64) * size + changes.to_tier[order[is_last]]
    matrix = np.bincount(key, minlength=size * size).reshape(size, size)
    stayed = end - matrix.sum(axis=0)
    stayed[snapshot.no_tier] = 0
    matrix[np.arange(size), np.arange(size)] += stayed
    diagonal = int(matrix.trace()) - int(matrix[-1, -1])
    matrix[-1, -1] = 0
    return Transitions(
        since=to_text(since_us),
        until=to_text(until_us),
        moves=_moves(matrix, snapshot),
        stayed=diagonal,
        moved=int(matrix.sum()) - diagonal,
    )


def flaps(changes: Changes, snapshot: Snapshot) -> Flaps:
    """Return the changes that the customer's next change undid, within each of FLAP_DAYS times 24 h."""
    size = snapshot.no_tier + 1
    order = by_customer(changes.customer)
    customer, came, went = changes.customer[order], changes.from_tier[order], changes.to_tier[order]
    at_us = changes.at_us[order]
    undone = (customer[1:] == customer[:-1]) & (went[1:] == came[:-1])
    rows = np.flatnonzero(undone)
    took_us = at_us[rows + 1] - at_us[rows]
    pair = came.astype(np.int16) * size + went
    by_pair = [np.bincount(pair[rows[took_us <= days * DAY_US]], minlength=size * size) for days in FLAP_DAYS]
    every = np.bincount(pair, minlength=size * size)
    names = names_of(snapshot)
    pairs = [
        FlapPair(
            from_tier=names[at // size],
            to_tier=names[at % size],
            changes=int(every[at]),
            undone=tuple(int(numbers[at]) for numbers in by_pair),
        )
        for at in np.flatnonzero(by_pair[-1])
    ]
    found = [int(numbers.sum()) for numbers in by_pair]
    return Flaps(
        within_days=FLAP_DAYS,
        changes=len(order),
        undone=tuple(found),
        undone_share=tuple(ratio(number, len(order)) for number in found),
        pairs=tuple(
            sorted(
                pairs,
                key=lambda pair: (-pair.undone[-1], -pair.changes, pair.from_tier or "", pair.to_tier or ""),
            )
        ),
    )


def by_customer(customer: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the order that puts each customer's rows together, in their order.

    Sorting 40 bits of the hash with the row's number below them is twice as fast as a stable sort of the hashes. Where
    two customers share the 40 bits, which is seldom, the rows of both are sorted by the whole hash after.
    """
    if len(customer) >= 1 << _ROW_BITS:
        return np.argsort(customer, kind="stable")
    row_mask = np.uint64((1 << _ROW_BITS) - 1)
    packed = (customer & ~row_mask) | np.arange(len(customer), dtype=np.uint64)
    packed.sort()
    order = (packed & row_mask).astype(np.int64)
    sorted_: NDArray[Any] = customer[order]
    clash = np.flatnonzero(((sorted_[1:] ^ sorted_[:-1]) & ~row_mask == 0) & (sorted_[1:] != sorted_[:-1]))
    for at in clash.tolist():
        shared = packed[at] & ~row_mask
        start = int(np.searchsorted(packed, shared))
        end = int(np.searchsorted(packed, shared | row_mask, side="right"))
        rows = np.sort(order[start:end])
        order[start:end] = rows[np.argsort(customer[rows], kind="stable")]
    return order


def _net(changes: Changes, chosen: NDArray[np.bool_], size: int) -> NDArray[np.int64]:
    """Return what taking the chosen changes back does to the tiers' sizes."""
    back: NDArray[np.int64] = np.bincount(changes.from_tier[chosen], minlength=size) - np.bincount(
        changes.to_tier[chosen], minlength=size
    )
    return back


def _moves(matrix: NDArray[np.int64], snapshot: Snapshot) -> tuple[Move, ...]:
    names = names_of(snapshot)
    return tuple(
        Move(names[came], names[went], int(matrix[came, went]))
        for came, went in np.argwhere(matrix > 0).tolist()
    )
