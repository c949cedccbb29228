"""Input maps: which events the rows give, and how lines become orders."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from mapped_rows import EVENT, IDS, run

from rfmstream.schemas.errors import ConfigError, InputError


def test_one_row_gives_several_events_in_the_order_of_their_sections(tmp_path: Path) -> None:
    toml = f"""
        {EVENT}amount = "a"
        [[event]]
        type = "refunded"
        when = {{ column = "r", greater_than = 0 }}
        {IDS}occurred_at = "t"
        amount = "r"
        [[event]]
        type = "cancelled"
        when = {{ column = "x", is_null = false }}
        {IDS}occurred_at = {{ first_of = ["x", "t"] }}
    """
    columns = {"o": ["1", "2"], "r": ["0.50", None], "x": ["2024-01-02T03:04:05Z", "2023-01-01"]}
    good, bad = run(tmp_path, toml, columns)
    assert bad == []
    assert [(row["row"], row["type"], row["amount_minor"]) for row in good] == [
        (1, 2, 0),
        (0, 0, 150),
        (1, 0, 150),
        (0, 1, 50),
        (0, 2, 0),
    ]


def test_rows_are_picked_out_of_columns_of_any_kind(tmp_path: Path) -> None:
    view = pa.string_view()
    columns = {
        "o": pa.array(["1", "2", "3"], view),
        "s": pa.array(["no", "paid", "no"], view),
        "list": pa.array([["x"], ["y"], None], pa.list_(view)),
    }
    toml = f'exclude = [{{ when = {{ column = "s", equals = "no" }} }}]\n{EVENT}amount = "a"\n'
    good, bad = run(tmp_path, toml, columns)
    assert ([row["order_id"] for row in good], bad) == (["2"], [])
    with pytest.raises(InputError, match="column list"):
        run(tmp_path, toml + 'currency = "list"\n', columns)


def test_a_row_without_an_event_is_rejected_not_dropped(tmp_path: Path) -> None:
    toml = f'{EVENT}amount = "a"\nwhen = {{ column = "s", equals = "paid" }}\n'
    good, bad = run(tmp_path, toml, {"s": ["paid", "pending"], "o": ["1", "2"]})
    assert [row["row"] for row in good] == [0]
    assert [(row["row"], row["reason"], row["order_id"]) for row in bad] == [(1, "unknown_type", "2")]


def test_type_from_a_column(tmp_path: Path) -> None:
    toml = f'{EVENT}amount = "a"\ntype = {{ column = "s", case = "lower" }}\n'
    good, bad = run(tmp_path, toml, {"s": ["Paid", "REFUNDED", None, "gift"]})
    assert [(row["row"], row["type"]) for row in good] == [(0, 0), (2, 0), (1, 1)]
    assert [(row["reason"], row["type"]) for row in bad] == [("unknown_type", "gift")]


def test_a_map_can_say_which_cells_mean_absent(tmp_path: Path) -> None:
    toml = """
        [input]
        absent = [0, "NULL", "-"]
        [[event]]
        type = "adjusted"
        customer_id = { first_of = [{ column = "c", prefix = "c" }, "mail"] }
        order_id = "o"
        occurred_at = "t"
        amount = { sum = ["a", "b"] }
        event_id = "e"
    """
    columns = {
        "c": ["0", "NULL", "17", "00", "-"],
        "mail": ["ann", "bob", "cy", "dan", "eve"],
        "a": ["0", "5", "0.00", "-", "-"],
        "b": ["-", "NULL", "1", "2", "-"],
        "e": pa.array([0, 1, 2, None, 0]),
    }
    good, bad = run(tmp_path, toml, columns)
    assert [(row["customer_id"], row["amount_minor"], row["event_id"]) for row in good] == [
        ("ann", 0, None),
        ("bob", 500, "1"),
        ("c17", 100, "2"),
        ("c00", 200, None),
    ]
    assert [(row["row"], row["reason"]) for row in bad] == [(4, "bad_amount")]


LINES = f'[lines]\n{EVENT}amount = {{ product = ["q", "p"], rounding = "half_even" }}\n'


def test_lines_are_summed_exactly_and_rounded_once(tmp_path: Path) -> None:
    columns = {
        "c": ["x", "y", "x", "x", None, "y", "z", "z"],
        "o": ["1", "1", "1", "2", "3", "", "9", "9"],
        "t": [
            "2024-01-02",
            "2024-01-01",
            "2020-01-01",
            "2024-01-03",
            "2024",
            "2024",
            "2024-01-05",
            "2024-01-05",
        ],
        "q": [1, 1, 1, 2, 1, 1, 1, 1],
        "p": ["0.004", "5", "0.002", "-1", "1", "1", "7", "x"],
    }
    good, bad = run(tmp_path, LINES, columns)
    assert [(row["row"], row["customer_id"], row["order_id"], row["amount_minor"]) for row in good] == [
        (1, "y", "1", 500),
        (0, "x", "1", 1),
    ]
    assert str(good[1]["occurred_at"]) == "2024-01-02 00:00:00+00:00"
    assert sorted((row["row"], row["reason"], row["amount"]) for row in bad if row["row"] not in (4, 5)) == [
        (3, "negative_amount", "-2"),
        (7, "bad_amount", None),
    ]
    line = next(row for row in bad if row["row"] == 7)
    assert (line["customer_id"], line["order_id"], line["type"], line["occurred_at"]) == (
        *("z", "9", "paid"),
        "2024-01-05",
    )
    assert json.loads(line["raw"]) == {"c": "z", "o": "9", "t": "2024-01-05", "q": "1", "p": "x"}
    summed = next(row for row in bad if row["row"] == 3)
    assert (summed["type"], summed["occurred_at"]) == ("paid", "2024-01-03T00:00:00.000000Z")
    assert sorted((row["row"], row["reason"]) for row in bad if row["row"] in (4, 5)) == [
        (4, "missing_customer_id"),
        (5, "missing_order_id"),
    ]


def test_lines_need_memory(tmp_path: Path) -> None:
    columns = {"q": [1] * 1000, "p": ["1"] * 1000}
    with pytest.raises(InputError, match="budget"):
        run(tmp_path, LINES, columns, memory_budget_bytes=10_000)


def test_struct_columns_by_dotted_path(tmp_path: Path) -> None:
    nested = pa.array([{"total": "1.25", "deep": {"id": "o9"}}, None])
    toml = '[[event]]\ncustomer_id = "c"\norder_id = "s.deep.id"\noccurred_at = "t"\namount = "s.total"\n'
    good, bad = run(tmp_path, toml, {"s": nested})
    assert [(row["order_id"], row["amount_minor"]) for row in good] == [("o9", 125)]
    assert [row["reason"] for row in bad] == ["missing_order_id"]


def test_an_amount_once_an_order_is_added_to_its_lines_once(tmp_path: Path) -> None:
    columns = {
        "c": ["x"] * 13,
        "o": ["1", "1", "2", "2", "3", "3", "4", "5", "5", "6", "6", "6", "7"],
        "a": ["1.50"] * 13,
        "ship": ["4.90", "4.9", None, "2", "1", "2", "x", "", None, "0", "2", "0.00", "0"],
    }
    good, bad = run(tmp_path, f'[lines]\n{EVENT}amount = "a"\namount_once = "ship"\n', columns)
    assert [(row["order_id"], row["amount_minor"]) for row in good] == [
        *(("1", 790), ("2", 500), ("5", 300)),
        *(("6", 650), ("7", 150)),
    ]
    assert [(row["order_id"], row["reason"]) for row in bad] == [("3", "bad_amount"), ("4", "bad_amount")]


def test_an_amount_once_an_order_needs_lines(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"event\[1\]\.amount_once: is for order lines; add a section \[lines\]"
    ):
        run(tmp_path, f'{EVENT}amount = "a"\namount_once = "a"\n', {"a": ["1"]})


@pytest.mark.parametrize("lines", [False, True])
def test_an_erasure_needs_neither_order_nor_amount(tmp_path: Path, *, lines: bool) -> None:
    toml = f"""
        {"[lines]" if lines else ""}
        {"sum = true" if lines else ""}
        [[event]]
        when = {{ column = "k", equals = "sale" }}
        {IDS}occurred_at = "t"
        amount = "a"
        [[event]]
        type = "erased"
        when = {{ column = "k", equals = "gone" }}
        customer_id = "c"
        occurred_at = "t"
    """
    columns = {
        "k": ["sale", "gone"],
        "o": ["1", None],
        "a": ["1.50", None],
        "t": ["2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"],
    }
    good, bad = run(tmp_path, toml, columns)
    assert bad == []
    assert [(row["row"], row["type"], row["order_id"], row["amount_minor"]) for row in good] == [
        (0, 0, "1", 150),
        (1, 5, "", 0),
    ]
