"""Have the kernels of a report compiled before somebody waits for one."""

from pathlib import Path
from typing import Final

import pyarrow as pa

from rfmstream.engine.insight.report.build import assemble
from rfmstream.engine.insight.report.movement import empty_table, enlarged
from rfmstream.engine.insight.report.sources import changes_of, snapshot_of
from rfmstream.schemas.changes import CHANGE_SCHEMA
from rfmstream.schemas.ruleset import load_ruleset
from rfmstream.schemas.snapshots import SNAPSHOT_SCHEMA

_SOURCE: Final = Path("warm-up")
_AT_US: Final = 1_767_225_600_000_000


def warm_up() -> None:
    """Report of one customer. Takes milliseconds where the kernels are compiled."""
    ruleset = load_ruleset("rfm8-annual")
    tier = ruleset.tiers[0].id
    order: dict[str, object] = {
        "customer_id": "c",
        "effective_at": _AT_US,
        "last_paid_at": _AT_US,
        "order_id": "o",
    }
    change = order | {"to_tier": tier, "reason": "first_order"}
    counted = dict.fromkeys(("recency_days", "frequency", "lifetime_orders", "lifetime_monetary_minor"), 1)
    customer = order | counted | {"tier": tier, "first_paid_at": _AT_US, "monetary_minor": 1}
    changes = pa.Table.from_pylist([change], CHANGE_SCHEMA)
    snapshot = snapshot_of(pa.Table.from_pylist([customer], SNAPSHOT_SCHEMA), ruleset, source=_SOURCE)
    assemble(snapshot, changes_of([changes], ruleset, source=_SOURCE), (0, snapshot.as_of_us))
    enlarged(empty_table(1))
