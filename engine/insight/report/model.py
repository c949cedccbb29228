"""The numbers of a report, as frozen dataclasses: what `--json` prints, and all that pictures are drawn from.

Money is in minor units of `currency`, exact; shares are 0..1, None of nothing; instants are ISO 8601 in UTC, days and
months those of the ruleset's time zone.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PlaybookText:
    """What to do with a tier's customers, as its ruleset says it; in Chinese None and empty where it does not."""

    key: str
    audience: str
    actions: tuple[str, ...]
    channels: tuple[str, ...]
    audience_zh: str | None = None
    actions_zh: tuple[str, ...] = ()
    channels_zh: tuple[str, ...] = ()


@dataclass(frozen=True)
class TierTile:
    """A tier: its customers with their orders and revenue, over each customer's lifetime."""

    id: str | None
    label_zh: str
    label_en: str
    customers: int
    customer_share: float | None
    orders: int
    revenue_minor: int
    revenue_share: float | None
    average_order_minor: int | None
    average_customer_minor: int | None
    playbook: PlaybookText | None


@dataclass(frozen=True)
class GridCell:
    """Customers of one R and one F band, with M (`monetary_minor`, within the ruleset's window)."""

    r_band: int
    f_band: int
    customers: int
    monetary_minor: int
    average_monetary_minor: int | None


@dataclass(frozen=True)
class Bin:
    """Customers whose measure lies within low..high, both included; None is an open end."""

    low: int | None
    high: int | None
    customers: int
    customer_share: float | None
    revenue_minor: int
    revenue_share: float | None


@dataclass(frozen=True)
class Distribution:
    """How a measure is spread: `unit` days, orders or minor units; the ruleset's cuts in that unit."""

    measure: str
    unit: str
    cuts: tuple[int, ...]
    bins: tuple[Bin, ...]
    median: int | None


@dataclass(frozen=True)
class Month:
    """A month: orders and who paid them (None without the orders), first orders and newest orders of customers."""

    month: str
    orders: int | None
    revenue_minor: int | None
    buyers: int | None
    first_orders: int
    last_orders: int


@dataclass(frozen=True)
class SpendBand:
    """Customers by lifetime spend, low <= spend < high; `below_*`: of all customers below `high`."""

    low_minor: int | None
    high_minor: int | None
    customers: int
    customer_share: float | None
    revenue_minor: int
    revenue_share: float | None
    below_customer_share: float | None
    below_revenue_share: float | None


@dataclass(frozen=True)
class ParetoPoint:
    """What share of the revenue the best customers bring: the first `customers` by lifetime spend."""

    customer_share: float
    customers: int
    revenue_minor: int
    revenue_share: float | None


@dataclass(frozen=True)
class Step:
    """A step of the ladder: of those with `count` orders or more, how many came once more."""

    count: int
    customers: int
    repeated: int
    probability: float | None


@dataclass(frozen=True)
class Ladder:
    """One-time and repeat customers; `unit` orders, or purchase days: several orders of a day are one."""

    unit: str
    customers: int
    one_time: int
    one_time_share: float | None
    repeat: int
    repeat_share: float | None
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Move:
    """Customers who were in one tier and are in another; None is no tier."""

    from_tier: str | None
    to_tier: str | None
    customers: int


@dataclass(frozen=True)
class Transitions:
    """Every customer's tier at two instants, each as of that instant: the last change at or before it."""

    since: str
    until: str
    moves: tuple[Move, ...]
    stayed: int
    moved: int


@dataclass(frozen=True)
class MonthFlows:
    """The tier changes of a month, by what brought them and from where to where."""

    month: str
    changes: int
    by_reason: dict[str, int]
    moves: tuple[Move, ...]


@dataclass(frozen=True)
class Sizes:
    """Customers of each tier at the end of each day listed; the last day ends at the report's instant."""

    days: tuple[str, ...]
    tiers: tuple[str, ...]
    customers: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Ahead:
    """Who changes tier on which of the days to come if nobody orders: each customer's next change."""

    days: tuple[str, ...]
    leaving: tuple[tuple[int, ...], ...]
    sizes: tuple[tuple[int, ...], ...]
    moves: tuple[Move, ...]


@dataclass(frozen=True)
class FlapPair:
    """Changes from one tier to another, and how many were undone by the customer's next change."""

    from_tier: str | None
    to_tier: str | None
    changes: int
    undone: tuple[int, ...]


@dataclass(frozen=True)
class Flaps:
    """Changes whose next change, within that many times 24 h, leads back to the tier before."""

    within_days: tuple[int, ...]
    changes: int
    undone: tuple[int, ...]
    undone_share: tuple[float | None, ...]
    pairs: tuple[FlapPair, ...]


@dataclass(frozen=True)
class Cohort:
    """Customers by the month of their first order; `active`: who ordered in each month since, with the orders read."""

    month: str
    customers: int
    repeated: int
    repeat_share: float | None
    recent: int
    recent_share: float | None
    revenue_minor: int
    average_customer_minor: int | None
    active: tuple[int, ...] | None


@dataclass(frozen=True)
class TierSince:
    """A tier then and now."""

    id: str | None
    customers_before: int
    customers: int
    revenue_minor_before: int
    revenue_minor: int


@dataclass(frozen=True)
class Since:
    """What changed since an earlier report of the same ruleset."""

    as_of_before: str
    customers_before: int
    customers: int
    revenue_minor_before: int
    revenue_minor: int
    repeat_share_before: float | None
    repeat_share: float | None
    tiers: tuple[TierSince, ...]


@dataclass(frozen=True)
class ListedCustomer:
    """A customer by id: R, F and M as the ruleset counts them, orders and revenue over a lifetime."""

    tier: str | None
    customer_id: str
    population: str | None
    recency_days: int | None
    frequency: int
    monetary_minor: int
    orders: int
    revenue_minor: int


@dataclass(frozen=True)
class Report:
    """All of a report. `format` counts up when a field's meaning changes.

    Fields  listed  the customers of each tier who spent the most, by id; None unless asked for
    """

    format: int
    ruleset: str
    ruleset_title: str
    fingerprint: str
    time_zone: str
    currency: str
    currency_exponent: int
    as_of: str
    customers: int
    customers_with_tier: int
    orders: int
    revenue_minor: int
    recency_cuts_days: tuple[int, ...]
    frequency_cuts: tuple[int, ...]
    monetary_cuts_minor: tuple[int, ...]
    tiers: tuple[TierTile, ...]
    grid: tuple[GridCell, ...]
    distributions: tuple[Distribution, ...]
    months: tuple[Month, ...]
    bands: tuple[SpendBand, ...]
    pareto: tuple[ParetoPoint, ...]
    ladders: tuple[Ladder, ...]
    transitions: Transitions
    flows: tuple[MonthFlows, ...]
    sizes: Sizes
    ahead: Ahead
    flaps: Flaps
    cohorts: tuple[Cohort, ...]
    since: Since | None
    listed: tuple[ListedCustomer, ...] | None = None
