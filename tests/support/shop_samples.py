"""Reads a small sample of a shop's export by the map that is shipped for it."""

from pathlib import Path

from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.files.source import open_orders

PAID, REFUNDED, CANCELLED, ADJUSTED, TOTAL = range(5)


def run(path: Path, name: str, currency: str) -> tuple[list[tuple], list[tuple], int]:
    """Return what is applied, what is rejected, and how many rows are left out."""
    stream = open_orders([path], input_map=load_map(name), currency=currency)
    good, bad = [], []
    for orders, rejected in stream:
        for row in orders.to_pylist():
            at = str(row["occurred_at"])[:16]
            good.append((row["customer_id"], row["order_id"], row["type"], at, row["amount_minor"]))
        bad += [(row["row"], row["reason"]) for row in rejected.to_pylist()]
    return good, bad, stream.rows_excluded
