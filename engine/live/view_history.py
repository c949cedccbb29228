"""Files of orders from before the topic: views that join a running state begin with them.

The files are read once, in order of time, for all partitions of a worker. What each partition has to apply is kept in a
file of its own below the system's folder for temporary files until the worker ends: no more than a batch is in memory.

Source: docs/views.md, In the worker
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

import numpy as np
import pyarrow as pa
import xxhash

from rfmstream.engine.core.buffers import offsets_and_data
from rfmstream.engine.files.input_files import BLOCK_BYTES, find_files
from rfmstream.engine.files.source import open_orders
from rfmstream.engine.live.mapped import fingerprint
from rfmstream.engine.live.placement import places_of_ids
from rfmstream.schemas.mapping import InputFormat, InputMap

_NAMED_MAX: Final = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """How orders are read: what tells apart what a file gives.

    Fields  attributes   the columns that views look at
            partitioner  chooses the partition of a customer: one of engine.live.placement.PARTITIONERS
    """

    currency: str
    time_zone: str
    attributes: tuple[str, ...]
    partitioner: str


@dataclass(frozen=True)
class Part:
    """The orders of one partition, in order of time.

    Fields  path       an Arrow stream of canonical orders with the attributes
            rows       how many there are
            has_parts  an order may come in several parts, see `engine.files.source.OrderStream`
    """

    path: Path
    rows: int
    has_parts: bool

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield them; the same ones each time."""
        with pa.memory_map(str(self.path)) as file, pa.ipc.open_stream(file) as stream:
            yield from stream


class ViewHistory:
    """Files of orders, and a part of them for each partition of the topic. Threads may share it.

    In      paths       files and directories, see `engine.files.source.open_orders`
            partitions  of the input topic
            input_map   that reads them; None: they have the columns of the contract
    """

    def __init__(
        self, paths: Sequence[str | Path], *, partitions: int, input_map: InputMap | None = None
    ) -> None:
        self._paths = [Path(path) for path in paths]
        self._partitions = partitions
        self._map = input_map
        self._lock = Lock()
        self._digest: str | None = None
        self._parts: dict[Reading, list[Part]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def named(self) -> str:
        """The files, for people."""
        return ", ".join(map(str, self._paths))

    def digest(self) -> str:
        """Return what tells these orders from any others: of the files' bytes, in order, and the map.

        Errors  InputError  a file is not there or cannot be read
        """
        with self._lock:
            if self._digest is None:
                whole = xxhash.xxh3_128(b"" if self._map is None else fingerprint(self._map).encode())
                form = InputFormat() if self._map is None else self._map.input
                for path in dict.fromkeys(file.path for file in find_files(self._paths, form)):
                    with path.open("rb") as file:
                        while block := file.read(BLOCK_BYTES):
                            whole.update(block)
                self._digest = whole.hexdigest()
            return self._digest

    def part(self, reading: Reading, partition: int) -> Part:
        """Return the orders of a partition.

        Errors  InputError  a file is not there, cannot be read or lacks a column
        """
        with self._lock:
            if reading not in self._parts:
                self._parts[reading] = self._read(reading)
            return self._parts[reading][partition]

    def _read(self, reading: Reading) -> list[Part]:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="rfmstream-history-")
        folder = Path(self._folder.name, str(len(self._parts)))
        folder.mkdir(exist_ok=True)
        stream = open_orders(
            self._paths,
            input_map=self._map,
            currency=reading.currency,
            time_zone=reading.time_zone,
            attributes=reading.attributes,
        )
        rows, refused, named = np.zeros(self._partitions, dtype=np.int64), Counter[str](), list[str]()
        with ExitStack() as stack:
            files: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
            for orders, rejected in stream:
                _note(rejected, refused, named)
                for number, own in self._divided(orders, reading.partitioner):
                    if number not in files:
                        path = _path(folder, number)
                        files[number] = stack.enter_context(pa.ipc.new_stream(str(path), own.schema))
                    files[number].write_batch(own)
                    rows[number] += own.num_rows
        _log.info(
            "files of history read",
            extra={"files": self.named, "rows": stream.rows_read, "left_out": stream.rows_excluded},
        )
        if refused:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(refused.items()))
            _log.warning(
                "rows of the files of history are no orders and are left out: %s; such as %s",
                reasons,
                ", ".join(named),
                extra={"files": self.named},
            )
        return [
            Part(_path(folder, number), int(count), stream.has_parts)
            for number, count in enumerate(rows.tolist())
        ]

    def _divided(self, orders: pa.RecordBatch, partitioner: str) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the orders of each partition that has some."""
        if orders.num_rows == 0:
            return
        if self._partitions == 1:
            yield 0, orders
            return
        places = places_of_ids(*offsets_and_data(orders.column(0)), self._partitions, partitioner)
        for number in np.unique(places).tolist():
            yield number, orders.filter(pa.array(places == number))


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number}.arrows"


def _note(rejected: pa.RecordBatch, refused: Counter[str], named: list[str]) -> None:
    refused.update(rejected["reason"].to_pylist())
    named += [
        f"row {row['row']} {row['reason']}" + (f" in {row['source']}" if row["source"] else "")
        for row in rejected.slice(0, max(_NAMED_MAX - len(named), 0)).to_pylist()
    ]
