"""The examples that need no broker do what they say."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import rfmstream
from rfmstream.engine.cli.app import cli

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.rglob("*.py"))


def test_polars() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "tiers_with_polars.py")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "POLARS_FMT_MAX_COLS": "20", "PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stderr
    for words in ("│ cid         ┆ 2026-01-15 10:00:00 UTC ┆ 101       ┆ 100     ┆ refund", "Lapsing VIPs"):
        assert words in done.stdout


def test_a_map_and_a_ruleset() -> None:
    words = [
        *("replay", EXAMPLES / "export.csv", "--map", EXAMPLES / "export-map.toml"),
        *("--ruleset", EXAMPLES / "coffee.toml", "--as-of", "2026-03-01", "--strict", "--json"),
    ]
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    for words_said in ('"excluded": 2', '"applied": 6', '"newcomer"', '"lifetime_revenue_minor": 29650'):
        assert words_said in result.output


def test_a_plan_of_views(tmp_path: Path) -> None:
    words = [
        *("replay", EXAMPLES / "export.csv", "--map", EXAMPLES / "export-map.toml"),
        *("--plan", EXAMPLES / "views.toml", "--currency", "GBP", "--as-of", "2026-03-01", "--json"),
        *("--snapshot", tmp_path / "tiers.csv"),
    ]
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)["views"]
    assert {name: (view["customers"], view["populations"]) for name, view in told.items()} == {
        "shop": (3, None),
        "by-state": (3, 1),
        "next-quarter": (3, None),
    }
    assert (tmp_path / "tiers.shadow-next-quarter.csv").exists()


def test_the_ruleset_is_the_one_the_document_explains() -> None:
    document = (EXAMPLES.parent / "docs" / "rulesets.md").read_text(encoding="utf-8")
    ruleset = (EXAMPLES / "coffee.toml").read_text(encoding="utf-8")
    assert ruleset.partition("\n")[2] in document


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_they_use_the_public_names_alone(script: Path) -> None:
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rfmstream":
            assert node.module == "rfmstream"
            assert {alias.name for alias in node.names} <= set(rfmstream.__all__)
        if isinstance(node, ast.Import):
            assert all("." not in alias.name for alias in node.names if alias.name.startswith("rfmstream"))


def test_each_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    found = [
        path
        for path in EXAMPLES.rglob("*")
        if path.suffix in (".py", ".mjs", ".toml", ".csv") and "node_modules" not in path.parts
    ]
    assert len(found) == 10
    assert all(path.relative_to(EXAMPLES).as_posix() in listed for path in found)
