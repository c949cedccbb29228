"""How much memory a replay will take, and in how many parts it stays within what it may.

Both are estimates from the files' sizes, or from what Parquet files say of themselves. No result depends on them.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from rfmstream.engine.core.checkpoint.manifest import read_manifest
from rfmstream.engine.core.checkpoint.views import saved_views
from rfmstream.engine.files.input_files import InputFile, find_files
from rfmstream.engine.files.memory import bound_bytes
from rfmstream.engine.files.partition import PARTS_MAX
from rfmstream.engine.replay.replay import may_go_on
from rfmstream.schemas.mapping import InputFormat

STATE_ROW_BYTES: Final = 150
"""Of an order in the state: 48 bytes, its id, and a customer with its row of the snapshot for every four orders."""
SORT_ROW_BYTES: Final = 160
"""Of an order while a part is sorted: as it was read, and as it is handed on."""
DISK_ROW_BYTES: Final = 220
"""Of an order on disk: itself, and a tier change."""
_OTHER_BYTES: Final = 512 << 20
"""The program, and batches on their way."""

_TEXT_ROW_BYTES: Final = 60
_PARQUET_ROW_BYTES: Final = 10
"""The fewest that a row takes on disk."""
_UNPACKED_RATIO: Final = 10


@dataclass(frozen=True)
class Parts:
    """In how many parts a history is replayed.

    Fields  count        parts, each a shard
            at_once      how many are worked on at a time
            sort_bytes   of orders that each of these may hold for sorting
            gather_bytes  of orders that are gathered before they are parted
            disk_bytes   that is needed beside the outputs, about
    """

    count: int
    at_once: int
    sort_bytes: int
    gather_bytes: int
    disk_bytes: int


def parts_of(
    files: Sequence[InputFile],
    *,
    threads: int,
    states: int = 1,
    saved_orders: int = 0,
    shards: int | None = None,
) -> Parts | None:
    """Return the parts in which a history is to be replayed; None: it fits into memory as a whole.

    In      states        how many engines are to hold it: one a view
            saved_orders  that a checkpoint holds already
            shards        of that checkpoint; None: there is none. Its parts are these, if they are more than threads
    """
    available = _available_bytes()
    row_bytes = states * STATE_ROW_BYTES
    least = sum(file.size for file in files) * _UNPACKED_RATIO // _PARQUET_ROW_BYTES
    if (least + saved_orders) * row_bytes <= available:
        return None
    rows = sum(_rows_of(file) for file in files)
    whole_bytes = (rows + saved_orders) * row_bytes
    if whole_bytes <= available or (shards is not None and shards <= threads):
        return None
    at_once_bytes = available // 2
    count = 2
    while count < PARTS_MAX and threads * (whole_bytes + rows * SORT_ROW_BYTES) > count * at_once_bytes:
        count *= 2
    count = shards or count
    return Parts(
        count=count,
        at_once=min(threads, count),
        sort_bytes=max(at_once_bytes // threads, 1),
        gather_bytes=max(available // 16, 1),
        disk_bytes=rows * DISK_ROW_BYTES * states,
    )


def beyond_memory(
    inputs: Sequence[Path], form: InputFormat, *, checkpoint: Path | None, states: int = 1
) -> int | None:
    """Return the bytes that a replay which cannot be parted may take, where that is more than it may; else None.

    In      states  how many engines are to hold the files' orders: one a view
    Errors  as of `find_files` and `read_manifest`
    """
    saved = 0
    if checkpoint is not None and may_go_on(checkpoint):
        folders = (view.folder for view in saved_views(checkpoint).values())
        saved = sum(_saved_orders(read_manifest(folder)) for folder in folders)
    rows = sum(_rows_of(file) for file in find_files(inputs, form))
    taken = (rows * states + saved) * STATE_ROW_BYTES
    return taken + _OTHER_BYTES if taken > _available_bytes() else None


def parts_for(
    inputs: Sequence[Path], form: InputFormat, *, checkpoint: Path | None, threads: int
) -> Parts | None:
    """Return the parts in which to replay files into one engine, a new one or a checkpoint's; see `parts_of`.

    Errors  as of `find_files` and `read_manifest`
    """
    files = find_files(inputs, form)
    if checkpoint is None or not may_go_on(checkpoint):
        return parts_of(files, threads=threads)
    manifest = read_manifest(checkpoint)
    return parts_of(
        files, threads=threads, saved_orders=_saved_orders(manifest), shards=len(manifest["shards"])
    )


def _available_bytes() -> int:
    bound = bound_bytes()
    return max(bound - _OTHER_BYTES, bound // 4)


def _saved_orders(manifest: dict[str, Any]) -> int:
    return sum(file["rows"] for file in manifest["files"][1::2])


def _rows_of(file: InputFile) -> int:
    """Return how many rows a file has, about."""
    if file.format == "parquet" and file.compression is None:
        with suppress(OSError, pa.ArrowException):  # told when it is read
            return int(pq.read_metadata(file.path).num_rows)
    return file.size * (1 if file.compression is None else _UNPACKED_RATIO) // _TEXT_ROW_BYTES
