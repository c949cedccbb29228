"""The engine: orders in, tier changes out, snapshots on demand.

An engine is one or more shards of one ruleset. It is given batches and instants and returns Arrow tables; it reads no
clock and no file, so the same calls give the same tables always. It lets one caller at a time at its machine
(`engine.core.machine`), and none after a step that was broken off.
"""

from collections import Counter
from collections.abc import Callable
from copy import copy
from datetime import datetime
from os import PathLike
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.core.checkpoint.read import read_checkpoint
from rfmstream.engine.core.checkpoint.write import write_checkpoint
from rfmstream.engine.core.columns import ColumnWriter
from rfmstream.engine.core.counters import Counters
from rfmstream.engine.core.forgetting import check_window
from rfmstream.engine.core.guard import Guard, changes, reads
from rfmstream.engine.core.machine import Machine, Mode, StepResult
from rfmstream.engine.core.populations import Populations
from rfmstream.engine.core.shard import Shard
from rfmstream.engine.events.instants import Instant, to_datetime, to_us
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError, StateError
from rfmstream.schemas.ruleset import Ruleset, load_ruleset


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
        given = ruleset if isinstance(ruleset, Ruleset) else load_ruleset(ruleset)
        self._hold(Machine(given, threads=threads, mode=mode))

    @property
    def ruleset(self) -> Ruleset:
        """The ruleset by which tiers are decided."""
        return self._machine.ruleset

    @property
    def mode(self) -> Mode:
        """What the changes say of themselves."""
        return self._machine.mode

    @property
    def view(self) -> str:
        """What changes, signals and snapshots say they belong to; without views the ruleset's name."""
        return self._machine.view or self.ruleset.name

    @property
    def populations(self) -> Populations | None:
        """The populations that part the customers; None: they are not parted."""
        return self._machine.populations

    @property
    def counters(self) -> Counters:
        """What the engine has seen so far."""
        return self._machine.counters

    @property
    def shards(self) -> list[Shard]:
        """The shards, for what reads their records itself (see `engine.core.lookup`)."""
        return self._machine.shards

    @property
    def signals(self) -> pa.Table:
        """The signals (schemas.signals) of the last call of step, step_canonical, step_log, advance or resegment.

        None where the ruleset asks for none. Each such call replaces the table.
        """
        return self._machine.signals

    @property
    def clock_us(self) -> int:
        """The newest instant applied or advanced to, in µs since 1970 UTC; NEVER_US before the first."""
        return self._machine.clock_us

    @property
    def clock(self) -> datetime | None:
        """The clock as a datetime; None before the first event."""
        return None if self.clock_us == NEVER_US else to_datetime(self.clock_us)

    @property
    def customers(self) -> int:
        """How many customers have ever had an event applied and were not erased since."""
        return self._machine.customers

    @property
    def orders(self) -> int:
        """How many orders are in memory; where the ruleset forgets orders some forgotten ones may be among them."""
        return sum(shard.state.row.n_orders for shard in self.shards)

    @property
    def memory(self) -> dict[str, int]:
        """The bytes the state takes, by what they hold."""
        total: Counter[str] = Counter()
        for shard in self.shards:
            total.update(shard.memory())
        if self.populations is not None:
            total["populations"] = self.populations.memory_bytes
        return dict(total)

    @property
    def no_changes(self) -> pa.Table:
        """A table of no tier changes."""
        return self._machine.columns.change_schema.empty_table()

    @property
    def no_signals(self) -> pa.Table:
        """A table of no signals."""
        return self._machine.columns.signal_schema.empty_table()

    @property
    def snapshot_schema(self) -> pa.Schema:
        """The columns of `snapshot`."""
        return self._machine.columns.snapshot_schema

    @property
    def columns(self) -> ColumnWriter:
        """What makes Arrow columns of what its kernels write; for `engine.core.lookup`."""
        return self._machine.columns

    @reads
    def use_threads(self, threads: int) -> None:
        """Work on the shards with so many threads from now on."""
        self._machine.use_threads(threads)

    @reads
    def use_mode(self, mode: Mode) -> None:
        """Let the changes from now on say this mode."""
        self._machine.use_mode(mode)

    @changes
    def step(self, orders: Any) -> StepResult:  # noqa: ANN401 - whatever speaks the Arrow PyCapsule interface
        """Apply orders, in the order in which they stand.

        orders  a table of the columns of the contract: a pyarrow Table or RecordBatch, or anything with the Arrow
                PyCapsule interface (Polars, pandas, DuckDB)
        Raises  InputError where a column is missing, damaged or of a type that cannot be read exactly
                StateError where an earlier step was broken off: by an interrupt, or for want of memory
        """
        self._check_alone()
        judged = self._machine.judge(to_table(orders))
        self._guard.begin()
        return self._machine.step_judged(judged)

    @changes
    def step_canonical(self, orders: pa.RecordBatch) -> StepResult:
        """Apply a batch of schemas.orders.CANONICAL_SCHEMA, whose rows are valid in themselves."""
        self._check_alone()
        self._guard.begin()
        return self._machine.step_canonical(orders)

    @changes
    def step_log(
        self, orders: pa.RecordBatch, log_us: NDArray[np.int64] | None = None, *, tolerance_us: int = 0
    ) -> tuple[pa.Table, NDArray[np.uint8]]:
        """Apply a batch of schemas.orders.CANONICAL_SCHEMA that came from a log.

        log_us        i64[n], never falling: the log's clock at each row, which becomes the engine's; None: the clock
                      is the newest event applied
        tolerance_us  how far beyond the log's clock a row may be dated: else it is rejected as `future_time`
        Returns       tier changes, schemas.changes; and u8[n], the Outcome of each row
        """
        self._guard.begin()
        return self._machine.step_log(orders, log_us, tolerance_us)

    @changes
    def advance(self, now: Instant) -> pa.Table:
        """Let time pass up to `now` and return the tier changes that brings: none if `now` is before the clock.

        The signals that brings are in `signals` afterwards.
        """
        now_us = to_us(now)
        self._guard.begin()
        return self._machine.advance(now_us)

    @changes
    def next_due_us(self, until: Instant) -> int:
        """Return the earliest instant up to `until` at which time alone may bring something; FOREVER_US if none.

        No time passes and no result changes by asking; it costs no more for many customers.
        """
        until_us = to_us(until)
        self._guard.begin()  # timers may be filed anew
        return self._machine.next_due_us(until_us)

    @changes
    def resegment(self, ruleset: Ruleset, now: Instant | None = None) -> pa.Table:
        """Go on by another ruleset: measure every customer by it at `now`, and return the changes, `rules_changed`.

        A tier keeps its id; where the new ruleset has none of that id, `from_tier` is null. What the old rules
        would have changed between the clock and `now` is left out.

        now     the clock (default), or later; becomes the clock
        Raises  ConfigError where `check_resegment` does
        """
        self.check_resegment(ruleset, now)
        now_us = self.clock_us if now is None else max(to_us(now), self.clock_us)
        self._guard.begin()
        return self._machine.resegment(ruleset, now_us)

    def check_resegment(self, ruleset: Ruleset, now: Instant | None = None) -> None:
        """Refuse a ruleset that this state cannot go on by.

        Raises  ConfigError where it counts in another currency, or orders that the state has forgotten
        """
        if ruleset.currency != self.ruleset.currency:
            raise ConfigError(
                f"ruleset {ruleset.identity} counts in {ruleset.currency}, the state in {self.ruleset.currency}",
                key="ruleset",
                fix=f"use a ruleset in {self.ruleset.currency}, or begin anew",
            )
        now_us = self.clock_us if now is None else max(to_us(now), self.clock_us)
        check_window(ruleset, max(shard.known_us for shard in self.shards), now_us)

    @reads
    def snapshot(self, as_of: Instant | None = None) -> pa.Table:
        """Return one row a customer as of an instant (default: the clock), without changing anything.

        Raises  ConfigError where `as_of` lies before the clock
                StateError where a step was broken off
        """
        return self._machine.snapshot(self.clock_us if as_of is None else to_us(as_of))

    @reads
    def frozen(self) -> "Engine":
        """Return a copy to be written as a checkpoint while this engine goes on; it can do nothing else."""
        other = copy(self)
        # Under a guard of its own: writing the copy does not keep this engine waiting.
        other._hold(self._machine.frozen())  # noqa: SLF001 - of this class
        return other

    @reads
    def checkpoint(self, directory: str | PathLike[str]) -> None:
        """Write the whole state to a directory, replacing the checkpoint there in one step."""
        write_checkpoint(self._machine, directory)

    @classmethod
    def restore(
        cls,
        directory: str | PathLike[str],
        *,
        ruleset: Ruleset | str | None = None,
        threads: int | None = None,
        view: str | None = None,
    ) -> "Engine":
        """Return the engine a checkpoint holds.

        ruleset  must be the checkpoint's own if given
        threads  default: as many shards as were checkpointed
        view     which one, where the checkpoint holds several: `Views.restore` returns all
        Raises   StateError where there is no whole checkpoint, or it belongs to another ruleset
                 ConfigError where it has no such view, or several and none is named
        """
        return cls.of(read_checkpoint(directory, ruleset=ruleset, threads=threads, view=view))

    @classmethod
    def of(cls, machine: Machine) -> "Engine":
        """Return the engine of a machine that nobody else has."""
        engine = cls.__new__(cls)
        engine._hold(machine)  # noqa: SLF001 - of this class
        return engine

    @reads
    def holding(self, call: Callable[[Machine], None]) -> None:
        """Call a function with the machine as it is: to be written with those of other views.

        Raises  StateError where a step was broken off
        """
        call(self._machine)

    def _check_alone(self) -> None:
        """Refuse orders where only a view knows whose they are."""
        if self.populations is not None:
            raise StateError(
                f"the view {self.view} parts its customers by a column that an engine does not look at",
                fix="give the orders to Views.restore(directory)",
            )

    def _hold(self, machine: Machine) -> None:
        self._machine = machine
        self._guard = Guard()


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
