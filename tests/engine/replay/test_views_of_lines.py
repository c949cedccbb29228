"""Lines summed into orders, seen by several views: each view counts its own lines, and hears of what it loses."""

import json
from pathlib import Path

import pytest

from rfmstream import Outputs, Plan, View, Views, load_map, load_ruleset, replay_views
from rfmstream.engine.files.source import open_orders

RFM8 = load_ruleset("rfm8")
ALL, BY_KIND = View("all", RFM8), View("by-kind", RFM8, per="kind")
TOYS = View("toys", RFM8, (("kind", ("toys",)),))
PLAN = Plan((ALL, BY_KIND, TOYS))

MAP = """
name = "lines"
[lines]
{by}
[attributes]
kind = "Kind"
[[event]]
customer_id = "Client"
order_id = "Number"
occurred_at = {{ constant = "2026-01-01" }}
amount = "Total"
"""
BY = 'by = ["kind"]'

Told = set[tuple[int, str, str, str]]


def written(tmp_path: Path, *files: str, by: str = BY) -> list[Path]:
    """Write a map, and files of lines that are told with blanks between."""
    (tmp_path / "map.toml").write_text(MAP.format(by=by))
    paths = [tmp_path / f"{number}.csv" for number in range(len(files))]
    for path, text in zip(paths, files, strict=True):
        path.write_text("\n".join(["Client,Number,Total,Kind", *text.split(), ""]))
    return paths


def run(tmp_path: Path, plan: Plan, *files: str, by: str = BY) -> tuple[dict[str, list[int]], Told]:
    """Return the lifetime amounts of each view, in minor units; and row, reason, amount and views of the rejected."""
    paths = written(tmp_path, *files, by=by)
    views, rejected = Views(plan), tmp_path / "rejected.jsonl"
    result = replay_views(
        views, paths, input_map=load_map(tmp_path / "map.toml"), outputs=Outputs(rejected=rejected)
    )
    rows = [json.loads(line) for line in rejected.read_text().splitlines()]
    for name in plan.names:
        counted = result.results[name].counters
        assert counted.read == counted.applied + sum(counted.rejected.values())
        assert sum(counted.rejected.values()) == sum(name in row["views"].split(",") for row in rows)
    amounts = {
        name: sorted(views.snapshot(view=name)["lifetime_monetary_minor"].to_pylist()) for name in plan.names
    }
    return amounts, {(row["row"], row["reason"], row["amount"], row["views"]) for row in rows}


def test_a_discount_of_its_own_kind_lowers_the_order_where_it_is_one(tmp_path: Path) -> None:
    amounts, told = run(tmp_path, PLAN, "ann,1,10,toys ann,1,-2,coupon")
    assert amounts == {"all": [800], "by-kind": [1000], "toys": [1000]}
    assert told == {(0, "negative_amount", "-2.00", "by-kind")}


def test_an_order_that_comes_to_less_than_zero_is_told_with_its_sum(tmp_path: Path) -> None:
    amounts, told = run(tmp_path, PLAN, "ann,1,10,toys ann,1,-20,coupon ann,1,-5,toys")
    assert amounts == {"all": [], "by-kind": [500], "toys": [500]}
    assert told == {(0, "negative_amount", "-15.00", "all,by-kind")}


def test_parts_that_come_to_too_much(tmp_path: Path) -> None:
    amounts, told = run(tmp_path, PLAN, "ann,1,6e9,toys ann,1,6e9,books")
    assert amounts == {"all": [], "by-kind": [6 * 10**11] * 2, "toys": [6 * 10**11]}
    assert told == {(0, "bad_amount", "12000000000.00", "all")}


@pytest.mark.parametrize("plan", [PLAN, Plan((TOYS,)), Plan((TOYS, ALL))])
def test_a_line_takes_its_order_along_in_views_that_do_not_see_the_line(tmp_path: Path, plan: Plan) -> None:
    text = "ann,1,10,toys ann,1,5,books ann,1,x,food bob,2,7,books bob,2,x,books eve,3,4,toys"
    amounts, told = run(tmp_path, plan, text)
    all_amounts = {"all": [400], "by-kind": [400], "toys": [400]}
    assert amounts == {name: all_amounts[name] for name in plan.names}
    others = ",".join(name for name in plan.names if name != "toys")
    rejected = {(2, "bad_amount", "x", ",".join(plan.names)), (4, "bad_amount", "x", others)}
    assert told == {row for row in rejected if row[3]}


def test_a_part_that_is_wrong_takes_the_others_along(tmp_path: Path) -> None:
    amounts, told = run(tmp_path, PLAN, "ann,1,10,toys ann,1,0.005,food")
    assert amounts == {"all": [], "by-kind": [], "toys": []}
    assert told == {(0, "bad_amount", "0.005", "all,by-kind,toys")}


def test_an_order_has_the_attributes_of_its_first_line_where_it_is_not_parted(tmp_path: Path) -> None:
    amounts, told = run(tmp_path, PLAN, "ann,1,10,toys ann,1,x,food bob,2,7,books bob,2,x,toys", by="")
    assert amounts == {"all": [], "by-kind": [], "toys": []}
    assert told == {(1, "bad_amount", "x", "all,by-kind,toys"), (3, "bad_amount", "x", "all,by-kind,toys")}


@pytest.mark.parametrize("by", ["", BY])
def test_lines_of_several_files_that_contradict_are_told_to_whom_the_order_belongs(
    tmp_path: Path, by: str
) -> None:
    _, told = run(tmp_path, PLAN, "ann,1,10,books", "ann,1,3,books eve,3,4,toys", by=by)
    assert told == {(1, "conflicting_duplicate", "3", "all,by-kind")}


@pytest.mark.parametrize("by", ["", BY])
def test_a_line_without_a_value_is_nobodys_and_malformed_where_it_says_the_population(
    tmp_path: Path, by: str
) -> None:
    _, told = run(tmp_path, PLAN, "ann,1,x, eve,3,4,toys", by=by)
    assert told == {(0, "malformed", "x", "by-kind"), (0, "bad_amount", "x", "all")}


def test_a_duplicate_in_parts_is_told_with_its_sum(tmp_path: Path) -> None:
    lines = 'id = ["Kind"]\n' + BY
    first, second = "ann,1,10,toys ann,1,5,books", "ann,1,10,toys ann,1,6,books"
    views = Views(PLAN)
    paths = written(tmp_path, first, second, by=lines)
    form, rejected = load_map(tmp_path / "map.toml"), tmp_path / "rejected.jsonl"
    replay_views(views, paths[:1], input_map=form)
    replay_views(views, paths[1:], input_map=form, outputs=Outputs(rejected=rejected))
    rows = [json.loads(line) for line in rejected.read_text().splitlines()]
    assert {(row["reason"], row["amount"], row["views"]) for row in rows} == {
        ("conflicting_duplicate", "16.00", "all,by-kind")
    }


def test_rejected_lines_are_told_once_to_who_reads_all_parts(tmp_path: Path) -> None:
    """`once_an_event` is for them: the stream tells of each part."""
    paths = written(tmp_path, "ann,1,10,toys ann,1,5,books ann,1,x,food")
    stream = open_orders(
        paths,
        input_map=load_map(tmp_path / "map.toml"),
        currency="CNY",
        time_zone="UTC",
        attributes=("kind",),
    )
    assert stream.has_parts
    told = [row for _, rejected in stream for row in rejected.to_pylist()]
    assert {row["attribute.kind"] for row in told} == {"toys", "books", "food"}
    assert {row["row"] for row in told} == {2}
