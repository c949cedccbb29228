"""Signals as lines for people."""

import pytest

from rfmstream.engine.cli.show_signals import signal_line

SIGNAL = {
    "customer_id": "00042",
    "kind": "warning",
    "effective_at": "2026-01-23T16:00:00.000000Z",
    "tier": "111",
    "seq": 3,
    "days": 7,
    "count": None,
    "amount_minor": None,
    "at": "2026-01-30T16:00:00.000000Z",
    "next_tier": "011",
    "stay_orders": 1,
    "stay_minor": 0,
    "order_id": None,
    "view": "rfm8",
    "population": None,
    "ruleset": "rfm8",
    "mode": "live",
    "holdout": None,
}
AT = "2026-01-24 00:00:00  customer 00042: "
OTHERS = {"days": None, "order_id": "o7", "at": None, "next_tier": None, "stay_orders": None}


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({}, "111 ends on 2026-01-31, then 011: 7 days before; 1 order keeps it"),
        (
            {"days": 1, "stay_orders": 2, "stay_minor": 123_456, "next_tier": None},
            "111 ends on 2026-01-31, then no tier: 1 day before; 2 orders keep it from 1,234.56 CNY on",
        ),
        (
            {"stay_orders": None, "stay_minor": None, "mode": "replay"},
            "111 ends on 2026-01-31, then 011: 7 days before; no order keeps it  (replay)",
        ),
        ({"kind": "dwell", "days": 90, "holdout": True}, "in 111 for 90 days  (held out)"),
        (OTHERS | {"kind": "orders", "count": 4}, "order 4 (o7), in 111"),
        (OTHERS | {"kind": "spend", "amount_minor": 100_000}, "1,000.00 CNY spent in all (o7), in 111"),
        (
            OTHERS | {"kind": "single_order", "amount_minor": 50_000, "order_id": "\x1b[2J", "tier": None},
            "an order of 500.00 CNY or more (\\x1b[2J), in no tier",
        ),
    ],
)
def test_each_kind_has_its_words(others: dict[str, object], said: str) -> None:
    assert signal_line(SIGNAL | others, "Asia/Shanghai", "CNY") == AT + said


def test_amounts_of_an_unknown_currency_stay_as_they_are() -> None:
    line = signal_line(SIGNAL | OTHERS | {"kind": "spend", "amount_minor": 100_000}, "UTC", None)
    assert line == "2026-01-23 16:00:00  customer 00042: 100,000 minor units spent in all (o7), in 111"
