"""The engine: orders in, tier changes out, snapshots on demand.

An engine is one or more shards of one ruleset. It is given batches and instants and returns Arrow tables; it reads no
clock and no file, so the same calls give the same tables always.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from copy import copy, deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from itertools import pairwise
from os import PathLike
from typing import Any, Final, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import offsets_and_data, values_of
from rfmstream.engine.core.columns import ColumnWriter
from rfmstream.engine.core.guard import Guard
from rfmstream.engine.core.kernel_records import KernelRecord
from rfmstream.engine.core.rules import compile_rules
from rfmstream.engine.core.shard import Shard, new_seeds
from rfmstream.engine.core.touch import has_idle_processor
from rfmstream.engine.events.arrow_buffers import check_table
from rfmstream.engine.events.instants import Instant, to_datetime, to_text, to_us
from rfmstream.engine.events.normalise import normalise
from rfmstream.kernels.ids import hash_ids
from rfmstream.kernels.layout import BATCH
from rfmstream.kernels.parse import lengths_within
from rfmstream.schemas.changes import CHANGE_REASONS
from rfmstream.schemas.codes import ID_BYTES_MAX, NEVER_US, NO_TIER, Outcome
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.orders import ORDER_TYPES, REJECTED_SCHEMA
from rfmstream.schemas.ruleset import Ruleset, load_ruleset

Mode = Literal["live", "replay"]
_T = TypeVar("_T")

_STEP_ROWS: Final = 1 << 16
"""Rows folded at a time: enough to hide what a call costs, few enough that their columns stay in the cache."""
_SPAN_ROWS_MIN: Final = 1 << 13
_SNAPSHOT_ROWS: Final = 1 << 18
_ROUTE_KEYS: Final = np.array(
    [0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89], dtype=np.uint64
)
"""Keys (digits of pi) of the hash that says a customer's shard: the same for ever, so that a run with threads can be
repeated row for row, and a checkpoint's shards go on with their customers."""
_CHANGES_MAX: Final = 1 << 22
"""Changes in a batch: even with the longest ids its strings stay within Arrow's 31-bit offsets."""


@dataclass
class Counters:
    """What an engine has seen so far.

    Fields  input_rows  of the files that were replayed: with rows that are no orders, and before lines were summed
    Holds   applied + duplicates + sum(rejected) = read
    """

    read: int = 0
    applied: int = 0
    duplicates: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    input_rows: int = 0

    def reject(self, reasons: Iterable[str]) -> None:
        """Count rows that were read and rejected."""
        for reason, count in Counter(reasons).items():
            self.read += count
            self.rejected[reason] = self.rejected.get(reason, 0) + count


@dataclass(frozen=True)
class StepResult:
    """What a batch brought.

    Fields  changes   tier changes, schemas.changes
            rejected  rows that changed nothing, schemas.orders.REJECTED_SCHEMA
    """

    changes: pa.Table
    rejected: pa.Table


class Engine:
    """Keeps the R, F and M of customers by one ruleset and says when a tier changes.

    ruleset  a Ruleset, the name of a built-in one or a file
    threads  shards to spread the customers over, each worked on by a thread; no result depends on it as long as
             rows come in order of time
    mode     what the changes say of themselves; "replay" tells automation not to act on them

    >>> engine = Engine("rfm8")
    >>> result = engine.step(table)        # columns of the contract: customer_id, order_id, occurred_at, amount ...
    >>> result.changes.to_pandas()
    >>> engine.snapshot(as_of="2026-12-01T00:00:00Z")
    """

    def __init__(
        self,
        ruleset: Ruleset | str = "rfm8",
        *,
        threads: int = 1,
        mode: Mode = "replay",
    ) -> None:
        if threads < 1:
            raise ConfigError(f"{threads} threads", key="threads", fix="use 1 or more")
        self.ruleset = ruleset if isinstance(ruleset, Ruleset) else load_ruleset(ruleset)
        self.mode = mode
        self.counters = Counters()
        self._guard = Guard()
        seeds = new_seeds()
        rules = compile_rules(self.ruleset)
        self.shards = [Shard(rules, seeds, number=i, count=threads) for i in range(threads)]
        self._columns = ColumnWriter(self.ruleset, mode)
        self.use_threads(threads)

    @property
    def clock_us(self) -> int:
        """The newest instant applied or advanced to, in µs since 1970 UTC; NEVER_US before the first."""
        return max(shard.clock_us for shard in self.shards)

    @property
    def clock(self) -> datetime | None:
        """The clock as a datetime; None before the first event."""
        return None if self.clock_us == NEVER_US else to_datetime(self.clock_us)

    @property
    def customers(self) -> int:
        """How many customers have ever had an event applied and were not erased since."""
        return sum(shard.customers - shard.erased for shard in self.shards)

    @property
    def orders(self) -> int:
        """How many orders are retained."""
        return sum(int(shard.state.row.n_orders) for shard in self.shards)

    @property
    def memory(self) -> dict[str, int]:
        """The bytes the state takes, by what they hold."""
        total: Counter[str] = Counter()
        for shard in self.shards:
            total.update(shard.memory())
        return dict(total)

    @property
    def no_changes(self) -> pa.Table:
        """A table of no tier changes."""
        return self._columns.change_schema.empty_table()

    def use_threads(self, threads: int) -> None:
        """Work on the shards with so many threads from now on."""
        self._threads = threads
        self._process = os.getpid()
        self._touch_ahead()
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def step(self, orders: Any) -> StepResult:  # noqa: ANN401 - whatever speaks the Arrow PyCapsule interface
        """Apply orders, in the order in which they stand.

        orders  a table of the columns of the contract: a pyarrow Table or RecordBatch, or anything with the Arrow
                PyCapsule interface (Polars, pandas, DuckDB)
        Raises  InputError where a column is missing, damaged or of a type that cannot be read exactly
                StateError where an earlier step was broken off: by an interrupt, or for want of memory
        """
        table = to_table(orders)
        with self._guard.reading():
            return self._step_table(table)

    def _step_table(self, table: pa.Table) -> StepResult:
        first_row = self.counters.read

        def judge(span: tuple[int, int]) -> tuple[pa.RecordBatch, pa.RecordBatch]:
            part = table.slice(span[0], span[1] - span[0])
            check_table(part)
            return normalise(
                part,
                currency=self.ruleset.currency,
                time_zone=self.ruleset.time_zone,
                first_row=first_row + span[0],
            )

        judged = self.for_each(judge, self._spans(table.num_rows))
        malformed = [rejected for _, rejected in judged if rejected.num_rows]
        with self._guard.changing():
            for batch in malformed:
                self.counters.reject(batch["reason"].to_pylist())
            results = [self._step_canonical(canonical) for canonical, _ in judged]
        changes = pa.concat_tables([result.changes for result in results])
        rejected = pa.concat_tables([result.rejected for result in results])
        if malformed:
            rejected = pa.concat_tables([pa.Table.from_batches(malformed), rejected]).sort_by("row")
        return StepResult(changes, rejected)

    def step_canonical(self, orders: pa.RecordBatch) -> StepResult:
        """Apply a batch of schemas.orders.CANONICAL_SCHEMA, whose rows are valid in themselves."""
        with self._guard.changing():
            return self._step_canonical(orders)

    def _step_canonical(self, orders: pa.RecordBatch) -> StepResult:
        changes, rejected = [], []
        for start in range(0, orders.num_rows, _STEP_ROWS):
            part = orders.slice(start, _STEP_ROWS)
            brought, refused = self._step(part)
            changes += brought
            rejected += refused
        return StepResult(
            pa.Table.from_batches(changes, schema=self._columns.change_schema),
            pa.Table.from_batches(rejected, schema=REJECTED_SCHEMA),
        )

    def step_log(
        self, orders: pa.RecordBatch, log_us: NDArray[np.int64] | None = None, *, tolerance_us: int = 0
    ) -> tuple[pa.Table, NDArray[np.uint8]]:
        """Apply a batch of schemas.orders.CANONICAL_SCHEMA that came from a log.

        log_us        i64[n], never falling: the log's clock at each row, which becomes the engine's; None: the clock
                      is the newest event applied
        tolerance_us  how far beyond the log's clock a row may be dated: else it is rejected as `future_time`
        Returns       tier changes, schemas.changes; and u8[n], the Outcome of each row
        """
        with self._guard.changing():
            return self._step_log(orders, log_us, tolerance_us)

    def _step_log(
        self, orders: pa.RecordBatch, log_us: NDArray[np.int64] | None, tolerance_us: int
    ) -> tuple[pa.Table, NDArray[np.uint8]]:
        changes, outcomes = [], np.empty(orders.num_rows, dtype=np.uint8)
        for start in range(0, orders.num_rows, _STEP_ROWS):
            part = slice(start, start + _STEP_ROWS)
            clock = None if log_us is None else log_us[part]
            brought, outcomes[part] = self._fold(orders.slice(start, _STEP_ROWS), clock, tolerance_us)
            changes += brought
        refused = outcomes[outcomes >= Outcome.MALFORMED].tolist()
        self.counters.reject(Outcome(code).name.lower() for code in refused)
        return pa.Table.from_batches(changes, schema=self._columns.change_schema), outcomes

    def next_due_us(self, until: Instant) -> int:
        """Return the earliest instant up to `until` at which time alone may change a tier; FOREVER_US if none.

        No time passes and no result changes by asking; it costs no more for many customers.
        """
        until_us = to_us(until)
        with self._guard.changing():  # timers may be filed anew
            return min(shard.next_due_us(until_us) for shard in self.shards)

    def resegment(self, ruleset: Ruleset, now: Instant | None = None) -> pa.Table:
        """Go on by another ruleset: measure every customer by it at `now`, and return the changes, `rules_changed`.

        A tier keeps its id; where the new ruleset has none of that id, `from_tier` is null. What the old rules
        would have changed between the clock and `now` is left out.

        now     the clock (default), or later; becomes the clock
        Raises  ConfigError where the new ruleset counts in another currency
        """
        if ruleset.currency != self.ruleset.currency:
            raise ConfigError(
                f"ruleset {ruleset.identity} counts in {ruleset.currency}, the state in {self.ruleset.currency}",
                key="ruleset",
                fix=f"use a ruleset in {self.ruleset.currency}, or begin anew",
            )
        with self._guard.changing():
            return self._resegment(ruleset, self.clock_us if now is None else max(to_us(now), self.clock_us))

    def _resegment(self, ruleset: Ruleset, now_us: int) -> pa.Table:
        codes = {tier.id: code for code, tier in enumerate(ruleset.tiers)}
        tiers = np.array([codes.get(tier.id, NO_TIER) for tier in self.ruleset.tiers], dtype=np.int8)
        rules = compile_rules(ruleset)
        self.ruleset = ruleset
        self._columns = ColumnWriter(ruleset, self.mode)
        self.for_each(lambda shard: shard.resegment(rules, now_us, tiers), self.shards)
        return pa.Table.from_batches(self._advance(now_us), schema=self._columns.change_schema)

    def frozen(self) -> "Engine":
        """Return a copy to be written as a checkpoint while this engine goes on; it can do nothing else."""
        with self._guard.reading():
            other = copy(self)
            other._guard = Guard()  # noqa: SLF001 - of this class; who writes the copy does not keep this engine waiting
            other.shards = self.for_each(Shard.frozen, self.shards)
            other.counters = deepcopy(self.counters)
            return other

    def use_mode(self, mode: Mode) -> None:
        """Let the changes from now on say this mode."""
        self.mode = mode
        self._columns = ColumnWriter(self.ruleset, mode)
        self._touch_ahead()

    def advance(self, now: Instant) -> pa.Table:
        """Let time pass up to `now` and return the tier changes that brings: none if `now` is before the clock."""
        now_us = to_us(now)
        with self._guard.changing():
            return pa.Table.from_batches(self._advance(now_us), schema=self._columns.change_schema)

    def snapshot(self, as_of: Instant | None = None) -> pa.Table:
        """Return one row a customer as of an instant (default: the clock), without changing anything.

        Raises  ConfigError where `as_of` lies before the clock
                StateError where a step was broken off
        """
        with self._guard.reading():
            return self._snapshot(as_of)

    def _snapshot(self, as_of: Instant | None) -> pa.Table:
        clock_us = self.clock_us
        as_of_us = clock_us if as_of is None else to_us(as_of)
        if as_of_us < clock_us:
            raise ConfigError(
                f"the snapshot's instant {to_text(as_of_us)} lies before the clock, {to_text(clock_us)}",
                key="as_of",
                fix="ask for the clock or later",
            )
        spans = [
            (shard, first, min(first + _SNAPSHOT_ROWS, shard.customers + 1))
            for shard in self.shards
            for first in range(1, shard.customers + 1, _SNAPSHOT_ROWS)
        ]
        batches = self.for_each(
            lambda span: self._columns.snapshot(span[0], as_of_us, span[1], span[2]), spans
        )
        return pa.Table.from_batches(batches, schema=self._columns.snapshot_schema)

    def checkpoint(self, directory: str | PathLike[str]) -> None:
        """Write the whole state to a directory, replacing the checkpoint there in one step."""
        from rfmstream.engine.core.checkpoint import write_checkpoint  # noqa: PLC0415 - checkpoints know the engine

        with self._guard.reading():
            write_checkpoint(self, directory)

    @classmethod
    def restore(
        cls,
        directory: str | PathLike[str],
        *,
        ruleset: Ruleset | str | None = None,
        threads: int | None = None,
    ) -> "Engine":
        """Return the engine a checkpoint holds.

        ruleset  must be the checkpoint's own if given
        threads  default: as many shards as were checkpointed
        Raises   StateError where there is no whole checkpoint, or it belongs to another ruleset
        """
        from rfmstream.engine.core.checkpoint import read_checkpoint  # noqa: PLC0415 - checkpoints know the engine

        return read_checkpoint(directory, ruleset=ruleset, threads=threads)

    def _touch_ahead(self) -> None:
        """Let a replay's memory be made resident ahead of its use; a live worker's grows too slowly to matter."""
        for shard in self.shards:
            shard.touches_ahead = self.mode == "replay" and has_idle_processor(self._threads)

    def _step(self, orders: pa.RecordBatch) -> tuple[list[pa.RecordBatch], list[pa.RecordBatch]]:
        changes, outcome = self._fold(orders)
        if not (outcome >= Outcome.MALFORMED).any():
            return changes, []
        rejected = _rejected_rows(orders, outcome, self.ruleset)
        self.counters.reject(rejected["reason"].to_pylist())
        return changes, [rejected]

    def _fold(
        self, orders: pa.RecordBatch, log_us: NDArray[np.int64] | None = None, tolerance_us: int = 0
    ) -> tuple[list[pa.RecordBatch], NDArray[np.uint8]]:
        """Fold a batch and let the time pass that it brings; rejected rows are not counted yet."""
        batch = self._kernel_batch(orders)
        if log_us is not None:
            batch.point(log_us=log_us)
            batch.row["tolerance_us"] = tolerance_us
        outcome = np.zeros(orders.num_rows, dtype=np.uint8)
        self.for_each(lambda shard: shard.fold(batch, outcome), self.shards)
        changes = self._advance(self.clock_us, orders.column(1))
        applied = int(np.count_nonzero(outcome == Outcome.APPLIED))
        duplicates = int(np.count_nonzero(outcome == Outcome.DUPLICATE))
        self.counters.read += applied + duplicates
        self.counters.applied += applied
        self.counters.duplicates += duplicates
        return changes, outcome

    def _advance(self, now_us: int, order_ids: pa.StringArray | None = None) -> list[pa.RecordBatch]:
        """Advance every shard and collect the changes there are, those of a batch's fold included."""

        def advance(shard: Shard) -> tuple[list[pa.RecordBatch], NDArray[np.int64]]:
            if now_us != NEVER_US:
                shard.advance(now_us)
            changes = shard.take_changes()
            reasons = np.zeros(len(CHANGE_REASONS), dtype=np.int64)
            parts = [changes[i : i + _CHANGES_MAX] for i in range(0, changes.size, _CHANGES_MAX)]
            return [self._columns.changes(shard, part, order_ids, reasons) for part in parts], reasons

        batches: list[pa.RecordBatch] = []
        for made, reasons in self.for_each(advance, self.shards):
            for code in np.flatnonzero(reasons):
                reason = CHANGE_REASONS[code]
                self.counters.changes[reason] = self.counters.changes.get(reason, 0) + int(reasons[code])
            batches += made
        return batches

    def _kernel_batch(self, orders: pa.RecordBatch) -> KernelRecord:
        customer_offset, customer_data = offsets_and_data(orders.column(0))
        order_offset, order_data = offsets_and_data(orders.column(1))
        event_ids = orders.column(5)
        event_offset, event_data = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.uint8)
        if event_ids.null_count < orders.num_rows:
            event_offset, event_data = offsets_and_data(_with_digests(event_ids.fill_null("")))
        customer_hash = np.empty(orders.num_rows, dtype=np.uint64)
        order_hash = np.empty(orders.num_rows, dtype=np.uint64)
        seeds = self.shards[0].seeds
        route = np.empty(orders.num_rows if len(self.shards) > 1 else 0, dtype=np.uint64)

        def hash_span(span: tuple[int, int]) -> None:
            rows, edges = slice(*span), slice(span[0], span[1] + 1)
            hash_ids(customer_offset[edges], customer_data, seeds, customer_hash[rows])
            hash_ids(order_offset[edges], order_data, seeds, order_hash[rows])
            hash_ids(customer_offset[edges], customer_data, _ROUTE_KEYS, route[rows])

        self.for_each(hash_span, self._spans(orders.num_rows))
        batch = KernelRecord(BATCH)
        batch.point(
            customer_offset=customer_offset,
            customer_data=customer_data,
            order_offset=order_offset,
            order_data=order_data,
            event_offset=event_offset,
            event_data=event_data,
            kind=values_of(orders.column(2), np.uint8),
            at_us=values_of(orders.column(3), np.int64),
            amount_minor=values_of(orders.column(4), np.int64),
            customer_hash=customer_hash,
            order_hash=order_hash,
            route=route,
            log_us=np.empty(0, dtype=np.int64),
        )
        return batch

    def _spans(self, rows: int) -> list[tuple[int, int]]:
        """Cut rows into spans [first, end) to share among the threads, each large enough to be worth it."""
        parts = max(min(self._threads, rows // _SPAN_ROWS_MIN), 1)
        edges = [rows * i // parts for i in range(parts + 1)]
        return list(pairwise(edges))

    def for_each(self, function: Callable[[Any], _T], items: list[Any]) -> list[_T]:
        """Call a function for each item, on the engine's threads, and return the results in order."""
        if self._pool is not None and os.getpid() != self._process:
            self.use_threads(self._threads)  # a process that was forked has none of its parent's threads
        if self._pool is None or len(items) < 2:
            return [function(item) for item in items]
        futures = [self._pool.submit(function, item) for item in items]
        try:
            wait(futures)
        finally:
            wait(futures)  # nobody may still be at work when an error leaves here, or an interrupt
        return [future.result() for future in futures]


def to_table(orders: Any) -> pa.Table:  # noqa: ANN401 - see Engine.step
    """Return orders as a pyarrow table, without copying where that is possible."""
    if isinstance(orders, pa.Table):
        return orders
    if isinstance(orders, pa.RecordBatch):
        return pa.Table.from_batches([orders])
    if hasattr(orders, "__arrow_c_stream__") or hasattr(orders, "__arrow_c_array__"):
        return pa.table(orders)
    raise ConfigError(
        f"orders of type {type(orders).__name__}",
        key="orders",
        fix="pass a pyarrow table or anything with the Arrow PyCapsule interface",
    )


def _with_digests(event_ids: pa.StringArray) -> pa.Array:
    """Return event ids with a digest in place of each that is longer than what the kernels remember.

    The contract sets event ids no bound. The digest begins with a byte that no UTF-8 text has, so it is nobody's id.
    """
    offsets, _ = offsets_and_data(event_ids)
    if lengths_within(offsets, 0, ID_BYTES_MAX):
        return event_ids
    long = np.diff(offsets) > ID_BYTES_MAX
    digests = [
        b"\xff" + sha256(event_id.as_buffer()).digest() for event_id in event_ids.filter(pa.array(long))
    ]
    return pc.replace_with_mask(event_ids.cast(pa.binary()), pa.array(long), pa.array(digests, pa.binary()))


def _rejected_rows(orders: pa.RecordBatch, outcome: NDArray[np.uint8], ruleset: Ruleset) -> pa.RecordBatch:
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
