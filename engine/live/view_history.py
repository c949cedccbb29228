"""Files of orders from before the topic: views that join a running state begin with them.

The files are read once, in order of time, for all partitions of a worker. What each partition has to apply is kept in a
file of its own among the system's temporary files, which has no name: it is gone with the worker, even one that is
killed. No more than a batch is in memory.

Source: docs/views.md, In the worker
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from threading import Lock
from typing import IO, Final

import numpy as np
import pyarrow as pa
import xxhash

from rfmstream.engine.core.buffers import offsets_and_data
from rfmstream.engine.core.rejections import once_an_event
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

    Fields  stream     an Arrow stream of canonical orders with the attributes, mapped into memory
            rows       how many there are
            has_parts  an order may come in several parts, see `engine.files.source.OrderStream`
    """

    stream: pa.Buffer
    rows: int
    has_parts: bool

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield them; the same ones each time."""
        if self.rows:
            yield from pa.ipc.open_stream(pa.BufferReader(self.stream))


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
        stream = open_orders(
            self._paths,
            input_map=self._map,
            currency=reading.currency,
            time_zone=reading.time_zone,
            attributes=reading.attributes,
        )
        rows, refused, named = np.zeros(self._partitions, dtype=np.int64), Counter[str](), list[str]()
        parts = [pa.py_buffer(b"")] * self._partitions
        with ExitStack() as stack:
            files: dict[int, IO[bytes]] = {}
            writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
            for orders, rejected in stream:
                _note(once_an_event(rejected)[0] if stream.has_parts else rejected, refused, named)
                for number, own in self._divided(orders, reading.partitioner):
                    if number not in files:
                        files[number] = stack.enter_context(tempfile.TemporaryFile())
                        writers[number] = pa.ipc.new_stream(files[number], own.schema)
                    writers[number].write_batch(own)
                    rows[number] += own.num_rows
            for number, file in files.items():
                writers[number].close()
                file.flush()
                parts[number] = pa.py_buffer(mmap(file.fileno(), 0, access=ACCESS_READ))
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
        return [Part(part, int(count), stream.has_parts) for part, count in zip(parts, rows, strict=True)]

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


def _note(rejected: pa.RecordBatch, refused: Counter[str], named: list[str]) -> None:
    refused.update(rejected["reason"].to_pylist())
    named += [
        f"row {row['row']} {row['reason']}" + (f" in {row['source']}" if row["source"] else "")
        for row in rejected.slice(0, max(_NAMED_MAX - len(named), 0)).to_pylist()
    ]
