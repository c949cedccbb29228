import csv
import json
import os
import re
import signal
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import rfmstream.engine.replay.summary
from rfmstream.engine.cli.app import cli
from rfmstream.engine.cli.replay import default_threads
from rfmstream.engine.cli.show import money
from rfmstream.engine.core.checkpoint.folder import held
from rfmstream.engine.replay.replay import ReplayResult
from rfmstream.engine.replay.summary import Summary, summarise
from rfmstream.schemas.ruleset import list_rulesets, load_ruleset


def run(*arguments: object, columns: int = 120) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(cli, words, prog_name="rfmstream")


def refused(code: int, words: str, *arguments: object) -> None:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 or result.stderr.startswith("Usage:")
    assert words in result.stderr


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]
    return found


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert "Usage: rfmstream" in result.output


@pytest.mark.parametrize(
    "name",
    ["replay", "worker", "produce", "tail", "snapshot", "timeline", "report", "rulesets", "maps", "generate"],
)
def test_help_teaches_by_example_and_names_the_exit_codes(name: str) -> None:
    output = run(name, "--help").output
    assert f"  rfmstream {name}" in output
    assert "Exit codes" in output or "exit codes" in output


def test_help_names_all_options_of_replay() -> None:
    output = run("replay", "--help").output
    for option in (
        *("--map", "--ruleset", "--as-of", "--changes", "--snapshot", "--rejected", "--checkpoint"),
        *("--threads", "--strict", "--json", "--time-zone", "--currency"),
    ):
        assert option in output


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay", "\udcff.csv"),
        ("replay", "orders.csv", "--changes", "\udcff.csv", "--json"),
        ("timeline", "changes.csv", "--customer", "\udcff"),
        ("snapshot", "--worker", "http://\udcff"),
        ("worker", "--checkpoint", "\udcff"),
    ],
)
def test_an_argument_that_is_no_text_is_refused(arguments: tuple[str, ...]) -> None:
    refused(2, "is not UTF-8 text", *arguments)


def test_json_is_one_object_and_nothing_else(history: Path) -> None:
    result = run("replay", history, "--json", "--as-of", "2026-03-01")
    assert result.exit_code == 0
    assert result.stderr == ""
    summary = json.loads(result.stdout)
    assert summary["rows"] == {
        "read": 7,
        "applied": 4,
        "duplicates": 1,
        "rejected": 2,
        "rejected_by_reason": {"missing_customer_id": 1, "unknown_order": 1},
    }
    assert summary["as_of"] == "2026-03-01T00:00:00Z"
    win_back = next(tier for tier in summary["tiers"] if tier["id"] == "001")
    assert (win_back["customers"], win_back["lifetime_revenue_minor"]) == (1, 130_000)


def test_the_summary_for_people(history: Path) -> None:
    output = run("replay", history, "--as-of", "2026-03-01").output
    assert (
        "7 rows read = 4 applied + 1 duplicates + 2 rejected (missing_customer_id 1, unknown_order 1)"
        in output
    )
    assert "5 tier changes (first_order 2, order 1, cancellation 1, recency_expired 1)" in output
    assert re.search(
        r"001 +重要挽留客户 High-value Win-back +1 +50\.0% +2 +1,300\.00 +100\.0% +650\.00", output
    )
    assert re.search(r"- +无分层 No tier +1 +50\.0% +0 +0\.00", output)


def test_the_summary_says_that_orders_are_forgotten(tmp_path: Path) -> None:
    orders, rules = tmp_path / "orders.csv", tmp_path / "forgets.toml"
    orders.write_text(
        "customer_id,order_id,type,occurred_at,amount\nann,1,paid,2026-01-01,9\nann,1,refunded,2026-03-01,9\n"
    )
    rules.write_text('name = "forgets"\nextends = "rfm8"\nforget_orders_after_days = 30\n')
    told = "unknown_order: the ruleset forgets orders after 30 days"
    assert told in run("replay", orders, "--ruleset", rules).stdout
    assert told not in run("replay", orders).stdout


def test_a_narrow_terminal_breaks_no_number(history: Path, tmp_path: Path) -> None:
    history.write_text(history.read_text() + "eve,e1,paid,2026-01-09T00:00:00Z,987654321.00\n")
    changes = tmp_path / "changes.csv"
    assert "987,655,621.00" in run("replay", history, "--changes", changes, columns=80).output
    assert "987,654,321.00" in run("timeline", changes, "--customer", "eve", columns=80).output


def test_brackets_of_an_identity_are_shown(history: Path) -> None:
    output = run("replay", history, "--time-zone", "Asia/Shanghai", "--currency", "USD").output
    assert "rfm8[currency=USD,time_zone=Asia/Shanghai] as of" in output


def test_files_are_written_and_named(history: Path, tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.csv" for name in ("changes", "snapshot", "rejected")}
    result = run("replay", history, *(part for name, path in paths.items() for part in (f"--{name}", path)))
    for path, rows in zip(paths.values(), (4, 2, 2), strict=True):
        assert len(path.read_text().splitlines()) == rows + 1
        assert f"wrote {rows} rows: {path}" in result.output


def test_a_naive_as_of_is_local_in_the_rulesets_zone(history: Path) -> None:
    result = run("replay", history, "--json", "--time-zone", "Asia/Shanghai", "--as-of", "2026-03-01")
    assert json.loads(result.stdout)["as_of"] == "2026-02-28T16:00:00Z"


def test_what_is_wrong_with_the_usage_ends_in_2(history: Path, tmp_path: Path) -> None:
    refused(2, "No such option", "replay", history, "--bogus")
    refused(2, "Missing argument", "replay")
    refused(2, "there is no built-in ruleset 'nope'", "replay", history, "--ruleset", "nope")
    refused(2, "there is no such input map", "replay", history, "--map", "nope")
    refused(2, "is not an IANA time zone", "replay", history, "--time-zone", "Mars/Base")
    refused(2, "is not an ISO 4217 currency", "replay", history, "--currency", "XXY")
    refused(2, "--as-of: 'soon' is not an instant", "replay", history, "--as-of", "soon")
    refused(2, "before the clock", "replay", history, "--as-of", "2026-01-08")
    refused(2, "use one of .parquet .arrow .csv .jsonl", "replay", history, "--changes", tmp_path / "c.xls")
    refused(2, "No such file or directory", "replay", history, "--changes", tmp_path / "none" / "c.csv")
    refused(2, "would overwrite an input", "replay", history, "--changes", history)
    refused(2, "--threads", "replay", history, "--threads", "0")


def test_input_that_is_refused_ends_in_3(history: Path, tmp_path: Path) -> None:
    refused(3, "there is no such file", "replay", tmp_path / "none.csv")
    refused(3, "2 of 7 rows were rejected", "replay", history, "--strict", "--json")
    refused(3, "row 4 missing_customer_id", "replay", history, "--strict")


def test_what_is_wrong_with_the_state_ends_in_4(history: Path, tmp_path: Path) -> None:
    refused(4, "holds orders.csv, which is no part of", "replay", history, "--checkpoint", history.parent)
    refused(4, "there is no checkpoint here", *snapshot_of(tmp_path / "none"))
    refused(4, "there is no checkpoint here", *snapshot_of(tmp_path / ("x" * 5000)))
    state = tmp_path / "state"
    run("replay", history, "--checkpoint", state)
    refused(4, "belongs to ruleset rfm8", "replay", history, "--checkpoint", state, "--ruleset", "types7")
    refused(4, "belongs to ruleset rfm8", "replay", history, "--checkpoint", state, "--currency", "USD")
    next(state.glob("*-customers.arrow")).write_bytes(b"damaged")
    refused(4, "damaged", *snapshot_of(state))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_whose_files_are_there_tells_so_whatever_interrupts(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def interrupted(result: ReplayResult) -> Summary:
        os.kill(os.getpid(), number)
        return summarise(result)

    monkeypatch.setattr(rfmstream.engine.replay.summary, "summarise", interrupted)
    before = signal.getsignal(number)
    result = run("replay", history, "--changes", tmp_path / "c.csv", "--checkpoint", tmp_path / "state")
    assert result.exit_code == 0
    assert "wrote 4 rows" in result.stdout
    assert signal.getsignal(number) is before


def test_two_runs_on_one_checkpoint(history: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with held(state):
        refused(4, "another run is at work", "replay", history, "--checkpoint", state)
        assert list(state.iterdir()) == []
    assert not state.exists()
    refused(3, "no such file", "replay", tmp_path / "none.csv", "--checkpoint", state)
    assert not state.exists()
    assert run("replay", history, "--checkpoint", state).exit_code == 0
    refused(4, "cannot write a checkpoint", "replay", history, "--checkpoint", history / "state")


def test_a_checkpoint_of_nothing_has_no_customers(tmp_path: Path) -> None:
    empty, state = tmp_path / "empty.csv", tmp_path / "state"
    empty.write_text("customer_id,order_id,occurred_at,amount\n")
    assert run("replay", empty, "--checkpoint", state).exit_code == 0
    done = run(*snapshot_of(state))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("0 customers as of never by rfm8: ")


def snapshot_of(state: Path) -> tuple[object, ...]:
    return ("snapshot", "--checkpoint", state, "--out", state.parent / "snapshot.csv")


def test_a_checkpoint_by_a_ruleset_of_ones_own(history: Path, tmp_path: Path) -> None:
    state, own = tmp_path / "state", tmp_path / "own.toml"
    own.write_text('name = "own"\nextends = "rfm8"\n[cuts]\nrecency_days = [60]\n')
    assert run("replay", history, "--checkpoint", state, "--ruleset", own).exit_code == 0
    refused(4, "name its file", *snapshot_of(state))
    assert run(*snapshot_of(state), "--ruleset", own, "--as-of", "2026-03-01").exit_code == 0
    assert "ann,101," in (tmp_path / "snapshot.csv").read_text()


def test_interruption_ends_in_130(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rfmstream.engine.replay.replay.replay", interrupted)
    refused(130, "interrupted", "replay", history)


def test_a_defect_keeps_its_traceback(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("rfmstream.engine.replay.replay.replay", broken)
    result = run("replay", history)
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


def test_snapshot_of_a_checkpoint(history: Path, tmp_path: Path) -> None:
    state, out = tmp_path / "state", tmp_path / "tiers.jsonl"
    assert run("replay", history, "--checkpoint", state, "--ruleset", "rfm8-annual").exit_code == 0
    result = run("snapshot", "--checkpoint", state, "--out", out, "--as-of", "2026-03-01")
    assert result.output == f"2 customers as of 2026-03-01T00:00:00Z by rfm8-annual: {out}\n"
    tiers = {row["customer_id"]: row for row in map(json.loads, out.read_text().splitlines())}
    assert (tiers["ann"]["tier"], tiers["ann"]["tier_since"]) == ("001", "2026-02-05T00:00:00.000000Z")
    assert tiers["bob"]["tier"] is None
    refused(2, "before the clock", "snapshot", "--checkpoint", state, "--out", out, "--as-of", "2026-01-01")


def test_rulesets() -> None:
    assert all(name in run("rulesets", "list").output for name in list_rulesets())
    shown = run("rulesets", "show", "rfm8-annual", "--currency", "JPY").output
    for words in (
        "rfm8-annual[currency=JPY]",
        "30 days since",
        "1,000 JPY",
        "365 days",
        "calendar days, UTC",
    ):
        assert words in shown
    for tier in load_ruleset("rfm8-annual").tiers:
        assert tier.label_zh in shown
        assert tier.playbook.actions[0] in shown.replace("\n", " ")
    chinese = run("rulesets", "show", "rfm8-annual", "--lang", "zh").output
    for tier in load_ruleset("rfm8-annual").tiers:
        assert tier.playbook.actions_zh[0] in chinese.replace("\n", "")
        assert tier.playbook.actions[0] not in chinese.replace("\n", " ")
    refused(2, "there is no built-in ruleset", "rulesets", "show", "nope")


def test_a_ruleset_of_ones_own_can_start_from_a_shipped_one(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(run("rulesets", "show", "rfm8", "--toml").stdout)
    result = run("rulesets", "check", own)
    assert result.exit_code == 0
    assert result.output.startswith(f"{own} is valid.\n")
    own.write_text(own.read_text().replace("recency_days", "recency_dayz"))
    refused(2, "did you mean recency_days?", "rulesets", "check", own)


def test_maps(tmp_path: Path) -> None:
    assert "shopify-orders" in run("maps", "list").output
    own = tmp_path / "own.toml"
    own.write_text(run("maps", "show", "shopify-orders").stdout)
    assert run("maps", "show", own).stdout == own.read_text()
    refused(2, "there is no such input map", "maps", "show", "nope")


def test_guess_names_the_map_that_fits_and_what_is_missing(tmp_path: Path) -> None:
    def fits(text: str, name: str) -> list[dict]:
        path = tmp_path / name
        path.write_text(text)
        return json.loads(run("maps", "guess", path, "--json").stdout)["fits"]

    shopify = (
        "Name,Email,Financial Status,Paid at,Currency,Total,Created at,Cancelled at,Refunded Amount,Id\n"
    )
    best = fits(shopify, "a.csv")[0]
    assert (best["name"], best["missing"]) == ("shopify-orders", [])
    best = fits(shopify.replace("Total,", ""), "b.csv")[0]
    assert (best["name"], best["missing"]) == ("shopify-orders", ["Total"])
    retail = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
    assert fits(retail, "c.csv")[0]["name"] == "online-retail"
    retail = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
    assert fits(retail, "d.csv")[0]["name"] == "online-retail-ii"
    assert fits("customer_id,order_id,occurred_at,amount\n", "e.csv")[0] == {
        "name": None,
        "needed": 4,
        "missing": [],
        "share": 1.0,
    }
    track = '{"type":"track","event":"Order Completed","userId":"u","timestamp":"2024-01-01T00:00:00Z",'
    track += '"properties":{"order_id":"1","total":5,"currency":"USD"}}\n'
    assert fits(track, "f.jsonl")[0]["name"] == "segment-orders"
    shown = run("maps", "guess", tmp_path / "b.csv").output
    assert "rfmstream replay --map shopify-orders fits best, but these columns are missing: Total" in shown
    (tmp_path / "g.csv").write_text("a,b\n1,2\n")
    assert "no shipped map fits" in run("maps", "guess", tmp_path / "g.csv").output
    refused(3, "there is no such file", "maps", "guess", tmp_path / "nope.csv")


def test_what_a_map_leaves_out_is_counted_by_rule_and_written(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        'name = "own"\n'
        '[[exclude]]\nwhy = "our own staff"\nwhen = { column = "who", equals = "qa" }\n'
        '[[exclude]]\nwhy = "a test"\nwhen = { column = "note", starts_with = "test" }\n'
        '[[exclude]]\nwhen = { column = "note", equals = "void" }\n'
        '[[event]]\ncustomer_id = "who"\norder_id = "id"\noccurred_at = "at"\namount = "sum"\n'
    )
    orders = tmp_path / "orders.csv"
    orders.write_text(
        'who,id,at,sum,note\nann,1,2026-01-01,5,\nqa,2,2026-01-01,5,test\nbob,3,2026-01-02,5,"test, again"\n'
        "qa,4,2026-01-03,5,\n"
    )
    left_out = tmp_path / "left_out.csv"
    told = json.loads(run("replay", orders, "--map", own, "--excluded", left_out, "--json").stdout)
    assert told["input"] == {
        "rows": 4,
        "excluded": 3,
        "excluded_by_rule": [
            {"why": "our own staff", "rows": 2},
            {"why": "a test", "rows": 1},
            {"why": "exclude[3]", "rows": 0},
        ],
        "repeated_lines": 0,
        "sheets_unread": [],
        "alike_without_event_id": 0,
        "after_until": 0,
    }
    assert told["files"] == {str(left_out): 3}
    with left_out.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["source"], row["why"]) for row in rows] == [
        ("1", str(orders), "our own staff"),
        ("3", str(orders), "our own staff"),
        ("2", str(orders), "a test"),
    ]
    assert json.loads(rows[2]["raw"]) == {
        "who": "bob",
        "note": "test, again",
        "id": "3",
        "at": "2026-01-02",
        "sum": "5",
    }
    shown = run("replay", orders, "--map", own).output
    assert "2 left out: our own staff" in shown
    assert "exclude[3]" not in shown


def test_generate_makes_input_for_replay(tmp_path: Path) -> None:
    out = tmp_path / "orders.csv"
    result = run("generate", "--customers", 50, "--orders", 400, "--seed", 7, "--days", 90, "--out", out)
    assert result.exit_code == 0
    assert "400 paid" in result.output
    rows = json.loads(run("replay", out, "--json").stdout)["rows"]
    assert rows["rejected"] == 0
    assert rows["read"] == len(out.read_text().splitlines()) - 1
    few = ("generate", "--customers", 5, "--orders", 9, "--seed", 7, "--out")
    refused(2, "cannot write .xls", *few, "x.xls")
    refused(2, "No such file or directory", *few, tmp_path / "none" / "x.csv")
    (tmp_path / "x.csv").mkdir()
    refused(2, "Is a directory", *few, tmp_path / "x.csv")
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_timeline(history: Path, tmp_path: Path) -> None:
    changes = tmp_path / "changes.csv"
    run("replay", history, "--changes", changes, "--as-of", "2026-03-01")
    output = run("timeline", changes).output
    assert "Customer ann: 3 of 3 tier changes by rfm8" in output
    assert re.search(r"1 +2026-01-01 10:00 +100 Recent Low-value +first order a1 +100 +1 +600\.00", output)
    assert re.search(r"3 +2026-02-05 00:00 +001 High-value Win-back +no longer recent", output)
    assert "1 of 2 tier changes" in run("timeline", changes, "--customer", "bob", "--limit", 1).output
    refused(3, "holds no change of customer 'eve'", "timeline", changes, "--customer", "eve")
    refused(3, "is not a file of tier changes", "timeline", history)


def test_timeline_of_the_first_and_the_last_day_there_is(history: Path, tmp_path: Path) -> None:
    changes = tmp_path / "changes.csv"
    last, first = "eve,e1,paid,9999-12-31T20:00:00Z,1.00\n", "eva,e0,paid,0001-01-01T01:00:00Z,1.00\n"
    history.write_text(history.read_text() + last + first)
    run("replay", history, "--changes", changes)
    east = run("timeline", changes, "--customer", "eve", "--time-zone", "Asia/Shanghai").output
    assert "9999-12-31 20:00 UTC " in east
    west = run("timeline", changes, "--customer", "eva", "--time-zone", "America/New_York").output
    assert "0001-01-01 01:00 UTC " in west
    assert "0001-01-31 19:03 " in west


def test_ids_do_not_control_the_terminal(history: Path, tmp_path: Path) -> None:
    changes = tmp_path / "changes.csv"
    history.write_text(history.read_text() + "\x1b[2J,\x1b[31m,paid,2026-01-07T00:00:00Z,1.00\n")
    run("replay", history, "--changes", changes)
    output = run("timeline", changes, "--customer", "\x1b[2J").output
    assert r"Customer \x1b[2J: 1 of 1" in output
    assert r"first order \x1b[31m" in output
    assert "\x1b" not in output


def test_money_is_written_digit_by_digit() -> None:
    assert money(123_456, 2) == "1,234.56"
    assert money(-5, 2) == "-0.05"
    assert money(1234, 0) == "1,234"
    assert money(2**63 - 1, 3) == "9,223,372,036,854,775.807"


def test_threads_by_default() -> None:
    assert 1 <= default_threads() <= 2


@pytest.mark.parametrize(
    ("when", "amount", "hint"),
    [
        (
            "2024-01-01",
            "12,50",
            """bad_amount: '12,50' has a decimal comma: decimal = "," in the [input] section""",
        ),
        ("2024-01-01", "1.234,5", """'1.234,5' has a decimal comma"""),
        ("2024-01-01", "1,234.50", """'1,234.50' has thousands marks: thousands = "," beside the amount"""),
        ("2024-01-01", "1'234", """thousands = "'" beside the amount in a map reads it"""),
        (
            "31.01.2024",
            "12.50",
            "bad_time: '31.01.2024' fits no format that is asked for: a map names the format",
        ),
        ("2024-01-01", "-1", ""),
        ("2024-01-01", "free", ""),
    ],
)
def test_the_summary_says_what_would_read_the_rejected_rows(
    tmp_path: Path, when: str, amount: str, hint: str
) -> None:
    orders = tmp_path / "orders.csv"
    orders.write_text(f'customer_id,order_id,occurred_at,amount\na,1,,1\na,2,{when},"{amount}"\n')
    told = run("replay", orders).stdout
    assert hint in told
    assert ("  bad_amount: " in told or "  bad_time: " in told) == bool(hint)
