"""The alarms of ops/prometheus, fired by a real Prometheus that asks a real worker."""

import asyncio
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import orjson
import pytest
from kafka_cluster import ROOT, Cluster, free_ports
from kafka_logs import Sent, metrics_of, send_records, wait_until
from kafka_workers import WorkerProcess, flags_of, worker

RULES = ROOT / "ops" / "prometheus" / "rules.yaml"
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: rfmstream-worker
    static_configs: [{{targets: ["{target}"]}}]
"""


def order(number: int, currency: str) -> bytes:
    return orjson.dumps(
        {
            "customer_id": f"c{number}",
            "order_id": f"o{number}",
            "occurred_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "amount": "1.00",
            "currency": currency,
        }
    )


def asked(port: int, path: str) -> Any:  # noqa: ANN401 - JSON
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=10) as answer:
        return json.load(answer)["data"]


def firing(port: int) -> set[str]:
    try:
        alerts = asked(port, "alerts")["alerts"]
    except OSError:
        return set()
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def has_been_asked(port: int, query: str) -> bool:
    try:
        return bool(asked(port, f"query?query={query}")["result"])
    except OSError:
        return False


def status_of(process: WorkerProcess) -> str:
    log = process.log.read_text()
    return log[log.rindex("status=http://") + len("status=http://") :].split()[0]


def test_a_first_burst_of_rejects_fires_and_nothing_else_does(cluster: Cluster, tmp_path: Path) -> None:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("there is no Prometheus: on Debian and Ubuntu: apt install prometheus")
    [port] = free_ports(1)
    asyncio.run(cluster.create(cluster.orders, 2))
    with worker(flags_of(cluster, tmp_path / "state", listen="127.0.0.1:0"), tmp_path / "log") as process:
        process.wait_for("history read")
        config = tmp_path / "prometheus.yaml"
        config.write_text(CONFIG.format(rules=RULES, target=status_of(process)))
        command = [
            prometheus,
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            # Well, at first: every reason is there at 0, and an order that is right moves none.
            asyncio.run(send_records(cluster, [Sent(0, order(1, "USD"), b"c1")]))
            wait_until(lambda: metrics_of(process)["rfmstream_orders_applied_total"].total() == 1, process)
            wait_until(lambda: has_been_asked(port, "rfmstream_orders_applied_total==1"), process)
            assert firing(port) == set()
            wrong = [Sent(0, order(number, "EUR"), b"c2") for number in range(50)]
            asyncio.run(send_records(cluster, wrong))
            wait_until(lambda: firing(port) != set(), process)
            assert firing(port) == {"RfmstreamRejects"}
            # A worker that is gone is told after five minutes, and is pending before.
            process.terminate()
            assert process.exit_code() == 0
        finally:
            server.terminate()
            server.wait()
