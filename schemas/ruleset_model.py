"""The parts of a ruleset, and the ruleset as its file gives it: frozen, checked, not compiled yet."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

DayUnit = Literal["calendar_day", "duration"]


@dataclass(frozen=True)
class Playbook:
    """What to do with the customers of a tier.

    Fields  key       names the entry inside the ruleset
            audience  who these customers are, a sentence
            actions   what to do, in order of importance, a sentence each
            channels  where to do it
            holdout_parts  of 10,000 customers, so many are left alone, to see whether acting helps; None: nobody asks
            audience_zh, actions_zh, channels_zh  the same in Chinese; None and empty: there is English alone
    """

    key: str
    audience: str
    actions: tuple[str, ...]
    channels: tuple[str, ...]
    holdout_parts: int | None = None
    audience_zh: str | None = None
    actions_zh: tuple[str, ...] = ()
    channels_zh: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tier:
    """A tier: `id` is stable and only read together with its ruleset; labels may be reworded at any time.

    Fields  warn_days   ascending; a signal so many days before a customer leaves the tier
            dwell_days  ascending; a signal when a customer has been in the tier for more than so many days
    """

    id: str
    label_zh: str
    label_en: str
    playbook: Playbook
    warn_days: tuple[int, ...] = ()
    dwell_days: tuple[int, ...] = ()


@dataclass(frozen=True)
class Span:
    """A range of values, both ends included; None leaves an end open."""

    low: Fraction | None
    high: Fraction | None


@dataclass(frozen=True)
class Rule:
    """A rule: the tier of every customer that meets all of its conditions and none of an earlier rule.

    Fields  key             its place in the file, such as `rules[2]`
            tier            the tier's id
            bands           (axis, span): axis 0 r, 1 f, 2 m; scores are already bands
            weighted_score  span of the weighted sum of the scores, or None
            first_order     must the customer have exactly one order (True), or not (False); None: no matter
    """

    key: str
    tier: str
    bands: tuple[tuple[int, Span], ...]
    weighted_score: Span | None
    first_order: bool | None


@dataclass(frozen=True)
class Milestones:
    """What gives a signal when a customer reaches it, each ascending.

    Fields  orders              lifetime orders
            spend_minor         lifetime amount, minor units
            single_order_minor  amount of one order, minor units
    """

    orders: tuple[int, ...] = ()
    spend_minor: tuple[int, ...] = ()
    single_order_minor: tuple[int, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether none is asked for."""
        return not (self.orders or self.spend_minor or self.single_order_minor)


@dataclass(frozen=True)
class RulesetFile:
    """A ruleset as its file gives it: money in major units, exact.

    Fields  monetary_cuts         ascending, major units; multiples already multiplied
            monetary_is_multiple  they came as multiples: parts of a minor unit are then no mistake
            weights               of the r, f and m score, or None
            forget_orders_after_days  not less than window_days, if that is no lifetime; None: no order is forgotten
            order_milestones, spend_milestones, single_milestones  of [milestones]; the amounts in major units
    """

    file: str
    name: str
    title: str
    source: str
    time_zone: str
    currency: str
    day_unit: DayUnit
    window_days: int | None
    recency_cuts_days: tuple[int, ...]
    frequency_cuts: tuple[int, ...]
    monetary_cuts: tuple[Fraction, ...]
    monetary_is_multiple: bool
    weights: tuple[Fraction, ...] | None
    tiers: tuple[Tier, ...]
    rules: tuple[Rule, ...]
    order_milestones: tuple[int, ...] = ()
    spend_milestones: tuple[Fraction, ...] = ()
    single_milestones: tuple[Fraction, ...] = ()
    forget_orders_after_days: int | None = None

    @property
    def band_counts(self) -> tuple[int, int, int]:
        """How many bands r, f and m have: one more than cuts."""
        return len(self.recency_cuts_days) + 1, len(self.frequency_cuts) + 1, len(self.monetary_cuts) + 1
