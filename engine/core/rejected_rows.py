"""The rows of a batch that the kernels rejected, as they are told."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import values_of
from rfmstream.engine.events.instants import to_text
from rfmstream.schemas.codes import Outcome
from rfmstream.schemas.orders import ORDER_TYPES, REJECTED_SCHEMA
from rfmstream.schemas.ruleset import Ruleset


def rejected_rows(orders: pa.RecordBatch, outcome: NDArray[np.uint8], ruleset: Ruleset) -> pa.RecordBatch:
    """Return the rows of a canonical batch that the kernels rejected, as text."""
    rows = np.flatnonzero(outcome >= Outcome.MALFORMED)
    exponent = ruleset.currency_exponent
    records = [
        {
            "row": record["row"],
            "reason": Outcome(outcome[row]).name.lower(),
            "customer_id": record["customer_id"],
            "order_id": record["order_id"] or None,
            "type": ORDER_TYPES[record["type"]],
            "occurred_at": record["occurred_at"],
            "amount": _major(record["amount_minor"], exponent),
            "currency": ruleset.currency,
            "event_id": record["event_id"],
        }
        for row, record in zip(
            rows.tolist(),
            orders.take(pa.array(rows))
            .set_column(
                3,
                "occurred_at",
                pa.array([to_text(at) for at in values_of(orders.column(3), np.int64)[rows].tolist()]),
            )
            .to_pylist(),
            strict=True,
        )
    ]
    return pa.RecordBatch.from_pylist(records, schema=REJECTED_SCHEMA)


def _major(amount_minor: int, exponent: int) -> str:
    digits = str(abs(amount_minor)).rjust(exponent + 1, "0")
    sign = "-" if amount_minor < 0 else ""
    return sign + (f"{digits[:-exponent]}.{digits[-exponent:]}" if exponent else digits)
