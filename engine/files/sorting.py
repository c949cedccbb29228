"""Canonical batches into order of (occurred_at, paid first, input order): in memory, or through sorted runs on disk.

Source  docs/semantics.md 5, rule 3
"""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import pyarrow as pa

from rfmstream.engine.files.background import map_ahead
from rfmstream.engine.files.runs import RUN_BATCH_ROWS, RunWriter, merged
from rfmstream.engine.files.scratch import scratch
from rfmstream.schemas.codes import OrderType

if TYPE_CHECKING:
    from pathlib import Path

BATCH_ROWS: Final = 1 << 17
_OFFSETS_MAX: Final = 2**31 - 1
_THREADS: Final = 2
"""They sort beside the thread that folds what was sorted before."""
_CELL_BITS: Final = 16
_STRETCH_ROWS: Final = 1 << 17


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
        self._stack = ExitStack()
        self._folder: Path | None = None
        self._runs: list[Path] = []
        self.row_count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

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
        yield from merged(self._runs, _key)

    def _drain(self, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield what is held, in order, in batches of about `rows`."""
        held, self._held, self._held_bytes = self._held, [], 0
        in_order, self._sorted, self._newest = self._sorted, True, None
        if in_order:
            for batch in held:
                for start in range(0, batch.num_rows, rows):
                    yield batch.slice(start, rows)
            return
        order = ascending(np.concatenate([places(batch) for batch in held]))
        # One contiguous array a column: taking from chunks would look the chunk up for every row and slice.
        schema = held[0].schema
        columns = [_contiguous([batch.column(name) for batch in held]) for name in schema.names]
        del held

        def taken(start: int) -> pa.RecordBatch:
            at = pa.array(order[start : start + rows])
            arrays = [column.take(at) for column in columns]
            return pa.RecordBatch.from_arrays(
                [array.cast(field.type) for array, field in zip(arrays, schema, strict=True)],
                schema=schema,
            )

        yield from map_ahead(taken, range(0, len(order), rows), _THREADS, lambda: None)

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = self._stack.enter_context(scratch())
        with RunWriter(self._folder / f"{len(self._runs):06d}.arrow") as run:
            for batch in self._drain(RUN_BATCH_ROWS):
                run.write(batch)
        self._runs.append(run.path)


def ascending(place: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return what `np.argsort(place, kind="stable")` does, in half the time and by several threads.

    In      place  i64[n], n > 0, of which the least and the greatest are less than 2**63 apart

    The places are first dealt out to stretches of the scale that hold about as many each, then each stretch is
    sorted within the caches.
    """
    lowest = place.min()
    shift = max(int(place.max() - lowest).bit_length() - _CELL_BITS, 0)
    cell = ((place - lowest) >> shift).astype(np.uint16)
    counts = np.bincount(cell)
    stretch = ((np.cumsum(counts) - counts) // _STRETCH_ROWS).astype(np.uint16)[cell]
    order = np.argsort(stretch, kind="stable")

    def sort(span: tuple[int, int]) -> None:
        part = order[slice(*span)]
        part[:] = part[_by_digits(place[part])]

    spans = list(pairwise([0, *np.cumsum(np.bincount(stretch)).tolist()]))
    deque(map_ahead(sort, spans, _THREADS, lambda: None), maxlen=0)
    return order


def _by_digits(place: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the stable order of places, digit by digit: numbers of 16 bits are what numpy sorts without comparing."""
    above = place - (place.min() if len(place) else 0)
    order = np.argsort(above.astype(np.uint16), kind="stable")
    for shift in range(16, int(above.max(initial=0)).bit_length(), 16):
        order = order[np.argsort((above >> shift).astype(np.uint16)[order], kind="stable")]
    return order


def _key(batch: pa.RecordBatch) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return places(batch), batch.column("row").to_numpy()


def _contiguous(arrays: list[pa.Array]) -> pa.Array:
    kind = arrays[0].type
    if pa.types.is_string(kind) and sum(array.nbytes for array in arrays) > _OFFSETS_MAX:
        arrays = [array.cast(pa.large_string()) for array in arrays]
    return pa.concat_arrays(arrays)
