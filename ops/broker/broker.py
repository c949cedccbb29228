"""Run Apache Kafka on this machine from its Maven Central artifacts: one KRaft node, loopback only, no Docker.

    broker.py start | stop | status     [--folder .kafka] [--port 9092]

`start` fetches the jars once (Maven), formats the data folder once, starts the broker with Java 17 or newer, and
returns when it answers. All three may be repeated. Where KAFKA_BOOTSTRAP names a cluster of one's own, nothing is
started.
"""

import argparse
import base64
import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
KAFKA_PORT = 9092
HEAP = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC")

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""


class BrokerError(Exception):
    """The broker cannot be fetched, started or stopped; the text is one line for people."""


class Broker:
    """One broker, its folder (jars apart, data, log, pid file) and its port.

    Ports   `port` for clients, and one for the controller: given, or the next one
    Fields  properties   of the broker, beyond ours or in their place
            format_args  more arguments for the tool that formats the data folder
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        controller_port: int | None = None,
        *,
        jars: Path | None = None,
        properties: Mapping[str, str] | None = None,
        format_args: Sequence[str] = (),
    ) -> None:
        self.folder = folder.resolve()
        self.port = port
        self.controller_port = controller_port or port + 1
        self.jars = jars or self.folder / "jars"
        self.data = self.folder / "data"
        self.log = self.folder / "broker.log"
        self.pid_file = self.folder / "broker.pid"
        self.properties = properties or {}
        self.format_args = format_args

    @property
    def bootstrap(self) -> str:
        """Return what a client connects to."""
        return f"127.0.0.1:{self.port}"

    def pid(self) -> int | None:
        """Return the process id of this folder's broker if it runs."""
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        # The number may belong to another process by now: only one that was started with our folder is ours.
        shown = subprocess.run(
            ["ps", "-ww", "-o", "stat=,args=", "-p", str(pid)],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        return pid if str(self.folder) in shown and not shown.startswith("Z") else None

    def start(self) -> bool:
        """Start the broker and wait until it answers; False if it already ran."""
        java = program(
            "java", "install Java 17 or newer; on Debian and Ubuntu: apt install openjdk-17-jre-headless"
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "lock"):
            if self.pid() is not None:
                self.port = self.port_it_has()
                self._wait_until_it_answers()
                return False
            fetch(self.jars)
            if port_in_use(self.port):
                msg = (
                    f"port {self.port} is in use by another program; choose another (make kafka PORT=9192, or --port), "
                    "or stop that program"
                )
                raise BrokerError(msg)
            properties = self.folder / "server.properties"
            # The last line of a name counts.
            properties.write_text(
                PROPERTIES.format(port=self.port, controller_port=self.controller_port, data=self.data)
                + "".join(f"{name}={value}\n" for name, value in self.properties.items())
            )
            command = [java, *HEAP, f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"]
            command += ["-cp", f"{self.jars}{os.sep}*"]
            if not (self.data / "meta.properties").exists():
                self._format(command, properties)
            with self.log.open("ab") as log:
                process = subprocess.Popen(
                    [*command, "kafka.Kafka", str(properties)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C at a terminal is for whoever uses the broker; the broker is stopped by its id.
                    start_new_session=True,
                )
            self.pid_file.write_text(f"{process.pid}\n")
            self._wait_until_it_answers(process)
        return True

    def port_it_has(self) -> int:
        """Return the port of the broker that runs, which may have been started on another than ours."""
        text = (self.folder / "server.properties").read_text()
        found = re.search(r"^listeners=PLAINTEXT://127\.0\.0\.1:(\d+),", text, re.MULTILINE)
        return int(found[1]) if found else self.port

    def stop(self, number: int = signal.SIGTERM) -> bool:
        """Stop the broker and wait until it is gone; False if none ran."""
        pid = self.pid()
        if pid is None:
            self.pid_file.unlink(missing_ok=True)
            return False
        os.kill(pid, number)
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while self._is_there(pid):
            if time.monotonic() > deadline:
                msg = f"the broker (process {pid}) did not stop within {STOP_SECONDS_MAX} s; see {self.log}"
                raise BrokerError(msg)
            time.sleep(0.05)
        self.pid_file.unlink(missing_ok=True)
        return True

    def _is_there(self, pid: int) -> bool:
        # Where we are its parent, its end must be collected before it is gone.
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return self.pid() is not None

    def _format(self, command: list[str], properties: Path) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        done = subprocess.run(
            [
                *command,
                "kafka.tools.StorageTool",
                "format",
                f"--cluster-id={cluster}",
                *("-c", str(properties)),
                *self.format_args,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BrokerError(f"the data folder cannot be formatted: {last_line(done.stdout + done.stderr)}")

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes] | None = None) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not answers(self.port):
            if process is not None and process.poll() is not None:
                self.pid_file.unlink(missing_ok=True)
                raise BrokerError(
                    f"the broker ended at once: {last_line(self.log.read_text())}; see {self.log}"
                )
            if time.monotonic() > deadline:
                raise BrokerError(f"the broker did not answer within {START_SECONDS_MAX} s; see {self.log}")
            time.sleep(0.1)


def program(name: str, fix: str) -> str:
    """Return the path of a program."""
    path = shutil.which(name)
    if path is None:
        raise BrokerError(f"there is no {name}; {fix}, or set KAFKA_BOOTSTRAP to a cluster of your own")
    return path


def fetch(jars: Path) -> None:
    """Let Maven fetch the broker's jars into a folder, once for each pom.xml."""
    stamp = jars / "fetched"
    pom = HERE / "pom.xml"
    if stamp.exists() and stamp.read_bytes() == pom.read_bytes():
        return
    maven = program("mvn", "install Maven; on Debian and Ubuntu: apt install maven")
    jars.mkdir(parents=True, exist_ok=True)
    with locked(jars / "lock"):
        if stamp.exists() and stamp.read_bytes() == pom.read_bytes():
            return
        for old in jars.glob("*.jar"):
            old.unlink()
        done = subprocess.run(
            [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BrokerError(f"Maven could not fetch the broker: {first_error(done.stdout + done.stderr)}")
        stamp.write_bytes(pom.read_bytes())


def answers(port: int) -> bool:
    """Tell whether a broker answers a metadata request (version 1, no topics) and knows itself to be a broker."""
    request = struct.pack(">hhihi", 3, 1, 0, -1, 0)
    try:
        with closing(socket.create_connection(("127.0.0.1", port), timeout=1)) as connection:
            connection.settimeout(2)
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as reply:
                _, _, broker_count = struct.unpack(">iii", reply.read(12))
    except (OSError, struct.error):
        return False
    return bool(broker_count > 0)


def port_in_use(port: int) -> bool:
    """Tell whether somebody listens on a port of this machine."""
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody uses at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes: two test runs may want the jars at once."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def first_error(text: str) -> str:
    """Return the first error Maven names."""
    return next((line for line in text.splitlines() if "ERROR" in line), last_line(text))


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no output")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("command", choices=("start", "stop", "status"))
    parser.add_argument("--folder", type=Path, default=ROOT / ".kafka")
    parser.add_argument("--port", type=int, default=KAFKA_PORT)
    options = parser.parse_args()
    own = os.environ.get("KAFKA_BOOTSTRAP")
    if own:
        print(f"kafka: KAFKA_BOOTSTRAP is {own}: that cluster is used, no broker is started or stopped")
        return 0
    broker = Broker(options.folder, options.port)
    try:
        if options.command == "start":
            started = broker.start()
            print(
                f"kafka: {'answers' if started else 'already runs'} on {broker.bootstrap} (process {broker.pid()})"
            )
        elif options.command == "stop":
            print("kafka: stopped" if broker.stop() else "kafka: no broker runs")
        else:
            pid = broker.pid()
            if pid:
                broker.port = broker.port_it_has()
            print(f"kafka: runs on {broker.bootstrap} (process {pid})" if pid else "kafka: no broker runs")
            return 0 if pid else 1
    except BrokerError as error:
        print(f"kafka: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
