import json
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from real_changes import cdnow_orders, complete_journey_changes, complete_journey_orders
from served_workers import served

from rfmstream import Engine, Ruleset, load_ruleset
from rfmstream.engine.cli.app import cli
from rfmstream.engine.files.output import write_table
from rfmstream.engine.insight.diff import (
    DIFF_SCHEMA,
    diff_rows_of_engine,
    diff_rows_of_snapshot,
    make_diff,
)
from rfmstream.engine.insight.flaps import DAY_US, count_flaps
from rfmstream.engine.insight.history import History
from rfmstream.schemas.errors import ConfigError

SHORT = """name = "short"
extends = "rfm8"
title = "Ten days"
day_unit = "duration"
window_days = 60
[cuts]
recency_days = [10]
frequency = [2]
monetary = [50]
"""
MIDNIGHT_US = 899_251_200_000_000
"""1998-07-01, after the last order of CDNOW."""


@pytest.fixture(scope="module")
def rulesets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ruleset]:
    path = tmp_path_factory.mktemp("rules") / "short.toml"
    path.write_text(SHORT)
    names = ("rfm8", "rfm8-annual", "rfm8-grace", "groups3", "scores4", path)
    return {Path(name).stem: load_ruleset(name) for name in names}


@pytest.fixture(scope="module")
def checkpoints(rulesets: dict[str, Ruleset], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """CDNOW by each ruleset, as of the end of June 1998."""
    root = tmp_path_factory.mktemp("states")
    for name, ruleset in rulesets.items():
        engine = Engine(ruleset)
        engine.step_canonical(cdnow_orders())
        engine.advance(MIDNIGHT_US)
        engine.checkpoint(root / name)
    return {name: root / name for name in rulesets}


def by_customer(table: pa.Table) -> pa.Table:
    return table.sort_by("customer_id")


@pytest.mark.parametrize(
    ("old", "new"),
    [*permutations(("rfm8", "rfm8-annual", "rfm8-grace", "scores4", "short"), 2), ("rfm8", "rfm8")],
)
def test_rows_are_what_two_replays_say_and_resegment_sends(
    old: str, new: str, rulesets: dict[str, Ruleset], checkpoints: dict[str, Path]
) -> None:
    rows = by_customer(
        diff_rows_of_engine(Engine.restore(checkpoints[old], ruleset=rulesets[old]), rulesets[new])
    )
    before, after = (
        by_customer(Engine.restore(checkpoints[name], ruleset=rulesets[name]).snapshot())
        for name in (old, new)
    )
    assert rows.schema == DIFF_SCHEMA
    assert rows["customer_id"].equals(before["customer_id"])
    assert rows["old_tier"].to_pylist() == before["tier"].to_pylist()
    assert rows["new_tier"].to_pylist() == after["tier"].to_pylist()
    for name in DIFF_SCHEMA.names[4:]:
        assert rows[name].to_pylist() == after[name].to_pylist()
    sent = Engine.restore(checkpoints[old], ruleset=rulesets[old]).resegment(rulesets[new])
    assert sorted(sent["customer_id"].to_pylist()) == rows.filter(rows["is_sent"])["customer_id"].to_pylist()
    diff = make_diff(rulesets[old], rulesets[new], MIDNIGHT_US, [rows.slice(0, 10_000), rows.slice(10_000)])
    assert (diff.customers, diff.sent) == (23_570, sent.num_rows)
    assert sum(cell.revenue_minor for cell in diff.cells) == 250_031_563
    assert (diff.sent == 0) == (old == new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rfm8-annual", "rfm8"),
        ("rfm8-annual", "rfm8-grace"),
        ("rfm8-annual", "scores4"),
        ("scores4", "groups3"),
    ],
)
def test_a_snapshot_says_the_same_as_the_state(
    old: str, new: str, rulesets: dict[str, Ruleset], checkpoints: dict[str, Path]
) -> None:
    engine = Engine.restore(checkpoints[old], ruleset=rulesets[old])
    batches = engine.snapshot().to_batches()
    rows = [diff_rows_of_snapshot(batch, rulesets[old], rulesets[new]) for batch in batches]
    assert pa.concat_tables(rows).to_pylist() == diff_rows_of_engine(engine, rulesets[new]).to_pylist()


def test_durations_and_customers_without_a_tier(tmp_path: Path) -> None:
    for name, days in (("a", 10), ("b", 20)):
        text = SHORT.replace('"short"', f'"{name}"').replace("[10]", f"[{days}]")
        (tmp_path / f"{name}.toml").write_text(text)
    old, new = (load_ruleset(tmp_path / f"{name}.toml") for name in "ab")
    engine = Engine(old)
    orders = {
        "customer_id": ["x", "y", "z", "z"],
        "order_id": ["1", "1", "1", "1"],
        "occurred_at": ["2026-01-01T10:00Z", "2026-01-12T10:00Z", "2026-01-12T10:00Z", "2026-01-12T11:00Z"],
        "amount": ["60", "20", "20", "0"],
        "type": ["paid", "paid", "paid", "cancelled"],
    }
    engine.step(pa.table(orders))
    for now, tiers in (
        ("2026-01-21T09:59:59.999999Z", ["101", "100", None]),
        ("2026-01-21T10:00:00Z", ["001", "100", None]),
        ("2026-02-01T09:59:59.999999Z", ["001", "100", None]),
        ("2026-02-01T10:00:00Z", ["001", "000", None]),
    ):
        engine.advance(now)
        (batch,) = engine.snapshot().to_batches()
        engine.checkpoint(tmp_path / "state")
        again = Engine.restore(tmp_path / "state", ruleset=old)
        rows = diff_rows_of_snapshot(batch, old, new)
        assert rows.to_pylist() == diff_rows_of_engine(again, new).to_pylist()
        assert rows["new_tier"].to_pylist() == tiers


def test_what_a_snapshot_does_not_tell(rulesets: dict[str, Ruleset]) -> None:
    snapshot = Engine("rfm8").snapshot()
    (batch,) = snapshot.to_batches() or [pa.RecordBatch.from_pylist([], snapshot.schema)]
    old = rulesets["rfm8-annual"]
    with pytest.raises(ConfigError, match=r"window_days: .*short.*ask its checkpoint"):
        diff_rows_of_snapshot(batch, old, rulesets["short"])
    shanghai = load_ruleset("rfm8-annual", time_zone="Asia/Shanghai", currency=old.currency)
    with pytest.raises(ConfigError, match=r"time_zone: .*ask its checkpoint"):
        diff_rows_of_snapshot(batch, old, shanghai)
    with pytest.raises(ConfigError, match=r"currency: .*never|currency: .*does not change"):
        diff_rows_of_snapshot(batch, old, load_ruleset("rfm8", currency="EUR"))


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "America/New_York", "Pacific/Apia"])
@pytest.mark.parametrize("unit", ["calendar_day", "duration"])
def test_a_snapshot_tells_other_days(
    zone: str, unit: str, rulesets: dict[str, Ruleset], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    old = rulesets["rfm8-annual"]
    path = tmp_path / "other.toml"
    path.write_text(f'name = "other"\nextends = "rfm8"\nday_unit = "{unit}"\ncurrency = "{old.currency}"\n')
    new = load_ruleset(path, time_zone=zone)
    engine = Engine.restore(checkpoints["rfm8-annual"], ruleset=old)
    for hours in (0, 7, 31 * 24):
        as_of_us = engine.clock_us + hours * 3_600_000_000
        engine.advance(as_of_us)
        engine.checkpoint(tmp_path / "state")
        again = Engine.restore(tmp_path / "state", ruleset=old)
        batches = engine.snapshot().to_batches()
        rows = [diff_rows_of_snapshot(batch, old, new, as_of_us) for batch in batches]
        assert pa.concat_tables(rows).to_pylist() == diff_rows_of_engine(again, new).to_pylist()


def test_paces_are_those_of_the_last_days_of_a_replay() -> None:
    options = {"time_zone": "America/New_York", "currency": "USD"}
    names = ("rfm8-annual", "rfm8-grace")
    history = History([Engine(load_ruleset(name, **options)) for name in names], days=90)
    orders = complete_journey_orders()
    history.follow(orders.slice(start, 10_000) for start in range(0, orders.num_rows, 10_000))
    history.end(None)
    for name, pace in zip(names, history.paces(30), strict=True):
        changes = complete_journey_changes(name)
        first = pa.scalar(history.engines[0].clock_us - 90 * DAY_US, pa.int64())
        recent = changes.filter(pc.greater(changes["effective_at"].cast(pa.int64()), first))
        assert pace.flaps == count_flaps(recent, 30)
        assert pace.days == 90
        assert pace.changes_per_day == recent.num_rows / 90
    whole = History([Engine(load_ruleset(names[0], **options))], days=5_000)
    whole.follow([orders])
    (pace,) = whole.paces(30)
    assert pace.flaps == count_flaps(complete_journey_changes(names[0]), 30)
    assert 364 < pace.days < 366


def test_a_history_of_nothing() -> None:
    history = History([Engine("rfm8")], days=30)
    history.follow([])
    history.end(None)
    (pace,) = history.paces(30)
    assert (pace.flaps.changes, pace.days, pace.changes_per_day) == (0, 0, 0)


def run(*arguments: object) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner(env={"COLUMNS": "160"}).invoke(cli, ["rulesets", "diff", *words], prog_name="rfmstream")


@pytest.fixture(scope="module")
def orders_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("orders") / "orders.parquet"
    columns = ["customer_id", "order_id", "occurred_at", "amount_minor"]
    write_table(path, pa.Table.from_batches([cdnow_orders()]).select(columns))
    return path


@pytest.fixture
def state(checkpoints: dict[str, Path]) -> Iterator[Path]:
    folder = checkpoints["rfm8-annual"]
    before = {path: path.read_bytes() for path in folder.iterdir()}
    yield folder
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_files_a_checkpoint_and_workers_say_the_same(
    orders_file: Path, state: Path, rulesets: dict[str, Ruleset], tmp_path: Path
) -> None:
    out = {name: tmp_path / f"{name}.parquet" for name in ("files", "state", "worker")}
    pair = ("rfm8-annual", "rfm8-grace", "--json")
    as_of = ("--as-of", "1998-07-01")
    files = run(*pair, orders_file, *as_of, "--customers", out["files"])
    assert files.exit_code == 0, files.output
    of_state = run(*pair, "--checkpoint", state, "--customers", out["state"])
    engine = Engine.restore(state, ruleset=rulesets["rfm8-annual"])
    with served(engine) as url:
        of_worker = run(*pair, orders_file, "--worker", url, *as_of, "--customers", out["worker"])
    documents = [json.loads(result.stdout) for result in (files, of_state, of_worker)]
    assert documents[0]["cells"] == documents[1]["cells"] == documents[2]["cells"]
    assert documents[0]["history"][0]["ruleset"] == "rfm8-annual"
    assert documents[1]["history"] == []
    assert documents[2]["history"][1]["ruleset"] == "rfm8-grace"
    assert documents[0]["as_of"] == "1998-07-01T00:00:00Z"
    sent = engine.resegment(rulesets["rfm8-grace"])
    rows = [by_customer(pq.read_table(path)) for path in out.values()]
    assert rows[0].to_pylist() == rows[1].to_pylist() == rows[2].to_pylist()
    assert rows[0].filter(rows[0]["is_sent"])["customer_id"].to_pylist() == sorted(
        sent["customer_id"].to_pylist()
    )
    assert documents[0]["sent"] == sent.num_rows > 0


def test_the_matrix_for_people(orders_file: Path) -> None:
    result = run("rfm8-annual", "rfm8-grace", orders_file, "--as-of", "1998-07-01")
    assert result.exit_code == 0, result.output
    assert "activating it sends " in result.output
    assert "last 90 days" in result.output
    wide = run("rfm8-grace", "types7", orders_file)
    assert "100.0% of 23,570 customers" in wide.output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("rfm8", "rfm8-grace"), 2, "name order files, --checkpoint or --worker"),
        (("rfm8", "none", "orders.csv"), 2, "there is no built-in ruleset 'none'"),
        (("rfm8", "rfm8-grace", "none.csv"), 3, "there is no such file"),
        (("rfm8", "rfm8-grace", "--checkpoint", "state", "--worker", "http://x"), 2, "name one of"),
        (("rfm8", "rfm8-grace", "--worker", "http://127.0.0.1:1"), 2, "window_days"),
        (("rfm8", "rfm8", "--worker", "http://127.0.0.1:1"), 1, "no snapshot comes from there"),
        (("rfm8", "rfm8", "orders.csv", "--customers", "x.txt"), 2, "cannot write .txt"),
        (("rfm8", "rfm8", "orders.csv", "--as-of", "soon"), 2, "'soon' is not an instant"),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...], code: int, words: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr


def test_another_ruleset_than_the_states(
    state: Path, rulesets: dict[str, Ruleset], orders_file: Path
) -> None:
    result = run("rfm8", "scores4", "--checkpoint", state)
    assert (result.exit_code, "belongs to ruleset rfm8-annual" in result.stderr) == (4, True)
    engine = Engine.restore(state, ruleset=rulesets["rfm8-annual"])
    with served(engine) as url:
        result = run("groups3", "scores4", "--worker", url)
    assert (result.exit_code, "the worker's ruleset is rfm8-annual" in result.stderr) == (4, True)
    result = run("rfm8-annual", "scores4", "--checkpoint", state, "--as-of", "1998-01-01")
    assert (result.exit_code, "lies before the clock" in result.stderr) == (2, True)
    result = run("rfm8-annual", "scores4", orders_file, "--as-of", "1998-01-01")
    assert (result.exit_code, "lies before the clock" in result.stderr) == (2, True)
