"""What docs/input-maps.md shows works, and its table has every shipped map."""

import re
from pathlib import Path

import pytest

from rfmstream.engine.files.mapping import list_maps, load_map
from rfmstream.engine.files.source import open_orders
from rfmstream.engine.live.mapped import check_map
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.mapping import InputFormat

DOCS = Path(__file__).resolve().parents[3] / "docs"
TEXT = (DOCS / "input-maps.md").read_text(encoding="utf-8")
LIVE = re.findall(r"```toml\n(.*?)```", (DOCS / "live.md").read_text(encoding="utf-8"), re.DOTALL)
EXAMPLES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


def test_the_table_has_every_map_and_says_which_read_records() -> None:
    rows = re.findall(r"^\| (`[a-z`, -]+`) \| .*? \| yes \| (yes)? ?\|$", TEXT, re.MULTILINE)
    told = {name: bool(records) for names, records in rows for name in re.findall("`([a-z-]+)`", names)}
    assert set(told) == set(list_maps())
    for name, reads_records in told.items():
        try:
            check_map(load_map(name))
        except ConfigError:
            assert not reads_records, name
        else:
            assert reads_records, name


def test_the_whole_example_reads_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "my-shop.toml").write_text(EXAMPLES[0], encoding="utf-8")
    (tmp_path / "in.csv").write_bytes(
        "email;account;id;state;paid_at;refunded_at;total;voucher;refunded;currency\n"
        "Ann@example.com;;7.0;paid;31.01.2024 10:00;;12,50;2,00;;eur\n"
        "b@example.com;b1;8;shipped;01.02.2024 10:00;02.02.2024 10:00;5;;1,50;EUR\n"
        "QA@example.com;;9;paid;01.02.2024 10:00;;5;;;EUR\n"
        "c@example.com;M\u00fcller;10;open;;;5;;;EUR\n".encode("latin-1")
    )
    stream = open_orders([tmp_path / "in.csv"], input_map=load_map(tmp_path / "my-shop.toml"), currency="EUR")
    batches = list(stream)
    assert [
        (row["customer_id"], row["order_id"], row["type"], row["amount_minor"])
        for orders, _ in batches
        for row in orders.to_pylist()
    ] == [("ann@example.com", "7", 0, 1050), ("b1", "8", 0, 500), ("b1", "8", 1, 150)]
    assert [row["reason"] for _, bad in batches for row in bad.to_pylist()] == ["unknown_type"]
    assert stream.excluded == (("test orders of our own staff", 1),)


def test_every_key_of_input_is_told() -> None:
    section = TEXT[TEXT.index("## Where the rows are") : TEXT.index("## What a row means")]
    told = set(re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE))
    assert told == set(InputFormat.__dataclass_fields__)


@pytest.mark.parametrize(
    "toml", re.findall(r"```toml\n(.*?)```", (DOCS / "live.md").read_text(encoding="utf-8"), re.DOTALL)
)
def test_the_maps_in_the_document_of_the_worker_are_for_records(tmp_path: Path, toml: str) -> None:
    if "[[event]]" in toml:
        (tmp_path / "m.toml").write_text(toml, encoding="utf-8")
        check_map(load_map(tmp_path / "m.toml"))
