"""The customers, orders and revenue of each tier of a snapshot, which may come in parts.

Money and counts are exact integers throughout; only shares are floats.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.schemas.ruleset import Ruleset

_EXACT = pa.decimal128(38, 0)
"""Sums of int64 columns, which one more customer could take past int64."""


@dataclass(frozen=True)
class TierRow:
    """The customers of one tier.

    Fields  id               tier id; None: the customers without a tier
            customers        how many there are
            orders           their lifetime_orders: all orders that are not void, within the window or not
            revenue_minor    their lifetime_monetary_minor: what is left of those orders, plus adjustments
            customer_share   of all customers, 0..1; None if there are none
            revenue_share    of all revenue; None unless that is positive
    """

    id: str | None
    label_zh: str
    label_en: str
    customers: int
    orders: int
    revenue_minor: int
    customer_share: float | None
    revenue_share: float | None

    @property
    def average_order_minor(self) -> int | None:
        """Revenue an order, rounded down; None without orders."""
        return self.revenue_minor // self.orders if self.orders else None


def count_tiers(snapshot: pa.Table, ruleset: Ruleset) -> tuple[TierRow, ...]:
    """Count the customers, orders and revenue of each tier of a snapshot.

    Every tier of the ruleset has its row, in the ruleset's order; those without a tier follow if there are any.
    """
    return tier_rows([tier_sums(snapshot)], ruleset)


def tier_sums(snapshot: pa.Table) -> pa.Table:
    """Return a row a tier of a snapshot: tier, customers, orders, revenue."""
    # One dictionary for all chunks: group_by would else refuse the column.
    snapshot = snapshot.select(["tier", "lifetime_orders", "lifetime_monetary_minor"]).unify_dictionaries()
    revenue = pc.cast(snapshot["lifetime_monetary_minor"], pa.decimal128(19, 0)).cast(_EXACT)
    return (
        pa.table({"tier": snapshot["tier"], "orders": snapshot["lifetime_orders"], "revenue": revenue})
        .group_by("tier")
        .aggregate([([], "count_all"), ("orders", "sum"), ("revenue", "sum")])
    )


def tier_rows(sums: Sequence[pa.Table], ruleset: Ruleset) -> tuple[TierRow, ...]:
    """Return the rows of `count_tiers` of one or more `tier_sums`, of different customers."""
    found: dict[str | None, Counter[str]] = {}
    for row in (row for part in sums for row in part.to_pylist()):
        found.setdefault(row.pop("tier"), Counter()).update({name: int(value) for name, value in row.items()})
    customers = sum(row["count_all"] for row in found.values())
    revenue_total = sum(row["revenue_sum"] for row in found.values())

    def tier_row(tier_id: str | None, label_zh: str, label_en: str) -> TierRow:
        row = found.get(tier_id, Counter())
        return TierRow(
            id=tier_id,
            label_zh=label_zh,
            label_en=label_en,
            customers=row["count_all"],
            orders=row["orders_sum"],
            revenue_minor=row["revenue_sum"],
            customer_share=ratio(row["count_all"], customers),
            revenue_share=ratio(row["revenue_sum"], revenue_total),
        )

    rows = [tier_row(tier.id, tier.label_zh, tier.label_en) for tier in ruleset.tiers]
    if None in found:
        rows.append(tier_row(None, "无分层", "No tier"))
    return tuple(rows)


def ratio(part: int, whole: int) -> float | None:
    """Return a share; None: of nothing."""
    return part / whole if whole > 0 else None
