"""Signals as lines for people."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rfmstream.engine.cli.show import local_time, money, view_words
from rfmstream.schemas.currencies import CURRENCY_EXPONENTS
from rfmstream.schemas.errors import printable


def signal_line(signal: Mapping[str, Any], zone: str, currency: str | None) -> str:
    """Write a signal, as its JSON event has it, in one line.

    In      zone      times are of this time zone
            currency  of its amounts; None: not known, so they stay in minor units
    """
    mode = "" if signal["mode"] == "live" else f"  ({signal['mode']})"
    held = "  (held out)" if signal["holdout"] else ""
    at = local_time(datetime.fromisoformat(signal["effective_at"]), zone, "seconds")
    who = f"{view_words(signal)}customer {signal['customer_id']}"
    return printable(f"{at}  {who}: {_said(signal, zone, currency)}{held}{mode}")


def _said(signal: Mapping[str, Any], zone: str, currency: str | None) -> str:
    tier, days = signal["tier"] or "no tier", signal["days"]
    match signal["kind"]:
        case "warning":
            day = local_time(datetime.fromisoformat(signal["at"]), zone)[:10]
            after = signal["next_tier"] or "no tier"
            return f"{tier} ends on {day}, then {after}: {_days(days)} before; {_stay(signal, currency)}"
        case "dwell":
            return f"in {tier} for {_days(days)}"
        case "orders":
            return f"order {signal['count']:,} ({signal['order_id']}), in {tier}"
        case "spend":
            return (
                f"{_amount(signal['amount_minor'], currency)} spent in all ({signal['order_id']}), in {tier}"
            )
        case _:
            reached = _amount(signal["amount_minor"], currency)
            return f"an order of {reached} or more ({signal['order_id']}), in {tier}"


def _stay(signal: Mapping[str, Any], currency: str | None) -> str:
    """Say what keeps the customer in the tier."""
    orders = signal["stay_orders"]
    if orders is None:
        return "no order keeps it"
    counted = "1 order keeps" if orders == 1 else f"{orders:,} orders keep"
    least = signal["stay_minor"]
    return f"{counted} it" + (f" from {_amount(least, currency)} on" if least else "")


def _days(count: int) -> str:
    return f"{count:,} day" if count == 1 else f"{count:,} days"


def _amount(minor: int, currency: str | None) -> str:
    if currency is None:
        return f"{minor:,} minor units"
    return f"{money(minor, CURRENCY_EXPONENTS[currency])} {currency}"
