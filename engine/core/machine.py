"""The deterministic machine: the shards of one ruleset, what moves them, and what they bring.

A machine is not safe against two callers at once, nor does it know whether a call was broken off: `engine.core.engine`
sees to both.
"""

from copy import copy, deepcopy
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.core.columns import ColumnWriter
from rfmstream.engine.core.counters import Counters, count_words
from rfmstream.engine.core.kernel_batch import Hashed, kernel_batch
from rfmstream.engine.core.populations import Populations
from rfmstream.engine.core.rejected_rows import rejected_rows
from rfmstream.engine.core.rules import compile_rules
from rfmstream.engine.core.shard import Shard, new_seeds
from rfmstream.engine.core.threads import Threads
from rfmstream.engine.core.touch import has_idle_processor
from rfmstream.engine.events.arrow_buffers import check_table
from rfmstream.engine.events.instants import to_text
from rfmstream.engine.events.normalise import normalise
from rfmstream.schemas.changes import CHANGE_REASONS
from rfmstream.schemas.codes import NEVER_US, NO_TIER, Outcome
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.orders import REJECTED_SCHEMA
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.signals import SIGNAL_KINDS

Mode = Literal["live", "replay"]

STEP_ROWS: Final = 1 << 16
"""Rows folded at a time: enough to hide what a call costs, few enough that their columns stay in the cache."""
_SNAPSHOT_ROWS: Final = 1 << 18
_CHANGES_MAX: Final = 1 << 22
"""Changes in a batch: even with the longest ids its strings stay within Arrow's 31-bit offsets."""


@dataclass(frozen=True)
class StepResult:
    """What a batch brought.

    Fields  changes   tier changes, schemas.changes
            rejected  rows that changed nothing, schemas.orders.REJECTED_SCHEMA
            signals   what the ruleset asked for besides, schemas.signals
    """

    changes: pa.Table
    rejected: pa.Table
    signals: pa.Table


@dataclass
class _Brought:
    """Batches of changes and signals, and how many rows of a shard's have each code."""

    changes: list[pa.RecordBatch] = field(default_factory=list)
    signals: list[pa.RecordBatch] = field(default_factory=list)
    reasons: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(CHANGE_REASONS), dtype=np.int64))
    kinds: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(SIGNAL_KINDS), dtype=np.int64))


class Machine:
    """The state of one ruleset, in shards, and its steps.

    view     what changes, signals and snapshots say they belong to; None: the ruleset's name
    populations  of a view whose customers are parted: the customers' ids in canonical batches are then keys made by it.
             `engine.core.view` does that
    seeds    of the hash of ids; None: new ones
    hashed   what machines of the same seeds and threads, which are given the same batches, share

    Fields  signals  the signals of the last call that can bring any: each such call replaces them
    """

    def __init__(  # noqa: PLR0913 - the last four are for views
        self,
        ruleset: Ruleset,
        *,
        threads: int,
        mode: Mode,
        view: str | None = None,
        populations: Populations | None = None,
        seeds: NDArray[np.uint64] | None = None,
        hashed: Hashed | None = None,
    ) -> None:
        self.ruleset = ruleset
        self.mode = mode
        self.view = view
        self.populations = populations
        self.counters = Counters()
        self._hashed = hashed
        seeds = new_seeds() if seeds is None else seeds
        rules = compile_rules(ruleset)
        self.shards = [Shard(rules, seeds, number=i, count=threads) for i in range(threads)]
        self._use_writer()
        self.signals: pa.Table = self.columns.signal_schema.empty_table()
        self.use_threads(threads)

    @property
    def clock_us(self) -> int:
        """The newest instant applied or advanced to, in µs since 1970 UTC; NEVER_US before the first."""
        return max(shard.clock_us for shard in self.shards)

    @property
    def customers(self) -> int:
        """How many customers have ever had an event applied and were not erased since."""
        return sum(shard.customers - shard.erased for shard in self.shards)

    def use_threads(self, threads: int) -> None:
        """Work on the shards with so many threads from now on."""
        self.threads = Threads(threads)
        self._touch_ahead()

    def use_mode(self, mode: Mode) -> None:
        """Let the changes from now on say this mode."""
        self.mode = mode
        self._use_writer()
        self._touch_ahead()

    def _use_writer(self) -> None:
        self.columns = ColumnWriter(self.ruleset, self.mode, view=self.view, populations=self.populations)

    def _touch_ahead(self) -> None:
        """Let a replay's memory be made resident ahead of its use; a live worker's grows too slowly to matter."""
        for shard in self.shards:
            shard.touches_ahead = self.mode == "replay" and has_idle_processor(self.threads.count)

    def judge(self, table: pa.Table) -> list[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """Judge the rows of a table by the contract, each for itself; nothing moves.

        Returns  by span of rows: those that are valid, schemas.orders.CANONICAL_SCHEMA, and those that are not
        Errors   InputError  a column is missing, damaged or of a type that cannot be read exactly
        """
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

        return self.threads.for_each(judge, self.threads.spans(table.num_rows))

    def step_judged(self, judged: list[tuple[pa.RecordBatch, pa.RecordBatch]]) -> StepResult:
        """Apply what `judge` returned."""
        malformed = [rejected for _, rejected in judged if rejected.num_rows]
        for batch in malformed:
            self.counters.reject(batch["reason"].to_pylist())
        results = [self.step_canonical(canonical) for canonical, _ in judged]
        self.signals = pa.concat_tables([result.signals for result in results])
        changes = pa.concat_tables([result.changes for result in results])
        rejected = pa.concat_tables([result.rejected for result in results])
        if malformed:
            rejected = pa.concat_tables([pa.Table.from_batches(malformed), rejected]).sort_by("row")
        return StepResult(changes, rejected, self.signals)

    def step_canonical(self, orders: pa.RecordBatch) -> StepResult:
        """Apply a batch of schemas.orders.CANONICAL_SCHEMA, whose rows are valid in themselves."""
        all_brought, rejected = _Brought(), []
        for start in range(0, orders.num_rows, STEP_ROWS):
            part = orders.slice(start, STEP_ROWS)
            brought, outcomes = self._fold(part)
            all_brought.changes += brought.changes
            all_brought.signals += brought.signals
            if (outcomes >= Outcome.MALFORMED).any():
                rows = rejected_rows(part, outcomes, self.ruleset)
                self.counters.reject(rows["reason"].to_pylist())
                rejected.append(rows)
        changes = self._tell(all_brought)
        return StepResult(changes, pa.Table.from_batches(rejected, schema=REJECTED_SCHEMA), self.signals)

    def step_log(
        self, orders: pa.RecordBatch, log_us: NDArray[np.int64] | None, tolerance_us: int
    ) -> tuple[pa.Table, NDArray[np.uint8]]:
        """Apply a batch of schemas.orders.CANONICAL_SCHEMA that came from a log; see `Engine.step_log`."""
        all_brought, outcomes = _Brought(), np.empty(orders.num_rows, dtype=np.uint8)
        for start in range(0, orders.num_rows, STEP_ROWS):
            part = slice(start, start + STEP_ROWS)
            clock = None if log_us is None else log_us[part]
            # A batch that is one step as it stands may be one of several views, whose ids were hashed before.
            rows = orders if orders.num_rows <= STEP_ROWS else orders.slice(start, STEP_ROWS)
            brought, outcomes[part] = self._fold(rows, clock, tolerance_us)
            all_brought.changes += brought.changes
            all_brought.signals += brought.signals
        refused = outcomes[outcomes >= Outcome.MALFORMED].tolist()
        self.counters.reject(Outcome(code).name.lower() for code in refused)
        return self._tell(all_brought), outcomes

    def advance(self, now_us: int) -> pa.Table:
        """Let time pass and return the tier changes that brings."""
        return self._tell(self._advance(now_us))

    def next_due_us(self, until_us: int) -> int:
        """Return the earliest instant at which time alone may bring something; timers may be filed anew."""
        return min(shard.next_due_us(until_us) for shard in self.shards)

    def resegment(self, ruleset: Ruleset, now_us: int) -> pa.Table:
        """Go on by another ruleset from `now_us` on, and return the changes; see `Engine.resegment`."""
        codes = {tier.id: code for code, tier in enumerate(ruleset.tiers)}
        tiers = np.array([codes.get(tier.id, NO_TIER) for tier in self.ruleset.tiers], dtype=np.int8)
        rules = compile_rules(ruleset)
        self.ruleset = ruleset
        self._use_writer()
        self.threads.for_each(lambda shard: shard.resegment(rules, now_us, tiers), self.shards)
        return self.advance(now_us)

    def ask_anew(self) -> None:
        """Begin to follow the ruleset's signals, or to follow others, in a state that was measured without them.

        As where a ruleset changes: what has passed gives none, what is due is among the signals of the next call.
        """
        same = np.arange(len(self.ruleset.tiers), dtype=np.int8)
        self.threads.for_each(lambda shard: shard.resegment(shard.rules, shard.clock_us, same), self.shards)

    def frozen(self) -> "Machine":
        """Return a copy to be written as a checkpoint while this one goes on; it can do nothing else."""
        other = copy(self)
        other.shards = self.threads.for_each(Shard.frozen, self.shards)
        other.counters = deepcopy(self.counters)
        other.populations = None if self.populations is None else self.populations.frozen()
        return other

    def snapshot(self, as_of_us: int) -> pa.Table:
        """Return one row a customer as of an instant.

        Errors  ConfigError  the instant lies before the clock
        """
        if as_of_us < self.clock_us:
            raise ConfigError(
                f"the snapshot's instant {to_text(as_of_us)} lies before the clock, {to_text(self.clock_us)}",
                key="as_of",
                fix="ask for the clock or later",
            )
        spans = [
            (shard, first, min(first + _SNAPSHOT_ROWS, shard.customers + 1))
            for shard in self.shards
            for first in range(1, shard.customers + 1, _SNAPSHOT_ROWS)
        ]
        batches = self.threads.for_each(
            lambda span: self.columns.snapshot(
                span[0], as_of_us, np.arange(span[1], span[2], dtype=np.uint32)
            ),
            spans,
        )
        return pa.Table.from_batches(batches, schema=self.columns.snapshot_schema)

    def _fold(
        self, orders: pa.RecordBatch, log_us: NDArray[np.int64] | None = None, tolerance_us: int = 0
    ) -> tuple[_Brought, NDArray[np.uint8]]:
        """Fold a batch and let the time pass that it brings; rejected rows are not counted yet."""
        batch = kernel_batch(orders, self.shards, self.threads, self._hashed)
        if log_us is not None:
            batch.point(log_us=log_us)
            batch.row["tolerance_us"] = tolerance_us
        outcome = np.zeros(orders.num_rows, dtype=np.uint8)
        self.threads.for_each(lambda shard: shard.fold(batch, outcome), self.shards)
        brought = self._advance(self.clock_us, orders.column(1))
        applied, duplicates = (
            np.count_nonzero(outcome == one) for one in (Outcome.APPLIED, Outcome.DUPLICATE)
        )
        self.counters.apply(int(applied), int(duplicates))
        return brought, outcome

    def _advance(self, now_us: int, order_ids: pa.StringArray | None = None) -> _Brought:
        """Advance every shard and collect what there is, that of a batch's fold included."""

        def advance(shard: Shard) -> _Brought:
            if now_us != NEVER_US:
                shard.advance(now_us)
            made = _Brought()
            for records, write, batches, counts in (
                (shard.take_changes(), self.columns.changes, made.changes, made.reasons),
                (shard.take_signals(), self.columns.signals, made.signals, made.kinds),
            ):
                for i in range(0, records.size, _CHANGES_MAX):
                    batches.append(write(shard, records[i : i + _CHANGES_MAX], order_ids, counts))
            return made

        brought = _Brought()
        for made in self.threads.for_each(advance, self.shards):
            count_words(self.counters.changes, CHANGE_REASONS, made.reasons)
            count_words(self.counters.signals, SIGNAL_KINDS, made.kinds)
            brought.changes += made.changes
            brought.signals += made.signals
        return brought

    def _tell(self, brought: _Brought) -> pa.Table:
        """Keep the signals of a call and return its changes."""
        self.signals = pa.Table.from_batches(brought.signals, schema=self.columns.signal_schema)
        return pa.Table.from_batches(brought.changes, schema=self.columns.change_schema)
