"""Order history from files: canonical batches in order of (occurred_at, paid first, input order).

Sorted input streams in bounded memory. Other input is sorted in memory while it fits the budget, else through
sorted runs in a temporary directory. Whether input is sorted is found out by reading its time column first:
always where that is cheap (Parquet, Arrow), else only where the input may not fit.

What few runs need, such as input maps, is loaded by those that do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

from rfmstream.engine.events.attributes import concat
from rfmstream.engine.events.normalise import (
    CONTRACT_COLUMNS,
    NO_ORDERS,
    NO_REJECTED,
    normalise,
    rejected_batch,
)
from rfmstream.engine.events.times import Instants, read_instants
from rfmstream.engine.files.evaluate import SourceRows, find_column
from rfmstream.engine.files.fill_down import FillDown
from rfmstream.engine.files.identities import Identities
from rfmstream.engine.files.input_files import InputFile, find_files, naming
from rfmstream.engine.files.rates import Rates
from rfmstream.engine.files.readers import Chunk, read_chunks
from rfmstream.engine.files.sorting import Sorter, TieSorter, times_us
from rfmstream.kernels.parse import OK
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import InputFormat, InputMap
from rfmstream.schemas.zones import zone_of

Batches = tuple[pa.RecordBatch, pa.RecordBatch]

_UNPACKED_RATIO: Final = 10
"""How much larger than on disk a compressed text file is taken to be."""


Stage = Literal["scan", "read", "sorted", "parted", "parts", "merged"]


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Fields  stage  "scan" (is it sorted?), "read", or "sorted" (orders handed on after sorting); of what is larger than
                   memory "parted" (read and parted), "parts" (orders replayed) and "merged" (rows of changes written)
            done, total   bytes of the input files for scan, read and parted, else orders or rows
            rows   input rows read so far
    """

    stage: Stage
    done: int
    total: int
    rows: int


class OrderStream:
    """The batches of a run, one at a time: (canonical orders, rejected rows), either of which may be empty.

    Fields  rows_read      input rows read so far, excluded ones among them
            rows_excluded  those that the map's [[exclude]] sections left out; by section: `excluded`
            lines_repeated  order lines that repeated one of an earlier file
            sheets_unread  of workbooks: sheets that are shown and were not asked for, after the file's name
            is_sorted      whether the input was found to be in order of time; None until it is known
    """

    def __init__(  # noqa: PLR0913 - `open_orders` fills them
        self,
        files: tuple[InputFile, ...],
        *,
        input_map: InputMap | None,
        currency: str,
        time_zone: str,
        memory_budget_bytes: int,
        rows_before: int,
        on_progress: Callable[[Progress], None] | None,
        on_excluded: Callable[[pa.RecordBatch], None] | None,
        identities: Identities | None,
        rates: Rates | None,
        attributes: Sequence[str],
        in_order: bool,
    ) -> None:
        self.rows_read = 0
        self.lines_repeated = 0
        self.sheets_unread: tuple[str, ...] = ()
        self.is_sorted: bool | None = None
        self._file_number = 0
        self._files = files
        self._map = input_map
        self._mapper = None
        if input_map is not None:
            from rfmstream.engine.files.mapping import Mapper

            self._mapper = Mapper(
                input_map,
                currency=currency,
                time_zone=time_zone,
                on_excluded=on_excluded,
                keeps_foreign=rates is not None,
                attributes=attributes,
            )
        self._attributes = tuple(attributes)
        self._scanner = None
        if input_map is None and rates is None and any(file.format == "jsonl" for file in files):
            from rfmstream.engine.events.json_scan import OrderScanner

            self._scanner = OrderScanner(currency=currency, time_zone=time_zone, attributes=attributes)
        self._identities = identities
        self._rates = rates
        self._currency = currency
        self._time_zone = time_zone
        self._budget_bytes = memory_budget_bytes
        self._rows_before = rows_before
        self._on_progress = on_progress
        self._in_order = in_order
        self._batches = self._run()

    @property
    def has_parts(self) -> bool:
        """Whether orders, and rejected ones, may come in several parts, told by their rows, as their lines differ."""
        return self._mapper is not None and self._mapper.input_map.sum_lines and bool(self._mapper.attributes)

    @property
    def rows_excluded(self) -> int:
        """Rows that the input map left out so far."""
        return sum(rows for _, rows in self.excluded)

    @property
    def excluded(self) -> tuple[tuple[str, int], ...]:
        """Why the input map left rows out, and how many so far, by its [[exclude]] sections."""
        if self._mapper is None:
            return ()
        whys = (rule.why for rule in self._mapper.input_map.exclude)
        return tuple(zip(whys, self._mapper.rows_excluded, strict=True))

    def __iter__(self) -> Iterator[Batches]:
        return self

    def __next__(self) -> Batches:
        return next(self._batches)

    def close(self) -> None:
        """Stop early: close files and remove what was spilled to disk."""
        self._batches.close()  # type: ignore[attr-defined]

    def _run(self) -> Iterator[Batches]:
        if self._rates is not None:
            yield from self._rated(self._rates)
            return
        if self._map is not None and self._map.sum_lines:
            yield from self._summed()
            return
        if not self._in_order:
            yield from (batches for _, batches in self._judged())
            return
        if self._is_scanned():
            self.is_sorted = self._scan()
        if self.is_sorted:
            yield from self._streamed()
        else:
            yield from self._sorted()

    def _is_scanned(self) -> bool:
        """Whether to read the time column first: where it is cheap, or where the input may not fit."""
        if self._mapper is not None and not self._mapper.has_one_time():
            return False
        if all(file.format in ("parquet", "arrow") and file.compression is None for file in self._files):
            return True
        unpacked = sum(
            file.size * (1 if file.compression is None else _UNPACKED_RATIO) for file in self._files
        )
        return unpacked > self._budget_bytes // 2

    def _scan(self) -> bool:
        """Return whether the times that can be read never fall, over all files."""
        columns = ("occurred_at",) if self._map is None else self._map.events[0].time_columns()
        newest = None
        for chunk in self._chunks(columns, "scan"):
            us = self._times_us(chunk)
            if len(us) == 0:
                continue
            if (newest is not None and us[0] < newest) or bool((us[1:] < us[:-1]).any()):
                return False
            newest = us[-1]
        return True

    def _times_us(self, chunk: Chunk) -> np.ndarray[Any, Any]:
        """Return the times that can be read, in order of row."""
        instants = self._instants(chunk)
        good = slice(None) if instants.status is None else instants.status == OK
        if chunk.orders is None:
            return instants.us[good]
        if len(instants.us) == 0:
            return times_us(chunk.orders)
        rows = np.concatenate([chunk.orders.column("row").to_numpy(), chunk.rows[good]])
        times: np.ndarray[Any, Any] = np.concatenate([times_us(chunk.orders), instants.us[good]])
        return times[np.argsort(rows)]

    def _instants(self, chunk: Chunk) -> Instants:
        with naming(chunk.source):
            if self._mapper is not None:
                return self._mapper.instants(self._source_rows(chunk))
            times = find_column(chunk.batch, "occurred_at")
            if times is None:
                # The full read says which columns are missing.
                return Instants(np.zeros(0, np.int64), None)
            return read_instants(times, time_zone=self._time_zone)

    def _streamed(self) -> Iterator[Batches]:
        newest, ties = None, TieSorter()
        for chunk, (orders, rejected) in self._judged():
            us = times_us(orders)
            if len(us) and newest is not None and us[0] < newest:
                raise InputError("changed while it was read", source=chunk.source, fix="replay a copy of it")
            newest = us[-1] if len(us) else newest
            yield ties.add(orders), rejected
        held = ties.rest()
        if held is not None:
            yield held, NO_REJECTED

    def _sorted(self) -> Iterator[Batches]:
        with Sorter(memory_budget_bytes=self._budget_bytes) as sorter:
            for _, (orders, rejected) in self._judged():
                sorter.add(orders)
                if rejected.num_rows:
                    yield NO_ORDERS, rejected
            yield from self._handed_on(sorter)

    def _summed(self) -> Iterator[Batches]:
        orders = NO_ORDERS
        for part, rejected in self._line_sums():
            orders = part
            if rejected.num_rows:
                yield NO_ORDERS, rejected
        with Sorter(memory_budget_bytes=2 * orders.nbytes + self._budget_bytes) as sorter:
            sorter.add(orders)
            del orders
            yield from self._handed_on(sorter)

    def _line_sums(self) -> Iterator[Batches]:
        """Yield rejected lines, and last all orders."""
        from rfmstream.engine.files.lines import LineSums

        assert self._mapper is not None, "only a map sums lines"
        sums = LineSums(self._mapper, currency=self._currency, memory_budget_bytes=self._budget_bytes)
        for chunk in self._chunks(self._mapper.columns(), "read"):
            with naming(chunk.source):
                rejected = sums.add(self._source_rows(chunk), self._file_number)
                sums.add_damaged(chunk, self._files[self._file_number])
            yield NO_ORDERS, rejected
        orders, rejected = sums.orders()
        self.lines_repeated = sums.lines_repeated
        yield self._own_ids(orders), rejected

    def _rated(self, rates: Rates) -> Iterator[Batches]:
        from rfmstream.engine.files.conversion import Conversion

        conversion = Conversion(rates, memory_budget_bytes=self._budget_bytes)
        parts: Iterator[tuple[str | None, Batches]]
        if self._map is not None and self._map.sum_lines:
            parts = ((None, batches) for batches in self._line_sums())
        else:
            parts = ((chunk.source, batches) for chunk, batches in self._judged())
        for source, (orders, rejected) in parts:
            conversion.add(orders, source)
            if rejected.num_rows:
                yield NO_ORDERS, rejected
        whole, rejected = conversion.orders()
        del conversion
        if rejected.num_rows:
            yield NO_ORDERS, rejected
        if whole is not None:
            with Sorter(memory_budget_bytes=2 * whole.nbytes + self._budget_bytes) as sorter:
                sorter.add(whole)
                yield from self._handed_on(sorter)

    def _handed_on(self, sorter: Sorter) -> Iterator[Batches]:
        done = 0
        for batch in _whole_orders(sorter.batches()) if self.has_parts else sorter.batches():
            done += batch.num_rows
            self._tell("sorted", done, sorter.row_count)
            yield batch, NO_REJECTED

    def _judged(self) -> Iterator[tuple[Chunk, Batches]]:
        columns = self._mapper.columns() if self._mapper is not None else self._own_columns
        for chunk in self._chunks(columns, "read"):
            if self._mapper is not None:
                with naming(chunk.source):
                    orders, rejected = self._mapper.canonical(self._source_rows(chunk))
            else:
                orders, rejected = self._normalised(chunk)
                if chunk.orders is not None:
                    from rfmstream.engine.files.mapping import by_row

                    orders = by_row([chunk.orders, orders]) if orders.num_rows else chunk.orders
            if chunk.row_count:
                yield chunk, (self._own_ids(orders), _with_damaged(chunk, rejected))

    def _source_rows(self, chunk: Chunk) -> SourceRows:
        absent = () if self._map is None else self._map.input.absent or ()
        return SourceRows(
            *(chunk.batch, chunk.rows, chunk.source, chunk.names),
            rows_before=self._rows_before,
            absent=absent,
            dates_are_iso=chunk.dates_are_iso,
        )

    def _normalised(self, chunk: Chunk) -> Batches:
        with naming(chunk.source):
            return normalise(
                chunk.batch,
                currency=self._currency,
                time_zone=self._time_zone,
                source=chunk.source,
                rows=chunk.rows,
                names=chunk.names,
                keeps_foreign=self._rates is not None,
                attributes=self._attributes,
            )

    @property
    def _own_columns(self) -> tuple[str, ...]:
        """The contract's columns, and those that views look at."""
        return tuple(dict.fromkeys((*CONTRACT_COLUMNS, *self._attributes)))

    def _own_ids(self, orders: pa.RecordBatch) -> pa.RecordBatch:
        return orders if self._identities is None else self._identities.applied(orders)

    def _chunks(self, columns: Sequence[str], stage: Literal["scan", "read"]) -> Iterator[Chunk]:
        """Yield the chunks of all files, their rows numbered throughout."""
        total = sum(file.size for file in self._files)
        before, row = 0, 0
        for number, file in enumerate(self._files):
            self._file_number = number

            def tick(done: int, before: int = before) -> None:
                self._tell(stage, before + done, total)

            fill_down = FillDown(file)
            for read in read_chunks(file, columns, first_row=row, tick=tick, scanner=self._scanner):
                chunk = fill_down.filled(read) if file.form.fill_down else read
                count = chunk.row_count
                row += count
                if stage == "read":
                    self.rows_read += count
                    self.sheets_unread += tuple(f"{file.name}: {name}" for name in read.sheets_unread)
                yield chunk
            before += file.size

    def _tell(self, stage: Stage, done: int, total: int) -> None:
        if self._on_progress is not None:
            self._on_progress(Progress(stage, done, total, self.rows_read))


def open_orders(  # noqa: PLR0913 - options by keyword
    inputs: Sequence[Path],
    *,
    input_map: InputMap | None = None,
    currency: str,
    time_zone: str | None = None,
    memory_budget_bytes: int = 2 << 30,
    rows_before: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    on_excluded: Callable[[pa.RecordBatch], None] | None = None,
    identities: Identities | None = None,
    rates: Rates | None = None,
    attributes: Sequence[str] = (),
    in_order: bool = True,
) -> OrderStream:
    """Open order history: (canonical, rejected) batches in order of (occurred_at, input order).

    In      inputs     files and directories, read in this order: Parquet, Arrow IPC, CSV, JSON, workbooks, each
                       plain, gzip or zstd, or in a ZIP archive
            input_map  None: the columns are those of the contract
            currency   the ruleset's
            time_zone  of times without one where the map does not say it; None: UTC
            memory_budget_bytes  of orders held for sorting or summing
            rows_before  that earlier runs have read, where this one goes on
            on_excluded  takes the rows that the map leaves out, of EXCLUDED_SCHEMA
            identities  ids that stand for others
            rates      of other currencies; None: orders in them are rejected
            attributes  columns that views look at: both batches have them, too, as `attribute.NAME`
            in_order   False: as they stand in the input, for who brings them into order; what must be held in memory
                       anyway (lines to be summed, other currencies) comes in order all the same
    Errors  InputError   an input is missing, damaged, of unknown format or lacks a column
            ConfigError  an unknown currency or time zone
    """
    zone_of(time_zone or "UTC")
    return OrderStream(
        find_files(inputs, InputFormat() if input_map is None else input_map.input),
        input_map=input_map,
        currency=currency,
        time_zone=time_zone or "UTC",
        memory_budget_bytes=memory_budget_bytes,
        rows_before=rows_before,
        on_progress=on_progress,
        on_excluded=on_excluded,
        identities=identities,
        rates=rates,
        attributes=attributes,
        in_order=in_order,
    )


def _whole_orders(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches of which none ends between two parts of an order, which are of one row."""
    held: pa.RecordBatch | None = None
    for batch in batches:
        whole = batch if held is None else pa.concat_batches([held, batch])
        rows = whole.column("row").to_numpy()
        others = np.flatnonzero(rows != rows[-1]) if len(rows) else np.zeros(0, np.int64)
        cut = int(others[-1]) + 1 if len(others) else 0
        held = whole.slice(cut)
        yield whole.slice(0, cut)
    if held is not None:
        yield held


def _with_damaged(chunk: Chunk, rejected: pa.RecordBatch) -> pa.RecordBatch:
    """Add the rows that could not be split into columns to the rejected ones, in order of row."""
    if len(chunk.damaged_rows) == 0:
        return rejected
    raw = pa.array(chunk.damaged_raw, pa.string())
    reason = pa.repeat(pa.scalar("malformed", pa.string()), len(raw))
    damaged = rejected_batch(chunk.damaged_rows, chunk.source, reason, {}, raw)
    whole = concat([damaged, rejected])
    return whole.take(pa.array(np.argsort(whole.column("row").to_numpy(), kind="stable")))
