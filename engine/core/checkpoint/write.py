"""Write the whole state of a machine to a directory."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from rfmstream.engine.core.checkpoint.columns import ENTRY_SCHEMA, WITHOUT_ID, customer_schema, id_bytes_of
from rfmstream.engine.core.checkpoint.created import create
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
from rfmstream.engine.core.populations import Populations
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
    with checkpointing(Path(directory)) as checkpoint:
        files = machine.threads.for_each(
            lambda part: checkpoint.write_shard(*part), list(enumerate(machine.shards))
        )
        parted = None
        if machine.populations is not None:
            parted = checkpoint.write_populations(machine.populations)
        checkpoint.publish(describe(machine, list(chain.from_iterable(files)), parted))


@contextmanager
def checkpointing(folder: Path) -> Iterator["Checkpoint"]:
    """Give a checkpoint to write in steps: it replaces the one in the directory when it is published, and else goes.

    Raises  StateError where the directory holds something else or cannot be written
    """
    if is_of_views(folder):
        raise StateError(
            "holds a checkpoint of several views, which one engine cannot replace",
            path=folder,
            fix="name another directory",
        )
    with ExitStack() as stack:
        with writing(folder):
            files_of(folder)  # what is not ours is refused before anything is made
            stack.enter_context(alone(folder))
            checkpoint = Checkpoint(folder)
            stack.callback(checkpoint.discard)
            checkpoint.begin()
        yield checkpoint


class Checkpoint:
    """A checkpoint in the making; shards may be written by several threads at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._old = files_of(folder)
        self._generation = next_generation(self._old)
        self._written: list[Path] = []
        # A view's folder is new each time, and the checkpoint that is replaced beside it.
        self._like = folder / MANIFEST if has_checkpoint(folder) else folder.parent / MANIFEST

    def begin(self) -> None:
        """Mark a directory that holds no checkpoint yet."""
        if not has_checkpoint(self._folder) and FIRST not in self._old:
            self._written.append(self._folder / FIRST)
            self._written[-1].touch()

    def write_shard(self, number: int, shard: Shard) -> list[dict[str, Any]]:
        """Write the state of a shard; return what the manifest says of its files."""
        files, shard = [], shard.lasting()
        compacted = Compacted(shard)
        with writing(self._folder):
            for kind, schema, batches in (
                ("customers", customer_schema(shard), _customer_batches(shard, compacted)),
                ("entries", ENTRY_SCHEMA, _entry_batches(shard, compacted)),
            ):
                files.append(_write_file(self._make(f"{number}-{kind}.arrow"), schema, batches))
        return files

    def write_populations(self, populations: Populations) -> dict[str, Any]:
        """Write the populations; return what the manifest says of their file."""
        with writing(self._folder):
            path = self._make("0-populations.arrow")
            return _write_file(path, POPULATION_SCHEMA, [population_batch(populations)])

    def publish(self, manifest: dict[str, Any]) -> None:
        """Let what was written, of which the manifest tells, be the checkpoint."""
        with writing(self._folder):
            path = self._make(MANIFEST)
            with path.open("wb") as file:
                file.write(sealed(manifest))
                sync(file)
            sync_folder(self._folder)
            path.replace(self._folder / MANIFEST)
            self._written.clear()  # they are the checkpoint now
            sync_folder(self._folder)
            # Whatever happens from here on leaves files too many, which the next checkpoint removes.
            for name in (*self._old, FIRST):
                remove(self._folder / name)

    def discard(self) -> None:
        """Remove what was written, unless it was published."""
        for path in self._written:
            path.unlink(missing_ok=True)

    def _make(self, name: str) -> Path:
        path = self._folder / f"{self._generation}-{name}"
        self._written.append(path)
        create(path, like=self._like)
        return path


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
