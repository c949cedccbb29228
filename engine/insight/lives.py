"""Which order a row speaks of where a ruleset forgets orders: once one is forgotten its id is free for another.

Source  docs/rulesets.md, Orders that are forgotten. Rows come in order of time, as a replay has them, so none is late.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.core.rules import compile_rules
from rfmstream.kernels.horizon import horizon_of
from rfmstream.schemas.codes import FOREVER_US
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
    rules, days = compile_rules(ruleset), np.int64(ruleset.forget_orders_after_days)
    by_order = np.argsort(order, kind="stable")
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = order[by_order][1:] != order[by_order][:-1]
    begins = np.flatnonzero(is_first)
    ends = np.append(begins[1:], len(order))
    # Of hardly any order there are rows so far apart, and only those have more than one life.
    is_long = ends - begins > 1
    is_long &= at_us[by_order[ends - 1]] - at_us[by_order[begins]] >= rules.row.forget_near_us
    for begin, end in zip(begins[is_long].tolist(), ends[is_long].tolist(), strict=True):
        life, paid_us = 0, FOREVER_US
        for row in by_order[begin:end].tolist():
            if paid_us < horizon_of(rules.rows, days, at_us[row]):
                life, paid_us = life + 1, FOREVER_US
            if paid_us == FOREVER_US and is_paid[row]:
                paid_us = at_us[row]
            lives[row] = life
    return lives
