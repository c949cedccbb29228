"""Replay of what is larger than memory: the orders are parted by customer on disk, and each part is replayed by itself.

A customer's changes depend on its own orders and on where time ends, so the parts give what one run gives: the same
rows, of changes and signals in order of time. What comes of a part goes to disk, and only as many parts as there are
threads are in memory at a time. Together their states are a checkpoint of one engine, a shard each.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final

import numpy as np
import pyarrow as pa

from rfmstream.engine.core.checkpoint.manifest import ShardTimes, describe_shards, read_manifest, times_of
from rfmstream.engine.core.checkpoint.read import own_ruleset, read_machine
from rfmstream.engine.core.checkpoint.write import Checkpoint, checkpointing
from rfmstream.engine.core.counters import Counters
from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.machine import Mode
from rfmstream.engine.files.background import WriteBehind, map_ahead, read_ahead
from rfmstream.engine.files.identities import Identities
from rfmstream.engine.files.input_files import find_files
from rfmstream.engine.files.interrupts import uninterrupted
from rfmstream.engine.files.output import OutputFile, check_outputs
from rfmstream.engine.files.partition import Partition
from rfmstream.engine.files.rates import Rates
from rfmstream.engine.files.runs import RunWriter, merged, read_run
from rfmstream.engine.files.scratch import scratch
from rfmstream.engine.files.source import Progress, Stage, open_orders
from rfmstream.engine.replay.alike import Alike
from rfmstream.engine.replay.end_of_time import EndOfTime
from rfmstream.engine.replay.parts import Dates, Listener, OnProgress, check_as_of, drop
from rfmstream.engine.replay.parts_replay import PartsReplay
from rfmstream.engine.replay.replay import (
    Outputs,
    RejectedRows,
    check_signals,
    fuller_files,
    may_go_on,
    open_outputs,
    rows_of,
)
from rfmstream.engine.replay.sizes import Parts
from rfmstream.engine.replay.tiers import tier_sums
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import InputFormat, InputMap
from rfmstream.schemas.ruleset import Ruleset, load_ruleset

_IN_TIME: Final = ("changes", "signals")
"""What is written in order of time; the rest comes in order of the parts."""


@dataclass
class _Before:
    """What a checkpoint holds, or a new engine.

    Fields  folder  None: there is no checkpoint
    """

    ruleset: Ruleset
    folder: Path | None = None
    clock_us: int = NEVER_US
    counters: Counters = field(default_factory=Counters)
    mode: Mode = "replay"

    @classmethod
    def of(cls, ruleset: Ruleset | None, checkpoint: Path | None) -> "_Before":
        if checkpoint is None or not may_go_on(checkpoint):
            return cls(load_ruleset("rfm8") if ruleset is None else ruleset)
        manifest = read_manifest(checkpoint)
        return cls(
            own_ruleset(manifest, ruleset, checkpoint),
            checkpoint,
            manifest["clock_us"],
            Counters(**manifest["counters"]),
            manifest["mode"],
        )

    def engine(self, part: int) -> Engine:
        """Return the engine of a part."""
        if self.folder is None:
            engine = Engine(self.ruleset, mode=self.mode)
        else:
            engine = Engine.of(read_machine(self.folder, ruleset=self.ruleset, only_shard=part))
        for shard in engine.shards:
            shard.touches_ahead = False  # the other processors have parts of their own
        return engine


@dataclass(frozen=True)
class _Made:
    """What came of a part, beside its runs on disk."""

    part: int
    counters: Counters
    alike: int
    snapshot: pa.Table | None
    tiers: pa.Table
    customers: int
    orders: int
    memory: Mapping[str, int]
    times: ShardTimes
    saved: list[dict[str, Any]]


@dataclass
class _Work:
    """Replays parts, by several threads at once.

    Fields  folder       of the runs
            wanted       outputs that somebody asked for
            checkpoint   to write the states to; None: nowhere
            on_progress  called with so many orders more
            end          on what the parts agree
    """

    before: _Before
    partition: Partition
    folder: Path
    parts: Parts
    as_of_us: int | None
    wanted: Mapping[str, OutputFile]
    checkpoint: Checkpoint | None
    on_progress: Callable[[int], None]
    end: EndOfTime = field(init=False)
    _stopped: Event = field(init=False, default_factory=Event)

    def __post_init__(self) -> None:
        self.end = EndOfTime(self.before.clock_us, self.partition.newest_us)

    def stop(self) -> None:
        """Let the parts in work end soon."""
        self._stopped.set()
        self.end.give_up()

    def run(self, kind: str, part: int) -> Path:
        """Return the file of what a part brings of a kind."""
        return self.folder / f"{kind}-{part}.arrow"

    def replay(self, part: int) -> _Made | None:
        """Replay a part; None: it is to be replayed again when all others are."""
        engine, alike = self.before.engine(part), Alike()
        with ExitStack() as stack:
            runs = {}
            for kind in (*_IN_TIME, "rejected"):
                self.run(kind, part).unlink(missing_ok=True)
                runs[kind] = stack.enter_context(RunWriter(self.run(kind, part)))

            def write(kind: str, table: pa.Table) -> None:
                if kind in self.wanted or kind == "rejected":
                    for batch in table.to_batches():
                        runs[kind].write(batch)

            with self.end.folding(part):
                for batch in self.partition.orders(part, memory_budget_bytes=self.parts.sort_bytes):
                    if self._stopped.is_set():
                        raise InputError("reading was stopped")
                    alike.add(batch)
                    step = engine.step_canonical(batch)
                    write("rejected", step.rejected)
                    write("changes", step.changes)
                    write("signals", step.signals)
                    self.on_progress(batch.num_rows)
                self.end.folded(part, engine.clock_us)
            check_as_of(engine, self.as_of_us)
            end_us = self.end.agreed_us() if self.as_of_us is None else self.as_of_us
            if end_us is None:
                return None
            if end_us != NEVER_US:
                write("changes", engine.advance(end_us))
                write("signals", engine.signals)
        return self._made(part, engine, alike)

    def _made(self, part: int, engine: Engine, alike: Alike) -> _Made:
        self.partition.forget(part)
        snapshot = engine.snapshot()
        shard = engine.shards[0]
        return _Made(
            part=part,
            counters=engine.counters,
            alike=alike.rows,
            snapshot=snapshot if "snapshot" in self.wanted else None,
            tiers=tier_sums(snapshot),
            customers=snapshot.num_rows,
            orders=engine.orders,
            memory=engine.memory,
            times=times_of(shard),
            saved=[] if self.checkpoint is None else self.checkpoint.write_shard(part, shard),
        )


def opened(ruleset: Ruleset | None, checkpoint: Path | None) -> Ruleset:
    """Return the ruleset by which a run decides: the one given, the checkpoint's, or rfm8.

    Errors  as of `open_engine`
    """
    return _Before.of(ruleset, checkpoint).ruleset


def replay_in_parts(  # noqa: PLR0913 - those of `replay`
    ruleset: Ruleset | None,
    inputs: Sequence[Path],
    *,
    parts: Parts,
    input_map: InputMap | None = None,
    as_of_us: int | None = None,
    until_us: int | None = None,
    outputs: Outputs | None = None,
    checkpoint: Path | None = None,
    strict: bool = False,
    on_progress: OnProgress | None = None,
    settled: ExitStack | None = None,
    identities: Identities | None = None,
    rates: Rates | None = None,
) -> PartsReplay:
    """Do what `replay` does with an engine of `open_engine(ruleset, checkpoint=checkpoint)`, which never is in memory.

    In      parts   see `engine.replay.sizes`; where there is a checkpoint as many as it has shards
            others  as of `replay`
    Errors  as of `replay`; ConfigError, too, where the disk has not the room
    """
    started_s = time.monotonic()
    outputs = outputs or Outputs()
    as_of_us = until_us if as_of_us is None else as_of_us
    before = _Before.of(ruleset, checkpoint)
    check_signals(before.ruleset, outputs)
    files = find_files(inputs, InputFormat() if input_map is None else input_map.input)
    check_outputs(outputs.paths().values(), [*inputs, *(file.path for file in files)])
    dates, counters = Dates(until_us), Counters()
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(bytes_needed=parts.disk_bytes))
        made = open_outputs(stack, outputs, before.ruleset)
        saving = None if checkpoint is None else stack.enter_context(checkpointing(checkpoint))
        rejections = RejectedRows(made.get("rejected"), files)
        listener = Listener(_as_stage(on_progress, "parted"))
        orders = open_orders(
            inputs,
            input_map=input_map,
            currency=before.ruleset.currency,
            rows_before=before.counters.input_rows,
            time_zone=before.ruleset.time_zone,
            on_progress=listener,
            identities=identities,
            rates=rates,
            on_excluded=made["excluded"].write if "excluded" in made else None,
            in_order=False,
        )
        with Partition(folder, parts.count, held_bytes_max=parts.gather_bytes) as partition:
            for batch, malformed in read_ahead(orders, listener.stop):
                counters.reject(malformed["reason"].to_pylist())
                rejections.add(malformed)
                partition.add(dates.before(batch))
        counters.input_rows = orders.rows_read
        work = _Work(
            before,
            partition,
            folder,
            parts,
            as_of_us,
            made,
            saving,
            _Count(on_progress, "parts", int(partition.rows.sum()), orders.rows_read),
        )
        results = _replay_all(work, parts, made, rejections)
        for result in results:
            counters.add(result.counters)
        if strict and counters.rejected:
            raise rejections.refusal(counters)
        _merge(work, made, _Count(on_progress, "merged", _rows_told(counters, made), orders.rows_read))
        for out in made.values():
            out.finish()
        fuller = fuller_files(made) if before.folder is not None and before.counters.read else {}
        kept = (
            {}
            if counters.applied
            else {path: rows for path, rows in fuller.items() if not rows_of(made, path)}
        )
        # Files without their checkpoint, or the other way round, are half a result.
        with ExitStack() if settled is None else nullcontext(settled) as until:
            until.enter_context(uninterrupted())
            for out in made.values():
                if out.path not in kept:
                    out.publish()
            if saving is not None:
                before.counters.add(counters)
                in_order = sorted(results, key=lambda result: result.part)
                saving.publish(
                    describe_shards(
                        before.ruleset,
                        before.mode,
                        before.counters,
                        [result.times for result in in_order],
                        [file for result in in_order for file in result.saved],
                    )
                )
    memory: Counter[str] = Counter()
    for result in results:
        memory.update(result.memory)
    return PartsReplay(
        ruleset=before.ruleset,
        parts=parts.count,
        tiers=[result.tiers for result in results],
        customers=sum(result.customers for result in results),
        orders=sum(result.orders for result in results),
        memory=memory,
        counters=counters,
        input_rows=counters.input_rows,
        excluded=orders.excluded,
        lines_repeated=orders.lines_repeated,
        sheets_unread=orders.sheets_unread,
        alike=sum(result.alike for result in results),
        rows_after_until=dates.after_until,
        rows_ahead=dates.ahead,
        newest_ahead_us=dates.newest_ahead_us,
        rejected=tuple(rejections.first),
        as_of_us=max(result.times.clock_us for result in results),
        files={out.path: out.rows for out in made.values() if out.path not in kept},
        kept=kept,
        replaced={path: rows for path, rows in fuller.items() if path not in kept},
        elapsed_s=time.monotonic() - started_s,
    )


def _replay_all(
    work: _Work, parts: Parts, made: Mapping[str, OutputFile], rejections: RejectedRows
) -> list[_Made]:
    """Replay every part; write the snapshots and the rejected rows as they come."""
    results: list[_Made] = []
    due = work.end.order()
    with WriteBehind(made["snapshot"].write if "snapshot" in made else drop) as snapshots:
        while due:
            again = []
            for part, result in zip(due, map_ahead(work.replay, due, parts.at_once, work.stop), strict=True):
                if result is None:
                    again.append(part)
                    continue
                for batch in () if result.snapshot is None else result.snapshot.to_batches():
                    snapshots.put(batch)
                for rejected in read_run(work.run("rejected", part)):
                    rejections.add(rejected)
                results.append(replace(result, snapshot=None))
            due = again
    return results


def _merge(work: _Work, made: Mapping[str, OutputFile], count: "_Count") -> None:
    """Write what the parts told in order of time."""
    for kind in (kind for kind in _IN_TIME if kind in made):
        with WriteBehind(made[kind].write) as behind:
            for batch in merged([work.run(kind, part) for part in work.end.order()], _by_time):
                behind.put(batch)
                count(batch.num_rows)


def _by_time(batch: pa.RecordBatch) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return when rows of changes or signals take effect, for `merged`: a customer is in one part only."""
    us = batch.column("effective_at").cast(pa.int64()).to_numpy()
    return us, np.zeros(len(us), dtype=np.int64)


def _rows_told(counters: Counters, made: Mapping[str, OutputFile]) -> int:
    told = {"changes": counters.changes, "signals": counters.signals}
    return sum(sum(words.values()) for kind, words in told.items() if kind in made)


def _as_stage(on_progress: OnProgress | None, stage: Stage) -> OnProgress | None:
    return None if on_progress is None else lambda progress: on_progress(replace(progress, stage=stage))


class _Count:
    """Tells how far a stage has come, whichever thread takes it there."""

    def __init__(self, on_progress: OnProgress | None, stage: Stage, total: int, rows_read: int) -> None:
        self._on_progress = on_progress
        self._at = Progress(stage, 0, total, rows_read)
        self._lock = Lock()

    def __call__(self, rows: int) -> None:
        if self._on_progress is not None:
            with self._lock:
                self._at = replace(self._at, done=self._at.done + rows)
                self._on_progress(self._at)
