"""Arrow's JavaScript library reads what rfmstream writes: files of every output, and a worker's snapshot over HTTP."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from served_workers import served

from rfmstream import Engine, Outputs, load_ruleset, replay

SCRIPT = """
import { tableFromIPC } from "apache-arrow";
import { readFileSync } from "node:fs";
const place = process.argv[2];
const source = place.startsWith("http") ? await fetch(place) : readFileSync(place);
const table = await tableFromIPC(source);
const plain = (key, value) => (typeof value === "bigint" ? value.toString() : value);
const names = table.schema.fields.map((field) => field.name);
const rows = [...Array(table.numRows).keys()].map((at) => {
  const row = table.get(at);
  return names.map((name) => row[name]);
});
console.log(JSON.stringify({ names, rows }, plain));
"""

AS_OF_US = 1_798_675_200_000_000
"""2026-12-31."""

ORDERS = """customer_id,order_id,type,occurred_at,amount
ann,o1,paid,2026-01-01T10:00:00Z,250.00
ann,o2,paid,2026-01-02T10:00:00Z,800.00
bob,o3,paid,2026-01-03T10:00:00Z,12.50
cleo,o4,paid,2026-01-04T10:00:00Z,20.00
cleo,o4,cancelled,2026-01-05T10:00:00Z,
nobody,o9,refunded,2026-01-06T10:00:00Z,1.00
"""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Give the command that reads a file or URL."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node.js: Arrow's library for JavaScript cannot be tried")
    folder = tmp_path_factory.mktemp("arrow-js")
    (folder / "package.json").write_text('{"private": true, "dependencies": {"apache-arrow": "^21.0.0"}}')
    installed = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"apache-arrow could not be installed: {installed.stderr.strip()[-200:]}")
    (folder / "read.mjs").write_text(SCRIPT)
    return [node, str(folder / "read.mjs")]


def read(reader: list[str], place: object) -> dict[str, Any]:
    done = subprocess.run([*reader, str(place)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def assert_alike(found: dict[str, Any], table: pa.Table) -> None:
    """Compare names, rows, the nulls of each column and every text."""
    assert found["names"] == table.column_names
    assert len(found["rows"]) == table.num_rows > 0
    for at, name in enumerate(table.column_names):
        column = table[name]
        there = [row[at] for row in found["rows"]]
        assert [value is None for value in there] == column.is_null().to_pylist(), name
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            assert there == column.to_pylist(), name
        elif pa.types.is_integer(kind):
            whole = [None if value is None else int(value) for value in there]
            assert whole == column.to_pylist(), name


def test_files(reader: list[str], tmp_path: Path) -> None:
    orders = tmp_path / "orders.csv"
    orders.write_text(ORDERS)
    files = {name: tmp_path / f"{name}.arrow" for name in ("changes", "snapshot", "rejected", "signals")}
    replay(
        Engine(load_ruleset("rfm8-annual", currency="USD")),
        [orders],
        as_of_us=AS_OF_US,
        outputs=Outputs(**files),
    )
    for name, path in files.items():
        with pa.ipc.open_file(path) as file:
            table = file.read_all()
        if name == "signals" and table.num_rows == 0:
            assert read(reader, path)["names"] == table.column_names
            continue
        assert_alike(read(reader, path), table)


def test_a_snapshot_over_http(reader: list[str], tmp_path: Path) -> None:
    orders = tmp_path / "orders.csv"
    orders.write_text(ORDERS)
    engine = Engine(load_ruleset("rfm8-annual", currency="USD"))
    replay(engine, [orders], as_of_us=AS_OF_US)
    with served(engine) as url:
        found = read(reader, f"{url}/snapshot")
    assert_alike(found, engine.snapshot())
