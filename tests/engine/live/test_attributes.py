"""Attributes of orders, from whatever part of a record says them."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmstream.engine.events.json_members import Members
from rfmstream.engine.events.json_rows import parse_object
from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.decoders import decoder_for
from rfmstream.engine.live.model import Headers, RawRecords
from rfmstream.kernels.json_text import PAD_BYTES
from rfmstream.schemas.plan import Plan, View
from rfmstream.schemas.ruleset import load_ruleset

NAMES = ("store", "category", "Kanäle")
ORDER = {"customer_id": "c", "order_id": "o", "occurred_at": "2026-01-01T00:00:00Z", "amount_minor": 5}


def raw(*records: tuple[bytes, Headers]) -> RawRecords:
    n = len(records)
    return RawRecords(
        keys=[b"c"] * n,
        values=[value for value, _ in records],
        headers=[headers for _, headers in records],
        timestamps_ms=[1_767_225_600_000] * n,
        offsets=list(range(n)),
        position=n,
    )


def stores(*records: tuple[bytes, Headers]) -> list[str | None]:
    batch = Decoder(currency="CNY", attributes=("store",)).decode(raw(*records))
    assert batch.orders.schema.names[-1] == "attribute.store"
    found: list[str | None] = batch.orders.column("attribute.store").to_pylist()
    return found


def said(**more: Any) -> bytes:  # noqa: ANN401 - JSON
    return json.dumps(ORDER | more).encode()


def stream(*rows: dict[str, Any]) -> bytes:
    batch = pa.RecordBatch.from_pylist([ORDER | row for row in rows])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def test_of_plain_objects() -> None:
    values = ["hk", 7, True, None, "", {"a": 1}, ["hk"], "h\tk"]
    assert stores(*((said(store=value), ()) for value in values[:-1])) == [
        "hk",
        "7",
        "true",
        None,
        None,
        None,
        None,
    ]
    # An escape takes the ordinary path, and so do those beside it.
    assert stores((said(store="h\tk"), ()), (said(store="tw"), ()), (said(), ())) == ["h\tk", "tw", None]


def test_of_every_form_of_a_record_beside_each_other() -> None:
    array = b"[" + said(store="a1") + b"," + said(store=2.50) + b"]"
    lines = said(store="l1") + b"\n" + said() + b"\n"
    event = json.dumps({"specversion": "1.0", "data": ORDER | {"store": "e1"}}).encode()
    arrow = stream({"store": "s1"}, {"store": None}, {"store": "s3"})
    assert stores(
        (array, ()),
        (lines, [("content-type", b"application/x-ndjson")]),
        (event, [("content-type", b"application/cloudevents+json")]),
        (arrow, ()),
        (b"{", ()),
        (said(store="j1"), ()),
    ) == ["a1", "2.5", "l1", None, "e1", "s1", None, "s3", "j1"]


def test_a_header_stands_in_for_rows_that_say_nothing() -> None:
    in_header = [("ce_store", b"h1")]
    assert stores(
        (said(store="own"), in_header),
        (said(), in_header),
        (b"[" + said() + b"," + said(store="x") + b"]", [("store", b"h2")]),
        (stream({"other": 1}), in_header),
        (said(), [("store", b"\xff"), ("ce_store", b"h3")]),
        (said(), ()),
    ) == ["own", "h1", "h2", "x", "h1", "h3", None]


def test_columns_of_numbers_and_words_and_a_column_twice() -> None:
    assert stores((stream({"store": 7}), ()), (stream({"store": True}), ())) == ["7", "true"]
    table = pa.Table.from_pylist([ORDER | {"store": "hk"}])
    words = table.set_column(
        table.schema.get_field_index("store"), "store", table["store"].combine_chunks().dictionary_encode()
    )
    twice = table.append_column("store", pa.array(["tw"]))
    records = []
    for each in (words, twice):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, each.schema) as writer:
            writer.write_table(each)
        records.append((sink.getvalue().to_pybytes(), ()))
    assert stores(*records) == ["hk", None]


def test_many_different_headers() -> None:
    found = stores(*((said(), [("store", b"%d" % n)]) for n in range(400)))
    assert found == [str(n) for n in range(400)]


def test_what_is_rejected_keeps_its_attributes() -> None:
    decoder = Decoder(currency="CNY", attributes=("store",))
    batch = decoder.decode(raw((stream({"store": "hk", "amount_minor": -1}, {"store": "tw"}), ())))
    [row] = batch.refused
    assert json.loads(row.original or b"")["store"] == "hk"
    assert batch.orders.column("attribute.store").to_pylist() == ["tw"]


@pytest.mark.parametrize("currencies", [("CNY", "CNY"), ("CNY", "EUR")])
def test_views_of_several_currencies_read_records_each_in_its_own(currencies: tuple[str, str]) -> None:
    views = [
        View("a", load_ruleset("rfm8", currency=currencies[0]), per="store"),
        View("b", load_ruleset("rfm8", currency=currencies[1])),
    ]
    plain = {name: value for name, value in ORDER.items() if name != "amount_minor"}
    value = json.dumps(plain | {"amount": "5", "currency": "CNY", "store": "hk"}).encode()
    batch = decoder_for(Plan(tuple(views))).decode(raw((value, ())))
    assert batch.orders.column("attribute.store").to_pylist() == ["hk"]
    other = batch.read_by((currencies[1], "UTC"))
    assert (other is batch) == (currencies[0] == currencies[1])
    assert [row.reason for row in other.refused] == ["currency_mismatch"] * (currencies[1] == "EUR")


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
)
OBJECTS = st.dictionaries(
    st.sampled_from([*NAMES, "stor", "stores", "categor"]) | st.text(max_size=12),
    VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(st.text(max_size=3), VALUES, max_size=2),
    max_size=6,
)


@settings(deadline=None)
@given(st.lists(OBJECTS, min_size=1, max_size=5), st.booleans(), st.integers(0, 2))
def test_members_are_those_of_a_parser(objects: list[dict[str, Any]], ascii_: bool, indent: int) -> None:  # noqa: FBT001
    texts = [json.dumps(each, ensure_ascii=ascii_, indent=indent or None).encode() for each in objects]
    # Those that the scanner of orders takes have no escapes.
    texts = [text for text in texts if b"\\" not in text]
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    starts = ends - np.array([len(text) for text in texts], np.int64)
    data = np.frombuffer(b"".join(texts) + bytes(PAD_BYTES), np.uint8)
    members = Members(NAMES)
    found = members.scanned(data, starts, ends, np.arange(len(texts)))
    rows = [column.to_pylist() for column in found]
    expected = [members.parsed(parse_object(text)) for text in texts]
    assert [list(row) for row in zip(*rows, strict=True)] == expected
