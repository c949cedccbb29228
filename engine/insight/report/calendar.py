"""Months: when customers order, when they came and when they were last seen, and cohorts by first order."""

from typing import TYPE_CHECKING

import numpy as np

from rfmstream.engine.events.zone import local_days
from rfmstream.engine.insight.report.local_time import month_text, months_of
from rfmstream.engine.insight.report.model import Cohort, Month
from rfmstream.engine.insight.report.sources import Snapshot
from rfmstream.engine.insight.report.sums import counts, ratio, sums

if TYPE_CHECKING:
    from rfmstream.engine.insight.report.orders import Orders


def months(snapshot: Snapshot, orders: "Orders | None") -> tuple[Month, ...]:
    """Return every month from the first order to the last."""
    there = snapshot.lifetime_orders > 0
    if not there.any():
        return ()
    zone = snapshot.ruleset.time_zone
    first_paid = months_of(local_days(zone, snapshot.first_paid_us[there]))
    last_paid = months_of(local_days(zone, snapshot.last_paid_us[there]))
    first, count = int(first_paid.min()), int(last_paid.max() - first_paid.min()) + 1
    came, left = counts(first_paid - first, count), counts(last_paid - first, count)
    numbers: list[tuple[int | None, int | None, int | None]] = [(None, None, None)] * count
    if orders is not None and len(orders.day):
        month = np.clip(orders.month - first, 0, count - 1)
        new = orders.is_new(orders.month)
        numbers = list(
            zip(
                counts(month, count),
                sums(month, orders.left_minor, count),
                counts(month[new], count),
                strict=True,
            )
        )
    return tuple(
        Month(month_text(first + at), *numbers[at], first_orders=came[at], last_orders=left[at])
        for at in range(count)
    )


def cohorts(snapshot: Snapshot, orders: "Orders | None") -> tuple[Cohort, ...]:
    """Return customers by the month of their first order that is not void.

    `recent` are those in the highest R band; the customer who bought again has two orders or more.
    """
    there = snapshot.lifetime_orders > 0
    if not there.any():
        return ()
    month = months_of(local_days(snapshot.ruleset.time_zone, snapshot.first_paid_us[there]))
    first, count = int(month.min()), int(month.max() - month.min()) + 1
    cohort = month - first
    top = len(snapshot.ruleset.recency_cuts_days)
    customers = counts(cohort, count)
    repeated = counts(cohort[snapshot.lifetime_orders[there] > 1], count)
    recent = counts(cohort[snapshot.r_band[there] == top], count)
    revenue = sums(cohort, snapshot.lifetime_monetary_minor[there], count)
    active = _active(orders, first, count)
    return tuple(
        Cohort(
            month=month_text(first + at),
            customers=customers[at],
            repeated=repeated[at],
            repeat_share=ratio(repeated[at], customers[at]),
            recent=recent[at],
            recent_share=ratio(recent[at], customers[at]),
            revenue_minor=revenue[at],
            average_customer_minor=revenue[at] // customers[at] if customers[at] else None,
            active=None if active is None else active[at],
        )
        for at in range(count)
        if customers[at]
    )


def _active(orders: "Orders | None", first: int, count: int) -> list[tuple[int, ...]] | None:
    """Return for each cohort how many of its customers ordered in its month and in each month after it."""
    if orders is None or len(orders.day) == 0:
        return None
    month = orders.month - first
    last = int(month.max()) + 1
    own = month[np.flatnonzero(orders.is_first)][np.cumsum(orders.is_first) - 1]
    new = orders.is_new(orders.month) & (own >= 0) & (own < count)
    table = np.bincount(own[new] * last + month[new], minlength=count * last).reshape(count, last)
    return [tuple(int(number) for number in table[at, at:]) for at in range(count)]
