"""The scanner against the ordinary path: what it accepts is accepted there, with the same values."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_texts import GOOD, POOLS, mutated, objects, texts
from schedules import some

from rfmstream.engine.events.json_rows import parse_object, text_rows
from rfmstream.engine.events.json_scan import PAD, OrderScanner
from rfmstream.engine.events.normalise import CONTRACT_COLUMNS, normalise
from rfmstream.kernels.json_split import EITHER, ITEMS, LINES, NEITHER, WHOLE, split_records
from rfmstream.kernels.json_text import nesting


def scan(
    rows: list[bytes], *, currency: str = "CNY", time_zone: str = "UTC"
) -> tuple[list[dict], list[bool]]:
    sizes = np.array([len(row) for row in rows], np.int64)
    ends = np.cumsum(sizes)
    data = np.frombuffer(b"".join(rows) + PAD, np.uint8)
    orders, accepted = OrderScanner(currency=currency, time_zone=time_zone).scan(data, ends - sizes, ends)
    orders.validate(full=True)
    return orders.to_pylist(), accepted.tolist()


def ordinary(rows: list[bytes], *, currency: str = "CNY", time_zone: str = "UTC") -> dict[int, dict]:
    batch, good = text_rows([parse_object(row) for row in rows], CONTRACT_COLUMNS)
    orders, _ = normalise(batch, currency=currency, time_zone=time_zone, rows=np.array(good, np.int64))
    return {order["row"]: order for order in orders.to_pylist()}


def check(rows: list[bytes], **options: str) -> None:
    orders, accepted = scan(rows, **options)
    expected = ordinary(rows, **options)
    assert [order["row"] for order in orders] == np.flatnonzero(accepted).tolist()
    for order in orders:
        assert order == expected.get(order["row"]), rows[order["row"]]


@settings(max_examples=some(400), deadline=None)
@given(rows=st.lists(texts(), min_size=1, max_size=8), currency=st.sampled_from(["CNY", "JPY", "BHD"]))
def test_what_is_accepted_is_what_the_ordinary_path_reads(rows: list[bytes], currency: str) -> None:
    check(rows, currency=currency)


@settings(max_examples=some(100), deadline=None)
@given(rows=st.lists(objects(), min_size=1, max_size=8))
def test_another_zone(rows: list[bytes]) -> None:
    check(rows, time_zone="Asia/Shanghai")


def test_each_byte_of_a_good_row_changed_to_each_other() -> None:
    bare = GOOD.replace(b" ", b"")
    rows = [bare[:at] + bytes([byte]) + bare[at + 1 :] for at in range(len(bare)) for byte in range(256)]
    check(rows)
    check([GOOD[:at] for at in range(len(GOOD))] + [GOOD[at:] for at in range(len(GOOD))])


def test_each_value_under_each_key() -> None:
    values = sorted({value for pool in POOLS.values() for value in pool})
    check([with_value(key, value) for key in POOLS for value in values])
    minor = [with_value("amount_minor", value) for value in values]
    check(
        [
            row.replace(b'"paid"', word)
            for row in minor
            for word in (b'"cancelled"', b'"adjusted"', b'"refunded"')
        ]
    )


def with_value(key: str, text: str) -> bytes:
    record = json.loads(GOOD)
    record[key] = "@"
    return json.dumps(record, ensure_ascii=False).replace('"@"', text).encode()


@pytest.mark.parametrize(
    ("key", "text", "column", "value"),
    [
        ("customer_id", "12345678901234567890", "customer_id", "12345678901234567890"),
        ("customer_id", '"\u4e2d\u6587"', "customer_id", "\u4e2d\u6587"),
        ("order_id", '"' + "x" * 256 + '"', "order_id", "x" * 256),
        ("order_id", '"ends here}"', "order_id", "ends here}"),
        ("amount", "12.3400", "amount_minor", 1234),
        ("amount", '"7"', "amount_minor", 700),
        ("amount", "1e2", "amount_minor", 10_000),
        ("amount_minor", "99", "amount_minor", 99),
        ("amount_minor", "null", "amount_minor", 1250),
        ("type", '"cancelled"', "type", 2),
        ("type", "null", "type", 0),
        ("currency", '""', "type", 0),
        ("event_id", '""', "event_id", None),
        ("event_id", "null", "event_id", None),
        ("event_id", "17", "event_id", "17"),
        ("note", '"\u5907\u6ce8"', "event_id", "e1"),
        ("note", "1e999", "event_id", "e1"),
        ("note", "false", "event_id", "e1"),
        ("note", '[{"a": [], "b": {}}, [1, null, "\u4e2d"], -1.5e3]', "event_id", "e1"),
        ("note", "[" * 40 + "]" * 40, "event_id", "e1"),
    ],
)
def test_plain_rows_are_accepted(key: str, text: str, column: str, value: object) -> None:
    row = with_value(key, text)
    (order,), accepted = scan([row])
    assert accepted == [True]
    assert order[column] == value
    assert order == ordinary([row])[0]


@pytest.mark.parametrize(
    "row",
    [
        *(
            b"",
            b"{}",
            b"[]",
            b"null",
            GOOD + b"x",
            GOOD + GOOD,
            b"\xef\xbb\xbf" + GOOD,
            GOOD[:-1],
            b"\x00" + GOOD,
        ),
        GOOD.replace(b'"amount"', b'"order_id": "o2", "amount"'),
        GOOD.replace(b"c1", b"c\\u0031"),
        GOOD.replace(b"c1", b"c\xff"),
        GOOD.replace(b"c1", b"c\xed\xa0\x80"),
        GOOD.replace(b"}", b',"note": "\xff"}'),
        GOOD.replace(b"Z", b"Q"),
        GOOD.replace(b"12.50", b"12.505"),
        GOOD.replace(b"12.50", b"-12.50"),
        GOOD.replace(b"CNY", b"USD"),
        GOOD.replace(b"paid", b"gift"),
        GOOD.replace(b'"amount": 12.50, ', b""),
    ],
)
def test_what_is_not_plain_is_left(row: bytes) -> None:
    assert scan([GOOD, row, GOOD])[1] == [True, False, True]


def test_a_row_is_read_alone() -> None:
    # What stands behind a row would complete it.
    for row in (GOOD[:-1], GOOD[:-3], b'{"a": nul', b'{"a": "', b'{"a'):
        sizes = np.array([0, len(row)])
        data = np.frombuffer(row + b'l, "e": "x"}' + PAD, np.uint8)
        _, accepted = OrderScanner(currency="CNY").scan(data, sizes[:1], sizes[1:])
        assert not accepted.any()


def split(values: list[bytes], forms: list[int]) -> tuple[list[list[bytes]], list[int]]:
    joined = b"".join(values)
    sizes = np.array([len(value) for value in values], np.int64)
    ends = np.cumsum(sizes)
    starts = ends - sizes
    rows, firsts = (
        np.empty((2, len(values) + joined.count(b"\n") + joined.count(b",")), np.int64),
        np.empty(len(values) + 1, np.int64),
    )
    codes = np.array(forms, np.uint8)
    count = split_records(np.frombuffer(joined + PAD, np.uint8), starts, ends, codes, *rows, firsts)
    assert count == firsts[-1]
    cut = [joined[start:end] for start, end in rows[:, :count].T.tolist()]
    return [cut[firsts[i] : firsts[i + 1]] for i in range(len(values))], codes.tolist()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(
                st.sampled_from(
                    [
                        b"{}",
                        b'{"a"',
                        b":1}",
                        b"[",
                        b"[[{}],",
                        b"]",
                        b",",
                        b" ",
                        b"\x0b",
                        b"\n",
                        b"\n",
                        b"\r\n",
                        b"xx",
                    ]
                ),
                min_size=1,
            ),
            st.sampled_from([WHOLE, LINES, EITHER, NEITHER]),
        ),
        max_size=6,
    )
)
def test_records_are_cut_as_python_would(drawn: list[tuple[list[bytes], int]]) -> None:
    values, forms = [b"".join(parts) for parts, _ in drawn], [form for _, form in drawn]
    rows, known = split(values, forms)
    for value, form, cut, found in zip(values, forms, rows, known, strict=True):
        lines = [line for line in value.split(b"\n") if line.strip()]
        first, feed, rest = value.partition(b"\n")
        if found == ITEMS:
            assert form in (WHOLE, EITHER)
            assert [json.loads(item) for item in cut] == json.loads(value)
            continue
        if form == EITHER:
            is_lines = first[:1] == b"{" and first.rstrip()[-1:] == b"}" and bool(feed and rest.strip())
            assert found == (LINES if is_lines else WHOLE)
        else:
            assert found == form
        assert cut == {WHOLE: [value], LINES: lines, NEITHER: []}[found]


@settings(deadline=None)
@given(
    st.recursive(
        st.sampled_from([1, "x", '"', "\\", "[{", None]),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", '"[', "\\"]), inner),
    )
)
def test_nesting(value: object) -> None:
    def depth(part: object) -> int:
        parts = part.values() if isinstance(part, dict) else part
        return 1 + max(map(depth, parts), default=0) if isinstance(part, dict | list) else 0

    assert nesting(np.frombuffer(json.dumps(value).encode(), np.uint8)) == depth(value)


@settings(max_examples=some(200), deadline=None)
@given(mutated())
def test_nesting_of_anything_is_some_number(text: bytes) -> None:
    assert 0 <= nesting(np.frombuffer(text, np.uint8)) <= len(text)
