"""A broker for the tests: one of KAFKA_BOOTSTRAP, or a real one of our own, shared by all processes of a test run."""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka_cluster import ROOT, Broker, Cluster, free_ports, require_java


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    own = os.environ.get("KAFKA_BOOTSTRAP")
    if own:
        yield own
        return
    require_java()
    # All workers of pytest-xdist use one broker: the first to come starts it, the last to go stops it.
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    place = folder / "broker"
    place.mkdir(exist_ok=True)
    ports, users = place / "ports", place / "users"
    with locked(place):
        if not ports.exists():
            ports.write_text(" ".join(map(str, free_ports(2))))
        port, controller_port = map(int, ports.read_text().split())
        broker = Broker(place, port, controller_port, jars=ROOT / ".kafka" / "jars")
        broker.start()
        users.write_text(str(count(users) + 1))
    yield broker.bootstrap
    with locked(place):
        users.write_text(str(count(users) - 1))
        if count(users) == 0:
            broker.stop()
            shutil.rmtree(broker.data, ignore_errors=True)


@pytest.fixture
def cluster(bootstrap: str) -> Cluster:
    return Cluster(bootstrap, f"t{uuid.uuid4().hex[:8]}")


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """Give a broker that the test may stop, kill and start again."""
    require_java()
    broker = Broker(tmp_path / "broker", *free_ports(2), jars=ROOT / ".kafka" / "jars")
    broker.start()
    yield broker
    broker.stop()
    shutil.rmtree(broker.data, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    with (folder / "users.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def count(users: Path) -> int:
    return int(users.read_text()) if users.exists() else 0
