"""What the tier changes tell: sizes day by day, flows by month, the tiers at two instants, and flaps."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.events.instants import to_text
from rfmstream.engine.events.zone import local_days, zone_table
from rfmstream.engine.insight.report.local_time import DAY_US, day_text, month_text, months_of
from rfmstream.engine.insight.report.model import FlapPair, Flaps, MonthFlows, Move, Sizes, Transitions
from rfmstream.engine.insight.report.sources import Changes, Snapshot
from rfmstream.engine.insight.report.sums import ratio
from rfmstream.kernels.movement import LAST, count_days, count_moves, follow_customers, put_again
from rfmstream.schemas.changes import CHANGE_REASONS
from rfmstream.schemas.errors import InputError

FLAP_DAYS: Final = (7, 14, 30)

_SIZE_DAYS_MAX: Final = 400
"""Days listed at most: of a longer history every so many days, always with the last one."""

_ROW_BITS: Final = 24
_LINE: Final = 64


@dataclass(frozen=True)
class Daily:
    """The changes of each local day, the first of which is `first_day`.

    Fields  moves    i64[days, tiers + 1, tiers + 1], from and to
            reasons  i64[days, reasons]
    """

    first_day: int
    moves: NDArray[np.int64]
    reasons: NDArray[np.int64]


@dataclass(frozen=True)
class Followed:
    """What each customer's changes are together, by tiers from and to.

    Fields  pairs    i64[tiers + 1, tiers + 1], all changes
            undone   i64[FLAP_DAYS, tiers + 1, tiers + 1], those that the customer's next change undid within so long
            between  i64[tiers + 1, tiers + 1], customers who had a change between two instants, by their tiers at both
            after    i64[tiers + 1], what taking back the changes after the second instant does to the tiers' sizes
    """

    pairs: NDArray[np.int64]
    undone: NDArray[np.int64]
    between: NDArray[np.int64]
    after: NDArray[np.int64]


def names_of(snapshot: Snapshot) -> list[str | None]:
    """Return tier ids by code, None last."""
    return [*(tier.id for tier in snapshot.ruleset.tiers), None]


def daily(changes: Changes, snapshot: Snapshot) -> Daily:
    """Count the changes of each local day, from the first that has any to that of the snapshot's instant at least."""
    size, zone = snapshot.no_tier + 1, snapshot.ruleset.time_zone
    span_us = changes.span_us or (snapshot.as_of_us, snapshot.as_of_us)
    oldest, newest, today = local_days(zone, np.array([*span_us, snapshot.as_of_us])).tolist()
    # Where a clock is set back across midnight the day before comes once more: room for one on each side.
    begin, count = oldest - 1, max(newest, today) - oldest + 3
    moves, reasons = np.zeros((count, size, size), np.int64), np.zeros((count, len(CHANGE_REASONS)), np.int64)
    for rows in changes.pieces:
        columns = rows.at_us, rows.from_tier, rows.to_tier, rows.reason
        count_days(*columns, *zone_table(zone), begin, moves, reasons)
    there = np.flatnonzero(reasons.sum(axis=1))
    first, last = (int(there[0]), int(there[-1])) if len(there) else (today - begin, today - begin)
    days = slice(first, max(last, today - begin) + 1)
    return Daily(begin + first, moves[days], reasons[days])


def follow(changes: Changes, snapshot: Snapshot, since_us: int, until_us: int) -> Followed:
    """Follow each customer from change to change.

    In      since_us, until_us  the two instants, not after the snapshot's
    """
    size = snapshot.no_tier + 1
    made = Followed(
        np.zeros((size, size), np.int64),
        np.zeros((len(FLAP_DAYS), size, size), np.int64),
        np.zeros((size, size), np.int64),
        np.zeros(size, np.int64),
    )
    span_us, within_us = np.array([since_us, until_us]), np.array(FLAP_DAYS) * DAY_US
    last, used = empty_table(2 * len(snapshot.tier)), np.zeros(1, np.int64)
    for rows in changes.pieces:
        columns = rows.customer, rows.at_us, rows.from_tier, rows.to_tier
        done = 0
        while True:
            found = made.after, made.pairs, made.undone
            done = follow_customers(*columns, done, span_us, within_us, last, used, *found)
            if done == len(rows.at_us):
                break
            last = enlarged(last)
    count_moves(last, made.between)
    return made


def enlarged(last: NDArray[Any]) -> NDArray[Any]:
    """Return a table of twice the size with the same customers."""
    larger = empty_table(2 * len(last))
    put_again(last, larger)
    return larger


def empty_table(slots_min: int) -> NDArray[Any]:
    """Return an empty table of customers, of whole cache lines."""
    size = LAST.itemsize << max(slots_min - 1, 1).bit_length()
    memory = np.zeros(size + _LINE, np.uint8)
    first = -memory.ctypes.data % _LINE
    return memory[first : first + size].view(LAST)


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


def flows(by_day: Daily, snapshot: Snapshot) -> tuple[MonthFlows, ...]:
    """Return the changes of each month: what brought them, and from where to where."""
    every = np.arange(by_day.first_day, by_day.first_day + len(by_day.moves), dtype=np.int64)
    months = months_of(every)
    first, count = int(months[0]), int(months[-1] - months[0]) + 1
    starts = np.searchsorted(months, np.arange(first, first + count))
    by_reason = np.add.reduceat(by_day.reasons, starts, axis=0)
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


def transitions(followed: Followed, snapshot: Snapshot, since_us: int, until_us: int) -> Transitions:
    """Return every customer's tier at two instants: who stayed, and who went where.

    In      followed  of the changes, by these instants
    """
    size = snapshot.no_tier + 1
    # Tiers at `until` are the snapshot's, with what came later taken back.
    end = np.bincount(snapshot.tier, minlength=size) + followed.after
    matrix = followed.between.copy()
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


def flaps(followed: Followed, snapshot: Snapshot) -> Flaps:
    """Return the changes that the customer's next change undid, within each of FLAP_DAYS times 24 h."""
    size = snapshot.no_tier + 1
    by_pair, every = followed.undone.reshape(len(FLAP_DAYS), -1), followed.pairs.reshape(-1)
    changes = int(every.sum())
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
        changes=changes,
        undone=tuple(found),
        undone_share=tuple(ratio(number, changes) for number in found),
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


def _moves(matrix: NDArray[np.int64], snapshot: Snapshot) -> tuple[Move, ...]:
    names = names_of(snapshot)
    return tuple(
        Move(names[came], names[went], int(matrix[came, went]))
        for came, went in np.argwhere(matrix > 0).tolist()
    )
