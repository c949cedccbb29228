"""What the snapshot alone tells: tiers, the R x F grid, how R, F and M are spread, spend bands, Pareto, the ladder."""

from typing import Final

import numpy as np

from rfmstream.engine.insight.report.local_time import Ints
from rfmstream.engine.insight.report.model import (
    Bin,
    Distribution,
    GridCell,
    Ladder,
    ParetoPoint,
    PlaybookText,
    SpendBand,
    Step,
    TierTile,
)
from rfmstream.engine.insight.report.sources import Snapshot
from rfmstream.engine.insight.report.sums import binned, counts, ratio, running, sums, total
from rfmstream.engine.insight.report.words import NO_TIER, words
from rfmstream.schemas.ruleset import Tier

_RECENCY_BINS_MAX: Final = 40
_RECENCY_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 90, 180, 365)
_FREQUENCY_BINS_MAX: Final = 20
_FREQUENCY_STEPS: Final = (10, 15, 20, 30, 40, 50, 70)
_LADDER_STEPS_MAX: Final = 10
_PARETO_PERCENTS: Final = (1, 2, 3, 4, *range(5, 101, 5))


def tiles(snapshot: Snapshot) -> tuple[TierTile, ...]:
    """Return the tiers in the ruleset's order; customers without one come last, if there are any."""
    size = snapshot.no_tier + 1
    customers = counts(snapshot.tier, size)
    orders = sums(snapshot.tier, snapshot.lifetime_orders, size)
    revenue = sums(snapshot.tier, snapshot.lifetime_monetary_minor, size)
    named: list[Tier | None] = [*snapshot.ruleset.tiers]
    if customers[-1]:
        named.append(None)
    return tuple(
        TierTile(
            id=tier.id if tier else None,
            label_zh=tier.label_zh if tier else words()[NO_TIER].hans,
            label_en=tier.label_en if tier else NO_TIER,
            customers=customers[code],
            customer_share=ratio(customers[code], sum(customers)),
            orders=orders[code],
            revenue_minor=revenue[code],
            revenue_share=ratio(revenue[code], sum(revenue)),
            average_order_minor=_mean(revenue[code], orders[code]),
            average_customer_minor=_mean(revenue[code], customers[code]),
            playbook=_playbook(tier),
        )
        for code, tier in enumerate(named)
    )


def grid(snapshot: Snapshot) -> tuple[GridCell, ...]:
    """Return a cell for every R and F band, R ascending, of the customers with a tier."""
    rules = snapshot.ruleset
    r_count, f_count = len(rules.recency_cuts_days) + 1, len(rules.frequency_cuts) + 1
    there = snapshot.tier != snapshot.no_tier
    cell = snapshot.r_band[there] * f_count + snapshot.f_band[there]
    customers = counts(cell, r_count * f_count)
    monetary = sums(cell, snapshot.monetary_minor[there], r_count * f_count)
    return tuple(
        GridCell(at // f_count, at % f_count, number, monetary[at], _mean(monetary[at], number))
        for at, number in enumerate(customers)
    )


def distributions(snapshot: Snapshot) -> tuple[Distribution, ...]:
    """Return how R, F and M of the customers with a tier are spread."""
    rules = snapshot.ruleset
    there = snapshot.tier != snapshot.no_tier
    recency, frequency, monetary = (
        values[there] for values in (snapshot.recency_days, snapshot.frequency, snapshot.monetary_minor)
    )
    revenue = snapshot.lifetime_monetary_minor[there]
    return (
        _distribution(
            "recency",
            "days",
            rules.recency_cuts_days,
            recency,
            revenue,
            _recency_edges(recency, rules.recency_cuts_days),
        ),
        _distribution(
            "frequency",
            "orders",
            rules.frequency_cuts,
            frequency,
            revenue,
            _frequency_edges(frequency, rules.frequency_cuts),
        ),
        _distribution(
            *("monetary", "minor units", rules.monetary_cuts_minor, monetary, revenue),
            money_edges(monetary, rules.monetary_cuts_minor),
        ),
    )


def money_edges(values: Ints, cuts: tuple[int, ...]) -> list[int]:
    """Return where bands of money begin: 1, 2 and 5 times the powers of ten that the values span, and the cuts."""
    if len(values) == 0:
        return [0, *cuts]
    low, high = (int(value) for value in np.quantile(values, (0.05, 0.995), method="nearest"))
    edges = {0, *cuts}
    decade = 1
    while decade <= max(high, 1):
        edges |= {edge for edge in (decade, 2 * decade, 5 * decade) if low <= edge <= high}
        decade *= 10
    return sorted(edges)


def bands(snapshot: Snapshot) -> tuple[SpendBand, ...]:
    """Return the customers with orders by lifetime spend, the ruleset's M cuts among the edges."""
    spend = snapshot.lifetime_monetary_minor[snapshot.lifetime_orders > 0]
    edges = money_edges(spend, snapshot.ruleset.monetary_cuts_minor)
    numbers, revenue = binned(spend, edges, spend)
    made, below, below_revenue = [], 0, 0
    for at, number in enumerate(numbers):
        below, below_revenue = below + number, below_revenue + revenue[at]
        if at == 0 and not number:
            continue
        made.append(
            SpendBand(
                low_minor=None if at == 0 else edges[at - 1],
                high_minor=edges[at] if at < len(edges) else None,
                customers=number,
                customer_share=ratio(number, len(spend)),
                revenue_minor=revenue[at],
                revenue_share=ratio(revenue[at], sum(revenue)),
                below_customer_share=ratio(below, len(spend)),
                below_revenue_share=ratio(below_revenue, sum(revenue)),
            )
        )
    return tuple(made)


def pareto(snapshot: Snapshot) -> tuple[ParetoPoint, ...]:
    """Return the revenue of the best customers: the first so many per cent, rounded up to whole customers."""
    spend = np.sort(snapshot.lifetime_monetary_minor[snapshot.lifetime_orders > 0])[::-1]
    if len(spend) == 0:
        return ()
    reached, whole = running(spend), total(spend)
    found = []
    for percent in _PARETO_PERCENTS:
        number = -(-len(spend) * percent // 100)
        revenue = int(reached[number - 1])
        found.append(ParetoPoint(percent / 100, number, revenue, ratio(revenue, whole)))
    return tuple(found)


def ladder(number: Ints, unit: str) -> Ladder:
    """Return the ladder of how often customers bought.

    In      number  orders, or purchase days, of each customer; 0 does not count
    """
    number = number[number > 0]
    # Those with one or more, two or more, and so on.
    reached = np.bincount(np.minimum(number, _LADDER_STEPS_MAX + 1), minlength=_LADDER_STEPS_MAX + 2)
    at_least = [int(count) for count in reached[::-1].cumsum()[::-1]]
    steps = tuple(
        Step(count, at_least[count], at_least[count + 1], ratio(at_least[count + 1], at_least[count]))
        for count in range(1, _LADDER_STEPS_MAX + 1)
        if at_least[count]
    )
    whole, repeat = at_least[1], at_least[2]
    return Ladder(
        unit, whole, whole - repeat, ratio(whole - repeat, whole), repeat, ratio(repeat, whole), steps
    )


def _distribution(  # noqa: PLR0913, PLR0917 - a column, its frame and what is counted in it
    measure: str, unit: str, cuts: tuple[int, ...], values: Ints, revenue: Ints, edges: list[int]
) -> Distribution:
    """Count values into bins that begin at the edges; one below the first where there are smaller values."""
    customers, money = binned(values, edges, revenue)
    bins = tuple(
        Bin(
            low=None if at == 0 else edges[at - 1],
            high=edges[at] - 1 if at < len(edges) else None,
            customers=number,
            customer_share=ratio(number, len(values)),
            revenue_minor=money[at],
            revenue_share=ratio(money[at], sum(money)),
        )
        for at, number in enumerate(customers)
        if at or number
    )
    median = int(np.quantile(values, 0.5, method="lower")) if len(values) else None
    return Distribution(measure, unit, cuts, bins, median)


def _recency_edges(values: Ints, cuts: tuple[int, ...]) -> list[int]:
    """Return where bins of days begin: the day after a cut begins one, since the cut itself is within."""
    oldest = int(values.max()) if len(values) else 0
    step = next((step for step in _RECENCY_STEPS if oldest // step < _RECENCY_BINS_MAX), oldest // 20 + 1)
    return sorted({0, *range(step + 1, oldest + 1, step), *(cut + 1 for cut in cuts)})


def _frequency_edges(values: Ints, cuts: tuple[int, ...]) -> list[int]:
    # F can be 0: who has no order within the window may still have a tier.
    most = int(values.max()) if len(values) else 1
    first = int(values.min()) if len(values) else 1
    if most - first < _FREQUENCY_BINS_MAX:
        return sorted({*range(first, most + 1), *cuts})
    edges, decade = {*range(first, 10), *cuts}, 10
    while decade <= most:
        edges |= {edge * decade // 10 for edge in _FREQUENCY_STEPS if first <= edge * decade // 10 <= most}
        decade *= 10
    return sorted(edges)


def _mean(whole: int, number: int) -> int | None:
    """Return the mean in minor units, rounded down; None of nobody."""
    return whole // number if number else None


def _playbook(tier: Tier | None) -> PlaybookText | None:
    if tier is None:
        return None
    book = tier.playbook
    english = (book.key, book.audience, book.actions, book.channels)
    return PlaybookText(*english, book.audience_zh, book.actions_zh, book.channels_zh)
