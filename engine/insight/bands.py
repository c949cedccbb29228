"""Who is in each band of R, F and M: customers, and the revenue they brought."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Band:
    """The customers of one band.

    Fields  measure        "r", "f" or "m"
            band           0 is the lowest
            revenue_minor  over their lifetimes
    """

    measure: str
    band: int
    customers: int
    revenue_minor: int
    customer_share: float | None
    revenue_share: float | None


def count_bands(snapshot: pa.Table, counts: tuple[int, int, int]) -> tuple[Band, ...]:
    """Count the customers of each band, the highest first.

    In      snapshot  columns r_band, f_band, m_band, lifetime_monetary_minor
            counts    how many bands R, F and M have
    """
    revenue = snapshot["lifetime_monetary_minor"].to_numpy()
    revenue_total = int(revenue.sum())
    found = []
    for measure, count in zip("rfm", counts, strict=True):
        band = snapshot[f"{measure}_band"].to_numpy()
        for number in reversed(range(count)):
            own = band == number
            customers, own_revenue = int(own.sum()), int(revenue[own].sum(dtype=np.int64))
            found.append(
                Band(
                    measure,
                    number,
                    customers,
                    own_revenue,
                    customers / len(band) if len(band) else None,
                    own_revenue / revenue_total if revenue_total > 0 else None,
                )
            )
    return tuple(found)
