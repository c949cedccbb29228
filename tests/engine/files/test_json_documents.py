"""JSON as APIs give it: records inside objects, and events of the elements of lists."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.files.source import open_orders
from rfmstream.schemas.errors import ConfigError, InputError

EVENT = '[[event]]\ncustomer_id = "who.id"\norder_id = "no"\noccurred_at = "when"\namount = "sum"\n'
REFUND = (
    '[[event]]\ntype = "refunded"\ncustomer_id = "who.id"\norder_id = "no"\n'
    'occurred_at = "refunds[*].at"\namount = "refunds[*].parts[*].sum"\n'
)


def order(no: int, **more: object) -> dict:
    return {"no": no, "who": {"id": f"c{no}"}, "when": "2024-01-01", "sum": f"{no}.00", **more}


def read(tmp_path: Path, text: str, toml: str | None = EVENT, name: str = "in.json") -> tuple[list, list]:
    (tmp_path / name).write_text(text)
    return read_file(tmp_path / name, toml)


def read_file(path: Path, toml: str | None = EVENT) -> tuple[list[tuple], list[tuple]]:
    input_map = None
    if toml is not None:
        path.with_name("map.toml").write_text(f'name = "test"\n{toml}')
        input_map = load_map(path.with_name("map.toml"))
    good, bad = [], []
    for orders, rejected in open_orders([path], input_map=input_map, currency="EUR"):
        orders.validate(full=True)
        good += [
            (row["customer_id"], row["row"], row["type"], row["occurred_at"].day, row["amount_minor"])
            for row in orders.to_pylist()
        ]
        bad += [(row["row"], row["reason"]) for row in rejected.to_pylist()]
    return good, bad


BOTH = ([("c1", 0, 0, 1, 100), ("c2", 1, 0, 1, 200)], [])


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("block_bytes", [11, 4 << 20])
@pytest.mark.parametrize(
    "document",
    [
        [order(1), order(2)],
        {"orders": [order(1), order(2)]},
        {"count": 2, "next": None, "tags": ["a"], "orders": [order(1), order(2)]},
        {"data": {"orders": [order(1), order(2)]}, "ok": True},
        [{"orders": [order(1)]}, {"orders": [order(2)]}],
    ],
)
def test_records_are_found_inside_a_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: object, block_bytes: int, indent: int | None
) -> None:
    monkeypatch.setattr("rfmstream.engine.files.input_files.BLOCK_BYTES", block_bytes)
    assert read(tmp_path, json.dumps(document, indent=indent)) == BOTH


@pytest.mark.parametrize("indent", [None, 1])
def test_pages_and_objects_one_after_another(tmp_path: Path, indent: int | None) -> None:
    pages = [{"orders": [order(1)]}, {"orders": []}, {"orders": [order(2)]}]
    assert read(tmp_path, "\n".join(json.dumps(page, indent=indent) for page in pages)) == BOTH
    assert read(tmp_path, "\n".join(json.dumps(order(no), indent=indent) for no in (1, 2))) == BOTH
    assert read(tmp_path, json.dumps({"order": order(1)}, indent=indent))[0] == BOTH[0][:1]


@pytest.mark.parametrize("between", ["", " ", ",", ",\n", "\r\n"])
def test_objects_side_by_side_on_a_line(tmp_path: Path, between: str) -> None:
    assert read(tmp_path, between.join(json.dumps(order(no)) for no in (1, 2))) == BOTH
    assert read(tmp_path, json.dumps([order(1)]) + between + json.dumps([order(2)])) == BOTH


def test_orders_by_their_ids_are_all_read(tmp_path: Path) -> None:
    by_id = {f"#{no}": order(no) for no in (1, 2)}
    assert read(tmp_path, json.dumps(by_id)) == BOTH
    assert read(tmp_path, json.dumps({"orders": by_id}, indent=1)) == BOTH
    # What stands beside an order and has little of one is none; what has as much is told.
    assert read(tmp_path, json.dumps({"shop": {"no": 7}, "order": order(1)}))[1] == []
    shop = {"no": 7, "who": {}, "when": "2024-01-01"}
    assert read(tmp_path, json.dumps({"shop": shop, "order": order(1)}))[1] == [(0, "missing_customer_id")]


def test_records_that_each_lie_in_an_object(tmp_path: Path) -> None:
    edges = [{"cursor": no, "node": order(no)} for no in (1, 2)]
    text = json.dumps({"data": {"orders": {"edges": edges, "pageInfo": {"hasNextPage": False}}}})
    assert read(tmp_path, text) == BOTH
    # A map may name the object itself.
    assert read(tmp_path, text, EVENT.replace('= "', '= "node.')) == BOTH
    of_customers = {"customers": [{"name": "c1", "orders": [order(1)]}, {"name": "c2", "orders": [order(2)]}]}
    assert read(tmp_path, json.dumps(of_customers)) == BOTH


def test_two_lists_of_records_want_a_name(tmp_path: Path) -> None:
    text = json.dumps({"web": [order(1)], "pos": [order(2)]})
    with pytest.raises(InputError, match="holds several lists of records: web, pos; name the path to one"):
        read(tmp_path, text)
    assert read(tmp_path, text, f'[input]\nrecords = "web"\n{EVENT}') == (BOTH[0][:1], [])


def test_a_damaged_line_between_pages_is_one_row(tmp_path: Path) -> None:
    lines = [json.dumps({"orders": [order(1)]}), '{"orders": [', json.dumps({"orders": [order(3)]})]
    good, bad = read(tmp_path, "\n".join(lines))
    assert [row[:2] for row in good] == [("c1", 0), ("c3", 2)]
    assert bad == [(1, "malformed")]


def test_a_damaged_first_line_is_one_row(tmp_path: Path) -> None:
    for first in ('{"no": 1,', '{"no": [1', '{"no": "x', "{", json.dumps(order(1)) + " x"):
        good, bad = read(tmp_path, f"{first}\n{json.dumps(order(2))}\n{json.dumps(order(3))}\n")
        assert [row[0] for row in good] == ["c2", "c3"], first
        assert bad == [(0, "malformed")]
    assert read(tmp_path, '{"no": 1,\n') == ([], [(0, "malformed")])


def test_an_order_that_holds_a_list_is_a_record_itself(tmp_path: Path) -> None:
    assert read(tmp_path, json.dumps(order(1, items=[{"no": 5}, {"no": 6}])))[0] == BOTH[0][:1]
    with pytest.raises(InputError, match="no column"):
        read(tmp_path, "customer_id\n", None, "in.csv")


def test_the_contract_is_read_from_a_document_too(tmp_path: Path) -> None:
    row = {"customer_id": "c1", "order_id": "o", "occurred_at": "2024-01-01", "amount": 1}
    assert read(tmp_path, json.dumps({"data": [row]}), None)[0] == BOTH[0][:1]


def test_the_map_names_the_list(tmp_path: Path) -> None:
    toml = f'[input]\nrecords = "result.items"\n{EVENT}'
    document = {"no": 9, "result": {"items": [order(1), order(2)], "others": [{"x": 1}]}}
    assert read(tmp_path, json.dumps(document), toml) == BOTH
    assert read(tmp_path, json.dumps(document, indent=2), toml) == BOTH
    with pytest.raises(InputError, match=r"has no list of records at 'result\.items'; its keys are result"):
        read(tmp_path, json.dumps({"result": {"rows": []}}), toml)


REFUNDS = [
    {"at": "2024-01-02", "parts": [{"sum": "0.10"}, {"sum": 0.2}]},
    {"at": "2024-01-03", "parts": []},
    {"at": "2024-01-04", "parts": [{"sum": "0.30"}]},
]


def test_each_element_of_a_list_is_an_event(tmp_path: Path) -> None:
    orders = [order(1, refunds=REFUNDS), order(2), order(3, refunds=[]), order(4, refunds=REFUNDS[2:])]
    expected = (
        [
            *(("c1", 0, 0, 1, 100), ("c2", 1, 0, 1, 200), ("c3", 2, 0, 1, 300), ("c4", 3, 0, 1, 400)),
            *(("c1", 0, 1, 2, 10), ("c1", 0, 1, 2, 20), ("c1", 0, 1, 4, 30), ("c4", 3, 1, 4, 30)),
        ],
        [],
    )
    assert read(tmp_path, json.dumps({"orders": orders}), EVENT + REFUND) == expected
    assert read(tmp_path, "\n".join(map(json.dumps, orders)), EVENT + REFUND) == expected
    parts = [
        {**refund, "parts": [{"sum": str(part["sum"])} for part in refund["parts"]]} for refund in REFUNDS
    ]
    orders = [
        order(1, refunds=parts),
        order(2, refunds=None),
        order(3, refunds=[]),
        order(4, refunds=parts[2:]),
    ]
    pq.write_table(pa.Table.from_pylist(orders), tmp_path / "in.parquet", row_group_size=3)
    found = read_file(tmp_path / "in.parquet", EVENT + REFUND)
    assert (found[0], found[1]) == expected


def test_a_column_of_nulls_alone_holds_no_elements(tmp_path: Path) -> None:
    whole = pa.Table.from_pylist([order(1), order(2)])
    nothing = pa.nulls(2)
    nested = pa.array([[{"at": None, "parts": None}], []])
    for refunds in (nothing, pa.array([[], None]), pa.array([[], []]), nested):
        pq.write_table(whole.append_column("refunds", refunds), tmp_path / "in.parquet")
        good, bad = read_file(tmp_path / "in.parquet", EVENT + REFUND)
        assert (good, bad) == BOTH, refunds.type
    shown = EVENT + 'event_id = "voucher.code"\n'
    pq.write_table(whole.append_column("voucher", nothing), tmp_path / "in.parquet")
    assert read_file(tmp_path / "in.parquet", shown) == BOTH


def test_conditions_and_excludes_of_elements_and_rows(tmp_path: Path) -> None:
    refund = REFUND.replace(
        "customer_id", 'when = { column = "refunds[*].parts[*].sum", less_than = "0.3" }\ncustomer_id', 1
    )
    toml = f'[[exclude]]\nwhen = {{ column = "no", equals = "1" }}\n{EVENT}{refund}'
    orders = [order(1, refunds=REFUNDS), order(2, refunds=REFUNDS)]
    assert [row[1:] for row in read(tmp_path, json.dumps(orders), toml)[0]] == [
        (1, 0, 1, 200),
        (1, 1, 2, 10),
        (1, 1, 2, 20),
    ]
    given = (
        EVENT.replace("customer_id", 'when = { column = "refunds", is_null = true }\ncustomer_id', 1) + REFUND
    )
    good, bad = read(tmp_path, json.dumps([order(1, refunds=REFUNDS), order(2), order(3, refunds=[])]), given)
    assert [row[0] for row in good] == ["c2", "c3", "c1", "c1", "c1"]
    assert bad == []


def test_a_row_without_any_element_has_no_event(tmp_path: Path) -> None:
    found = read(tmp_path, json.dumps([order(1, refunds=REFUNDS), order(2, refunds=[])]), REFUND)
    assert [row[3:] for row in found[0]] == [(2, 10), (2, 20), (4, 30)]
    assert found[1] == [(1, "unknown_type")]


def test_lines_of_an_order_in_a_list_are_summed(tmp_path: Path) -> None:
    toml = f"[lines]\n{EVENT}".replace('"sum"', '{ product = ["items[*].price", "items[*].count"] }')
    orders = [
        order(1, items=[{"price": "1.10", "count": 2}, {"price": "0.05", "count": 1}]),
        order(2, items=[]),
    ]
    assert read(tmp_path, json.dumps(orders), toml) == ([("c1", 0, 0, 1, 225)], [(1, "unknown_type")])


def test_what_is_no_text_in_a_list_makes_its_row_malformed(tmp_path: Path) -> None:
    orders = [order(1, refunds=[{"at": {"x": 1}, "parts": [{"sum": 1}]}]), order(2, refunds=REFUNDS[2:])]
    good, bad = read(tmp_path, json.dumps(orders), EVENT + REFUND)
    assert [row[0] for row in good] == ["c2", "c2"]
    assert bad == [(0, "malformed")]


@pytest.mark.parametrize("refunds", [REFUNDS[0], "[]", json.dumps(REFUNDS), 5, [1, 2], ["x", REFUNDS[0]]])
def test_what_is_no_list_where_one_should_be_makes_its_row_malformed(tmp_path: Path, refunds: object) -> None:
    good, bad = read(tmp_path, json.dumps([order(1, refunds=refunds), order(2)]), EVENT + REFUND)
    assert [row[0] for row in good] == ["c2"]
    assert bad == [(0, "malformed")]
    inner = [{"at": "2024-01-02", "parts": refunds}]
    good, bad = read(tmp_path, json.dumps([order(1, refunds=inner), order(2)]), EVENT + REFUND)
    assert ([row[0] for row in good], bad) == (["c2"], [(0, "malformed")])


@pytest.mark.parametrize("nothing", [None, [], "", False, {}])
def test_what_stands_for_an_empty_list_is_one(tmp_path: Path, nothing: object) -> None:
    assert read(tmp_path, json.dumps([order(1, refunds=nothing), order(2)]), EVENT + REFUND) == BOTH


def test_one_element_of_a_list_is_no_path(tmp_path: Path) -> None:
    toml = EVENT + REFUND.replace("refunds[*]", "refunds[0]")
    with pytest.raises(InputError, match=r"names one element of a list; write 'refunds\[\*\]\.at'"):
        read(tmp_path, json.dumps([order(2), order(1, refunds=REFUNDS)]), toml)
    # A column may be called so: what flattens JSON names them that way.
    flat = {"no": 1, "who.id": "c1", "when": "2024-01-01", "lines[0][sum]": "1.00"}
    assert read(tmp_path, json.dumps([flat]), EVENT.replace('"sum"', '"lines[0][sum]"')) == (BOTH[0][:1], [])


@pytest.mark.parametrize(
    ("path", "fix"),
    [
        ("refunds.at", r"refunds\[\*\]\.at"),
        ("refunds.0.at", r"refunds\[\*\]\.at"),
        ("refunds.0.parts.0.sum", r"refunds\[\*\]\.parts\[\*\]\.sum"),
    ],
)
def test_a_reach_into_a_list_names_the_fix(tmp_path: Path, path: str, fix: str) -> None:
    event = EVENT.replace('"sum"', f'"{path}"')
    with pytest.raises(InputError, match=f"in.json: the path '{path}' reaches into a list.*write '{fix}'"):
        read(tmp_path, json.dumps([order(1, refunds=REFUNDS)]), event)
    assert read(tmp_path, json.dumps([order(1, refunds=[])]), event)[1] == [(0, "bad_amount")]
    pq.write_table(pa.Table.from_pylist([order(1, refunds=REFUNDS[2:])]), tmp_path / "in.parquet")
    with pytest.raises(InputError, match=f"reaches into a list.*write '{fix}'"):
        read_file(tmp_path / "in.parquet", event)


def test_an_event_goes_through_one_list(tmp_path: Path) -> None:
    event = EVENT.replace('"sum"', '"refunds[*].sum"').replace('"when"', '"payments[*].at"')
    with pytest.raises(ConfigError, match=r"goes through refunds\[\*\] and through payments\[\*\]"):
        read(tmp_path, "[]", event)


@pytest.mark.parametrize(
    "around",
    [
        {"data": {"orders": ...}, "meta": {"page": 1}},
        {"links": [{"rel": "next"}], "orders": ...},
        {"response": {"trades": ..., "errors": []}, "request_id": "r"},
    ],
)
def test_records_beside_other_objects_and_lists(tmp_path: Path, around: dict) -> None:
    text = json.dumps(_filled(around, [order(1), order(2)]))
    assert read(tmp_path, text) == BOTH


def _filled(value: object, records: list) -> object:
    if value is ...:
        return records
    return (
        {key: _filled(inner, records) for key, inner in value.items()} if isinstance(value, dict) else value
    )
