"""Orders parted by customer into files on disk, so that each part fits into memory where all of them do not.

A part is a shard (`kernels.fold.shard_of`), so the states of the parts are the shards of one engine.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import pyarrow as pa

from rfmstream.engine.core.kernel_batch import shards_of
from rfmstream.engine.files.runs import RunWriter, read_run
from rfmstream.engine.files.sorting import Sorter, times_us
from rfmstream.schemas.codes import NEVER_US

PARTS_MAX: Final = 256
_ROWS_OF_A_PART: Final = 1 << 14


class Partition:
    """Takes batches of canonical orders in input order, and gives back those of each part in order of time.

    In      folder           where the files go
            parts            how many, at most PARTS_MAX
            held_bytes_max   of orders that are gathered before they are written
    Fields  rows       i64[parts], of each part
            newest_us  i64[parts], the newest of them; NEVER_US without any

    As a context manager it closes the files; until then nothing can be read.
    """

    def __init__(self, folder: Path, parts: int, *, held_bytes_max: int) -> None:
        self.rows = np.zeros(parts, dtype=np.int64)
        self.newest_us = np.full(parts, NEVER_US, dtype=np.int64)
        self._runs = [RunWriter(folder / f"orders-{part}.arrow") for part in range(parts)]
        self._held: list[pa.RecordBatch] = []
        self._held_rows = self._held_bytes = 0
        self._held_bytes_max = held_bytes_max
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for run in self._runs:
            self._stack.enter_context(run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is None:
                self._write()

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next batch."""
        if batch.num_rows == 0:
            return
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        if self._held_bytes >= self._held_bytes_max or self._held_rows >= _ROWS_OF_A_PART * len(self._runs):
            self._write()

    def _write(self) -> None:
        if not self._held:
            return
        whole = pa.concat_batches(self._held)
        self._held, self._held_rows, self._held_bytes = [], 0, 0
        of = shards_of(whole.column("customer_id"), len(self._runs))
        order = np.argsort(of, kind="stable")
        whole, of = whole.take(pa.array(order)), of[order]
        us = times_us(whole)
        edges = np.searchsorted(of, np.arange(len(self._runs) + 1))
        for part, (first, end) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
            if first < end:
                self._runs[part].write(whole.slice(first, end - first))
                self.rows[part] += end - first
                self.newest_us[part] = max(self.newest_us[part], int(us[first:end].max()))

    def orders(self, part: int, *, memory_budget_bytes: int) -> Iterator[pa.RecordBatch]:
        """Yield the orders of a part in order of time.

        In      memory_budget_bytes  of orders held for sorting
        """
        with Sorter(memory_budget_bytes=memory_budget_bytes) as sorter:
            for batch in read_run(self._runs[part].path):
                sorter.add(batch)
            yield from sorter.batches()

    def forget(self, part: int) -> None:
        """Remove the file of a part that is not needed any more."""
        self._runs[part].path.unlink(missing_ok=True)
