"""The slow, obvious twin of the product, written from docs/semantics.md alone.

It shares nothing with schemas, kernels or engine: Python integers, zoneinfo, dictionaries, one heap. It is
meant to be read beside the page: whenever anybody looks at a customer, its whole history is measured anew.

Units: instants are µs since 1970 UTC, amounts minor units, days whole days since 1970 in the ruleset's zone.
"""

import copy
import heapq
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from oracle_days import DAY_US, LAST_US, local_day, local_midnight_us

CHANGE_REASON = {
    "paid": "order",
    "refunded": "refund",
    "refunded_total": "refund",
    "cancelled": "cancellation",
    "adjusted": "adjustment",
    "erased": "erased",
}

Event = Mapping[str, Any]
"""customer_id, order_id, type (str), occurred_at_us, amount_minor (0 for cancelled and erased), event_id (or None)."""

Row = dict[str, Any]


# The ruleset, 4


@dataclass(frozen=True)
class Rules:
    """What decides a tier. ``tier`` takes (r_band, f_band, m_band, first order or not)."""

    tier: Callable[[int, int, int, bool], str]
    recency_cuts_days: tuple[int, ...] = (30,)
    frequency_cuts: tuple[int, ...] = (3,)
    monetary_cuts_minor: tuple[int, ...] = (100_000,)
    window_days: int | None = None
    day_unit: str = "calendar_day"
    time_zone: str = "UTC"
    identity: str = "rfm8"
    forget_days: int | None = None

    def stop_us(self, at_us: int, days: int) -> int | None:
        """Instant at which "within ``days`` of ``at_us``" stops being true, None where that never comes."""
        if self.day_unit == "duration":
            stop = at_us + days * DAY_US
        else:
            day = local_day(self.time_zone, at_us) + days + 1
            if day * DAY_US > LAST_US + 2 * DAY_US:
                return None
            stop = local_midnight_us(self.time_zone, day)
        return stop if stop <= LAST_US else None

    def known_from_us(self, now_us: int) -> int | None:
        """Instant from which on orders are known: the midnight ``forget_days`` days before today's, None for all."""
        if self.forget_days is None:
            return None
        if self.day_unit == "duration":
            return now_us - self.forget_days * DAY_US + 1
        day = local_day(self.time_zone, now_us)
        # Today began, even if a clock has been set back to yesterday since.
        day += local_midnight_us(self.time_zone, day + 1) <= now_us
        return local_midnight_us(self.time_zone, day - self.forget_days)

    def within(self, at_us: int, days: int | None, now_us: int) -> bool:
        """Whether ``at_us`` lies within ``days`` of ``now_us``; None is a lifetime."""
        if days is None:
            return True
        stop = self.stop_us(at_us, days)
        return stop is None or now_us < stop

    def days_between(self, at_us: int, now_us: int) -> int:
        """Whole days that have passed in the ruleset's unit."""
        if self.day_unit == "duration":
            return (now_us - at_us) // DAY_US
        return local_day(self.time_zone, now_us) - local_day(self.time_zone, at_us)


def _eight(r: int, f: int, m: int, _first: bool) -> str:  # noqa: FBT001
    return f"{r}{f}{m}"


def _grace(r: int, f: int, m: int, _first: bool) -> str:  # noqa: FBT001
    return f"{int(r == 2 or (r, f, m) == (1, 1, 1))}{f}{m}"


def _scores4(r: int, f: int, m: int, _first: bool) -> str:  # noqa: FBT001
    high = tuple(band + 1 >= 4 for band in (r, f, m))
    if high == (True, True, True):
        return "high_value"
    if high == (True, False, False):
        return "potential"
    if not high[0] and high[2]:
        return "dormant"
    if high == (False, False, False):
        return "lost"
    return "regular"


def _groups3(r: int, f: int, m: int, _first: bool) -> str:  # noqa: FBT001
    return {(1, 1, 1): "high_value", (0, 1, 1): "potential", (0, 0, 0): "at_risk"}.get((r, f, m), "other")


def _types7(r: int, f: int, m: int, first: bool) -> str:  # noqa: FBT001
    if first and r == 1:
        return "new"
    named = {
        (1, 1, 0): "general_value",
        (1, 0, 1): "key_develop",
        (1, 1, 1): "vip",
        (0, 1, 1): "key_keep",
        (0, 0, 1): "key_win_back",
        (0, 0, 0): "dormant",
    }
    return named.get((r, f, m), "other")


BUILT_IN: dict[str, Callable[..., Rules]] = {
    "rfm8": partial(Rules, _eight),
    "rfm8-annual": partial(Rules, _eight, window_days=365, identity="rfm8-annual"),
    "rfm8-grace": partial(Rules, _grace, recency_cuts_days=(30, 90), window_days=365, identity="rfm8-grace"),
    "scores4": partial(
        Rules,
        _scores4,
        recency_cuts_days=(30, 60, 90, 120),
        frequency_cuts=(2, 3, 4, 5),
        monetary_cuts_minor=(100_000, 500_000, 1_000_000, 5_000_000),
        window_days=365,
        identity="scores4",
    ),
    "groups3": partial(Rules, _groups3, window_days=365, identity="groups3"),
    "types7": partial(Rules, _types7, window_days=365, identity="types7"),
}
"""The table of section 4 (minor units of a currency with two decimals); keyword arguments override fields."""


# 3. Orders and customers


@dataclass
class Order:
    """A paid order and what is left of it."""

    at_us: int
    amount_minor: int
    left_minor: int
    refunded_minor: int = 0
    is_void: bool = False
    is_cancelled: bool = False


@dataclass
class Customer:
    """All that ever happened to one customer.

    What is forgotten stays here, and is measured; only ``known`` leaves it out. ``dates`` say of each identity when the
    order or adjustment is dated that it speaks of, ``replaced`` are forgotten orders whose id came again.
    """

    orders: dict[str, Order] = field(default_factory=dict)
    replaced: list[Order] = field(default_factory=list)
    dates: dict[Any, int] = field(default_factory=dict)
    adjustments: list[tuple[int, int]] = field(default_factory=list)  # (at_us, amount_minor)
    identities: dict[Any, tuple[str, str, int, int]] = field(default_factory=dict)
    tier: str | None = None
    r_band: int = 0
    newest_change: Row | None = None
    seq: int = 0
    changed_us: int | None = None
    erased_us: int | None = None
    is_forgotten: bool = False

    def live_orders(self) -> list[Order]:
        return [order for order in (*self.replaced, *self.orders.values()) if not order.is_void]

    def known(self, from_us: int | None) -> "Customer":
        """Return what is known of the customer where everything dated before an instant is forgotten."""
        if from_us is None:
            return self
        return replace(
            self,
            orders={key: order for key, order in self.orders.items() if order.at_us >= from_us},
            identities={key: value for key, value in self.identities.items() if self.dates[key] >= from_us},
        )


@dataclass(frozen=True)
class Measure:
    """R, F, M, the bands and the tier of one customer at one instant."""

    last_paid_at: int | None
    frequency: int
    monetary_minor: int
    r_band: int
    f_band: int
    m_band: int
    tier: str | None


def measure(rules: Rules, customer: Customer, now_us: int) -> Measure:
    """Sections 3 and 4. Without a live order the R band and F are 0, while M still sums the adjustments."""
    live = customer.live_orders()
    inside = [order for order in live if rules.within(order.at_us, rules.window_days, now_us)]
    last_paid_at = max((order.at_us for order in live), default=None)
    frequency = len(inside)
    monetary = sum(order.left_minor for order in inside) + sum(
        amount for at_us, amount in customer.adjustments if rules.within(at_us, rules.window_days, now_us)
    )
    r_band = sum(
        last_paid_at is not None and rules.within(last_paid_at, days, now_us)
        for days in rules.recency_cuts_days
    )
    f_band = bisect_right(rules.frequency_cuts, frequency)
    m_band = bisect_right(rules.monetary_cuts_minor, monetary)
    tier = rules.tier(r_band, f_band, m_band, len(live) == 1) if live else None
    return Measure(last_paid_at, frequency, monetary, r_band, f_band, m_band, tier)


def stops_us(rules: Rules, customer: Customer, after_us: int) -> list[int]:
    """Instants after ``after_us`` at which an order or an adjustment leaves an R cut or the window."""
    cuts = {*rules.recency_cuts_days, *([] if rules.window_days is None else [rules.window_days])}
    dates = {order.at_us for order in customer.live_orders()} | {at_us for at_us, _ in customer.adjustments}
    stops = {rules.stop_us(at_us, days) for at_us in dates for days in cuts}
    return sorted(stop for stop in stops if stop is not None and stop > after_us)


def next_change(rules: Rules, customer: Customer, now_us: int) -> tuple[int | None, str | None]:
    """When and to what the customer will move if no further event comes."""
    tier = measure(rules, customer, now_us).tier
    for stop in stops_us(rules, customer, now_us):
        then = measure(rules, customer, stop).tier
        if then != tier:
            return stop, then
    return None, None


# 5. Clock, timers, order of things


class Oracle:
    """One shard: ``step`` applies events, ``advance`` passes time, the change rows collect in ``changes``."""

    def __init__(self, rules: Rules, mode: str = "replay") -> None:
        self.rules = rules
        self.mode = mode
        self.clock_us: int | None = None
        self.forgotten_us: int | None = None
        self.customers: defaultdict[str, Customer] = defaultdict(Customer)
        self.stops: list[tuple[int, str]] = []
        self.changes: list[Row] = []
        self.outcomes: list[str] = []

    def step(self, events: Iterable[Event]) -> list[str]:
        """Apply events in the order given and return what became of each."""
        outcomes = [self._apply(event) for event in events]
        self.outcomes += outcomes
        return outcomes

    def advance(self, now_us: int) -> None:
        """Visit every instant up to ``now_us`` in order of time; the clock never goes back."""
        while self.stops and self.stops[0][0] <= now_us:
            instant = self.stops[0][0]
            due = set()
            while self.stops and self.stops[0][0] == instant:
                due.add(heapq.heappop(self.stops)[1])
            for customer_id in sorted(due):
                self._evaluate(customer_id, instant, None)
        self.clock_us = now_us if self.clock_us is None else max(self.clock_us, now_us)

    @property
    def counters(self) -> Row:
        """Sum of lines: read = applied + duplicates + rejected."""
        outcomes = Counter(self.outcomes)
        return {
            "read": len(self.outcomes),
            "applied": outcomes.pop("applied", 0),
            "duplicates": outcomes.pop("duplicate", 0),
            "rejected": dict(outcomes),
            "changes": dict(Counter(row["reason"] for row in self.changes)),
        }

    def _apply(self, event: Event) -> str:
        # A rejected row or a duplicate changes nothing, not even the clock, nor is its identity remembered.
        from_us = self._known_from_us(self._judged_at_us(event))
        known = self.customers.get(event["customer_id"], Customer()).known(from_us)
        outcome = judge(known, event, from_us)
        if outcome != "applied":
            return outcome
        at_us, amount = event["occurred_at_us"], event["amount_minor"]
        self.advance(at_us)
        if event["type"] == "erased":
            self._erase(event)
            return "applied"
        customer = self.customers[event["customer_id"]]
        customer.is_forgotten = False
        customer.identities[identity(event)] = content(event)
        about = customer.orders.get(event["order_id"])
        speaks_of_order = event["type"] not in ("paid", "adjusted") and about is not None
        customer.dates[identity(event)] = about.at_us if speaks_of_order and about else at_us
        if event["type"] == "paid":
            if about is not None:
                customer.replaced.append(about)
            customer.orders[event["order_id"]] = Order(at_us, amount, amount)
            self._arm(event["customer_id"], at_us, self.rules.recency_cuts_days)
        elif event["type"] == "adjusted":
            customer.adjustments.append((at_us, amount))
        else:
            order = customer.orders[event["order_id"]]
            if event["type"] == "cancelled":
                order.is_cancelled = order.is_void = True
                order.left_minor = 0
            else:
                if event["type"] == "refunded_total":
                    amount -= order.refunded_minor
                order.refunded_minor += amount
                if amount and not order.is_void:  # of a cancelled order nothing is left to take off
                    order.left_minor -= amount
                    order.is_void = order.left_minor == 0
        if event["type"] in ("paid", "adjusted") and self.rules.window_days is not None:
            self._arm(event["customer_id"], at_us, (self.rules.window_days,))
        assert self.clock_us is not None
        self._evaluate(event["customer_id"], self.clock_us, event)
        return "applied"

    def take_over(self, rules: Rules) -> None:
        """Judge by other rules from now on; what is forgotten by those before stays so."""
        if self.clock_us is not None:
            self.forgotten_us = self._known_from_us(self.clock_us)
        self.rules = rules

    def _known_from_us(self, now_us: int) -> int | None:
        """Instant from which on orders are known, by these rules and all before them; None: all are."""
        bounds = (self.forgotten_us, self.rules.known_from_us(now_us))
        return max((bound for bound in bounds if bound is not None), default=None)

    def _judged_at_us(self, event: Event) -> int:
        """Instant at which an event is judged: the clock, which an event that is newer moves to its own."""
        at_us: int = event["occurred_at_us"]
        return at_us if self.clock_us is None else max(self.clock_us, at_us)

    def _erase(self, event: Event) -> None:
        """Begin the customer anew, with its count of changes and the instant; tell the change if it had a tier."""
        before = self.customers[event["customer_id"]]
        after = Customer(tier=before.tier, r_band=before.r_band, seq=before.seq, changed_us=before.changed_us)
        after.erased_us, after.is_forgotten = event["occurred_at_us"], True
        self.customers[event["customer_id"]] = after
        assert self.clock_us is not None
        self._evaluate(event["customer_id"], self.clock_us, event)
        after.newest_change = None

    def _arm(self, customer_id: str, at_us: int, cuts_days: tuple[int, ...]) -> None:
        # A band changes by time only where something leaves a cut or the window. All those instants are
        # visited, a few too many: an order may be void by then, or not the newest. That look changes nothing.
        for days in cuts_days:
            stop = self.rules.stop_us(at_us, days)
            if stop is not None and self.clock_us is not None and stop > self.clock_us:
                heapq.heappush(self.stops, (stop, customer_id))

    def _evaluate(self, customer_id: str, now_us: int, event: Event | None) -> None:
        customer = self.customers[customer_id]
        now = measure(self.rules, customer, now_us)
        if now.tier != customer.tier:
            if event is None:
                reason = "recency_expired" if now.r_band != customer.r_band else "window_expired"
            elif event["type"] == "paid" and customer.tier is None:
                reason = "first_order"
            else:
                reason = CHANGE_REASON[event["type"]]
            next_at, next_tier = next_change(self.rules, customer, now_us)
            row = {
                "customer_id": customer_id,
                "seq": customer.seq + 1,
                "effective_at": now_us,
                "from_tier": customer.tier,
                "to_tier": now.tier,
                "reason": reason,
                "order_id": event["order_id"] if event and event["type"] != "erased" else None,
                "r_band": now.r_band,
                "f_band": now.f_band,
                "m_band": now.m_band,
                "last_paid_at": now.last_paid_at,
                "frequency": now.frequency,
                "monetary_minor": now.monetary_minor,
                "next_change_at": next_at,
                "next_tier": next_tier,
                "ruleset": self.rules.identity,
                "mode": self.mode,
                "holdout": None,
                "view": self.rules.identity,
                "population": None,
            }
            self.changes.append(row)
            customer.newest_change = row
            customer.changed_us = now_us
            customer.seq += 1
        customer.tier, customer.r_band = now.tier, now.r_band

    # 7. Snapshot

    def snapshot(self, as_of_us: int | None = None) -> list[Row]:
        """One row a customer, by customer_id; as of later, of a copy for which that time has passed."""
        if self.clock_us is None and as_of_us is None:
            return []
        if as_of_us is not None and as_of_us != self.clock_us:
            assert self.clock_us is None or as_of_us > self.clock_us, "no snapshot before the clock"
            later = copy.deepcopy(self)
            later.advance(as_of_us)
            return later.snapshot()
        known = sorted(key for key, customer in self.customers.items() if not customer.is_forgotten)
        return [self._snapshot_row(customer_id) for customer_id in known]

    def _snapshot_row(self, customer_id: str) -> Row:
        assert self.clock_us is not None
        customer, now_us = self.customers[customer_id], self.clock_us
        now = measure(self.rules, customer, now_us)
        newest = customer.newest_change or defaultdict(lambda: None)
        live = customer.live_orders()
        lifetime = sum(order.left_minor for order in live) + sum(amount for _, amount in customer.adjustments)
        next_at, next_tier = next_change(self.rules, customer, now_us)
        return {
            "customer_id": customer_id,
            "tier": now.tier,
            "tier_since": newest["effective_at"],
            "seq": customer.seq or None,
            "from_tier": newest["from_tier"],
            "to_tier": newest["to_tier"],
            "reason": newest["reason"],
            "order_id": newest["order_id"],
            "effective_at": newest["effective_at"],
            "r_band": now.r_band,
            "f_band": now.f_band,
            "m_band": now.m_band,
            "last_paid_at": now.last_paid_at,
            "recency_days": None
            if now.last_paid_at is None
            else self.rules.days_between(now.last_paid_at, now_us),
            "frequency": now.frequency,
            "monetary_minor": now.monetary_minor,
            "first_paid_at": min((order.at_us for order in live), default=None),
            "lifetime_orders": len(live),
            "lifetime_monetary_minor": lifetime,
            "average_order_minor": lifetime // len(live) if live else None,
            "next_change_at": next_at,
            "next_tier": next_tier,
            "ruleset": self.rules.identity,
            "mode": self.mode,
            "view": self.rules.identity,
            "population": None,
        }


# 1. Identity and rejection


def identity(event: Event) -> Any:  # noqa: ANN401
    """Return what an event is recognised by inside its customer's history."""
    if event.get("event_id") is not None:
        return event["event_id"]
    if event["type"] == "paid":
        return event["order_id"]
    if event["type"] == "refunded_total":
        # Exports repeat the sum with one date while it grows (3): a larger one is another event.
        return event["type"], event["order_id"], event["occurred_at_us"], event["amount_minor"]
    return event["type"], event["order_id"], event["occurred_at_us"]


def content(event: Event) -> tuple[str, str, int, int]:
    """Return what two events of one identity must agree in to be the same."""
    return event["type"], event["order_id"], event["occurred_at_us"], event["amount_minor"]


def is_forgotten(event: Event, from_us: int | None) -> bool:
    """Tell whether nobody knows if an order or an adjustment was there before."""
    return from_us is not None and event["occurred_at_us"] < from_us


def judge(customer: Customer, event: Event, from_us: int | None = None) -> str:  # noqa: PLR0911 - one a rule
    """Say applied, duplicate or why not: erased, then unknown order, then seen before, then too much refunded.

    ``customer`` is what is known of it, where everything dated before ``from_us`` is forgotten.
    """
    if customer.erased_us is not None and event["occurred_at_us"] <= customer.erased_us:
        return "erased_customer"
    if event["type"] == "erased":
        return "applied"
    order = customer.orders.get(event["order_id"])
    speaks_of_order = event["type"] in ("refunded", "refunded_total", "cancelled")
    if (order is None) if speaks_of_order else is_forgotten(event, from_us):
        return "unknown_order"
    # What section 3 says of an order comes before what section 1 says of identities, whatever the event_id.
    if event["type"] == "paid" and order is not None:
        same = (order.at_us, order.amount_minor) == (event["occurred_at_us"], event["amount_minor"])
        return "duplicate" if same else "conflicting_duplicate"
    if event["type"] == "cancelled" and order is not None and order.is_cancelled:
        return "duplicate"
    if (
        event["type"] == "refunded_total"
        and order is not None
        and event["amount_minor"] <= order.refunded_minor
    ):
        return "duplicate"
    if identity(event) in customer.identities:
        same = customer.identities[identity(event)] == content(event)
        return "duplicate" if same else "conflicting_duplicate"
    if event["type"] == "refunded_total" and order is not None:
        return "refund_exceeds_order" if event["amount_minor"] > order.amount_minor else "applied"
    if event["type"] != "refunded" or order is None:
        return "applied"
    exceeds = event["amount_minor"] > order.left_minor or order.amount_minor == 0
    return "refund_exceeds_order" if exceeds else "applied"


def place(event: Event) -> tuple[int, bool]:
    """Return where a replay applies an event (5, rule 3); those of one place keep their order."""
    return event["occurred_at_us"], event["type"] != "paid"


def replay(
    rules: Rules, events: Iterable[Event], as_of_us: int | None = None, until_us: int | None = None
) -> Oracle:
    """Apply the rows before ``until_us`` in order of their places, then move the clock to ``as_of_us``."""
    oracle = Oracle(rules)
    oracle.step(
        sorted(
            (event for event in events if until_us is None or event["occurred_at_us"] < until_us), key=place
        )
    )
    as_of_us = until_us if as_of_us is None else as_of_us
    if as_of_us is not None:
        oracle.advance(as_of_us)
    return oracle
