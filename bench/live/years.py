"""Simulate years of a service, and look at its state with orders kept for ever and with orders forgotten.

Two engines go by the log's clock through the same orders and refunds, whose record times are simulated. What they tell
must be the same, and of the one that forgets, the state must stop to grow once it forgets.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.live.run import table
from rfmstream import Engine
from rfmstream.engine.core.buffers import values_of
from rfmstream.engine.events.normalise import normalise
from rfmstream.engine.replay.generate import generate_batches
from rfmstream.schemas.ruleset import load_ruleset

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
DAYS_A_YEAR: Final = 365
REFUNDED: Final = 29
"""One in so many orders is refunded, when the batch it came in is over."""
BATCH_ROWS: Final = 8192
GROWTH_MAX: Final = 0.1


@dataclass
class Kept:
    """An engine, and what its steps cost.

    Fields  bytes_max, step_s_max  of the year: the largest state, the longest step
    """

    engine: Engine
    cpu_s: float = 0.0
    bytes_max: int = 0
    step_s_max: float = 0.0

    def step(self, orders: pa.RecordBatch, log_us: Any) -> pa.Table:  # noqa: ANN401 - i64[n]
        before_s, before_cpu_s = time.perf_counter(), time.process_time()
        changes, outcomes = self.engine.step_log(orders, log_us)
        self.step_s_max = max(self.step_s_max, time.perf_counter() - before_s)
        self.cpu_s += time.process_time() - before_cpu_s
        self.bytes_max = max(self.bytes_max, sum(self.engine.memory.values()))
        assert not outcomes.any(), "every row is applied"
        return changes

    def checkpoint_bytes(self) -> int:
        """Write a checkpoint and return its size."""
        with TemporaryDirectory() as folder:
            self.engine.checkpoint(folder)
            return sum(path.stat().st_size for path in Path(folder).iterdir())


def simulate(
    *, years: int, customers: int, orders_a_day: int, ruleset: str, forget_days: int
) -> dict[str, Any]:
    """Return, and print as they pass, a row a year; and whether both told the same and the state stopped to grow."""
    own = load_ruleset(ruleset)
    off = Kept(Engine(own, mode="live"))
    on = Kept(Engine(replace(own, forget_orders_after_days=forget_days), mode="live"))
    rows: list[dict[str, Any]] = []
    is_equal = True
    year_us = DAYS_A_YEAR * 86_400_000_000
    for orders, log_us in _steps(years, customers, orders_a_day, own.currency):
        if log_us[0] - int(START.timestamp()) * 1_000_000 >= year_us * (len(rows) + 1):
            rows.append(_year(len(rows) + 1, off, on))
        told = [kept.step(orders, log_us) for kept in (off, on)]
        is_equal &= told[0].equals(told[1])
    rows.append(_year(len(rows) + 1, off, on))
    # The first year that is over when the oldest orders have been forgotten has all there is to keep.
    first = -(-forget_days // DAYS_A_YEAR)
    growth = rows[-1]["on_bytes_max"] / rows[min(first, len(rows) - 1)]["on_bytes_max"] - 1
    return {"years": rows, "is_equal": is_equal, "growth": growth, "is_bounded": growth <= GROWTH_MAX}


def _year(number: int, off: Kept, on: Kept) -> dict[str, Any]:
    row: dict[str, Any] = {"year": number, "orders": off.engine.counters.applied}
    for name, kept in (("off", off), ("on", on)):
        row |= {
            f"{name}_bytes_max": kept.bytes_max,
            f"{name}_checkpoint_bytes": kept.checkpoint_bytes(),
            f"{name}_cpu_s": kept.cpu_s,
            f"{name}_step_s_max": kept.step_s_max,
        }
        kept.bytes_max, kept.step_s_max = 0, 0.0
    print(table([row]), flush=True)
    return row


def _steps(
    years: int, customers: int, orders_a_day: int, currency: str
) -> Iterator[tuple[pa.RecordBatch, Any]]:
    """Yield orders in order of time, refunds among them, and the times of their records."""
    days = DAYS_A_YEAR * years
    for batch in generate_batches(
        customers=customers,
        orders=orders_a_day * days,
        keys="uniform",
        seed=1,
        days=days,
        start=START,
        batch_rows=BATCH_ROWS,
    ):
        paid = pa.Table.from_batches([batch])
        refunded = paid.take(pa.array(np.arange(0, paid.num_rows, REFUNDED)))
        at = paid.schema.get_field_index("occurred_at")
        over = pa.repeat(pc.max(paid["occurred_at"]), refunded.num_rows)
        refunded = refunded.set_column(at, paid.schema.field(at), over)
        types = pa.array(["paid"] * paid.num_rows + ["refunded"] * refunded.num_rows)
        both = pa.concat_tables([paid, refunded]).append_column("type", types)
        canonical, _ = normalise(both.combine_chunks().to_batches()[0], currency=currency)
        yield canonical, values_of(canonical.column("occurred_at"), np.int64)
