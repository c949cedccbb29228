"""The documents say what the program does: columns, commands, options."""

import re
from collections.abc import Iterable
from pathlib import Path

import click
import pytest

from rfmstream.engine.cli.app import cli
from rfmstream.engine.live.metrics import metrics_reference
from rfmstream.engine.live.settings import reference
from rfmstream.engine.replay.replay import open_engine, replay
from rfmstream.engine.replay.summary import summarise
from rfmstream.schemas.changes import CHANGE_COLUMNS, CHANGE_REASONS
from rfmstream.schemas.columns import Column
from rfmstream.schemas.orders import EXCLUDED_COLUMNS, ORDER_COLUMNS, REJECTED_COLUMNS
from rfmstream.schemas.signals import SIGNAL_COLUMNS, SIGNAL_KINDS
from rfmstream.schemas.snapshots import SNAPSHOT_COLUMNS

ROOT = Path(__file__).resolve().parent.parent
FORMATS = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
LIVE = (ROOT / "docs" / "live.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "columns",
    [
        ORDER_COLUMNS,
        CHANGE_COLUMNS,
        SNAPSHOT_COLUMNS,
        REJECTED_COLUMNS,
        EXCLUDED_COLUMNS,
        SIGNAL_COLUMNS,
    ],
)
def test_every_column_is_described(columns: Iterable[Column]) -> None:
    lines = FORMATS.splitlines()
    for column in columns:
        ending = f"| {'yes' if column.nullable else 'no'} | {column.unit} | {column.description} |"
        assert any(line.startswith(f"| `{column.name}` |") and line.endswith(ending) for line in lines), (
            column.name
        )


def test_every_key_of_the_summary_is_named(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("customer_id,order_id,occurred_at,amount\nann,a1,2026-01-01,1\n")
    told = summarise(replay(open_engine(), [tmp_path / "orders.csv"])).as_dict()
    part = FORMATS.partition("## The summary as JSON")[2].partition("\n## ")[0]
    words = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`[^`]*`", part))))
    inner = [key for value in (told["tiers"][0], *told.values()) if isinstance(value, dict) for key in value]
    assert {*told, *inner} - told["files"].keys() <= words


def test_every_reason_is_named() -> None:
    assert all(f"`{reason}`" in FORMATS for reason in CHANGE_REASONS)


def test_every_kind_of_signal_is_named() -> None:
    assert all(f"`{kind}`" in FORMATS for kind in SIGNAL_KINDS)


def test_every_command_is_shown() -> None:
    assert all(f"rfmstream {name}" in README for name in cli.list_commands(click.Context(cli)))


def test_every_setting_and_metric_of_the_worker_is_listed_as_it_is() -> None:
    assert reference() in LIVE
    assert metrics_reference() in LIVE


def test_links_lead_somewhere() -> None:
    for document in (ROOT / "README.md", ROOT / "docs" / "formats.md", ROOT / "docs" / "live.md"):
        for part in document.read_text(encoding="utf-8").split("](")[1:]:
            target = part.partition(")")[0].partition("#")[0]
            if target and "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"
