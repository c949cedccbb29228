"""The rules of rfm8 (lifetime, UTC days) for the Python peers, so that they differ in their framework alone.

Source  docs/semantics.md sections 2 to 6. A customer is a plain dict, because that is what every framework can keep:
frequency, monetary (minor units), tier, seq, and due: the midnight (µs) at which it stops being recent, None if it
is not.
"""

import heapq
import json
from datetime import UTC, datetime, timedelta
from typing import Any

RECENT_DAYS = 30
FREQUENT_ORDERS = 3
VALUABLE_MINOR = 100_000
DAY_US = 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

Customer = dict[str, Any]
Change = dict[str, Any]


def to_us(text: str) -> int:
    """Return an ISO instant in µs since 1970 UTC."""
    return (datetime.fromisoformat(text) - EPOCH) // MICROSECOND


def to_minor(amount: str) -> int:
    """Return a decimal amount with at most two digits after the point in minor units, exactly."""
    whole, _, fraction = amount.partition(".")
    return int(whole) * 100 + int(fraction.ljust(2, "0") or 0)


def due_us(at_us: int) -> int:
    """Return the midnight at which an order is no longer recent."""
    return (at_us // DAY_US + RECENT_DAYS + 1) * DAY_US


def new_customer() -> Customer:
    return {"frequency": 0, "monetary": 0, "tier": None, "seq": 0, "due": None}


def expire(customer_id: str, customer: Customer, now_us: int) -> list[Change]:
    """Let time pass up to `now_us`: the change that brings, if it does."""
    if customer["due"] is None or customer["due"] > now_us:
        return []
    at_us, customer["due"] = customer["due"], None
    return _changes(customer_id, customer, at_us, "recency_expired")


def pay(customer_id: str, customer: Customer, at_us: int, amount_minor: int) -> list[Change]:
    """Apply an order that is no duplicate: the changes due before it, then its own."""
    changes = expire(customer_id, customer, at_us)
    customer["frequency"] += 1
    customer["monetary"] += amount_minor
    customer["due"] = due_us(at_us)
    reason = "order" if customer["tier"] else "first_order"
    return changes + _changes(customer_id, customer, at_us, reason)


def encode(change: Change) -> bytes:
    return json.dumps(change).encode()


class Segments:
    """All customers of a partition in memory, for frameworks whose timers know no event time.

    Holds   the clock is the newest order's instant; of every recent customer `due` has an entry
    """

    def __init__(self) -> None:
        self.customers: dict[str, Customer] = {}
        self.seen: set[tuple[str, str]] = set()
        self.due: list[tuple[int, str]] = []
        self.clock_us = 0

    def apply(self, message: bytes) -> list[Change]:
        """Apply an order as JSON: what is due in the partition before it, then its own changes."""
        order = json.loads(message)
        if order["type"] != "paid":
            return []
        customer_id, at_us = order["customer_id"], to_us(order["occurred_at"])
        self.clock_us = max(self.clock_us, at_us)
        changes = self._age_out()
        identity = customer_id, order["order_id"]
        if identity in self.seen:
            return changes
        self.seen.add(identity)
        customer = self.customers.setdefault(customer_id, new_customer())
        changes += pay(customer_id, customer, at_us, to_minor(order["amount"]))
        heapq.heappush(self.due, (customer["due"], customer_id))
        return changes

    def _age_out(self) -> list[Change]:
        changes = []
        while self.due and self.due[0][0] <= self.clock_us:
            at_us, customer_id = heapq.heappop(self.due)
            customer = self.customers[customer_id]
            # An entry of an order that was not the customer's last is left behind.
            if customer["due"] == at_us:
                changes += expire(customer_id, customer, at_us)
        return changes


def _changes(customer_id: str, customer: Customer, at_us: int, reason: str) -> list[Change]:
    tier = (
        f"{customer['due'] is not None:d}"
        f"{customer['frequency'] >= FREQUENT_ORDERS:d}"
        f"{customer['monetary'] >= VALUABLE_MINOR:d}"
    )
    before = customer["tier"]
    if tier == before:
        return []
    customer["tier"] = tier
    customer["seq"] += 1
    return [
        {
            "customer_id": customer_id,
            "seq": customer["seq"],
            "effective_at": (EPOCH + timedelta(microseconds=at_us)).isoformat(),
            "from_tier": before,
            "to_tier": tier,
            "reason": reason,
        }
    ]
