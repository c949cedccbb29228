"""Explain one customer: the measures beside their cuts, the rule that matched, what time will do, what buying could.

Pure: a row in, a description out. The command line prints it, and a worker tells programs and its page.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from rfmstream.engine.events.instants import FIRST_US, LAST_US, to_datetime, to_text, to_us
from rfmstream.schemas.ruleset import Ruleset, Tier
from rfmstream.schemas.ruleset_model import Rule, RulesetFile, Span
from rfmstream.schemas.toml_table import show_decimal

_MEASURES = "rfm"
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Cut:
    """A cut beside a measure.

    Fields  at          days of R, orders of F, minor units of M
            is_reached  R is within it, or F or M has reached it
            until       ISO 8601, of R: the instant at which the last payment stops being within it; None: never paid
            missing     of F and M: how much more reaches it; 0 if it is reached
    """

    at: int
    is_reached: bool
    until: str | None = None
    missing: int | None = None


@dataclass(frozen=True)
class Measure:
    """One measure: its value (days, orders, minor units; None: never paid), its band, and the cuts, ascending."""

    value: int | None
    band: int
    cuts: tuple[Cut, ...]


@dataclass(frozen=True)
class Matched:
    """The rule that gave the tier: its place among the rules from 1, and its conditions in words."""

    number: int
    conditions: str


@dataclass(frozen=True)
class Reach:
    """The least buying that leads to a tier at once.

    Fields  orders        how many further paid orders; None: no number of them up to the highest F cut does
            amount_minor  with so many orders, the least they must bring together
    """

    tier: str
    label_en: str
    label_zh: str
    orders: int | None
    amount_minor: int | None


@dataclass(frozen=True)
class Explanation:
    """Everything behind a customer's tier at an instant.

    Fields  as_of         ISO 8601; None: the row does not say
            since, seq, reason, order_id  of the newest tier change
            last_paid_at  R's instant
            recency, frequency, monetary  the measures; F and M count over window_days (None: a lifetime)
            is_first_order  exactly one order that is not void; None where that makes no difference and is not known
            matched       None without a tier, or where the ruleset's file is not at hand
            next_change_at, next_tier  what time will do if no order comes; None: nothing
            actions, actions_zh  what its playbook says to do; in Chinese empty where the ruleset does not say it so
            reach         the other tiers, in the ruleset's order
    """

    customer_id: str
    ruleset: str
    currency: str
    currency_exponent: int
    as_of: str | None
    tier: str | None
    label_en: str | None
    label_zh: str | None
    playbook: str | None
    actions: tuple[str, ...]
    actions_zh: tuple[str, ...]
    since: str | None
    seq: int | None
    reason: str | None
    order_id: str | None
    last_paid_at: str | None
    window_days: int | None
    recency: Measure
    frequency: Measure
    monetary: Measure
    is_first_order: bool | None
    matched: Matched | None
    next_change_at: str | None
    next_tier: str | None
    reach: tuple[Reach, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it: instants in ISO 8601, money in minor units of `currency`."""
        return asdict(self)


def explain(
    row: Mapping[str, Any], ruleset: Ruleset, file: RulesetFile | None = None, *, as_of_us: int | None = None
) -> Explanation:
    """Explain a customer.

    In      row       a row of schemas.snapshots, or the customer's newest row of schemas.changes; instants as
                      datetimes or in µs since 1970 UTC
            file      the ruleset as its file gives it, for the rule that matched
            as_of_us  the instant of a snapshot's row; a change's is its own
    """
    is_change = "tier" not in row
    tier_id = row["to_tier" if is_change else "tier"]
    since = row["effective_at" if is_change else "tier_since"]
    if is_change:
        as_of_us = _us(row["effective_at"])
    by_id = {tier.id: tier for tier in ruleset.tiers}
    tier = by_id.get(tier_id or "")
    lifetime_orders = _lifetime_orders(row, ruleset, tier_id)
    bands = (row["r_band"], row["f_band"], row["m_band"])
    return Explanation(
        customer_id=row["customer_id"],
        ruleset=ruleset.identity,
        currency=ruleset.currency,
        currency_exponent=ruleset.currency_exponent,
        as_of=None if as_of_us is None else to_text(as_of_us),
        tier=tier_id,
        label_en=tier.label_en if tier else None,
        label_zh=tier.label_zh if tier else None,
        playbook=tier.playbook.key if tier else None,
        actions=tier.playbook.actions if tier else (),
        actions_zh=tier.playbook.actions_zh if tier else (),
        since=_text(since),
        seq=row["seq"],
        reason=row["reason"],
        order_id=row["order_id"],
        last_paid_at=_text(row["last_paid_at"]),
        window_days=ruleset.window_days,
        recency=_recency(row, ruleset, as_of_us),
        frequency=_counted(row["frequency"], bands[1], ruleset.frequency_cuts),
        monetary=_counted(row["monetary_minor"], bands[2], ruleset.monetary_cuts_minor),
        is_first_order=None if lifetime_orders is None else lifetime_orders == 1,
        matched=None
        if file is None or tier_id is None
        else match(file, bands, is_first=lifetime_orders == 1),
        next_change_at=_text(row["next_change_at"]),
        next_tier=row["next_tier"],
        reach=tuple(
            _reach(other, code, row, ruleset, lifetime_orders)
            for code, other in enumerate(ruleset.tiers)
            if other.id != tier_id
        ),
    )


def match(file: RulesetFile, bands: tuple[int, int, int], *, is_first: bool) -> Matched | None:
    """Return the first rule that a combination of bands meets."""
    for number, rule in enumerate(file.rules, 1):
        if _holds(rule, file, bands, is_first=is_first):
            return Matched(number, conditions_of(rule))
    return None


def conditions_of(rule: Rule) -> str:
    """Write a rule's conditions in words: r_band = 1, f_band from 1 to 2, weighted score at least 3.25."""
    words = [f"{_MEASURES[axis]}_band {_span_text(span)}" for axis, span in rule.bands]
    if rule.weighted_score is not None:
        words.append(f"weighted score {_span_text(rule.weighted_score)}")
    if rule.first_order is not None:
        words.append("the first order" if rule.first_order else "not the first order")
    return ", ".join(words) or "everybody else"


def stops_at(last_paid_us: int, days: int, ruleset: Ruleset) -> int | None:
    """Return the instant at which a payment stops being within so many days; None: beyond the calendar.

    Source  docs/semantics.md section 2
    """
    if ruleset.day_unit == "duration":
        return last_paid_us + days * _DAY_US
    zone = ZoneInfo(ruleset.time_zone)
    try:
        paid_on = to_datetime(last_paid_us).astimezone(zone).date()
        return to_us(_midnight(paid_on + timedelta(days=days + 1), zone))
    except OverflowError:
        return None


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    # Where the clocks skip midnight the offset before it holds, which is the instant they are set forward.
    return datetime(day.year, day.month, day.day, tzinfo=zone)


def _lifetime_orders(row: Mapping[str, Any], ruleset: Ruleset, tier_id: str | None) -> int | None:
    """Return how many orders the customer has, as far as the tier may depend on it: 0, 1, or more.

    A tier change counts over the window alone, and tells a first order apart by the tier that came of it.
    """
    if "lifetime_orders" in row:
        return int(row["lifetime_orders"])
    if tier_id is None:
        return 0
    if ruleset.window_days is None or row["frequency"] > 1:
        return int(row["frequency"])
    bands = (row["r_band"], row["f_band"], row["m_band"])
    later, first = (ruleset.tiers[ruleset.lookup[(axis, *bands)]].id for axis in (0, 1))
    if later == first:
        return None
    return 1 if first == tier_id else 2


def _recency(row: Mapping[str, Any], ruleset: Ruleset, as_of_us: int | None) -> Measure:
    paid = row["last_paid_at"]
    paid_us = None if paid is None else _us(paid)
    cuts = []
    for number, days in enumerate(ruleset.recency_cuts_days):
        until_us = None if paid_us is None else stops_at(paid_us, days, ruleset)
        # The widest cut holds longest: of n cuts the last `band` ones are held.
        is_within = number >= len(ruleset.recency_cuts_days) - row["r_band"]
        cuts.append(Cut(days, is_within, until=None if until_us is None else _instant_text(until_us)))
    days_ago = row.get("recency_days")
    if days_ago is None and paid_us is not None and as_of_us is not None:
        days_ago = _days_between(paid_us, as_of_us, ruleset)
    return Measure(days_ago, row["r_band"], tuple(cuts))


def _days_between(paid_us: int, now_us: int, ruleset: Ruleset) -> int:
    if ruleset.day_unit == "duration":
        return (now_us - paid_us) // _DAY_US
    zone = ZoneInfo(ruleset.time_zone)
    paid, now = (to_datetime(us).astimezone(zone).date() for us in (paid_us, now_us))
    return (now - paid).days


def _counted(value: int, band: int, cuts: tuple[int, ...]) -> Measure:
    found = tuple(Cut(cut, number < band, missing=max(cut - value, 0)) for number, cut in enumerate(cuts))
    return Measure(value, band, found)


def _reach(
    tier: Tier, code: int, row: Mapping[str, Any], ruleset: Ruleset, lifetime_orders: int | None
) -> Reach:
    """Find the least orders, and with so many the least amount, that lead to a tier at this instant."""
    frequency, monetary = row["frequency"], row["monetary_minor"]
    r_band = len(ruleset.recency_cuts_days)
    # Between two cuts nothing changes but whether an order is the first one.
    steps = {1, 2, *(cut - frequency for cut in ruleset.frequency_cuts)}
    most = max(1, max(ruleset.frequency_cuts, default=0) - frequency)
    amounts = [0, *(cut - monetary for cut in ruleset.monetary_cuts_minor if cut > monetary)]
    for orders in sorted(step for step in steps if 1 <= step <= max(most, 2)):
        is_first = lifetime_orders == 0 and orders == 1
        f_band = bisect_right(ruleset.frequency_cuts, frequency + orders)
        for amount in amounts:
            m_band = bisect_right(ruleset.monetary_cuts_minor, monetary + amount)
            if ruleset.lookup[int(is_first), r_band, f_band, m_band] == code:
                return Reach(tier.id, tier.label_en, tier.label_zh, orders, amount)
    return Reach(tier.id, tier.label_en, tier.label_zh, None, None)


def _holds(rule: Rule, file: RulesetFile, bands: tuple[int, int, int], *, is_first: bool) -> bool:
    if rule.first_order is not None and rule.first_order != is_first:
        return False
    if not all(_within(Fraction(bands[axis]), span) for axis, span in rule.bands):
        return False
    if rule.weighted_score is None:
        return True
    assert file.weights is not None, "such a rule without weights is refused"
    score = sum(
        (weight * (band + 1) for weight, band in zip(file.weights, bands, strict=True)), start=Fraction(0)
    )
    return _within(score, rule.weighted_score)


def _within(value: Fraction, span: Span) -> bool:
    return (span.low is None or value >= span.low) and (span.high is None or value <= span.high)


def _span_text(span: Span) -> str:
    low, high = (None if end is None else show_decimal(end) for end in (span.low, span.high))
    if low == high:
        return f"= {low}"
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"from {low} to {high}"


def _us(moment: datetime | int) -> int:
    """Return an instant in µs; one given so may lie in a year that a datetime has not, as a deadline can."""
    return moment if isinstance(moment, int) else to_us(moment)


def _text(moment: datetime | int | None) -> str | None:
    return None if moment is None else _instant_text(_us(moment))


def _instant_text(instant_us: int) -> str:
    if FIRST_US <= instant_us <= LAST_US:
        return to_text(instant_us)
    return f"{np.datetime64(instant_us, 'us')}Z"
