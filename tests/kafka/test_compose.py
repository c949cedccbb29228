"""The compose file makes the broker that `make kafka` starts.

No Docker is needed: what turns an image's environment into a broker's properties is a class of Kafka's own, which
comes with its jars.
"""

import os
import subprocess
from pathlib import Path
from typing import Final

import yaml
from kafka_cluster import ROOT, require_java

from ops.broker import broker

COMPOSE: Final = ROOT / "ops" / "broker" / "compose.yaml"
JARS: Final = ROOT / ".kafka" / "jars"


def properties_of(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if line)


def as_the_image_makes_them(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """Return the properties that Apache's image makes of its environment; it formats the data folder, too."""
    folders = {name: folder / name for name in ("default", "mounted", "final")}
    for each in folders.values():
        each.mkdir()
    for name in ("server.properties", "log4j2.yaml", "tools-log4j2.yaml"):
        (folders["default"] / name).touch()
    arguments = [f"--{name}-configs-dir={path}" for name, path in folders.items()]
    subprocess.run(
        [
            broker.program("java", ""),
            "-cp",
            f"{JARS}{os.sep}*",
            "kafka.docker.KafkaDockerWrapper",
            "setup",
            *arguments,
        ],
        env=environment,
        check=True,
        capture_output=True,
    )
    return properties_of((folders["final"] / "server.properties").read_text())


def test_the_compose_file_makes_our_broker(tmp_path: Path) -> None:
    require_java()
    broker.fetch(JARS)
    [service] = yaml.safe_load(COMPOSE.read_text())["services"].values()
    assert service["image"] == f"apache/kafka:{next(JARS.glob('kafka_2.13-*.jar')).stem.split('-')[1]}"
    assert service["ports"] == ["127.0.0.1:9092:9092"], "reachable from this machine only"
    # In its container the broker listens on every address, and the ports above decide who reaches it.
    settings = {
        name: str(value).replace("PLAINTEXT://:", "PLAINTEXT://127.0.0.1:").replace("localhost", "127.0.0.1")
        for name, value in service["environment"].items()
    }
    data = tmp_path / "data"
    cluster_id = {"CLUSTER_ID": "5L6g3nShT-eMCtK--X86sw", "KAFKA_LOG_DIRS": str(data)}
    made = as_the_image_makes_them(settings | cluster_id, tmp_path)
    assert made == properties_of(broker.PROPERTIES.format(port=9092, controller_port=9093, data=data))
