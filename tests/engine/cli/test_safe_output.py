"""What leaves for people: terminals are not steered, spreadsheets run nothing, a rerun takes no result away."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from rfmstream.engine.cli.app import cli
from rfmstream.engine.cli.tail import _json_line
from rfmstream.engine.core.machine import Machine
from rfmstream.schemas.errors import printable_json

ESCAPES = ("\x1b[31m", "\x9b31m", "\u202e", "\x07", "\x7f", "\U000e0001")
FORMULAS = (
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\uff1d1+1",
    " =1+1",
    '=HYPERLINK("x","y")',
)


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, words)), prog_name="rfmstream")


def orders(path: Path, ids: tuple[str, ...]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["customer_id", "order_id", "occurred_at", "amount"])
        out.writerows([one, one, "2026-01-01", "5"] for one in ids)
    return path


def test_ids_with_escapes_reach_no_terminal(tmp_path: Path) -> None:
    ids = tuple(f"c{escape}x" for escape in ESCAPES)
    source, changes = orders(tmp_path / "o.csv", ids), tmp_path / "changes.jsonl"
    state = tmp_path / "state"
    shown = [run("replay", source, "--changes", changes, "--checkpoint", state).output]
    shown.append(run("replay", source, "--json").output)
    for one in ids:
        shown.append(run("timeline", changes, "--customer", one).output)
        shown.append(run("explain", one, "--changes", changes).output)
        shown.append(run("explain", one, "--checkpoint", state).output)
    shown.append(run("timeline", changes).output)
    assert any("\\x1b" in text for text in shown)
    for text in shown:
        assert not any(escape[0] in text for escape in ESCAPES), text


def test_json_for_a_terminal_is_the_same_json() -> None:
    event = {"customer_id": "".join(ESCAPES) + "\u91cd\u8981", "n": [1, "a\nb"]}
    line = _json_line(event)
    assert json.loads(line) == event
    assert line.isprintable()
    assert "\u91cd" in line
    assert printable_json('{\n"a": 1}') == '{\n"a": 1}'


def test_a_ruleset_whose_texts_steer_a_terminal_is_refused(tmp_path: Path) -> None:
    text = run("rulesets", "show", "rfm8", "--toml").output
    file = tmp_path / "r.toml"
    file.write_text(text.replace('title = "', 'title = "\\u001b[31m', 1))
    result = run("rulesets", "show", file)
    assert result.exit_code == 2
    assert "\x1b" not in result.output


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_csv_safe_guards_what_a_spreadsheet_would_run(tmp_path: Path, suffix: str) -> None:
    plain = ("c1", "-5", "+49123", "-1.5", "a=b", "00042")
    source = orders(tmp_path / "o.csv", FORMULAS + plain)
    out = tmp_path / f"changes{suffix}"
    ids = {}
    for flag in ((), ("--csv-safe",)):
        assert run("replay", source, "--changes", out, *flag).exit_code == 0
        with out.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file)) if suffix == ".csv" else list(map(json.loads, file))
        ids[flag] = {row["customer_id"] for row in rows}
    trimmed = {one.strip() for one in FORMULAS}
    assert ids[()] == trimmed | set(plain)
    guarded = {f"'{one}" for one in trimmed} if suffix == ".csv" else trimmed
    assert ids["--csv-safe",] == guarded | set(plain)


def test_a_rerun_on_a_checkpoint_keeps_what_the_run_before_it_brought(tmp_path: Path) -> None:
    source, state = orders(tmp_path / "o.csv", ("a", "b", "c")), tmp_path / "state"
    for suffix in ("parquet", "arrow", "csv", "jsonl"):
        changes = tmp_path / f"changes.{suffix}"
        folder = tmp_path / f"state-{suffix}"
        assert run("replay", source, "--changes", changes, "--checkpoint", folder).stderr == ""
        before = changes.read_bytes()
        again = run("replay", source, "--changes", changes, "--checkpoint", folder)
        assert again.exit_code == 0
        assert changes.read_bytes() == before
        assert f"{changes} is left as it was, with 3 rows" in again.stderr
        assert [path.name for path in tmp_path.glob(".*.part")] == []
    changes = tmp_path / "changes.parquet"
    assert run("replay", source, "--changes", changes, "--checkpoint", state).exit_code == 0
    more = orders(tmp_path / "more.csv", ("d",))
    fewer = run("replay", more, "--changes", changes, "--checkpoint", state)
    assert fewer.exit_code == 0
    assert f"{changes} had 3 rows, of an earlier run on this checkpoint, and has 1 now" in fewer.stderr
    assert pq.read_metadata(changes).num_rows == 1
    # Without a checkpoint nothing was done before.
    nothing = orders(tmp_path / "nothing.csv", ())
    assert run("replay", nothing, "--changes", changes).stderr == ""
    assert pq.read_metadata(changes).num_rows == 0


def test_a_shortage_of_memory_is_one_line_and_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object) -> None:
        raise MemoryError("malloc of size 274877906944 failed\nand more")

    monkeypatch.setattr(Machine, "_fold", short)
    source, changes = orders(tmp_path / "o.csv", ("a",)), tmp_path / "changes.parquet"
    result = run("replay", source, "--changes", changes, "--checkpoint", tmp_path / "state")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "there is not enough memory (malloc of size 274877906944 failed)" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.csv"]
