"""Write the whole state of a machine to a directory."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from rfmstream.engine.core.checkpoint.columns import ENTRY_SCHEMA, WITHOUT_ID, customer_schema, id_bytes_of
from rfmstream.engine.core.checkpoint.folder import (
    FIRST,
    MANIFEST,
    alone,
    files_of,
    has_checkpoint,
    next_generation,
    remove,
    sync,
    sync_folder,
    writing,
)
from rfmstream.engine.core.checkpoint.manifest import describe, is_of_views, sealed
from rfmstream.engine.core.checkpoint.populations import POPULATION_SCHEMA, population_batch
from rfmstream.engine.core.compact import Compacted
from rfmstream.engine.core.machine import Machine
from rfmstream.engine.core.shard import Shard
from rfmstream.kernels import layout
from rfmstream.schemas.errors import StateError

_WRITE_BACK_BYTES: Final = 8 << 20
"""The disk is to begin with each so many bytes while the next are made, not with all of them at the end."""
_ROWS: Final = 1 << 16
"""Rows of a record batch: few enough that splitting records into columns stays in the cache."""


def write_checkpoint(machine: Machine, directory: str | os.PathLike[str]) -> None:
    """Write the state of a machine; the checkpoint that was in the directory is replaced in one step.

    Raises  StateError where the directory holds something else or cannot be written
    """
    folder = Path(directory)
    if is_of_views(folder):
        raise StateError(
            "holds a checkpoint of several views, which one engine cannot replace",
            path=folder,
            fix="name another directory",
        )
    with writing(folder):
        files_of(folder)  # what is not ours is refused before anything is made
        with alone(folder):
            _write(machine, folder)


def _write(machine: Machine, folder: Path) -> None:
    old = files_of(folder)
    generation = next_generation(old)
    written: list[Path] = []

    def write(part: tuple[int, Shard]) -> list[dict[str, Any]]:
        number, shard = part
        files, compacted = [], Compacted(shard)
        for kind, schema, batches in (
            ("customers", customer_schema(shard), _customer_batches(shard, compacted)),
            ("entries", ENTRY_SCHEMA, _entry_batches(shard, compacted)),
        ):
            path = folder / f"{generation}-{number}-{kind}.arrow"
            written.append(path)
            files.append(_write_file(path, schema, batches))
        return files

    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not has_checkpoint(folder) and FIRST not in old:
            written.append(folder / FIRST)
            written[-1].touch()
        files = list(chain.from_iterable(machine.threads.for_each(write, list(enumerate(machine.shards)))))
        parted = None
        if machine.populations is not None:
            written.append(folder / f"{generation}-0-populations.arrow")
            parted = _write_file(written[-1], POPULATION_SCHEMA, [population_batch(machine.populations)])
        written.append(folder / f"{generation}-{MANIFEST}")
        with written[-1].open("wb") as file:
            file.write(sealed(describe(machine, files, parted)))
            sync(file)
        sync_folder(folder)
        written.pop().replace(folder / MANIFEST)
        written.clear()  # they are the checkpoint now
        sync_folder(folder)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    # Whatever happens from here on leaves files too many, which the next checkpoint removes.
    for name in (*old, FIRST):
        remove(folder / name)


def _customer_batches(shard: Shard, compacted: Compacted) -> Iterator[pa.RecordBatch]:
    for handles, records in compacted.customers(_ROWS):
        offsets, data = shard.customer_ids(handles.astype(np.uint32))
        yield _split(records, customer_schema(shard), offsets, data)


def _entry_batches(shard: Shard, compacted: Compacted) -> Iterator[pa.RecordBatch]:
    for handles, entries in compacted.entries(_ROWS):
        # An id of no bytes: notes that remember something of an order by its handle.
        has_none = np.isin(entries["marks"] & layout.KIND_MASK, WITHOUT_ID)
        offsets, data = shard.entry_ids(np.where(has_none, 0, handles))
        yield _split([entries], ENTRY_SCHEMA, offsets, data)


def _split(
    records: list[NDArray[Any]], schema: pa.Schema, offsets: NDArray[np.int32], data: NDArray[np.uint8]
) -> pa.RecordBatch:
    """Write records side by side, of the same handles each, as columns."""
    # What lies behind the last id is anything: the same state is to be the same bytes.
    used = data[: int(offsets[-1])]
    ids = pa.StringArray.from_buffers(records[0].size, pa.py_buffer(offsets), pa.py_buffer(used))
    fields = {name: part[name] for part in records for name in part.dtype.names or ()}
    columns = [pa.array(np.ascontiguousarray(fields[name])) for name in schema.names[1:]]
    return pa.RecordBatch.from_arrays([ids, *columns], schema=schema)


class _Digested:
    """A file being written, and the digest of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = xxhash.xxh3_128()
        self.size = 0
        self._on_its_way = 0
        self.closed = False

    def write(self, data: Any) -> int:  # noqa: ANN401 - anything with a buffer
        view = memoryview(data)
        self.digest.update(view)
        self.size += view.nbytes
        written = self._file.write(view)
        if self.size - self._on_its_way >= _WRITE_BACK_BYTES and hasattr(os, "posix_fadvise"):
            # Linux begins to write back what it is told is not needed, and keeps what is not on the disk yet.
            with suppress(OSError):  # a hint
                os.posix_fadvise(self._file.fileno(), self._on_its_way, 0, os.POSIX_FADV_DONTNEED)
            self._on_its_way = self.size
        return written

    def flush(self) -> None:
        self._file.flush()


def _write_file(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> dict[str, Any]:
    rows = id_bytes = 0
    with path.open("wb", buffering=0) as file:
        digested = _Digested(file)
        with pa.ipc.new_stream(pa.PythonFile(digested, mode="w"), schema) as writer:
            for batch in batches:
                rows += batch.num_rows
                id_bytes += id_bytes_of(batch)
                writer.write_batch(batch)
        sync(file)
    return {
        "name": path.name,
        "rows": rows,
        "id_bytes": id_bytes,
        "bytes": digested.size,
        "xxh3_128": digested.digest.hexdigest(),
    }
