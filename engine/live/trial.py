"""A process that reads records before the worker does, after a worker has died: what ends it would end the worker.

    python -m rfmstream.engine.live.trial < what to read > how far it came

In      a line of JSON, `decoder`: what one is made of, and `piece_s_max`; then Arrow IPC streams of `RECORDS`, each
        after its length (8 bytes)
Out     "ready", and for each stream: "at N" before the records from the ordinal N on are read, then "read"

A signal, an endless loop (a piece has `piece_s_max` seconds) and an error are all an end, and the last "at" says where.
What is read is decoded and applied to an engine of no customers, so an end that needs a state is not found here.
"""

import os
import resource
import signal
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import orjson
import pyarrow as pa

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.decoders import decoder_of
from rfmstream.engine.live.model import RawRecords
from rfmstream.engine.live.warm import warm_up
from rfmstream.schemas.errors import TransportError
from rfmstream.schemas.ruleset import load_ruleset

RECORDS: Final = pa.schema(
    [
        ("offset", pa.int64()),
        ("time_ms", pa.int64()),
        ("key", pa.large_binary()),
        ("value", pa.large_binary()),
        ("headers", pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))),
    ]
)
LENGTH_BYTES: Final = 8
PIECE_RECORDS: Final = 256
PIECE_BYTES: Final = 8 << 20

_FIRST_TO_GO: Final = "1000"
"""Where memory is short, the system ends this process and not the worker."""


def as_stream(records: RawRecords) -> bytes:
    """Return records as they come in here."""
    headers = [[{"name": name, "value": value} for name, value in each] for each in records.headers]
    columns = (
        list(records.offsets),
        list(records.timestamps_ms),
        list(records.keys),
        list(records.values),
        headers,
    )
    table = pa.table(
        [pa.array(column, kind.type) for column, kind in zip(columns, RECORDS, strict=True)], RECORDS
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, RECORDS) as stream:
        stream.write_table(table)
    whole: bytes = sink.getvalue().to_pybytes()
    return len(whole).to_bytes(LENGTH_BYTES, "big") + whole


def _records_of(table: pa.Table) -> RawRecords:
    headers = [[(each["name"], each["value"]) for each in row] for row in table["headers"].to_pylist()]
    offsets = table["offset"].to_pylist()
    return RawRecords(
        keys=table["key"].to_pylist(),
        values=table["value"].to_pylist(),
        headers=headers,
        timestamps_ms=table["time_ms"].to_pylist(),
        offsets=offsets,
        position=offsets[-1] + 1,
    )


def _pieces(values: pa.ChunkedArray) -> list[tuple[int, int]]:
    """Cut records into pieces [first, stop), few and short; only the first of several is ever long."""
    sizes = np.array([len(value) if value else 0 for value in values.to_pylist()], np.int64)
    edges = [0]
    for place in range(1, len(sizes) + 1):
        first = edges[-1]
        if (
            place == len(sizes)
            or place - first == PIECE_RECORDS
            or sizes[first : place + 1].sum() > PIECE_BYTES
        ):
            edges.append(place)
    return list(pairwise(edges))


def main(given: BinaryIO, told: int) -> None:
    """Read what comes until there is no more.

    In      told  the descriptor to write to: at once, as the next moment may be the last
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")
    told_first = orjson.loads(given.readline())
    recipe, piece_s_max = told_first["decoder"], told_first["piece_s_max"]
    ruleset = load_ruleset("rfm8", time_zone=recipe["time_zone"], currency=recipe["currency"])
    decoder = decoder_of(recipe)
    warm_up(ruleset, "log", decoder)  # or a kernel's compilation would pass for an endless loop
    os.write(told, b"ready\n")
    while length := given.read(LENGTH_BYTES):
        table = pa.ipc.open_stream(given.read(int.from_bytes(length, "big"))).read_all()
        for first, stop in _pieces(table["value"]):
            os.write(told, b"at %d\n" % first)
            # Not handled: it ends the process, whatever that is doing.
            signal.alarm(piece_s_max)
            # A schema registry that does not answer is no fault of the records.
            with suppress(TransportError):
                batch = decoder.decode(_records_of(table.slice(first, stop - first)))
                Engine(ruleset).step_log(batch.orders)
            signal.alarm(0)
        os.write(told, b"read\n")


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.fileno())
