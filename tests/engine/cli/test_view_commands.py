"""Views on the command line: which are made, which are refused, and how one is looked at."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import rfmstream
from rfmstream.engine.cli.app import cli
from rfmstream.engine.files import memory

ORDERS = """customer_id,order_id,occurred_at,amount,store,category
ann,o1,2026-01-01,500,hk,books
ann,o2,2026-01-02,700,tw,toys
bob,o1,2026-01-03,1200,us,books
cid,o1,2026-01-04,20,hk,
"""
PLAN = """
[[view]]
name = "all"
ruleset = "rfm8"
[[view]]
name = "china"
ruleset = "scores4"
where = { store = ["hk", "tw"] }
[[view]]
name = "category"
ruleset = "rfm8"
per = "category"
[[view]]
name = "next"
ruleset = "rfm8-grace"
shadow = true
"""


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(
        cli, [str(argument) for argument in arguments], prog_name="rfmstream"
    )


def refused(code: int, words: str, *arguments: object) -> None:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 or result.stderr.startswith("Usage:")
    assert words in result.stderr


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "orders.csv"
    path.parent.mkdir()
    path.write_text(ORDERS)
    return path


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "views.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture
def state(tmp_path: Path, orders: Path, plan: Path) -> Path:
    assert run("replay", orders, "--plan", plan, "--checkpoint", tmp_path / "state").exit_code == 0
    return tmp_path / "state"


def test_rulesets_are_views(tmp_path: Path, orders: Path) -> None:
    out = tmp_path / "changes.parquet"
    result = run("replay", orders, "--ruleset", "rfm8", "--ruleset", "scores4", "--changes", out, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert list(told["views"]) == ["rfm8", "scores4"]
    table = pq.read_table(out).to_pylist()
    assert {(row["view"], row["ruleset"]) for row in table} == {("rfm8", "rfm8"), ("scores4", "scores4")}
    assert told["files"] == {str(out): len(table)}


def test_one_ruleset_is_a_run_as_ever(tmp_path: Path, orders: Path) -> None:
    result = run("replay", orders, "--ruleset", "scores4", "--json", "--changes", tmp_path / "c.jsonl")
    assert json.loads(result.stdout)["ruleset"] == "scores4"
    rows = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert {(row["view"], row["population"]) for row in rows} == {("scores4", None)}


def test_a_plan_and_what_is_printed_of_it(tmp_path: Path, orders: Path, plan: Path) -> None:
    result = run("replay", orders, "--plan", plan, "--snapshot", tmp_path / "tiers.parquet")
    assert result.exit_code == 0, result.output
    for words in (
        "view china · where store is hk or tw",
        "view category · per category: 2 of them",
        "view next · shadow: for nobody to act on",
        "4 rows read = 3 applied + 0 duplicates + 1 rejected (malformed 1)",
        f"wrote 3 rows: {tmp_path / 'tiers.shadow-next.parquet'}",
    ):
        assert words in result.output.replace("\n", " ") or words in result.output


def test_zone_and_currency_are_of_all_views(orders: Path, plan: Path) -> None:
    result = run("replay", orders, "--plan", plan, "--currency", "GBP", "--time-zone", "Asia/Tokyo", "--json")
    views = json.loads(result.stdout)["views"].values()
    assert {(view["currency"], view["time_zone"]) for view in views} == {("GBP", "Asia/Tokyo")}


def test_days_of_as_of_are_each_views_own(tmp_path: Path, orders: Path) -> None:
    (tmp_path / "tokyo.toml").write_text('name = "tokyo"\nextends = "rfm8"\ntime_zone = "Asia/Tokyo"\n')
    result = run(
        "replay",
        orders,
        "--ruleset",
        "rfm8",
        "--ruleset",
        tmp_path / "tokyo.toml",
        "--as-of",
        "2026-02-01",
        "--json",
    )
    told = {name: view["as_of"] for name, view in json.loads(result.stdout)["views"].items()}
    assert told == {"rfm8": "2026-02-01T00:00:00Z", "tokyo": "2026-01-31T15:00:00Z"}


def test_a_view_of_nothing(tmp_path: Path, orders: Path, plan: Path) -> None:
    plan.write_text(PLAN.replace('["hk", "tw"]', '"nowhere"'))
    result = run(
        "replay", orders, "--plan", plan, "--snapshot", tmp_path / "s.parquet", "--checkpoint", tmp_path / "c"
    )
    assert result.exit_code == 0, result.output
    assert "0 rows read = 0 applied" in result.output
    again = run("replay", orders, "--plan", plan, "--checkpoint", tmp_path / "c", "--json")
    assert json.loads(again.stdout)["views"]["china"]["as_of"] is None


def test_bad_input_is_one_line_and_writes_nothing(tmp_path: Path, orders: Path, plan: Path) -> None:
    out = tmp_path / "c.parquet"
    replay = ("replay", orders, "--changes", out)
    refused(2, "there are two views 'rfm8'", *replay, "--ruleset", "rfm8", "--ruleset", "rfm8")
    refused(2, "not both", *replay, "--ruleset", "rfm8", "--plan", plan)
    refused(2, "cannot be read", *replay, "--plan", tmp_path / "none.toml")
    plan.write_text(PLAN.replace("store", "shop"))
    refused(3, "no column shop, which a view looks at; the columns are customer_id", *replay, "--plan", plan)
    plan.write_text(PLAN.replace('per = "category"', 'pre = "category"'))
    refused(2, "view[3].pre: unknown key; did you mean per?", *replay, "--plan", plan)
    assert not out.exists()


def test_a_file_holds_so_many_views_but_shadows_have_their_own(
    tmp_path: Path, orders: Path, plan: Path
) -> None:
    many = "".join(f'[[view]]\nname = "v{number}"\nruleset = "rfm8"\n' for number in range(128))
    plan.write_text(many)
    replay = ("replay", orders, "--plan", plan, "--changes", tmp_path / "c.jsonl")
    refused(2, "views.toml: view: the views have 128 names and 8 tiers; a file holds 127", *replay)
    plan.write_text(many.replace('"rfm8"\n', '"rfm8"\nshadow = true\n') + PLAN)
    result = run(*replay)
    assert result.exit_code == 0, result.output
    assert len((tmp_path / "c.shadow-v127.jsonl").read_text().splitlines()) == 4


def test_a_checkpoint_of_views_goes_on_without_options(orders: Path, state: Path) -> None:
    result = run("replay", orders, "--checkpoint", state, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)["views"]
    assert {name: view["rows"]["duplicates"] for name, view in told.items()} == {
        "all": 4,
        "china": 3,
        "category": 3,
        "next": 4,
    }


def test_what_contradicts_a_checkpoint(orders: Path, plan: Path, state: Path) -> None:
    before = sorted(path.name for path in state.iterdir())
    replay = ("replay", orders, "--checkpoint", state)
    refused(2, "the checkpoint holds several views", *replay, "--ruleset", "rfm8")
    refused(4, "which no --ruleset names", *replay, "--ruleset", "rfm8", "--ruleset", "scores4")
    plan.write_text(PLAN.replace('["hk", "tw"]', '["hk"]'))
    refused(4, "made with where store in hk, tw, not with where store in hk", *replay, "--plan", plan)
    plan.write_text(PLAN.replace("scores4", "rfm8"))
    refused(4, "view china belongs to ruleset scores4, not to rfm8", *replay, "--plan", plan)
    assert sorted(path.name for path in state.iterdir()) == before


def test_views_come_and_go(orders: Path, plan: Path, state: Path) -> None:
    plan.write_text(PLAN.replace('name = "next"', 'name = "other"'))
    result = run("replay", orders, "--plan", plan, "--checkpoint", state)
    assert result.exit_code == 0, result.output
    assert "new, from the orders of this run on: other" in result.output
    assert "no longer kept: next" in result.output


def test_the_checkpoint_of_a_run_without_views_becomes_one_of_views(tmp_path: Path, orders: Path) -> None:
    place = tmp_path / "old"
    assert run("replay", orders, "--checkpoint", place).exit_code == 0
    result = run(
        "replay", orders, "--ruleset", "rfm8", "--ruleset", "scores4", "--checkpoint", place, "--json"
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["added"] == ["scores4"]
    assert told["views"]["rfm8"]["rows"]["duplicates"] == 4


def test_a_snapshot_of_one_view(tmp_path: Path, state: Path) -> None:
    out = tmp_path / "s.parquet"
    look = ("snapshot", "--checkpoint", state, "--out", out)
    refused(2, "there are several views; name one of all, china, category, next", *look)
    refused(2, "view: there is no view 'x'", *look, "--view", "x")
    refused(
        2,
        "population: the view all has no population 'books'",
        *look,
        "--view",
        "all",
        "--population",
        "books",
    )
    refused(2, "it has 2, such as books, toys", *look, "--view", "category", "--population", "b")
    assert run(*look, "--view", "category").exit_code == 0
    assert pq.read_table(out).num_rows == 3
    assert run(*look, "--view", "category", "--population", "books").exit_code == 0
    table = pq.read_table(out)
    assert (table["customer_id"].to_pylist(), set(table["population"].to_pylist())) == (
        ["ann", "bob"],
        {"books"},
    )


def test_the_past_of_one_view_out_of_the_changes(tmp_path: Path, orders: Path, plan: Path) -> None:
    changes, out = tmp_path / "c.parquet", tmp_path / "past.jsonl"
    assert run("replay", orders, "--plan", plan, "--changes", changes).exit_code == 0
    look = ("snapshot", "--changes", changes, "--out", out)

    def told(*which: str) -> list[tuple[str, str | None, str]]:
        out.unlink(missing_ok=True)
        assert run(*look, "--as-of", "2026-01-02T12:00:00Z", *which).exit_code == 0
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        return sorted((row["view"], row["population"] or "", row["customer_id"]) for row in rows)

    by_category = [("category", "books", "ann"), ("category", "toys", "ann")]
    assert told() == [("all", "", "ann"), *by_category, ("china", "", "ann")]
    assert told("--view", "category") == by_category
    assert told("--view", "category", "--population", "toys") == by_category[1:]
    out.unlink()
    at = ("--as-of", "2026-01-02T12:00:00Z")
    refused(
        2,
        "--view: there are no changes in the view 'x'; name one of all, china, category",
        *look,
        *at,
        "--view",
        "x",
    )
    no_such = "--population: there are no changes in the population 'x'"
    refused(2, f"{no_such}; name one of toys, books", *look, *at, "--view", "category", "--population", "x")
    refused(2, f"{no_such}; leave it out", *look, *at, "--view", "china", "--population", "x")
    # A view ends by itself: what time changes in it later is not in the file, whatever others tell.
    late = "2026-01-03T12:00:00Z"
    refused(2, "the changes of the view category end at 2026-01-03T00:00:00Z", *look, "--as-of", late)
    assert not out.exists()
    assert run(*look, "--as-of", late, "--view", "all").exit_code == 0


def test_one_customer_is_explained_by_view(state: Path) -> None:
    look = ("explain", "ann", "--checkpoint", state, "--json")
    refused(2, "there are several views", *look)
    refused(2, "the customer is in several: books, toys", *look, "--view", "category")
    result = run(*look, "--view", "category", "--population", "toys")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["monetary"]["value"] == 70000


def test_a_story_is_of_one_view(tmp_path: Path, orders: Path, plan: Path) -> None:
    out = tmp_path / "c.parquet"
    assert run("replay", orders, "--plan", plan, "--changes", out).exit_code == 0
    look = ("timeline", out, "--customer", "ann")
    refused(2, "--view: the customer has changes in several: all, category, china", *look)
    refused(2, "--population: the customer has changes in several: books, toys", *look, "--view", "category")
    refused(2, "no changes in the view 'x'", *look, "--view", "x")
    assert run(*look, "--view", "category", "--population", "books").exit_code == 0


def test_rulesets_are_compared_in_one_view(state: Path) -> None:
    look = ("rulesets", "diff", "rfm8", "rfm8-grace", "--checkpoint", state, "--json")
    refused(2, "there are several views", *look)
    result = run(*look, "--view", "category")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["customers"] == 3
    refused(4, "not to scores4; use", "rulesets", "diff", "scores4", *look[3:], "--view", "all")


def test_customers_who_move_are_told_with_their_population(tmp_path: Path, orders: Path, state: Path) -> None:
    moved = tmp_path / "moved.jsonl"
    look = ("rulesets", "diff", "rfm8", "scores4")
    assert run(*look, "--checkpoint", state, "--view", "category", "--customers", moved).exit_code == 0
    rows = [json.loads(line) for line in moved.read_text().splitlines()]
    assert {(row["population"], row["customer_id"]) for row in rows} == {
        ("books", "ann"),
        ("toys", "ann"),
        ("books", "bob"),
    }
    refused(2, "--view is of a --checkpoint or a --worker", *look, orders, "--view", "category")


def test_views_by_rulesets_of_ones_own_are_forgotten_in_by_their_plan(tmp_path: Path, orders: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\nextends = "rfm8"\nwindow_days = 30\n')
    plan = tmp_path / "views.toml"
    plan.write_text('[[view]]\nruleset = "mine.toml"\n[[view]]\nruleset = "rfm8"\nper = "category"\n')
    state = tmp_path / "state"
    assert run("replay", orders, "--plan", plan, "--checkpoint", state).exit_code == 0
    ids = tmp_path / "ids.txt"
    ids.write_text("ann\n")
    erase = ("erase", "--ids", ids, "--checkpoint", state)
    refused(4, "is not a built-in one; give the plan of its views", *erase)
    other = tmp_path / "other.toml"
    other.write_text('[[view]]\nruleset = "mine.toml"\n')
    refused(2, "has not the views of the plan: rfm8", *erase, "--plan", other)
    result = run(*erase, "--plan", plan)
    assert result.exit_code == 0, result.output
    assert "1 customers forgotten (3 records of views and populations)" in result.output


def test_customers_are_forgotten_in_every_view(tmp_path: Path, state: Path) -> None:
    ids = tmp_path / "ids.csv"
    ids.write_text("customer_id\nann\n")
    out = tmp_path / "erased.arrow"
    result = run("erase", "--ids", ids, "--checkpoint", state, "--changes", out)
    assert result.exit_code == 0, result.output
    told = "1 customers forgotten (5 records of views and populations), 5 tier changes to null"
    assert told in result.output
    with pa.ipc.open_file(out) as reader:
        rows = reader.read_all().to_pylist()
    assert sorted((row["view"], row["population"] or "") for row in rows) == [
        ("all", ""),
        ("category", "books"),
        ("category", "toys"),
        ("china", ""),
    ]
    with pa.ipc.open_file(tmp_path / "erased.shadow-next.arrow") as reader:
        assert [row["view"] for row in reader.read_all().to_pylist()] == ["next"]
    for view in ("all", "china", "category", "next"):
        assert (
            run("snapshot", "--checkpoint", state, "--view", view, "--out", tmp_path / "s.csv").exit_code == 0
        )
        assert "ann" not in (tmp_path / "s.csv").read_text()
    assert not any(b"o2" in path.read_bytes() for path in state.rglob("*-entries.arrow"))
    # Who is gone already, or was never there, is nobody.
    ids.write_text("customer_id\nann\nnobody\nbob\n")
    again = run("erase", "--ids", ids, "--checkpoint", state)
    assert "1 customers forgotten (3 records of views and populations), 3 tier changes" in again.output


def test_one_view_goes_on_by_another_ruleset(tmp_path: Path, plan: Path, state: Path) -> None:
    plan.write_text(PLAN.replace('ruleset = "scores4"', 'ruleset = "types7"'))
    more = tmp_path / "more.csv"
    more.write_text("customer_id,order_id,occurred_at,amount,store,category\nann,o9,2026-02-01,5,hk,toys\n")
    out = tmp_path / "changes.parquet"
    arguments = ["replay", more, "--plan", plan, "--checkpoint", state, "--changes", out]
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    refused(4, "view china belongs to ruleset scores4", *arguments)
    refused(4, "--resegment-view china", *arguments, "--resegment-view", "all")
    refused(2, "no view 'elsewhere'", *arguments, "--resegment-view", "elsewhere")
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before
    assert not out.exists()
    expected = rfmstream.Views.restore(
        state,
        rfmstream.Plan(
            tuple(
                replace(view, ruleset=rfmstream.load_ruleset("scores4")) if view.name == "china" else view
                for view in rfmstream.load_plan(plan).views
            )
        ),
    )
    told = expected.resegment("china", rfmstream.load_ruleset("types7"))
    assert told.num_rows
    result = run(*arguments, "--resegment-view", "china", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["resegmented"] == ["china"]
    assert summary["views"]["china"]["changes"]["by_reason"]["rules_changed"] == told.num_rows
    rows = [row for row in pq.read_table(out).to_pylist() if row["reason"] == "rules_changed"]
    assert rows == told.to_pylist()
    # Once more it is nothing.
    assert json.loads(run(*arguments, "--resegment", "--json").stdout)["resegmented"] == []


def test_what_cannot_be_parted_on_disk_is_refused_or_said(
    tmp_path: Path, orders: Path, plan: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "c.jsonl"
    views = ("replay", orders, "--plan", plan, "--changes", out)
    words = (
        "--memory: views are replayed in memory, which may take 512.0 MiB; allow that much, or replay fewer"
    )
    refused(2, words, *views, "--memory", "1K")
    refused(2, words, "replay", orders, "--checkpoint", state, "--memory", "1K")
    one = ("replay", orders, "--checkpoint", tmp_path / "one")
    assert run(*one, "--threads", "2").exit_code == 0
    by_other = (*one, "--ruleset", "scores4", "--resegment", "--threads", "1", "--memory")
    refused(2, "--memory: with --resegment all is replayed in memory", *by_other, "1K")
    assert not out.exists()
    assert run(*by_other, "1G").exit_code == 0
    # Nobody asked for a bound: it is said, and tried.
    monkeypatch.setattr(memory, "_there_is", lambda: 2048)
    monkeypatch.setattr(memory, "_LEAST", 1)
    result = run(*views)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith(
        "rfmstream: views are replayed in memory, which may take 512.0 MiB, more than half"
    )
    assert out.exists()


def test_one_ruleset_takes_over_from_another(tmp_path: Path, orders: Path) -> None:
    state, out = tmp_path / "state", tmp_path / "changes.parquet"
    assert run("replay", orders, "--ruleset", "rfm8", "--checkpoint", state).exit_code == 0
    own = tmp_path / "own.toml"
    own.write_text(run("rulesets", "show", "types7", "--toml").stdout.replace("types7", "mine"))
    engine = rfmstream.Engine.restore(state)
    told = engine.resegment(rfmstream.load_ruleset(own))
    refused(4, "--resegment", "replay", orders, "--ruleset", own, "--checkpoint", state)
    refused(2, "--resegment is of the state", "replay", orders, "--ruleset", own, "--resegment")
    arguments = ["replay", orders, "--ruleset", own, "--checkpoint", state, "--changes", out, "--resegment"]
    assert run(*arguments).exit_code == 0
    assert pq.read_table(out).to_pylist() == told.to_pylist()
    assert told.num_rows
    # From one's own to a built-in one: its tiers are written down.
    assert run("replay", orders, "--ruleset", "rfm8", "--checkpoint", state, "--resegment").exit_code == 0
    assert rfmstream.Engine.restore(state).ruleset.name == "rfm8"
    # Another currency is none that could take over.
    refused(
        2, "counts in EUR", "replay", orders, "--ruleset", "types7", "--currency", "EUR", "--checkpoint", state,
        "--resegment",
    )  # fmt: skip
