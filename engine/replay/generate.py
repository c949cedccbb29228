"""Synthetic order histories, to a file or in memory: for demonstrations, tests and benchmarks.

The rows are the same for the same arguments on every machine (see `kernels.generate`), so CSV and JSON
lines are the same bytes everywhere. Parquet and Arrow files also depend on the pyarrow that writes them:
same pyarrow, same bytes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from rfmstream.engine.files.output import OutputFile
from rfmstream.kernels import generate as kernel
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.orders import ORDER_SCHEMA, ORDER_TYPES

HISTORY_SCHEMA: Final = pa.schema(
    [ORDER_SCHEMA.field(name) for name in ("customer_id", "order_id", "type", "occurred_at", "amount_minor")]
)
"""Columns of a realistic history."""

LOAD_SCHEMA: Final = HISTORY_SCHEMA.remove(HISTORY_SCHEMA.get_field_index("type"))
"""Columns of a plain load: paid orders only, so the type is left to its default."""

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
LATE_SHARE: Final = 0.02
DUPLICATE_SHARE: Final = 0.005
REFUND_SHARE: Final = 0.03
CANCEL_SHARE: Final = 0.01
BATCH_ROWS: Final = 1 << 18

_CUSTOMERS_MAX: Final = 2**31 - 1
_ORDERS_MAX: Final = 10 ** (kernel.ORDER_ID_BYTES - 1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Relative weights: hour of the UTC day, Monday to Sunday, January to December. People sleep, shop at lunch
# and in the evening, more on weekends, and most before the end of the year.
_HOUR_WEIGHTS: Final = (
    *(25, 14, 8, 6, 6, 10, 22, 42, 60, 74, 84, 88),
    *(86, 78, 74, 74, 76, 80, 88, 100, 110, 104, 78, 48),
)
_WEEKDAY_WEIGHTS: Final = (96, 94, 94, 96, 104, 112, 104)
_MONTH_WEIGHTS: Final = (92, 84, 92, 94, 98, 104, 94, 92, 98, 102, 132, 118)


@dataclass(frozen=True)
class GenerateSummary:
    """What a generated file holds; a row is counted once: rows = paid + refunded + cancelled + duplicates.

    Fields  customers  customers that may occur; in a realistic history every one of them orders
            late       rows placed after others that happened later, duplicates not counted
    """

    out: Path
    rows: int
    customers: int
    paid: int
    refunded: int
    cancelled: int
    duplicates: int
    late: int


def generate(  # noqa: PLR0913 - the options of one command
    *,
    customers: int,
    orders: int,
    seed: int,
    out: Path,
    days: int = 730,
    start: datetime = START,
    keys: str = "realistic",
    late_share: float = LATE_SHARE,
    on_progress: Callable[[int], None] | None = None,
) -> GenerateSummary:
    """Write a synthetic history of exactly `orders` paid orders to a .parquet, .arrow, .csv or .jsonl file.

    The file appears whole or not at all. Memory grows with the customers and with the refunds that lie ahead,
    not with the orders.

    Args:
        customers: how many there are; in a realistic history each orders at least once.
        orders: paid orders; refunds, cancellations and duplicates come on top.
        seed: 0 .. 2^64 - 1; the same arguments give the same rows.
        out: the file; its suffix chooses the format.
        days: length of the history from `start`.
        start: a naive time is UTC; a realistic history begins with the full hour.
        keys: "realistic", or "uniform" or "zipf:EXPONENT" for a plain load of paid orders.
        late_share: share of rows a realistic file has out of order, by up to six hours; with 0 it is sorted.
        on_progress: called after each batch with the number of paid orders drawn so far.

    Raises:
        ConfigError: for an argument out of range, an unknown suffix or a file that cannot be written.
        TransportError: for a disk that is full or fails.

    """
    recipe = _Recipe(customers, orders, seed, days, start, keys, late_share)
    out = Path(out)
    progress = np.zeros(kernel.PROGRESS, np.int64)
    with OutputFile(out, recipe.schema) as file:
        for batch in recipe.batches(progress, BATCH_ROWS):
            file.write(batch)
            if on_progress is not None:
                on_progress(int(progress[kernel.PAID]))
        file.publish()
    return GenerateSummary(
        out=out,
        rows=file.rows,
        customers=customers,
        paid=int(progress[kernel.PAID]),
        refunded=int(progress[kernel.REFUNDED]),
        cancelled=int(progress[kernel.CANCELLED]),
        duplicates=int(progress[kernel.DUPLICATES]),
        late=int(progress[kernel.LATE]),
    )


def generate_batches(  # noqa: PLR0913 - those of `generate`, without the file
    *,
    customers: int,
    orders: int,
    seed: int,
    days: int = 730,
    start: datetime = START,
    keys: str = "realistic",
    late_share: float = LATE_SHARE,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[pa.RecordBatch]:
    """Draw the same rows as `generate` as record batches of `batch_rows`, which does not change them.

    The schema is HISTORY_SCHEMA for realistic keys, LOAD_SCHEMA else.
    """
    recipe = _Recipe(customers, orders, seed, days, start, keys, late_share)
    if batch_rows < 1:
        raise ConfigError(f"{batch_rows} rows a batch", key="batch_rows", fix="ask for at least 1")
    return recipe.batches(np.zeros(kernel.PROGRESS, np.int64), batch_rows)


@dataclass(frozen=True)
class _Recipe:
    """Validated arguments of a history, and how to draw it."""

    customers: int
    orders: int
    seed: int
    days: int
    start: datetime
    keys: str
    late_share: float

    def __post_init__(self) -> None:
        if self.start.tzinfo is None:
            object.__setattr__(self, "start", self.start.replace(tzinfo=UTC))
        days_max = (datetime.max.replace(tzinfo=UTC) - self.start).days
        for name, value, low, high in (
            ("customers", self.customers, 1, _CUSTOMERS_MAX),
            ("orders", self.orders, 1, _ORDERS_MAX),
            ("seed", self.seed, 0, 2**64 - 1),
            ("days", self.days, 1, days_max),
            ("late_share", self.late_share, 0, 1),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{value} is out of range", key=name, fix=f"choose from {low} to {high}")
        if self.keys == "realistic" and self.orders < self.customers:
            raise ConfigError(
                f"{self.orders} orders cannot give each of {self.customers} customers one",
                key="orders",
                fix="ask for at least as many orders as customers",
            )
        if self.keys not in {"realistic", "uniform"}:
            self._zipf_exponent()

    @property
    def schema(self) -> pa.Schema:
        return HISTORY_SCHEMA if self.keys == "realistic" else LOAD_SCHEMA

    def batches(self, progress: np.ndarray, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Draw the rows; `progress` (i64[PROGRESS], zeros) is kept up to date between two batches."""
        # Hashing wraps around on purpose; numpy minds only where numba's compiler is switched off.
        with np.errstate(over="ignore"):
            key = np.empty(kernel.STREAMS, np.uint64)
            kernel.fill_keys(np.uint64(self.seed), key)
        draw = self._draw_history if self.keys == "realistic" else self._draw_load
        return draw(key, progress, batch_rows)

    def _draw_history(
        self, key: np.ndarray, progress: np.ndarray, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        with np.errstate(over="ignore"):
            plan = self._plan(key)
        pending = np.empty((1 << 12, kernel.PENDING_COLUMNS), np.int64)
        rows, filled = _empty_rows(batch_rows), 0
        while progress[kernel.PAID] < self.orders or progress[kernel.PENDING] > 0:
            with np.errstate(over="ignore"):
                filled = kernel.draw_history(plan, progress, pending, rows, filled)
            if filled == batch_rows:
                yield _to_arrow(rows, filled, HISTORY_SCHEMA)
                rows, filled = _empty_rows(batch_rows), 0
            elif progress[kernel.PENDING] + kernel.PENDING_SPARE > len(pending):
                pending = np.concatenate([pending, np.empty_like(pending)])
        if filled:
            yield _to_arrow(rows, filled, HISTORY_SCHEMA)

    def _plan(self, key: np.ndarray) -> kernel.Plan:
        """Spread joins by the season, then the other orders by the season and the rates of those present."""
        start = self.start.replace(minute=0, second=0, microsecond=0)
        season = _season(start, self.days)
        slots = len(season)
        joins = _apportion(self.customers, season)
        joined = np.zeros(slots + 1, np.int64)
        np.cumsum(joins, out=joined[1:])
        weight = np.empty(self.customers, np.uint64)
        last_slot = np.empty(self.customers, np.int32)
        presence = np.empty(slots, np.int64)
        kernel.fill_customers(key, joined, weight, last_slot, presence)
        repeats = _apportion(
            self.orders - self.customers, [a * b for a, b in zip(season, presence.tolist(), strict=True)]
        )
        shares = (self.late_share, DUPLICATE_SHARE, REFUND_SHARE, CANCEL_SHARE)
        return kernel.Plan(
            key=key,
            slot_orders=joins + repeats,
            joined=joined,
            last_slot=last_slot,
            alias=_alias(weight),
            share=np.array([int(share * 2**32) for share in shares], np.int64),
            exp2=_exp2_table(),
            start_ms=np.array([_us_since_epoch(start) // 1000], np.int64),
        )

    def _draw_load(self, key: np.ndarray, progress: np.ndarray, batch_rows: int) -> Iterator[pa.RecordBatch]:
        alias = np.empty((0, 2), np.uint32)
        if self.keys != "uniform":
            weight = np.empty(self.customers, np.uint64)
            kernel.fill_zipf_weights(round(self._zipf_exponent() * 2**16), _exp2_table(), weight)
            alias = _alias(weight)
        start_us = _us_since_epoch(self.start)
        gap_us = self.days * 86_400_000_000 // self.orders
        for first in range(0, self.orders, batch_rows):
            rows = _empty_rows(min(batch_rows, self.orders - first))
            with np.errstate(over="ignore"):
                kernel.draw_load(key, alias, self.customers, start_us, gap_us, first, rows)
            progress[kernel.PAID] += len(rows.type)
            yield _to_arrow(rows, len(rows.type), LOAD_SCHEMA)

    def _zipf_exponent(self) -> float:
        name, _, number = self.keys.partition(":")
        try:
            exponent = float(number)
        except ValueError:
            exponent = -1.0
        if name != "zipf" or not 0 <= exponent <= 8:
            raise ConfigError(
                f"{self.keys!r} is unknown",
                key="keys",
                fix="choose realistic, uniform or zipf:EXPONENT (0 to 8)",
            )
        return exponent


def _season(start: datetime, days: int) -> list[int]:
    """Return the relative intensity of each hour from `start`, a full hour."""
    season = []
    for hour in range(days * 24):
        at = start + timedelta(hours=hour)
        season.append(_HOUR_WEIGHTS[at.hour] * _WEEKDAY_WEIGHTS[at.weekday()] * _MONTH_WEIGHTS[at.month - 1])
    return season


def _apportion(total: int, weights: list[int]) -> np.ndarray:
    """Split `total` in proportion to `weights`: i64 counts, every running sum rounded to the nearest."""
    whole = sum(weights)
    running = [(2 * total * part + whole) // (2 * whole) for part in accumulate(weights)]
    return np.diff(np.array([0, *running], np.int64))


def _alias(weight: np.ndarray) -> np.ndarray:
    alias = np.empty((len(weight), 2), np.uint32)
    # Python divides integers with correct rounding, as any machine would.
    kernel.fill_alias(weight, (len(weight) << 32) / int(weight.sum()), alias)
    return alias


@cache
def _exp2_table() -> np.ndarray:
    """Return 2^(i/256), i in 0 .. 256, in 32.32 fixed point; decimals are equal everywhere, libm is not."""
    with localcontext(prec=40):
        return np.array([int(Decimal(2) ** (32 + Decimal(i) / 256)) for i in range(257)], np.int64)


def _us_since_epoch(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _empty_rows(count: int) -> kernel.Rows:
    return kernel.Rows(
        customer_id=np.empty((count, kernel.CUSTOMER_ID_BYTES), np.uint8),
        order_id=np.empty((count, kernel.ORDER_ID_BYTES), np.uint8),
        type=np.empty(count, np.int8),
        occurred_us=np.empty(count, np.int64),
        amount_minor=np.empty(count, np.int64),
    )


def _to_arrow(rows: kernel.Rows, count: int, schema: pa.Schema) -> pa.RecordBatch:
    """Wrap the first `count` rows as a batch; the ids and numbers are not copied."""
    columns: dict[str, Callable[[], pa.Array]] = {
        "customer_id": lambda: _fixed_width_strings(rows.customer_id[:count]),
        "order_id": lambda: _fixed_width_strings(rows.order_id[:count]),
        "type": lambda: pa.array(ORDER_TYPES).take(pa.array(rows.type[:count])),
        "occurred_at": lambda: pa.array(rows.occurred_us[:count]).view(schema.field("occurred_at").type),
        "amount_minor": lambda: pa.array(rows.amount_minor[:count]),
    }
    return pa.record_batch([columns[name]() for name in schema.names], schema=schema)


def _fixed_width_strings(text: np.ndarray) -> pa.StringArray:
    count, width = text.shape
    offsets = np.arange(0, (count + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))
