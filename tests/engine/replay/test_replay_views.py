"""A replay of several views writes what a replay of each alone writes, from every form of input."""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from rfmstream import (
    Engine,
    InputMap,
    Outputs,
    Plan,
    View,
    Views,
    load_map,
    load_ruleset,
    replay,
    replay_views,
)
from rfmstream.engine.files.own_tables import CHANGES, read_table
from rfmstream.schemas.errors import ConfigError, InputError

Row = dict[str, Any]
RFM8 = load_ruleset("rfm8")
PLAN = Plan(
    (
        View("all", RFM8),
        View("china", load_ruleset("scores4"), (("store", ("hk", "tw")),)),
        View("category", RFM8, per="category"),
        View("next", load_ruleset("rfm8-grace"), (("store", ("hk",)),), "category", shadow=True),
    )
)
AS_OF_US = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp()) * 1_000_000


def orders(count: int = 400, seed: int = 7) -> list[Row]:
    """Orders in no order of time, refunds and rows that are wrong among them."""
    draw = random.Random(seed)  # noqa: S311 - test data
    rows: list[Row] = []
    for number in range(count):
        at = datetime(2025, 12, 1, tzinfo=UTC) + timedelta(minutes=draw.randrange(200_000))
        kind = draw.choice(["paid"] * 8 + ["refunded", "cancelled"])
        of = draw.choice(rows) if kind != "paid" and rows else None
        rows.append(
            {
                "customer_id": of["customer_id"] if of else f"c{draw.randrange(30):05}",
                "order_id": of["order_id"] if of else f"o{number}",
                "type": kind if of else "paid",
                "occurred_at": at.isoformat(),
                "amount": draw.choice(
                    ["10.00", "499.99", "1000", "2500.5", "x"] if number % 40 == 0 else ["900"]
                ),
                "store": of["store"] if of else draw.choice(["hk", "tw", "us", "hk ", None]),
                "category": of["category"] if of else draw.choice(["books", "toys", "書", None]),
            }
        )
    return rows


def write(path: Path, rows: list[Row]) -> Path:
    table = pa.Table.from_pylist(rows)
    match path.suffix:
        case ".parquet":
            pq.write_table(table, path, row_group_size=64)
        case ".arrow":
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=50)
        case ".csv":
            pyarrow.csv.write_csv(table, path)
        case ".json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def own_rows(view: View, rows: list[Row], population: str | None) -> list[Row]:
    return [
        row
        for row in rows
        if all(row[name] in values for name, values in view.where)
        and (view.per is None or row[view.per] == population)
    ]


def plain(table: pa.Table) -> list[Row]:
    return table.drop_columns(["view", "population"]).to_pylist()


def of(table: pa.Table, view: str, population: str | None = None) -> pa.Table:
    return pa.Table.from_pylist(
        [row for row in table.to_pylist() if (row["view"], row["population"]) == (view, population)],
        table.schema,
    )


# In CSV white space around a cell is no part of it, so "hk " is "hk" there, and a run alone sees it so, too.
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv", ".jsonl", ".json"])
def test_each_view_is_a_replay_of_its_own(tmp_path: Path, suffix: str) -> None:
    rows = orders()
    source = write(tmp_path / f"orders{suffix}", rows)
    if suffix == ".csv":
        rows = [{**row, "store": row["store"] and row["store"].strip()} for row in rows]
    outputs = Outputs(
        tmp_path / "changes.parquet", tmp_path / "snapshot.parquet", signals=tmp_path / "signals.parquet"
    )
    views = Views(PLAN)
    result = replay_views(views, [source], as_of=AS_OF_US, outputs=outputs, checkpoint=tmp_path / "state")
    for view in PLAN.views:
        names = sorted({row["category"] for row in rows if row["category"]}) if view.per else [None]
        for population in names:
            mine = write(tmp_path / f"mine{suffix}", own_rows(view, rows, population))
            alone = Engine(view.ruleset)
            theirs = Outputs(*(tmp_path / f"alone-{name}.parquet" for name in ("changes", "snapshot")))
            replay(alone, [mine], as_of_us=AS_OF_US, outputs=theirs)
            for name, path in theirs.paths().items():
                ours = outputs.paths()[name]
                if view.shadow:
                    ours = ours.with_name(f"{ours.stem}.shadow-next.parquet")
                found = of(pq.read_table(ours), view.name, population)
                expected = plain(pq.read_table(path))
                assert expected
                if view.per is None:
                    assert plain(found) == expected  # in the same order
                else:
                    key = str if name == "snapshot" else (lambda row: (row["customer_id"], row["seq"]))
                    assert sorted(plain(found), key=key) == sorted(expected, key=key)
            if view.per is None:
                alone.checkpoint(tmp_path / "alone")
                place = tmp_path / "state" / f"1-{PLAN.names.index(view.name)}"
                # The rows have other ordinals here, which no file of a checkpoint holds.
                for name in ("1-0-customers.arrow", "1-0-entries.arrow"):
                    assert (place / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
                rmtree(tmp_path / "alone")
    counters = {name: one.counters for name, one in result.results.items()}
    assert counters["all"].read == len(rows)
    assert counters["china"].read == len(own_rows(PLAN.views[1], rows, None))
    missing = [row for row in rows if row["category"] is None]
    assert counters["category"].rejected["malformed"] == len(missing)


def rmtree(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.mark.parametrize("threads", [1, 3])
def test_runs_that_go_on_are_one_run(tmp_path: Path, threads: int) -> None:
    rows = sorted((row for row in orders(300) if row["amount"] != "x"), key=lambda row: row["occurred_at"])
    whole = Views(PLAN)
    replay_views(whole, [write(tmp_path / "orders.parquet", rows)], as_of=AS_OF_US)
    cut: list[Row] = []
    for part, chosen in enumerate((rows[:90], rows[90:95], rows[95:])):
        source = write(tmp_path / f"part{part}.jsonl", chosen)
        views = Views(PLAN, threads=threads) if part == 0 else Views.restore(tmp_path / "state", PLAN)
        outputs = Outputs(tmp_path / "changes.jsonl")
        as_of = AS_OF_US if part == 2 else None
        replay_views(views, [source], as_of=as_of, outputs=outputs, checkpoint=tmp_path / "state")
        cut += [json.loads(line) for line in (tmp_path / "changes.jsonl").read_text().splitlines()]
    for name in PLAN.names:
        ours, theirs = (
            sorted(
                one.snapshot(view=name).to_pylist(),
                key=lambda row: (row["population"] or "", row["customer_id"]),
            )
            for one in (whole, views)
        )
        assert ours == theirs
        told = [row for row in cut if row["view"] == name]
        if name != "next":
            assert len(told) == sum(whole[name].engine.counters.changes.values())


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv", ".jsonl"])
def test_files_of_every_format_hold_all_views(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / "orders.parquet", orders())
    outputs = Outputs(*(tmp_path / f"{name}{suffix}" for name in ("changes", "snapshot", "rejected")))
    result = replay_views(Views(PLAN), [source], as_of=AS_OF_US, outputs=outputs)
    assert outputs.changes is not None
    table = read_table(
        outputs.changes, ["view", "population", "customer_id", "to_tier", "ruleset"], kind=CHANGES
    )
    told = table.to_pylist()
    assert {row["view"] for row in told} == {"all", "china", "category"}
    assert {row["ruleset"] for row in told if row["view"] == "china"} == {"scores4"}
    assert {row["population"] for row in told if row["view"] == "category"} == {"books", "toys", "書"}
    shadow = tmp_path / f"changes.shadow-next{suffix}"
    assert {row["view"] for row in read_table(shadow, ["view"], kind=CHANGES).to_pylist()} == {"next"}
    assert result.files[outputs.changes] == len(told)
    assert result.files[shadow] == sum(result.results["next"].counters.changes.values())


def test_what_a_file_of_views_says_of_their_rulesets(tmp_path: Path) -> None:
    source = write(tmp_path / "orders.parquet", orders(20))
    replay_views(Views(PLAN), [source], outputs=Outputs(tmp_path / "changes.parquet"))
    metadata = pq.read_schema(tmp_path / "changes.parquet").metadata
    assert metadata[b"rfmstream.currency"] == b"CNY"
    assert b"rfmstream.ruleset" not in metadata
    told = json.loads(metadata[b"rfmstream.views"])
    assert list(told) == ["all", "china", "category"]
    assert (told["china"]["ruleset"], told["china"]["where"]) == ("scores4", {"store": ["hk", "tw"]})
    shadow = pq.read_schema(tmp_path / "changes.shadow-next.parquet").metadata
    assert shadow[b"rfmstream.ruleset"] == b"rfm8-grace"


def test_rejected_rows_are_told_once_a_reason(tmp_path: Path) -> None:
    rows = [*orders(5), {**orders(1)[0], "amount": "x", "store": "us", "category": None}]
    yen = Plan((*PLAN.views, View("yen", load_ruleset("rfm8", currency="JPY", time_zone="Asia/Tokyo"))))
    source = write(tmp_path / "orders.jsonl", [{**row, "currency": "CNY"} for row in rows])
    replay_views(Views(yen), [source], outputs=Outputs(rejected=tmp_path / "rejected.jsonl"))
    told = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    last = [(row["reason"], row["views"]) for row in told if row["row"] == 5]
    assert last == [("malformed", "category"), ("bad_amount", "all,yen")]
    mismatch = [row for row in told if row["reason"] == "currency_mismatch"]
    assert {row["views"] for row in mismatch} == {"yen"}
    assert len({(row["row"], row["reason"]) for row in told}) == len(told)


def test_a_line_that_cannot_be_divided_is_rejected_by_every_view(tmp_path: Path) -> None:
    source = tmp_path / "orders.csv"
    source.write_text(
        "customer_id,order_id,occurred_at,amount,store,category\na,o1,2026-01-01,5,us,books\na,b\n"
    )
    replay_views(Views(PLAN), [source], outputs=Outputs(rejected=tmp_path / "rejected.jsonl"))
    (told,) = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert (told["reason"], told["raw"], told["views"]) == ("malformed", "a,b", "all,china,category,next")


def test_strict_names_them_and_leaves_nothing(tmp_path: Path) -> None:
    source = write(tmp_path / "orders.parquet", orders())
    outputs = Outputs(tmp_path / "changes.parquet", rejected=tmp_path / "rejected.jsonl")
    with pytest.raises(InputError, match=r"rows were rejected \(bad_amount \d+, .*malformed \d+"):
        replay_views(Views(PLAN), [source], outputs=outputs, checkpoint=tmp_path / "state", strict=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["orders.parquet", "rejected.jsonl"]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv"])
def test_a_column_that_is_not_there_is_named(tmp_path: Path, suffix: str) -> None:
    rows = [{name: row[name] for name in row if name != "store"} for row in orders(5)]
    source = write(tmp_path / f"orders{suffix}", rows)
    with pytest.raises(InputError) as caught:
        replay_views(Views(PLAN), [source], outputs=Outputs(tmp_path / "changes.parquet"))
    assert "no column store, which a view looks at; the columns are customer_id, order_id" in str(
        caught.value
    )
    assert not (tmp_path / "changes.parquet").exists()


def test_a_file_of_erasures_needs_no_attributes(tmp_path: Path) -> None:
    source = write(tmp_path / "orders.csv", [row for row in orders(50) if row["amount"] != "x"])
    gone = tmp_path / "zz.csv"
    gone.write_text("customer_id,occurred_at,type\nc00003,2026-05-30,erased\n")
    views = Views(PLAN)
    replay_views(views, [source, gone])
    for name in PLAN.names:
        assert "c00003" not in views.snapshot(view=name)["customer_id"].to_pylist()


def test_views_end_at_their_own_newest_event_or_at_until(tmp_path: Path) -> None:
    rows = [row for row in orders() if row["amount"] != "x"]
    source = write(tmp_path / "orders.parquet", rows)
    views = Views(PLAN)
    replay_views(views, [source])
    newest = {
        view.name: max(
            datetime.fromisoformat(row["occurred_at"])
            for row in rows
            if row["type"] == "paid"
            and all(row[name] in values for name, values in view.where)
            and (view.per is None or row[view.per])
        )
        for view in PLAN.views
    }
    for name, at in newest.items():
        clock = views[name].engine.clock
        assert clock is not None
        assert clock >= at
    until_us = int(datetime(2026, 2, 1, tzinfo=UTC).timestamp()) * 1_000_000
    cut = Views(PLAN)
    result = replay_views(cut, [source], until=until_us)
    assert {of.engine.clock_us for of in cut.views.values()} == {until_us}
    assert result.results["all"].rows_after_until > 0


def test_signals_of_no_view(tmp_path: Path) -> None:
    source = write(tmp_path / "orders.parquet", orders(5))
    plan = Plan((View("a", load_ruleset("groups3").without_signals()),))
    with pytest.raises(ConfigError, match="no view's ruleset asks for signals"):
        replay_views(Views(plan), [source], outputs=Outputs(signals=tmp_path / "signals.parquet"))


MAP = """
name = "mine"
[attributes]
store = "Location"
category = { column = "Kind", case = "lower" }
{more}
[[event]]
customer_id = "Client"
order_id = "Number"
occurred_at = "Date"
amount = "Total"
"""


def mapped(tmp_path: Path, more: str = "") -> InputMap:
    path = tmp_path / "map.toml"
    path.write_text(MAP.replace("{more}", more))
    return load_map(path)


LINES = """Client,Number,Date,Total,Location,Kind
ann,1,2026-01-01,100,hk,Books
ann,1,2026-01-01,30,hk,Toys
ann,1,2026-01-01,5,hk,Books
bob,2,2026-01-02,700,us,Toys
bob,3,2026-01-03,900,us,
"""


def test_a_map_says_which_column_an_attribute_is(tmp_path: Path) -> None:
    source = tmp_path / "lines.csv"
    source.write_text(LINES)
    views = Views(PLAN)
    replay_views(views, [source], input_map=mapped(tmp_path))
    assert views["china"].engine.counters.read == 3
    assert set(views.snapshot(view="category")["population"].to_pylist()) == {"books", "toys"}


def test_lines_part_an_order_where_a_view_looks_at_what_they_differ_in(tmp_path: Path) -> None:
    source = tmp_path / "lines.csv"
    source.write_text(LINES)
    plan = Plan((*PLAN.views, View("both", RFM8, (("category", ("books", "toys")),))))
    views = Views(plan)
    result = replay_views(views, [source], input_map=mapped(tmp_path, '[lines]\nby = ["category"]'))
    measured = ("population", "customer_id", "frequency", "monetary_minor")
    told = {
        name: sorted(tuple(row[key] for key in measured) for row in views.snapshot(view=name).to_pylist())
        for name in ("category",)
    }
    assert told["category"] == [
        ("books", "ann", 1, 10500),
        ("toys", "ann", 1, 3000),
        ("toys", "bob", 1, 70000),
    ]
    # Without `per` an order is one, however many parts it has.
    for name in ("all", "both", "china"):
        (ann,) = [row for row in views.snapshot(view=name).to_pylist() if row["customer_id"] == "ann"]
        assert (ann["frequency"], ann["monetary_minor"]) == (1, 13500)
    assert result.results["all"].counters.applied == 3
    assert result.results["category"].counters.rejected == {"malformed": 1}
    assert result.results["both"].counters.read == 2


def test_lines_are_not_parted_where_no_view_asks(tmp_path: Path) -> None:
    source = tmp_path / "lines.csv"
    source.write_text(LINES)
    views = Views(Plan((View("all", RFM8),)))
    result = replay_views(views, [source], input_map=mapped(tmp_path, '[lines]\nby = ["category"]'))
    assert result.results["all"].counters.applied == 3


def test_what_counts_once_an_order_belongs_to_its_first_part(tmp_path: Path) -> None:
    source = tmp_path / "lines.csv"
    source.write_text(
        LINES.replace("Kind\n", "Kind,Post\n").replace("s\n", "s,7\n").replace(",us,\n", ",us,,7\n")
    )
    views = Views(PLAN)
    form = mapped(tmp_path, '[lines]\nby = ["category"]')
    path = tmp_path / "map.toml"
    path.write_text(path.read_text() + 'amount_once = "Post"\n')
    replay_views(views, [source], input_map=load_map(path))
    assert form.lines_by == ("category",)
    amounts = {
        (row["population"], row["customer_id"]): row["monetary_minor"]
        for row in views.snapshot(view="category").to_pylist()
    }
    assert amounts == {("books", "ann"): 11200, ("toys", "ann"): 3000, ("toys", "bob"): 70700}
    (ann,) = [row for row in views.snapshot(view="all").to_pylist() if row["customer_id"] == "ann"]
    assert ann["monetary_minor"] == 14200


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("[lines]\nby = []", "lines.by"),
        ("[lines]\nby = 3", "lines.by"),
        ("", "attributes.a"),
    ],
)
def test_a_map_that_is_wrong(tmp_path: Path, more: str, key: str) -> None:
    text = MAP.replace("{more}", more)
    if key == "attributes.a":
        text = text.replace("[attributes]", '[attributes]\na = "lines[*].kind"')
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_map(tmp_path / "map.toml")
    assert caught.value.key == key
