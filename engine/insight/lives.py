"""Which order a row speaks of where a ruleset forgets orders: once one is forgotten its id is free for another.

Source  docs/rulesets.md, Orders that are forgotten. Rows come in order of time, as a replay has them, so none is late.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.events.zone import local_days
from rfmstream.kernels.layout import DAY_US
from rfmstream.schemas.ruleset import Ruleset


def lives_of(
    order: NDArray[Any], is_paid: NDArray[np.bool_], at_us: NDArray[np.int64], ruleset: Ruleset | None
) -> NDArray[np.int64]:
    """Return how many orders of a row's id were forgotten before it: only rows of one life speak of one order.

    In      order    i64[n] or u64[n], a number for each order id of a customer
            at_us    i64[n], ascending
            ruleset  None: nothing is forgotten
    """
    lives = np.zeros(len(order), np.int64)
    if ruleset is None or ruleset.forget_orders_after_days is None or len(order) == 0:
        return lives
    if ruleset.day_unit == "calendar_day":
        at, enough = local_days(ruleset.time_zone, at_us), ruleset.forget_orders_after_days + 1
    else:
        at, enough = at_us, ruleset.forget_orders_after_days * DAY_US
    by_order = np.argsort(order, kind="stable")
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = order[by_order][1:] != order[by_order][:-1]
    begins = np.flatnonzero(is_first)
    ends = np.append(begins[1:], len(order))
    # Of hardly any order there are rows so far apart, and only those have more than one life.
    is_long = at[by_order[ends - 1]] - at[by_order[begins]] >= enough
    for begin, end in zip(begins[is_long].tolist(), ends[is_long].tolist(), strict=True):
        life, paid = 0, None
        for row in by_order[begin:end].tolist():
            if paid is not None and at[row] - paid >= enough:
                life, paid = life + 1, None
            if paid is None and is_paid[row]:
                paid = at[row]
            lives[row] = life
    return lives
