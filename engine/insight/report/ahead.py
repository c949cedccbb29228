"""The days to come if nobody orders: each customer's next change by time alone."""

from typing import Final

import numpy as np

from rfmstream.engine.events.zone import local_days
from rfmstream.engine.insight.report.local_time import day_text
from rfmstream.engine.insight.report.model import Ahead, Move
from rfmstream.engine.insight.report.movement import names_of
from rfmstream.engine.insight.report.sources import Snapshot
from rfmstream.schemas.codes import NEVER_US

DAYS_AHEAD: Final = 90


def ahead(snapshot: Snapshot) -> Ahead:
    """Return who leaves which tier on each of the next DAYS_AHEAD days, and the tiers' sizes at their ends.

    A customer is moved once, by `next_change_at`: what may follow that is not in a snapshot.
    """
    size = snapshot.no_tier + 1
    zone = snapshot.ruleset.time_zone
    today = int(local_days(zone, np.array([snapshot.as_of_us]))[0])
    chosen = snapshot.next_change_us != NEVER_US
    day = local_days(zone, snapshot.next_change_us[chosen]) - today
    came, went = snapshot.tier[chosen], snapshot.next_tier[chosen]
    within = (day >= 0) & (day <= DAYS_AHEAD)
    key = (day[within] * size + came[within]) * size + went[within]
    moves = np.bincount(key, minlength=(DAYS_AHEAD + 1) * size * size).reshape(-1, size, size)
    sizes = np.bincount(snapshot.tier, minlength=size) + (moves.sum(axis=1) - moves.sum(axis=2)).cumsum(
        axis=0
    )
    names = names_of(snapshot)
    whole = moves.sum(axis=0)
    return Ahead(
        days=tuple(day_text(today + at) for at in range(DAYS_AHEAD + 1)),
        leaving=tuple(tuple(int(number) for number in row[: size - 1]) for row in moves.sum(axis=2)),
        sizes=tuple(tuple(int(number) for number in row[: size - 1]) for row in sizes),
        moves=tuple(
            Move(names[left], names[right], int(whole[left, right]))
            for left, right in np.argwhere(whole > 0).tolist()
        ),
    )
