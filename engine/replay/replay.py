"""Replay: order history in; every tier change, the snapshot at the end and the rejected rows out.

Nothing is published before everything is known to be good: first the files, all written and forced to the disk, get
their names, then the checkpoint is replaced, and no interruption comes in between. A run that breaks off at any point
can simply be run again.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from rfmstream.engine.core.checkpoint.folder import has_checkpoint, is_unfinished
from rfmstream.engine.core.checkpoint.manifest import read_manifest
from rfmstream.engine.core.checkpoint.read import decides_alike, taken_over
from rfmstream.engine.core.counters import Counters
from rfmstream.engine.core.engine import Engine
from rfmstream.engine.files.background import WriteBehind, read_ahead
from rfmstream.engine.files.identities import Identities
from rfmstream.engine.files.input_files import InputFile, find_files
from rfmstream.engine.files.interrupts import uninterrupted
from rfmstream.engine.files.output import OutputFile, check_outputs, rows_in
from rfmstream.engine.files.rates import Rates
from rfmstream.engine.files.source import open_orders
from rfmstream.engine.replay.alike import Alike
from rfmstream.engine.replay.parts import Dates, Listener, OnProgress, check_as_of, drop, put
from rfmstream.schemas.changes import change_schema
from rfmstream.schemas.errors import ConfigError, InputError, StateError
from rfmstream.schemas.mapping import InputFormat, InputMap
from rfmstream.schemas.orders import EXCLUDED_SCHEMA, REJECTED_SCHEMA
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.signals import signal_schema
from rfmstream.schemas.snapshots import snapshot_schema

REJECTED_NAMED: Final = 5
"""How many rejected rows a strict run names."""


@dataclass(frozen=True)
class Outputs:
    """The files to write; None leaves one out. Suffixes: .parquet .arrow .csv .jsonl."""

    changes: Path | None = None
    snapshot: Path | None = None
    rejected: Path | None = None
    excluded: Path | None = None
    signals: Path | None = None

    def paths(self) -> dict[str, Path]:
        """Return the files that are to be written, by what they hold."""
        return {name: path for name, path in vars(self).items() if path is not None}


@dataclass(frozen=True)
class ReplayResult:
    """What a replay did.

    Fields  engine         after the replay, ready to go on
            counters       of this run alone: what a checkpoint brought along is not in it
            input_rows     rows read from the files; with a map that sums lines there are fewer orders
            excluded       those of them the map left out: why, and how many, by its [[exclude]] sections
            lines_repeated  order lines that repeated one of an earlier file
            sheets_unread  of workbooks: sheets that are shown and were not read, after the file's name
            alike         refunds and adjustments without an event id that are like another one of the run
            rows_after_until  orders left out because they are dated at or after the end asked for
            rows_ahead     orders dated after the wall clock, which let everybody age
            newest_ahead_us  the newest of them; NEVER_US without any
            rejected       the first few rejected rows, as dicts of REJECTED_SCHEMA
            as_of_us       the clock at the end, the instant of the snapshot; NEVER_US without any event
            snapshot       one row a customer
            files          rows written, by file
            kept           rows of files that were left as they were: the checkpoint had all orders already, so there
                           was nothing to write, and these say what they brought
            replaced       rows of files that had more of them, of an earlier run on the same checkpoint
            elapsed_s      wall time, files and checkpoint included
    """

    engine: Engine
    counters: Counters
    input_rows: int
    excluded: tuple[tuple[str, int], ...]
    lines_repeated: int
    sheets_unread: tuple[str, ...]
    alike: int
    rows_after_until: int
    rows_ahead: int
    newest_ahead_us: int
    rejected: tuple[dict[str, Any], ...]
    as_of_us: int
    snapshot: pa.Table
    files: Mapping[Path, int]
    kept: Mapping[Path, int]
    replaced: Mapping[Path, int]
    elapsed_s: float


def open_engine(
    ruleset: Ruleset | None = None,
    *,
    checkpoint: Path | None = None,
    threads: int | None = None,
    resegment: bool = False,
) -> Engine:
    """Return the engine to replay into: the checkpoint's if the directory holds one, else a new one.

    In      ruleset  None: the checkpoint's own, or rfm8
            threads  None: as many as the checkpoint had, or 1
            resegment  the ruleset may take over from another one: then the engine is still under that one's name, and
                     `replay` is to be given the ruleset
    Errors  StateError  the directory holds something else, a damaged checkpoint or one of another ruleset
    """
    if checkpoint is not None and may_go_on(checkpoint):
        if resegment and ruleset is not None:
            manifest = read_manifest(checkpoint)
            if not decides_alike(manifest, ruleset):
                ruleset = taken_over(manifest, ruleset, checkpoint)
        return Engine.restore(checkpoint, ruleset=ruleset, threads=threads)
    return Engine("rfm8" if ruleset is None else ruleset, threads=threads or 1)


def may_go_on(checkpoint: Path) -> bool:
    """Tell whether a directory holds a checkpoint; where it does not, one can be made there.

    Errors  ConfigError  it is no directory
            StateError   it holds something else
    """
    if not os.path.exists(checkpoint):  # noqa: PTH110 - a name too long is none
        return False
    if not checkpoint.is_dir():
        raise ConfigError(
            "is not a directory", file=checkpoint, key="checkpoint", fix="name a new or empty directory"
        )
    if has_checkpoint(checkpoint):
        return True
    if any(checkpoint.iterdir()) and not is_unfinished(checkpoint):
        # Better known now than when the checkpoint is to be written, after hours perhaps.
        raise StateError(
            "holds no checkpoint but other files", path=checkpoint, fix="name a new or empty directory"
        )
    return False


def replay(  # noqa: PLR0913 - the options of one command
    engine: Engine,
    inputs: Sequence[Path],
    *,
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
    resegment: Ruleset | None = None,
) -> ReplayResult:
    """Apply the orders of `inputs` to the engine, in order of time, and write what comes of it.

    In      inputs       files and directories, see `engine.files.source.open_orders`
            input_map    None: the columns are those of the contract
            as_of_us     where time ends, µs since 1970 UTC; None: at `until_us`, or else at the newest event
            until_us     rows dated at or after it are left out; None: none are
            checkpoint   directory whose checkpoint is replaced at the end
            strict       refuse the whole input if any row is rejected; only `outputs.rejected` is then written
            on_progress  called by the reading thread
            identities   ids that stand for others
            rates        of other currencies; None: orders in them are rejected
            resegment    takes the engine over before anything else, at its clock; None: it goes on by its own
            settled      from the first file's name on nothing interrupts until this closes; None: until the return
    Errors  ConfigError     an output cannot be written, or as_of lies before the clock; nothing was written
            InputError      an input cannot be read, or was refused; nothing but `outputs.rejected` was written
            StateError      the checkpoint cannot be written; the files were
            TransportError  a disk failed
    """
    started_s = time.monotonic()
    outputs = outputs or Outputs()
    as_of_us = until_us if as_of_us is None else as_of_us
    before = deepcopy(engine.counters)
    taken = None if resegment is None else engine.resegment(resegment)
    taken_signals = engine.signals
    check_signals(engine.ruleset, outputs)
    check_as_of(engine, as_of_us)
    dates, alike = Dates(until_us), Alike()
    files = find_files(inputs, InputFormat() if input_map is None else input_map.input)
    check_outputs(outputs.paths().values(), [*inputs, *(file.path for file in files)])
    listener = Listener(on_progress)
    with ExitStack() as stack:
        made = open_outputs(stack, outputs, engine.ruleset)
        orders = open_orders(
            inputs,
            input_map=input_map,
            currency=engine.ruleset.currency,
            rows_before=engine.counters.input_rows,
            time_zone=engine.ruleset.time_zone,
            on_progress=listener,
            identities=identities,
            rates=rates,
            on_excluded=made["excluded"].write if "excluded" in made else None,
        )
        rejections = RejectedRows(made.get("rejected"), files)
        with (
            _behind(made.get("changes")) as changes,
            _behind(made.get("signals")) as signals,
        ):
            if taken is not None:
                put(changes, taken)
                put(signals, taken_signals)
            for batch, malformed in read_ahead(orders, listener.stop):
                engine.counters.reject(malformed["reason"].to_pylist())
                orders_due = dates.before(batch)
                alike.add(orders_due)
                step = engine.step_canonical(orders_due)
                for rejected in (malformed, *step.rejected.to_batches()):
                    rejections.add(rejected)
                put(changes, step.changes)
                put(signals, step.signals)
            engine.counters.input_rows += orders.rows_read
            if as_of_us is not None:
                check_as_of(engine, as_of_us)
                put(changes, engine.advance(as_of_us))
                put(signals, engine.signals)
            # The ends of the files are written, and the disk waited for, while the customers are measured.
            changes.end()
            signals.end()
            snapshot = engine.snapshot()
        counters = engine.counters.since(before)
        if strict and counters.rejected:
            raise rejections.refusal(counters)
        _finish(made, snapshot)
        fuller = fuller_files(made) if checkpoint is not None and before.read else {}
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
            if checkpoint is not None:
                engine.checkpoint(checkpoint)
    return ReplayResult(
        engine=engine,
        counters=counters,
        input_rows=counters.input_rows,
        excluded=orders.excluded,
        lines_repeated=orders.lines_repeated,
        sheets_unread=orders.sheets_unread,
        alike=alike.rows,
        rows_after_until=dates.after_until,
        rows_ahead=dates.ahead,
        newest_ahead_us=dates.newest_ahead_us,
        rejected=tuple(rejections.first),
        as_of_us=engine.clock_us,
        snapshot=snapshot,
        files={out.path: out.rows for out in made.values() if out.path not in kept},
        kept=kept,
        replaced={path: rows for path, rows in fuller.items() if path not in kept},
        elapsed_s=time.monotonic() - started_s,
    )


class RejectedRows:
    """Takes rejected rows: keeps the first few, and writes all of them where a file is wanted."""

    def __init__(self, out: OutputFile | None, files: Sequence[InputFile]) -> None:
        self.out = out
        self.first: list[dict[str, Any]] = []
        # Rows that the state rejects do not say where they came from; with one file there is no doubt.
        self._only_file = files[0].name if len(files) == 1 else None

    def add(self, rejected: pa.RecordBatch) -> None:
        """Take rejected rows, of REJECTED_SCHEMA or with the views that rejected them."""
        if not rejected.num_rows:
            return
        if self._only_file is not None:
            at = rejected.schema.get_field_index("source")
            source = rejected.column(at).fill_null(self._only_file)
            rejected = rejected.set_column(at, REJECTED_SCHEMA.field(at), source)
        self.first += rejected.slice(0, REJECTED_NAMED - len(self.first)).to_pylist()
        if self.out is not None:
            self.out.write(rejected)

    def refusal(self, counters: Counters) -> InputError:
        """Publish the file of rejected rows and build (not raise) the error of a strict run."""
        if self.out is not None:
            self.out.publish()
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(counters.rejected.items()))
        named = ", ".join(
            f"row {row['row']} {row['reason']}"
            + (f" in {row['source']}" if row["source"] and self._only_file is None else "")
            for row in self.first
        )
        total = sum(counters.rejected.values())
        return InputError(
            f"{total:,} of {counters.read:,} rows were rejected ({reasons}): "
            f"{named}{', ...' if total > len(self.first) else ''}",
            source=self._only_file,
            fix=f"all of them are in {self.out.path}" if self.out else "--rejected FILE lists them all",
        )


def open_outputs(stack: ExitStack, outputs: Outputs, ruleset: Ruleset) -> dict[str, OutputFile]:
    """Open every file before the first row is read: what cannot be written is better known now."""
    schemas = {
        "changes": change_schema(ruleset),
        "snapshot": snapshot_schema(ruleset),
        "rejected": REJECTED_SCHEMA,
        "excluded": EXCLUDED_SCHEMA,
        "signals": signal_schema(ruleset),
    }
    made = {}
    for name, path in outputs.paths().items():
        made[name] = OutputFile(path, schemas[name])
        # Before the file is there, so that no interruption can come between the two.
        stack.push(made[name])
        made[name].open()
    return made


def _behind(out: OutputFile | None) -> WriteBehind[pa.RecordBatch]:
    return WriteBehind(drop) if out is None else WriteBehind(out.write, out.finish)


def _finish(made: Mapping[str, OutputFile], snapshot: pa.Table) -> None:
    """Write the snapshot, and force every file to the disk, before any gets its name."""
    if "snapshot" in made:
        for batch in snapshot.to_batches():
            made["snapshot"].write(batch)
    for out in made.values():
        out.finish()


def fuller_files(made: Mapping[str, OutputFile]) -> dict[Path, int]:
    """Return the files that hold more rows than what is to replace them, of the kinds that tell what is new."""
    found = {out.path: rows_in(out.path) for name, out in made.items() if name in ("changes", "signals")}
    return {path: rows for path, rows in found.items() if rows > rows_of(made, path)}


def rows_of(made: Mapping[str, OutputFile], path: Path) -> int:
    """Return how many rows of a file were made."""
    return next(out.rows for out in made.values() if out.path == path)


def check_signals(ruleset: Ruleset, outputs: Outputs) -> None:
    """Refuse a file of signals where there are none."""
    if outputs.signals is not None and not ruleset.asks_signals:
        raise ConfigError(
            f"ruleset {ruleset.identity} asks for no signals",
            key="signals",
            fix="give it warn_days, dwell_days or [milestones]: docs/rulesets.md, or leave the file out",
        )
