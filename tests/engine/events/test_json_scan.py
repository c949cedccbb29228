"""JSON lines with the scanner come out as without it: orders, rejected rows and what these show."""

import tempfile
from datetime import datetime
from pathlib import Path

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from json_texts import GOOD, texts
from schedules import some

from rfmstream.engine.events.json_scan import OrderScanner
from rfmstream.engine.events.normalise import CONTRACT_COLUMNS, normalise
from rfmstream.engine.files.input_files import find_files
from rfmstream.engine.files.jsonlines import read_json_lines
from rfmstream.engine.files.source import _with_damaged, open_orders
from rfmstream.schemas.codes import OrderType
from rfmstream.schemas.mapping import InputFormat

REFUND = GOOD.replace(b'"paid"', b'"refunded"')


def scanned(path: Path, time_zone: str, budget_bytes: int) -> tuple[list[dict], list[dict]]:
    batches = list(open_orders([path], currency="CNY", time_zone=time_zone, memory_budget_bytes=budget_bytes))
    orders = pa.Table.from_batches([good for good, _ in batches]).to_pylist() if batches else []
    rejected = [row for _, bad in batches for row in bad.to_pylist()]
    return orders, rejected


def parsed(path: Path, time_zone: str) -> tuple[list[dict], list[dict]]:
    """Return what the file holds by the ordinary path alone."""
    (file,) = find_files([path], InputFormat())
    orders, rejected = [], []
    for chunk in read_json_lines(file, CONTRACT_COLUMNS, first_row=0, tick=lambda _: None):
        good, bad = normalise(
            chunk.batch, currency="CNY", time_zone=time_zone, source=chunk.source, rows=chunk.rows
        )
        orders += good.to_pylist()
        rejected += _with_damaged(chunk, bad).to_pylist()
    return sorted(orders, key=in_time), rejected


def in_time(order: dict) -> tuple[datetime, bool, int]:
    """Return what rows are sorted by: docs/semantics.md 5, rule 3."""
    return order["occurred_at"], order["type"] != OrderType.PAID, order["row"]


@settings(max_examples=some(200), deadline=None)
@example(lines=[REFUND, GOOD], time_zone="UTC", budget_bytes=1)
@given(
    lines=st.lists(st.one_of(texts(), st.sampled_from([b"", b" \r", GOOD + b"\r"])), max_size=12),
    time_zone=st.sampled_from(["UTC", "Asia/Shanghai"]),
    budget_bytes=st.sampled_from([1, 1 << 30]),
)
def test_the_scanner_changes_nothing(lines: list[bytes], time_zone: str, budget_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "o.jsonl"
        # An array, or a file in UTF-16, is told by its start.
        path.write_bytes(b"\n".join([GOOD, *lines]))
        assert scanned(path, time_zone, budget_bytes) == parsed(path, time_zone)


def test_plain_lines_come_as_orders(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    path.write_bytes(b"\n".join([GOOD, b"", GOOD.replace(b"o1", b"\\u006f1"), b"{", GOOD]))
    (file,) = find_files([path], InputFormat())
    scanner = OrderScanner(currency="CNY")
    first, last = read_json_lines(file, CONTRACT_COLUMNS, first_row=5, tick=lambda _: None, scanner=scanner)
    assert first.orders is not None
    assert first.orders.column("row").to_pylist() == [5]
    assert (first.rows.tolist(), first.damaged_rows.tolist(), first.row_count) == ([6], [7], 3)
    assert last.orders is not None
    assert last.orders.column("row").to_pylist() == [8]
