"""Canonical batches into order of (occurred_at, paid first, input order): in memory, or through sorted runs on disk.

Source  docs/semantics.md 5, rule 3
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

from rfmstream.schemas.codes import OrderType

BATCH_ROWS: Final = 1 << 17
_RUN_BATCH_ROWS: Final = 1 << 14
_OFFSETS_MAX: Final = 2**31 - 1


def times_us(batch: pa.RecordBatch) -> np.ndarray[Any, Any]:
    """Return occurred_at as i64[n] microseconds, without a copy."""
    us: np.ndarray[Any, Any] = batch.column("occurred_at").cast(pa.int64()).to_numpy()
    return us


def places(batch: pa.RecordBatch) -> np.ndarray[Any, Any]:
    """Return i64[n] that ascend as the contract has it: by occurred_at, at one instant paid before the other types."""
    other: np.ndarray[Any, Any] = batch.column("type").to_numpy() != OrderType.PAID
    return places_of(times_us(batch), other)


def places_of(us: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the places of events at instants us i64[n]; other bool[n]: which of them are not paid."""
    # Instants of the years 1 to 9999 leave three of the 64 bits free.
    doubled: np.ndarray[Any, Any] = (us << 1) | other
    return doubled


class TieSorter:
    """Puts batches whose times never fall in order, though at one instant other types stand before a paid event.

    Held are the events of the newest instant that are not paid: a paid one may follow.
    """

    def __init__(self) -> None:
        self._held: pa.RecordBatch | None = None

    def add(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Take the next batch; return what is known to come next."""
        if batch.num_rows == 0:
            return batch
        if self._held is not None:
            batch, self._held = pa.concat_batches([self._held, batch]), None
        place = places(batch)
        if not (place[1:] >= place[:-1]).all():
            order = np.argsort(place, kind="stable")
            batch, place = batch.take(pa.array(order)), place[order]
        ready = int(np.searchsorted(place, place[-1] | 1, "left"))
        if ready < batch.num_rows:
            self._held = batch.slice(ready)
        return batch.slice(0, ready)

    def rest(self) -> pa.RecordBatch | None:
        """Return what is still held at the end; None: nothing."""
        held, self._held = self._held, None
        return held


class Sorter:
    """Takes batches in input order and gives them back in order of time; see `places`.

    Up to half of the budget of orders is held; beyond that they go to disk as sorted runs, because sorting
    needs as much again. Use it as a context manager: the runs go when it ends.
    """

    def __init__(self, *, memory_budget_bytes: int) -> None:
        self._run_bytes_max = max(memory_budget_bytes // 2, 1)
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0
        self._sorted = True
        self._newest: int | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._runs: list[Path] = []
        self.row_count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._directory is not None:
            self._directory.cleanup()

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next batch of canonical orders, with the attributes that all of them have."""
        if batch.num_rows == 0:
            return
        place = places(batch)
        follows = self._newest is None or place[0] >= self._newest
        in_order = follows and bool((place[1:] >= place[:-1]).all())
        self._sorted = self._sorted and in_order
        self._newest = int(place[-1])
        self._held.append(batch)
        self._held_bytes += batch.get_total_buffer_size()
        self.row_count += batch.num_rows
        if self._held_bytes > self._run_bytes_max:
            self._spill()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield everything in order; the sorter is empty afterwards."""
        if not self._runs:
            yield from self._drain(BATCH_ROWS)
            return
        if self._held:
            self._spill()
        runs = [_Run(path) for path in self._runs]
        try:
            yield from _merge(runs)
        finally:
            for run in runs:
                run.close()

    def _drain(self, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield what is held, in order, in batches of about `rows`."""
        held, self._held, self._held_bytes = self._held, [], 0
        in_order, self._sorted, self._newest = self._sorted, True, None
        if in_order:
            for batch in held:
                for start in range(0, batch.num_rows, rows):
                    yield batch.slice(start, rows)
            return
        order = np.argsort(np.concatenate([places(batch) for batch in held]), kind="stable")
        # One contiguous array a column: taking from chunks would look the chunk up for every row and slice.
        schema = held[0].schema
        columns = [_contiguous([batch.column(name) for batch in held]) for name in schema.names]
        del held
        for start in range(0, len(order), rows):
            at = pa.array(order[start : start + rows])
            taken = [column.take(at) for column in columns]
            yield pa.RecordBatch.from_arrays(
                [array.cast(field.type) for array, field in zip(taken, schema, strict=True)],
                schema=schema,
            )

    def _spill(self) -> None:
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="rfmstream-sort-")
        path = Path(self._directory.name) / f"{len(self._runs):06d}.arrow"
        schema = self._held[0].schema
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for batch in self._drain(_RUN_BATCH_ROWS):
                writer.write_batch(batch)
        self._runs.append(path)


def _contiguous(arrays: list[pa.Array]) -> pa.Array:
    kind = arrays[0].type
    if pa.types.is_string(kind) and sum(array.nbytes for array in arrays) > _OFFSETS_MAX:
        arrays = [array.cast(pa.large_string()) for array in arrays]
    return pa.concat_arrays(arrays)


class _Run:
    """A sorted run on disk, read batch by batch."""

    def __init__(self, path: Path) -> None:
        self._source = pa.OSFile(str(path))
        self._reader = pa.ipc.open_stream(self._source)
        self.batch: pa.RecordBatch | None = None
        self.advance()

    def advance(self) -> None:
        """Read the next batch; None at the end."""
        self.batch = next(iter(self._reader), None)
        if self.batch is not None:
            self.places = places(self.batch)
            self.rows = self.batch.column("row").to_numpy()

    def last(self) -> tuple[int, int]:
        """Return (place, row) of the last order of the batch."""
        return int(self.places[-1]), int(self.rows[-1])

    def take_until(self, limit: tuple[int, int]) -> pa.RecordBatch | None:
        """Take the orders of the batch up to (place, row) inclusive; None if there are none."""
        assert self.batch is not None, "an exhausted run takes no part"
        start, end = (np.searchsorted(self.places, limit[0], side) for side in ("left", "right"))
        cut = int(start + np.searchsorted(self.rows[start:end], limit[1], "right"))
        taken = self.batch.slice(0, cut) if cut else None
        if cut == self.batch.num_rows:
            self.advance()
        elif cut:
            self.batch, self.rows = self.batch.slice(cut), self.rows[cut:]
            self.places = self.places[cut:]
        return taken

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        self._source.close()


def _merge(runs: list[_Run]) -> Iterator[pa.RecordBatch]:
    """Merge runs: what all heads hold up to the smallest of their last (place, row) can be handed on.

    A row stands in one run only, so that (place, row) tells runs apart within an instant. Several events of
    one row are in one run, next to each other when their places are equal, and a cut behind the last of them
    keeps them together.
    """
    ready: list[pa.RecordBatch] = []
    ready_rows = 0
    while alive := [run for run in runs if run.batch is not None]:
        limit = min(run.last() for run in alive)
        parts = [taken for run in alive if (taken := run.take_until(limit)) is not None]
        merged = pa.concat_batches(parts)
        if len(parts) > 1:
            merged = merged.take(pa.array(np.argsort(places(merged), kind="stable")))
        ready.append(merged)
        ready_rows += merged.num_rows
        if ready_rows >= BATCH_ROWS // 2:
            yield pa.concat_batches(ready)
            ready, ready_rows = [], 0
    if ready:
        yield pa.concat_batches(ready)
