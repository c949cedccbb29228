"""Which orders are known: those that a row may still speak of, and those that are forgotten.

Where a ruleset forgets orders after D days, an order is forgotten once it is dated before the local midnight that
starts the day D days before today's. What may be forgotten follows from dates and the clock alone, so that no result
depends on when its memory is given back (`kernels.forget`). D is no less than the window, so what is forgotten has left
the window.

Source: docs/rulesets.md (forget_orders_after_days); oracle tests/support/oracle.py.
"""

import numpy as np

from rfmstream.kernels._jit import inline, jit, keep_apart, part
from rfmstream.kernels.calendar import day_of, midnight_of
from rfmstream.kernels.layout import DAY_US
from rfmstream.schemas.codes import NEVER_US

FAR_US = 1 << 61
"""Longer than there is time: nothing is so old."""


@part
def horizon(rules, days, now_us):
    """Return the instant before which a date is more than `days` days ago.

    For calendar days the local midnight `days` days before the newest local date there was until `now_us`, which is
    not that of `now_us` where a clock was set back across midnight. What is within `days` days is not before it, and
    it never falls as time passes.
    """
    keep_apart()
    if not rules.calendar:
        return now_us - days * DAY_US + 1
    day = day_of(rules, now_us)
    if rules.day_can_fall and midnight_of(rules, day + 1) <= now_us:
        day += 1
    return midnight_of(rules, day - days)


@inline
def known_from(state, rules, now_us):
    """Return the instant from which on orders are known at `now_us`; NEVER_US: all are."""
    if rules.forget_days < 0:
        return np.int64(state.known_us)
    return max(np.int64(state.known_us), horizon(rules, rules.forget_days, now_us))


@inline
def forgets(state, rules):
    """Tell whether anything is, or ever was, forgotten."""
    return rules.forget_days >= 0 or state.known_us != NEVER_US


@inline
def is_forgotten(state, rules, at_us, now_us):
    """Tell whether something of `at_us` is not known any more at `now_us`; for most it takes two comparisons."""
    if at_us >= state.known_us and at_us > now_us - rules.forget_near_us:
        return False
    return at_us < known_from(state, rules, now_us)


@jit
def horizon_of(rulesets, days, now_us):
    """Return `horizon` by a ruleset (RULES[1])."""
    return horizon(rulesets[0], days, now_us)
