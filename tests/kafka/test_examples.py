"""The examples that consume tier changes, and erasure by the topic, against a real broker and worker."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
COMMAND = [sys.executable, "-c", "from rfmstream.engine.cli import main; main()"]
AS_OF = "2027-01-01T00:00:00Z"

Run = Callable[..., subprocess.CompletedProcess[str]]


def checked(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
        command, capture_output=True, text=True, check=False, timeout=900, **options
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def shop(bootstrap: str, tmp_path: Path) -> tuple[dict[str, str], Run]:
    name = f"examples-{uuid.uuid4().hex[:8]}"
    topics = {
        f"RFMSTREAM_{topic.upper()}_TOPIC": f"{name}.{topic}"
        for topic in ("changes", "current", "rejected", "clock", "signals")
    }
    environment = {
        **os.environ,
        "RFMSTREAM_BOOTSTRAP_SERVERS": bootstrap,
        "RFMSTREAM_INPUT_TOPICS": f"{name}.orders",
        "RFMSTREAM_APP_ID": name,
        "RFMSTREAM_CHECKPOINTS": str(tmp_path / "checkpoints"),
        "RFMSTREAM_LISTEN": "off",
        **topics,
    }

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return checked([*COMMAND, *map(str, arguments)], env=environment, cwd=ROOT)

    return environment, run


def produced(run: Run, folder: Path) -> list[dict[str, object]]:
    """Send a little history, let a worker live through it, and return the changes there must be."""
    orders, changes = folder / "orders.parquet", folder / "changes.parquet"
    run("generate", "--customers", 40, "--orders", 300, "--seed", 4, "--days", 90, "--out", orders)
    run("produce", orders, "--partitions", 2)
    run("worker", "--clock", "event", "--until-end", "--as-of", AS_OF)
    run("replay", orders, "--as-of", AS_OF, "--changes", changes)
    return [row for row in pq.read_table(changes).to_pylist() if row["to_tier"] is not None]


def test_the_consumers_act_on_every_change_once(
    shop: tuple[dict[str, str], Run], tmp_path: Path, bootstrap: str
) -> None:
    environment, run = shop
    expected = sorted(
        f"{row['customer_id']} {row['from_tier']} -> {row['to_tier']}" for row in produced(run, tmp_path)
    )
    options = ["--bootstrap-servers", bootstrap, "--topic", environment["RFMSTREAM_CHANGES_TOPIC"]]
    consumer = [sys.executable, str(EXAMPLES / "act_on_changes.py"), *options, "--idle-ms", "8000"]
    group = f"g-{uuid.uuid4().hex[:8]}"
    said = checked([*consumer, "--group", group, "--include-replay"], cwd=ROOT).stdout.splitlines()
    assert sorted(line.partition(":")[0] for line in said) == expected
    assert checked([*consumer, "--group", group, "--include-replay"], cwd=ROOT).stdout == ""
    # History is left alone unless it is asked for.
    assert checked([*consumer, "--group", f"{group}-live"], cwd=ROOT).stdout == ""

    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("the JavaScript consumer needs Node.js")
    folder = tmp_path / "consumer-js"
    shutil.copytree(EXAMPLES / "consumer-js", folder)
    installed = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True, check=False
    )
    if installed.returncode != 0:
        pytest.skip("kafkajs cannot be installed here")
    said = checked(
        [
            node,
            "act-on-changes.mjs",
            *options,
            "--group",
            f"{group}-js",
            "--include-replay",
            "--idle-ms",
            "15000",
        ],
        cwd=folder,
    ).stdout.splitlines()
    assert sorted(line.partition(":")[0].replace("null", "None") for line in said) == expected


def test_customers_are_erased_by_the_topic(shop: tuple[dict[str, str], Run], tmp_path: Path) -> None:
    environment, run = shop
    changes = produced(run, tmp_path)
    gone = sorted({str(row["customer_id"]) for row in changes})[:3]
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(gone))
    sent = run("erase", "--ids", ids, "--topic", environment["RFMSTREAM_INPUT_TOPICS"])
    assert "3 events of type erased sent" in sent.stdout
    run("worker", "--clock", "event", "--until-end", "--as-of", "2027-02-01T00:00:00Z")
    lines = run("tail", "--from-beginning", "--until-end", "--json").stdout.splitlines()
    erased = [row for row in map(json.loads, lines) if row["reason"] == "erased"]
    assert sorted(row["customer_id"] for row in erased) == gone
    assert {row["to_tier"] for row in erased} == {None}
    out = tmp_path / "tiers.parquet"
    run(
        *("snapshot", "--checkpoint", tmp_path / "checkpoints", "--app-id", environment["RFMSTREAM_APP_ID"]),
        *("--out", out),
    )
    assert not set(gone) & set(pq.read_table(out)["customer_id"].to_pylist())
