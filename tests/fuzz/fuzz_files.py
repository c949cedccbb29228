"""Fuzzers' targets: whatever the bytes of an order file or a record, it is read or refused with an InputError.

An Arrow target gets streams and files, by the record path and by the command line's; a delimited one gets CSV.
"""

import tempfile
from pathlib import Path

import pyarrow as pa

ROWS = {
    "customer_id": ["a", "b", "a customer of more than twelve bytes"],
    "order_id": ["1", "2", "3"],
    "occurred_at": ["2026-01-01", "2026-01-02T10:00:00Z", None],
    "amount": ["1.00", "-2", "x"],
}


def _read(data: bytes, suffix: str) -> None:
    from rfmstream.engine.files.source import open_orders  # noqa: PLC0415 - after instrumentation
    from rfmstream.schemas.errors import InputError  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"orders{suffix}"
        path.write_bytes(data)
        try:
            for orders, rejected in open_orders([path], currency="CNY"):
                orders.validate(full=True)
                rejected.validate(full=True)
        except InputError:
            pass


def take_arrow(data: bytes) -> None:
    """Take an Arrow stream or file."""
    from rfmstream.engine.live.decode import Decoder  # noqa: PLC0415
    from rfmstream.engine.live.model import RawRecords  # noqa: PLC0415

    header = [("content-type", b"application/vnd.apache.arrow.stream")]
    batch = Decoder(currency="CNY").decode(RawRecords([None], [data], [header], [0], [0], 1))
    batch.orders.validate(full=True)
    _read(data, ".arrow")


def take_delimited(data: bytes) -> None:
    """Take a CSV file."""
    _read(data, ".csv")


def _table(kind: pa.DataType) -> pa.Table:
    return pa.table({name: pa.array(values, pa.string()).cast(kind) for name, values in ROWS.items()})


def arrow_seeds() -> list[bytes]:
    """Return streams and files of each kind of text, compressed and not, in dictionaries and runs."""
    words = pa.table(ROWS)
    coded = pa.table({name: words[name].combine_chunks().dictionary_encode() for name in words.column_names})
    runs = words.set_column(0, "customer_id", pa.RunEndEncodedArray.from_arrays([2, 3], pa.array(["a", "b"])))
    tables = [words, _table(pa.large_string()), _table(pa.string_view()), coded, runs]
    found = []
    for table in tables:
        for new in (pa.ipc.new_stream, pa.ipc.new_file):
            for compression in (None, "lz4", "zstd"):
                sink = pa.BufferOutputStream()
                with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as out:
                    out.write_table(table)
                found.append(sink.getvalue().to_pybytes())
    return found


def delimited_seeds() -> list[bytes]:
    """Return CSV of several dialects."""
    head = "customer_id,order_id,occurred_at,amount\n"
    rows = 'a,1,2026-01-01,1.00\n"b ""q""",2,2026-01-02,"1,000.50"\n"c\nd",3,,\n'
    whole = head + rows
    return [
        whole.encode(),
        whole.replace("\n", "\r\n").encode("utf-8-sig"),
        whole.replace(",", ";").encode("latin-1"),
        whole.replace(",", "\t").encode("utf-16"),
        (head + '"').encode(),
        b"\x1f\x8b\x08" + whole.encode(),
        b"",
    ]
