"""The slow, obvious twin of signals, written from docs/semantics.md 9 alone; see oracle.py.

After every look at a customer its whole situation is worked out anew: when its tier will change, which warnings and
dwells that makes, and what it takes to stay, by trying.
"""

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oracle import Customer, Event, Measure, Oracle, Row, Rules, measure, next_change
from oracle_days import DAY_US, local_day, local_midnight_us


@dataclass(frozen=True)
class SignalRules(Rules):
    """Rules, and the signals they ask for: days by tier, and milestones, ascending; amounts in minor units."""

    warn_days: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dwell_days: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    orders: tuple[int, ...] = ()
    spend_minor: tuple[int, ...] = ()
    single_order_minor: tuple[int, ...] = ()

    def warn_us(self, change_us: int, days: int) -> int:
        """Instant of a warning ``days`` before a change."""
        if self.day_unit == "duration":
            return change_us - days * DAY_US
        return local_midnight_us(self.time_zone, local_day(self.time_zone, change_us) - days)


@dataclass
class Memory:
    """What a customer remembers of the signals given."""

    orders: int = 0
    spend_minor: int = 0
    warned: tuple[int, int] | None = None  # (D, w) of the last warning
    dwelt: set[int] = field(default_factory=set)


class SignalOracle(Oracle):
    """An oracle whose signals collect in ``signals``."""

    rules: SignalRules

    def __init__(self, rules: SignalRules, mode: str = "replay") -> None:
        super().__init__(rules, mode)
        self.memories: defaultdict[str, Memory] = defaultdict(Memory)
        self.signals: list[Row] = []

    def _evaluate(self, customer_id: str, now_us: int, event: Event | None) -> None:
        before = self.customers[customer_id].newest_change
        super()._evaluate(customer_id, now_us, event)
        customer, memory = self.customers[customer_id], self.memories[customer_id]
        if customer.newest_change is not before:
            memory.warned = None
            memory.dwelt = set()
        if event is not None:
            self._reach(customer_id, now_us, event)
        if customer.tier is not None:
            self._warn(customer_id, now_us, event)
            self._dwell(customer_id, now_us, event)

    def _erase(self, event: Event) -> None:
        super()._erase(event)
        del self.memories[event["customer_id"]]

    def _reach(self, customer_id: str, now_us: int, event: Event) -> None:
        customer, memory = self.customers[customer_id], self.memories[customer_id]
        live = customer.live_orders()
        lifetime = sum(order.left_minor for order in live) + sum(amount for _, amount in customer.adjustments)
        for count in self.rules.orders:
            if memory.orders < count <= len(live):
                self._tell(customer_id, "orders", now_us, event, count=count)
        memory.orders = max(memory.orders, len(live))
        for cut in self.rules.spend_minor:
            if memory.spend_minor < cut <= lifetime:
                self._tell(customer_id, "spend", now_us, event, amount_minor=cut)
        memory.spend_minor = max(memory.spend_minor, lifetime)
        reached = [cut for cut in self.rules.single_order_minor if cut <= event["amount_minor"]]
        if event["type"] == "paid" and reached:
            self._tell(customer_id, "single_order", now_us, event, amount_minor=max(reached))

    def _warn(self, customer_id: str, now_us: int, event: Event | None) -> None:
        customer, memory = self.customers[customer_id], self.memories[customer_id]
        change_us, next_tier = next_change(self.rules, customer, now_us)
        days = self.rules.warn_days.get(customer.tier or "", ())
        if change_us is None:
            return
        instants = {w: self.rules.warn_us(change_us, w) for w in days}
        due = [w for w, at_us in instants.items() if at_us <= now_us]
        if due and not (memory.warned and memory.warned[0] == change_us and min(due) >= memory.warned[1]):
            stay_orders, stay_minor = what_it_takes(self.rules, customer, change_us)
            self._tell(
                customer_id,
                "warning",
                now_us,
                event,
                days=min(due),
                at=change_us,
                next_tier=next_tier,
                stay_orders=stay_orders,
                stay_minor=stay_minor,
            )
            memory.warned = change_us, min(due)
        for at_us in instants.values():
            if at_us > now_us:
                heapq.heappush(self.stops, (at_us, customer_id))

    def _dwell(self, customer_id: str, now_us: int, event: Event | None) -> None:
        customer, memory = self.customers[customer_id], self.memories[customer_id]
        assert customer.newest_change is not None
        for days in self.rules.dwell_days.get(customer.tier or "", ()):
            at_us = self.rules.stop_us(customer.newest_change["effective_at"], days)
            if at_us is None or days in memory.dwelt:
                continue
            if at_us <= now_us:
                self._tell(customer_id, "dwell", now_us, event, days=days)
                memory.dwelt.add(days)
            else:
                heapq.heappush(self.stops, (at_us, customer_id))

    def _tell(
        self,
        customer_id: str,
        kind: str,
        now_us: int,
        event: Event | None,
        **said: Any,  # noqa: ANN401
    ) -> None:
        customer = self.customers[customer_id]
        nothing = ("days", "count", "amount_minor", "at", "next_tier", "stay_orders", "stay_minor")
        self.signals.append(
            {
                "customer_id": customer_id,
                "kind": kind,
                "effective_at": now_us,
                "tier": customer.tier,
                "seq": customer.seq,
                **dict.fromkeys(nothing),
                **said,
                "order_id": event["order_id"] if event else None,
                "view": self.rules.identity,
                "population": None,
                "ruleset": self.rules.identity,
                "mode": self.mode,
                "holdout": None,
            }
        )


def what_it_takes(rules: Rules, customer: Customer, change_us: int) -> tuple[int | None, int | None]:
    """Return the fewest further orders just before a change, and the least amount of them, that keep the tier."""
    then: Measure = measure(rules, customer, change_us)
    for orders in range(1, max(rules.frequency_cuts, default=1) + 1):
        f_band = sum(cut <= then.frequency + orders for cut in rules.frequency_cuts)
        for more in sorted({0, *(max(cut - then.monetary_minor, 0) for cut in rules.monetary_cuts_minor)}):
            m_band = sum(cut <= then.monetary_minor + more for cut in rules.monetary_cuts_minor)
            if rules.tier(len(rules.recency_cuts_days), f_band, m_band, False) == customer.tier:  # noqa: FBT003
                return orders, more
    return None, None
