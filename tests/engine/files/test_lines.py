"""Order lines: what becomes of an order when one of its lines cannot be read, or stands in another file."""

from pathlib import Path

import pytest

from rfmstream import Engine
from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.files.source import open_orders
from rfmstream.engine.replay.replay import Outputs, replay
from rfmstream.schemas.ruleset import load_ruleset

MAP = """
name = "lines"
[lines]
{id}
[[event]]
customer_id = "who"
order_id = "order"
occurred_at = "at"
amount = "sum"
"""
HEAD = "order,at,who,note,sum\n"


def run(tmp_path: Path, *texts: str, lines: str = "", suffix: str = "csv") -> tuple[dict, list[dict], int]:
    """Return what was read of the files: amounts by (customer, order), the rejected rows, and repeated lines."""
    (tmp_path / "map.toml").write_text(MAP.format(id=lines))
    paths = [tmp_path / f"{at}.{suffix}" for at in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text((HEAD if suffix == "csv" else "") + text)
    stream = open_orders(paths, input_map=load_map(tmp_path / "map.toml"), currency="USD")
    good: dict[tuple[str, str], int] = {}
    bad: list[dict] = []
    for orders, rejected in stream:
        for row in orders.to_pylist():
            assert (row["customer_id"], row["order_id"]) not in good
            good[row["customer_id"], row["order_id"]] = row["amount_minor"]
        bad += rejected.to_pylist()
    return good, sorted(bad, key=lambda row: row["row"]), stream.lines_repeated


OTHERS = "2,2024-01-02,bob,x,20\n"


@pytest.mark.parametrize(
    ("line", "reason", "named"),
    [
        ("1,2024-01-01,ann,x,abc", "bad_amount", ("ann", "1", "2024-01-01", "abc")),
        ("1,2024-01-01,ann,x,", "bad_amount", ("ann", "1", "2024-01-01", "")),
        ("1,yesterday,ann,x,600", "bad_time", ("ann", "1", "yesterday", "600")),
        ("1,2024-01-01,,x,600", "missing_customer_id", (None, "1", "2024-01-01", "600")),
        (",2024-01-01,ann,x,600", "missing_order_id", ("ann", None, "2024-01-01", "600")),
        (",,,x,600", "missing_customer_id", (None, None, "", "600")),
        ('1,2024-01-01,ann,"42" TV,600', "malformed", ("ann", "1", None, None)),
        ("1,2024-01-01,ann,one, two,600", "malformed", ("ann", "1", None, None)),
        ("1,2024-01-01,ann", "malformed", ("ann", "1", None, None)),
        ("nonsense", "malformed", ("ann", "1", None, None)),
    ],
)
def test_a_line_that_cannot_be_read_takes_its_order_along(
    tmp_path: Path, line: str, reason: str, named: tuple[str | None, ...]
) -> None:
    good, bad, _ = run(tmp_path, f"1,2024-01-01,ann,x,10\n{line}\n1,2024-01-01,ann,y,500\n{OTHERS}")
    assert good == {("bob", "2"): 2000}
    assert [(row["row"], row["reason"]) for row in bad] == [(1, reason)]
    assert (bad[0]["customer_id"], bad[0]["order_id"], bad[0]["occurred_at"], bad[0]["amount"]) == named
    if reason == "malformed":
        assert bad[0]["raw"] == line
    elif not reason.startswith("missing"):
        assert f'"note"' not in bad[0]["raw"] and '"who":"ann"' in bad[0]["raw"]  # noqa: F541, PT018


@pytest.mark.parametrize("line", [",2024-01-01,bob,x,600", ",,,,", ",,,note,"])
def test_a_line_of_another_customer_or_of_nothing_leaves_the_order_around_it(
    tmp_path: Path, line: str
) -> None:
    good, bad, _ = run(tmp_path, f"1,2024-01-01,ann,x,10\n{line}\n1,2024-01-01,ann,y,500\n{OTHERS}")
    assert good == {("ann", "1"): 51000, ("bob", "2"): 2000}
    assert [row["row"] for row in bad] == [1]


def test_the_total_that_ends_a_file_leaves_an_order_that_goes_on_in_the_next(tmp_path: Path) -> None:
    texts = ("1,2024-01-01,ann,x,10\n,,,Total,10\n", "1,2024-01-01,ann,y,500\n")
    good, bad, _ = run(tmp_path, *texts, lines='id = ["note"]')
    assert good == {("ann", "1"): 51000}
    assert [(row["row"], row["reason"]) for row in bad] == [(1, "missing_customer_id")]


def test_a_damaged_line_that_is_of_no_known_order_is_rejected_by_itself(tmp_path: Path) -> None:
    good, bad, _ = run(tmp_path, f"1,2024-01-01,ann,x,10\n7,2024-01-01,cy\n{OTHERS}")
    assert good == {("ann", "1"): 1000, ("bob", "2"): 2000}
    assert [(row["row"], row["reason"], row["order_id"]) for row in bad] == [(1, "malformed", None)]


def test_a_line_without_a_customer_refuses_no_order_where_several_customers_have_its_id(
    tmp_path: Path,
) -> None:
    good, bad, _ = run(tmp_path, "1,2024-01-01,ann,x,10\n1,2024-01-01,,x,5\n1,2024-01-01,bob,x,20\n")
    assert good == {("ann", "1"): 1000, ("bob", "1"): 2000}
    assert [row["reason"] for row in bad] == ["missing_customer_id"]


def test_a_damaged_line_of_json_takes_its_order_along(tmp_path: Path) -> None:
    lines = [
        '{"order":"1","at":"2024-01-01","who":"ann","sum":10}',
        '{"order":"1","at":"2024-01-01","who":"ann","sum":{"value":5}}',
        '{"order":"2","at":"2024-01-01","who":"bob","sum":20}',
        '{"order":"2","at":"2024-01-01","who":"bob","su',
        '{"order":"2","at":"2024-01-01","who":"bob","sum":20}',
        '{"order":"3","at":"2024-01-01","who":"bob","sum":30}',
    ]
    good, bad, _ = run(tmp_path, "\n".join(lines) + "\n", suffix="jsonl")
    assert good == {("bob", "3"): 3000}
    assert [(row["row"], row["reason"], row["order_id"]) for row in bad] == [
        (1, "malformed", "1"),
        (3, "malformed", "2"),
    ]


JANUARY = "1,2024-01-31,ann,A,200\n1,2024-01-31,ann,B,50\n1,2024-01-31,ann,B,50\n"
FEBRUARY = JANUARY + "2,2024-02-03,ann,A,100\n"


def test_lines_of_several_files_are_one_where_the_map_says_what_identifies_a_line(tmp_path: Path) -> None:
    identified = 'id = ["note"]'
    assert run(tmp_path, JANUARY, FEBRUARY, lines=identified) == (
        {("ann", "1"): 30_000, ("ann", "2"): 10_000},
        [],
        3,
    )
    # An order that a cut between two files has parted is whole again.
    first, second = JANUARY[:23], JANUARY[23:]
    assert run(tmp_path, first, second, lines=identified)[:2] == ({("ann", "1"): 30_000}, [])


def test_a_line_that_two_files_tell_differently_refuses_its_order_by_name(tmp_path: Path) -> None:
    changed = JANUARY.replace("A,200", "A,250")
    good, bad, _ = run(tmp_path, JANUARY, changed + OTHERS, lines='id = "note"')
    assert good == {("bob", "2"): 2000}
    assert [(row["row"], row["reason"], row["order_id"], row["amount"]) for row in bad] == [
        (3, "conflicting_duplicate", "1", "250")
    ]
    assert bad[0]["raw"].endswith(f"several files: {tmp_path}/0.csv, {tmp_path}/1.csv")
    assert bad[0]["source"] == str(tmp_path / "1.csv")


def test_without_that_an_order_of_several_files_is_refused_by_name(tmp_path: Path) -> None:
    good, bad, repeated = run(tmp_path, JANUARY, FEBRUARY)
    assert (good, repeated) == ({("ann", "2"): 10_000}, 0)
    assert [(row["row"], row["reason"], row["customer_id"], row["order_id"]) for row in bad] == [
        (3, "conflicting_duplicate", "ann", "1")
    ]


def test_one_pass_is_many_for_whole_orders(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(MAP.format(id='id = ["note"]'))
    paths = [tmp_path / "1.csv", tmp_path / "2.csv"]
    for path, text in zip(paths, (JANUARY, FEBRUARY), strict=True):
        path.write_text(HEAD + text)
    ruleset, input_map = load_ruleset("rfm8", currency="USD"), load_map(tmp_path / "map.toml")
    replay(Engine(ruleset), paths, input_map=input_map, outputs=Outputs(snapshot=tmp_path / "one.csv"))
    engine = Engine(ruleset)
    replay(engine, paths[:1], input_map=input_map)
    replay(engine, paths[1:], input_map=input_map, outputs=Outputs(snapshot=tmp_path / "many.csv"))
    assert (tmp_path / "one.csv").read_text() == (tmp_path / "many.csv").read_text()
    assert engine.counters.duplicates == 1


def test_lines_in_a_list_of_the_order(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(
        'name = "m"\n[lines]\n[[event]]\ncustomer_id = "who"\norder_id = "id"\noccurred_at = "at"\n'
        'amount = { product = ["items[*].n", "items[*].price"] }\n'
    )
    orders = [
        '{"id":1,"who":"ann","at":"2024-01-01","items":[{"n":2,"price":"1.50"},{"n":1,"price":"4"}]}',
        '{"id":2,"who":"ann","at":"2024-01-02","items":[{"n":2,"price":"1.50"},{"n":1,"price":"x"},{"n":1,"price":"y"}]}',
        '{"id":3,"who":"bob","at":"2024-01-03","items":[{"n":-2,"price":"1.50"}]}',
    ]
    (tmp_path / "orders.jsonl").write_text("\n".join(orders))
    stream = open_orders(
        [tmp_path / "orders.jsonl"], input_map=load_map(tmp_path / "map.toml"), currency="USD"
    )
    batches = list(stream)
    assert [(row["order_id"], row["amount_minor"]) for good, _ in batches for row in good.to_pylist()] == [
        ("1", 700)
    ]
    rejected = [(row["row"], row["reason"]) for _, bad in batches for row in bad.to_pylist()]
    assert sorted(rejected) == [(1, "bad_amount"), (1, "bad_amount"), (2, "negative_amount")]
