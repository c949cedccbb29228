"""The customers of a report by their ids, where it is asked for them: those of each tier who spent the most."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.insight.report.local_time import Ints
from rfmstream.engine.insight.report.model import ListedCustomer
from rfmstream.engine.insight.report.sources import Snapshot


def listed(snapshot: Snapshot, most: int) -> tuple[ListedCustomer, ...]:
    """Return the `most` customers of each tier by lifetime spend, in the ruleset's order; without a tier come last.

    Of customers who spent the same, those with the smaller id (by code points) come first.
    """
    assert snapshot.customer_id is not None, "such a snapshot is read with its ids"
    made = []
    for code in range(snapshot.no_tier + 1):
        there = np.flatnonzero(snapshot.tier == code)
        spend = snapshot.lifetime_monetary_minor[there]
        if len(there) > most:
            # All who may be among them: as many as spent what the last of them did.
            least = np.partition(spend, len(spend) - most)[len(spend) - most]
            there = there[spend >= least]
        tier = snapshot.ruleset.tiers[code].id if code < snapshot.no_tier else None
        found = [_customer(snapshot, tier, row, *names) for row, names in _named(snapshot, there)]
        found.sort(
            key=lambda customer: (-customer.revenue_minor, customer.customer_id, customer.population or "")
        )
        made += found[:most]
    return tuple(made)


def _named(snapshot: Snapshot, rows: Ints) -> list[tuple[int, tuple[str, str | None]]]:
    """Return each row with its customer's id and population."""
    assert snapshot.customer_id is not None
    places = pa.array(rows)
    ids = pc.take(snapshot.customer_id, places).to_pylist()
    populations = (
        [None] * len(ids)
        if snapshot.population is None
        else pc.take(snapshot.population, places).cast(pa.string()).to_pylist()
    )
    return list(zip(map(int, rows), zip(ids, populations, strict=True), strict=True))


def _customer(
    snapshot: Snapshot, tier: str | None, row: int, customer_id: str, population: str | None
) -> ListedCustomer:
    days = int(snapshot.recency_days[row])
    return ListedCustomer(
        tier=tier,
        customer_id=customer_id,
        population=population,
        recency_days=None if days < 0 else days,
        frequency=int(snapshot.frequency[row]),
        monetary_minor=int(snapshot.monetary_minor[row]),
        orders=int(snapshot.lifetime_orders[row]),
        revenue_minor=int(snapshot.lifetime_monetary_minor[row]),
    )
