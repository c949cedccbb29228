"""Rows through an input map of a few lines."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.files.source import open_orders

HEAD = 'name = "test"\n'
IDS = 'customer_id = "c"\norder_id = "o"\n'
EVENT = f'[[event]]\n{IDS}occurred_at = "t"\n'
COLUMNS = {"c": ["x"], "o": ["1"], "t": ["2024-01-02T03:04:05Z"], "a": ["1.50"]}


def run(tmp_path: Path, toml: str, columns: dict, **options: object) -> tuple[list[dict], list[dict]]:
    (tmp_path / "map.toml").write_text(HEAD + toml)
    count = len(next(iter(columns.values())))
    whole = {name: values * count for name, values in COLUMNS.items() if name not in columns} | columns
    pq.write_table(pa.table(whole), tmp_path / "in.parquet")
    stream = open_orders(
        [tmp_path / "in.parquet"], input_map=load_map(tmp_path / "map.toml"), currency="CNY", **options
    )
    good, bad = [], []
    for orders, rejected in stream:
        orders.validate(full=True)
        good += orders.to_pylist()
        bad += rejected.to_pylist()
    return good, bad


def amounts(tmp_path: Path, amount: str, columns: dict) -> list[int | str]:
    """Return minor units or reason of each row, in order of row, all taken as adjustments."""
    good, bad = run(tmp_path, f'{EVENT}type = "adjusted"\namount = {amount}\n', columns)
    found = {row["row"]: row["amount_minor"] for row in good} | {row["row"]: row["reason"] for row in bad}
    return [found[row] for row in sorted(found)]


def texts(tmp_path: Path, value: str, columns: dict) -> list[str | None]:
    """Return what an expression says of each row, seen as its event id."""
    good, bad = run(tmp_path, f'{EVENT}amount = "a"\nevent_id = {value}\n', columns)
    assert bad == []
    return [row["event_id"] for row in good]


def held(tmp_path: Path, condition: str, columns: dict) -> list[int]:
    """Return the rows for which a condition holds."""
    toml = f'[[exclude]]\nwhen = {{ not = {condition} }}\n{EVENT}amount = "a"\n'
    return [row["row"] for row in run(tmp_path, toml, columns)[0]]
