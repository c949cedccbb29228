"""Who takes part: how each is installed into a folder of its own, and how it is started."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.process import RFMSTREAM

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[2]
FOLDER: Final = ROOT / ".peers"
_JAVA_OPTIONS: Final = (
    "-Xmx2g",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.time=ALL-UNNAMED",
)


@dataclass(frozen=True)
class Job:
    """What a peer is started with; `folder` is for its state and is empty."""

    bootstrap: str
    orders: str
    changes: str
    partitions: int
    folder: Path
    cores: int

    @property
    def arguments(self) -> list[str]:
        return [self.bootstrap, self.orders, self.changes, str(self.partitions), str(self.folder)]


@dataclass(frozen=True)
class Peer:
    """A participant.

    Fields  version   as it is pinned
            delivery  what it promises after a crash, as it is run here
            ageing    how customers age out
            install   makes it ready, quickly where it is already
            command   what to run
            pauses    whether it can be warmed up and paused; else it is timed from its first output on
    """

    name: str
    version: str
    delivery: str
    ageing: str
    install: Callable[[], None]
    command: Callable[[Job], list[str]]
    pauses: bool = True


def _python_peer(name: str, requirement: str, *also: str, delivery: str, ageing: str) -> Peer:
    folder = FOLDER / name
    python = str(folder / "bin" / "python")
    what = " ".join((requirement, *also))

    def install() -> None:
        if _is_done(folder, what):
            return
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement, *also])
        _done(folder, what)

    def command(job: Job) -> list[str]:
        return [python, str(HERE / f"peer_{name}.py"), *job.arguments]

    return Peer(name, requirement.partition("==")[2], delivery, ageing, install, command)


def _java_peer(name: str, main: str, version: str, *, delivery: str, ageing: str) -> Peer:
    folder = FOLDER / name
    pom = HERE / name / "pom.xml"
    sources = [HERE / "Rfm8.java", HERE / name / f"{main}.java"]

    def install() -> None:
        if not _is_done(folder, pom.read_text()):
            shutil.rmtree(folder, ignore_errors=True)
            fetch = (
                "dependency:copy-dependencies",
                "-DincludeScope=runtime",
                f"-DoutputDirectory={folder / 'jars'}",
            )
            _run(["mvn", "-q", "-B", "-f", str(pom), *fetch])
            _done(folder, pom.read_text())
        _run(["javac", "-cp", f"{folder}/jars/*", "-d", f"{folder}/classes", *map(str, sources)])

    def command(job: Job) -> list[str]:
        classes = f"{folder}/classes:{folder}/jars/*"
        return ["java", *_JAVA_OPTIONS, "-cp", classes, main, *job.arguments, str(job.cores)]

    return Peer(name, version, delivery, ageing, install, command)


def _rfmstream(name: str, clock: str, *, ageing: str, pauses: bool) -> Peer:
    def command(job: Job) -> list[str]:
        outputs = {"changes": job.changes} | {
            each: f"{job.changes}.{each}" for each in ("current", "rejected", "clock", "signals")
        }
        options = {
            "--bootstrap-servers": job.bootstrap,
            "--app-id": f"peer-{name}",
            "--input-topics": job.orders,
            "--ruleset": "rfm8",
            "--clock": clock,
            "--checkpoints": str(job.folder),
            "--threads": str(job.cores),
            "--listen": "off",
            **{f"--{each}-topic": topic for each, topic in outputs.items()},
        }
        return [RFMSTREAM, "worker", *(part for option in options.items() for part in option)]

    return Peer(name, version("rfmstream"), "exactly once", ageing, lambda: None, command, pauses)


PEERS: Final = {
    peer.name: peer
    for peer in (
        _rfmstream(
            "rfmstream", "event", ageing="with the partition's newest order (--clock event)", pauses=True
        ),
        _rfmstream(
            "rfmstream-log",
            "log",
            ageing="with the record time, on an idle topic with the wall clock (--clock log)",
            # Once it has read everything it lives in the present, where the rest of the history would come late.
            pauses=False,
        ),
        _python_peer(
            "faust",
            "faust-streaming[fast]==0.15.3",
            "aiokafka[lz4]",
            delivery="at least once: its exactly_once fails",
            ageing="a timer, with the partition's newest order",
        ),
        _python_peer(
            "quixstreams",
            "quixstreams==3.28.1",
            delivery="exactly once",
            ageing="session windows, only while orders come: there is no timer",
        ),
        _python_peer(
            "bytewax",
            "bytewax[kafka]==0.21.1",
            delivery="at least once: output of an unfinished epoch is repeated",
            ageing="by hand, a partition a key, only while orders come: timers know no event time",
        ),
        _python_peer(
            "pathway",
            "pathway==0.33.0",
            delivery="no persistence: a restart begins anew; exactly once is not in the free edition",
            ageing="by hand, a partition a group, only while orders come: one event clock for all partitions",
        ),
        _java_peer(
            "kafka_streams",
            "PeerKafkaStreams",
            "4.4.0",
            delivery="exactly once (exactly_once_v2)",
            ageing="a punctuator on stream time, only while orders come",
        ),
        _java_peer(
            "flink",
            "PeerFlink",
            "2.3.0, connector 5.0.0",
            delivery="exactly once (a transaction a checkpoint, 1 s)",
            ageing="event-time timers, only while orders come in every partition",
        ),
    )
}


def _is_done(folder: Path, what: str) -> bool:
    stamp = folder / "installed"
    return stamp.exists() and stamp.read_text() == what


def _done(folder: Path, what: str) -> None:
    (folder / "installed").write_text(what)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}")
