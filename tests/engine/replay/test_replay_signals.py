"""`replay --signals`: every signal of the run in the formats of the changes, and counted in the summary."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from rfmstream.engine.cli.app import cli
from rfmstream.engine.replay.replay import Outputs, open_engine, replay
from rfmstream.engine.replay.summary import summarise
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.ruleset import load_ruleset
from rfmstream.schemas.signals import SIGNAL_SCHEMA

AS_OF_US = 1_780_000_000_000_000  # 2026-05-28, ann is in 001 since 2026-02-05
EXPECTED = [
    ("ann", "orders", "2026-01-01T10:00:00.000000Z", "1", "a1"),
    ("ann", "orders", "2026-01-05T10:00:00.000000Z", "2", "a2"),
    ("bob", "orders", "2026-01-06T10:00:00.000000Z", "1", "b1"),
    ("ann", "dwell", "2026-05-07T00:00:00.000000Z", "", ""),
]


def run(history: Path, out: Path) -> dict[str, object]:
    engine = open_engine(load_ruleset("rfm8"))
    return summarise(replay(engine, [history], as_of_us=AS_OF_US, outputs=Outputs(signals=out))).as_dict()


def test_every_format_says_the_same(history: Path, tmp_path: Path) -> None:
    out = tmp_path / "signals.csv"
    assert run(history, out)["signals"] == {"total": 4, "by_kind": {"orders": 3, "dwell": 1}}
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("customer_id", "kind", "effective_at", "count", "order_id")
    assert [tuple(row[name] for name in names) for row in rows] == EXPECTED
    assert (rows[3]["tier"], rows[3]["days"], rows[3]["view"], rows[3]["holdout"]) == (
        "001",
        "90",
        "rfm8",
        "",
    )
    run(history, tmp_path / "signals.parquet")
    table = pq.read_table(tmp_path / "signals.parquet")
    assert table.schema.names == SIGNAL_SCHEMA.names
    assert table["kind"].to_pylist() == ["orders", "orders", "orders", "dwell"]
    run(history, tmp_path / "signals.jsonl")
    lines = (tmp_path / "signals.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["days"] for line in lines] == [None, None, None, 90]


def test_a_ruleset_without_signals_is_told_so(history: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="asks for no signals"):
        replay(
            open_engine(load_ruleset("scores4")),
            [history],
            outputs=Outputs(signals=tmp_path / "signals.csv"),
        )
    assert list(tmp_path.glob("signals*")) == []


def command(history: Path, *options: object) -> dict[str, Any]:
    words = [str(word) for word in ("replay", history, "--json", *options)]
    result = CliRunner().invoke(cli, words, prog_name="rfmstream")
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def test_the_command_follows_signals_where_something_takes_them(history: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.parquet" for name in ("silent", "told", "views", "views-told")]
    silent = command(history, "--changes", paths[0])
    told = command(history, "--changes", paths[1], "--signals", tmp_path / "signals.parquet")
    kept = command(history, "--checkpoint", tmp_path / "state")
    assert silent["signals"] is None
    assert told["signals"] == kept["signals"]
    assert told["signals"]["total"] == pq.read_metadata(tmp_path / "signals.parquet").num_rows > 0
    views = ("--ruleset", "rfm8", "--ruleset", "rfm8-annual")
    command(history, *views, "--changes", paths[2])
    command(history, *views, "--changes", paths[3], "--signals", tmp_path / "of-views.parquet")
    # What tiers there are, and what the files say of their ruleset, does not depend on it.
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[2].read_bytes() == paths[3].read_bytes()
    assert {name: silent[name] for name in ("tiers", "changes", "fingerprint")} == {
        name: told[name] for name in ("tiers", "changes", "fingerprint")
    }
