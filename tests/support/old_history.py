"""The history behind tests/data/checkpoint-v1: what a program of checkpoint version 1 was given before it stopped.

The checkpoint there was written by that program, `Engine("rfm8-annual", threads=2)`, after `before()`, and is never
written again: it says what every later program must be able to go on from.
"""

from typing import Any

from oracle_days import DAY_US

CUSTOMERS = 37
FIRST_DAY = 20_000
"""2024-10-04, in days since 1970."""

Row = dict[str, Any]


def _event(customer: int, order: str, kind: str, day: int, amount_minor: int) -> Row:
    name = f"customer-{customer}" + "-with-a-long-id" * (customer % 3)
    at_us = (FIRST_DAY + day) * DAY_US + customer * 3_600_000_000 // 2 + len(order)
    return {
        "customer_id": name,
        "order_id": order,
        "type": kind,
        "occurred_at_us": at_us,
        "amount_minor": amount_minor,
        "event_id": None,
    }


def _rounds(first: int, end: int) -> list[Row]:
    rows = []
    for turn in range(first, end):
        for customer in range(CUSTOMERS):
            if (customer + turn) % 3 == 0:
                continue
            day, order = turn * (5 + customer % 11), f"o{turn}"
            rows.append(_event(customer, order, "paid", day, 9_900 + 7_000 * ((customer * turn) % 9)))
            if (customer + turn) % 5 == 0:
                rows.append(_event(customer, order, "refunded", day + 1, 4_000))
            if (customer + turn) % 7 == 0:
                rows.append(_event(customer, order, "cancelled", day + 2, 0) | {"event_id": f"cancel-{turn}"})
            if (customer + turn) % 11 == 0:
                rows.append(_event(customer, "credit", "adjusted", day + 3, 50_000 - 25_000 * (turn % 4)))
    return sorted(rows, key=lambda row: row["occurred_at_us"])


def before() -> list[Row]:
    """Return what the program of version 1 applied before it wrote its checkpoint, in order of time."""
    return _rounds(0, 12)


def after() -> list[Row]:
    """Return what came afterwards: new orders, late ones, and some it had already seen."""
    return _rounds(10, 26)
