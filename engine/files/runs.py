"""Sorted runs on disk: record batches in ascending order of a key, written once and merged with others."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

RUN_BATCH_ROWS: Final = 1 << 14
"""Rows of a batch of a run: merging holds one of each run."""
_MERGED_ROWS_MIN: Final = 1 << 16

Key = Callable[[pa.RecordBatch], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]
"""Returns (place, row) of each row of a batch, i64[n] both, which ascend along a run.

No place and row is in two runs, or else it does not matter which run's comes first.
"""


class RunWriter:
    """Writes a run; as a context manager it closes the file. The file is made with the first rows.

    Fields  path  where it is
            rows  written so far
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._stack = ExitStack()
        self._writer: pa.RecordBatchWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._writer = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows, which follow those before in order of the key."""
        if batch.num_rows == 0:
            return
        if self._writer is None:
            sink = self._stack.enter_context(pa.OSFile(str(self.path), "wb"))
            self._writer = self._stack.enter_context(pa.ipc.new_stream(sink, batch.schema))
        for start in range(0, batch.num_rows, RUN_BATCH_ROWS):
            self._writer.write_batch(batch.slice(start, RUN_BATCH_ROWS))
        self.rows += batch.num_rows


def read_run(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a run; nothing where none was written."""
    if path.exists():
        with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as reader:
            yield from reader


def merged(paths: Sequence[Path], key: Key) -> Iterator[pa.RecordBatch]:
    """Yield the rows of all runs in order of the key; where it ties, those of a run stay in their order."""
    with ExitStack() as stack:
        runs = [_Run(path, key, stack) for path in paths if path.exists()]
        yield from _merge(runs)


class _Run:
    """A run on disk, read batch by batch."""

    def __init__(self, path: Path, key: Key, stack: ExitStack) -> None:
        source = stack.enter_context(pa.OSFile(str(path)))
        self._reader = stack.enter_context(pa.ipc.open_stream(source))
        self._key = key
        self.batch: pa.RecordBatch | None = None
        self.advance()

    def advance(self) -> None:
        """Read the next batch; None at the end."""
        self.batch = next(iter(self._reader), None)
        if self.batch is not None:
            self.places, self.rows = self._key(self.batch)

    def last(self) -> tuple[int, int]:
        """Return (place, row) of the last row of the batch."""
        return int(self.places[-1]), int(self.rows[-1])

    def take_until(self, limit: tuple[int, int]) -> tuple[pa.RecordBatch, np.ndarray[Any, Any]] | None:
        """Take the rows of the batch up to (place, row) inclusive, and their places; None if there are none."""
        assert self.batch is not None, "an exhausted run takes no part"
        start, end = (np.searchsorted(self.places, limit[0], side) for side in ("left", "right"))
        cut = int(start + np.searchsorted(self.rows[start:end], limit[1], "right"))
        taken = (self.batch.slice(0, cut), self.places[:cut]) if cut else None
        if cut == self.batch.num_rows:
            self.advance()
        elif cut:
            self.batch, self.rows = self.batch.slice(cut), self.rows[cut:]
            self.places = self.places[cut:]
        return taken


def _merge(runs: list[_Run]) -> Iterator[pa.RecordBatch]:
    """Merge runs: what all heads hold up to the smallest of their last (place, row) can be handed on.

    A row stands in one run only, so that (place, row) tells runs apart within an instant. Several events of
    one row are in one run, next to each other when their places are equal, and a cut behind the last of them
    keeps them together.
    """
    ready: list[tuple[pa.RecordBatch, np.ndarray[Any, Any]]] = []
    ready_rows = 0
    while alive := [run for run in runs if run.batch is not None]:
        limit = min(run.last() for run in alive)
        parts = [taken for run in alive if (taken := run.take_until(limit)) is not None]
        ready += parts
        ready_rows += sum(len(places) for _, places in parts)
        if ready_rows >= _MERGED_ROWS_MIN:
            yield _in_order(ready)
            ready, ready_rows = [], 0
    if ready:
        yield _in_order(ready)


def _in_order(parts: list[tuple[pa.RecordBatch, np.ndarray[Any, Any]]]) -> pa.RecordBatch:
    """Return the rows of several batches in order of their places; equal ones stay in the order of the batches."""
    merged = pa.concat_batches([batch for batch, _ in parts])
    if len(parts) == 1:
        return merged
    places = np.concatenate([places for _, places in parts])
    return merged.take(pa.array(np.argsort(places, kind="stable")))
