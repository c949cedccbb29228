"""A worker, produce and tail where the brokers want TLS, logins and rights: what suffices, and what is said."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from aiokafka import ConsumerRecord
from click.testing import CliRunner, Result
from kafka_cluster import ROOT, Cluster, require_java
from kafka_logs import records_read, retold, wait_until
from kafka_secured import (
    CERTIFIED,
    HOST,
    OTHER_NAME,
    Right,
    Secured,
    rights_of_a_worker,
    rights_of_produce,
    secured_broker,
)
from kafka_workers import (
    WorkerProcess,
    assert_is_the_replay,
    flags_of,
    replayed,
    send,
    values_of,
    worker,
)
from real_orders import packaged

from rfmstream.engine.cli.app import cli
from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.files.source import open_orders
from rfmstream.engine.live.config import load_client_config
from rfmstream.engine.live.kafka.topics import prepare_topics
from rfmstream.schemas.errors import ConfigError

COMMAND = [sys.executable, "-c", "from rfmstream.engine.cli import main; main()"]
PARTITIONS = 2
LINES = 3000
AS_OF = "2000-01-01T00:00:00Z"
AS_OF_US = 946_684_800_000_000
LINE = "rfmstream: "
ANYWHERE = "127.0.0.1:0"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    require_java()
    found = secured_broker(tmp_path_factory.mktemp("secured") / "broker")
    found.broker.start()
    asyncio.run(found.settle())
    yield found
    found.broker.stop()
    shutil.rmtree(found.folder)


@pytest.fixture
def cluster(secured: Secured) -> Cluster:
    """Give topics of a test's own, reached through the open door."""
    return Cluster(secured.broker.bootstrap, f"s{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="module")
def purchases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the beginning of CDNOW's purchases."""
    path = tmp_path_factory.mktemp("purchases") / "CDNOW.txt"
    with packaged("lifetimes", "CDNOW_master.txt").open() as lines:
        path.write_text("".join(islice(lines, LINES)))
    return path


@pytest.fixture(scope="module")
def history(purchases: Path) -> list[pa.RecordBatch]:
    return [batch for batch, _ in open_orders([purchases], input_map=load_map("cdnow"), currency="USD")]


def run(*arguments: object, flags: Mapping[str, object], environment: Mapping[str, str]) -> Result:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    return CliRunner(env=environment).invoke(cli, [*map(str, arguments), *options], prog_name="rfmstream")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_history_goes_through_with_the_rights_that_are_documented(
    secured: Secured,
    cluster: Cluster,
    purchases: Path,
    history: list[pa.RecordBatch],
    tmp_path: Path,
    *,
    mechanism: str,
) -> None:
    outputs = cluster.outputs
    asyncio.run(secured.grant("till", rights_of_produce(cluster.orders)))
    asyncio.run(secured.grant("shop", rights_of_a_worker(cluster)))
    asyncio.run(secured.grant("desk", [Right("Read", "topic", outputs.changes)]))
    secret = tmp_path / "password"
    secret.write_text(f"{secured.passwords['till']}\n")
    produced = run(
        *("produce", purchases, "--map", "cdnow", "--currency", "USD"),
        *("--topic", cluster.orders, "--partitions", PARTITIONS),
        flags=secured.flags("till", sasl_mechanism=mechanism),
        environment={"RFMSTREAM_SASL_PASSWORD_FILE": str(secret)},
    )
    assert produced.exit_code == 0, produced.output
    flags = flags_of(cluster, tmp_path / "state") | secured.flags("shop", sasl_mechanism=mechanism)
    settings = {name: str(value) for name, value in (flags | {"clock": "event", "as_of": AS_OF}).items()}
    worked = subprocess.run(
        # The most that a log can hold.
        [*COMMAND, "worker", "--until-end", "--log-level", "debug"],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            **{f"RFMSTREAM_{name.upper()}": value for name, value in settings.items()},
            **secured.password("shop"),
        },
        cwd=ROOT,
    )
    assert worked.returncode == 0, worked.stderr
    tail = run(
        *("tail", "--from-beginning", "--until-end", "--json", "--changes-topic", outputs.changes),
        flags=secured.flags("desk", sasl_mechanism=mechanism),
        environment=secured.password("desk"),
    )
    assert tail.exit_code == 0, tail.output
    expected = values_of(replayed(history, AS_OF_US))
    assert_is_the_replay(cluster, PARTITIONS, expected)
    assert sorted(map(orjson.loads, tail.stdout.splitlines()), key=str) == sorted(
        map(orjson.loads, expected.elements()), key=str
    )
    helped = run("worker", "--help", flags={}, environment=secured.password("shop"))
    said = produced.output + worked.stdout + worked.stderr + tail.output + helped.output
    assert not [user for user, password in secured.passwords.items() if password in said]


def test_a_certificate_instead_of_a_password(
    secured: Secured, cluster: Cluster, history: list[pa.RecordBatch], tmp_path: Path
) -> None:
    certificate = secured.folder / "client.pem"
    flags = flags_of(cluster, tmp_path / "state", clock="event", until_end=True, as_of=AS_OF)
    flags |= {
        "bootstrap_servers": secured.mutual,
        "security_protocol": "ssl",
        "tls_ca_file": secured.folder / "ca.pem",
    }

    async def prepare() -> None:
        await cluster.create(cluster.orders, PARTITIONS, retention_ms="-1")
        await send(cluster, history, PARTITIONS)
        await secured.grant(CERTIFIED, rights_of_a_worker(cluster))

    asyncio.run(prepare())
    with worker(flags, tmp_path / "nothing shown") as process:
        assert process.exit_code() == 2, process.log.read_text()
    assert "tls_cert_file: " in only_line(process.log)
    with worker({**flags, "tls_cert_file": certificate}, tmp_path / "shown") as process:
        assert process.exit_code() == 0, process.log.read_text()
    assert_is_the_replay(cluster, PARTITIONS, values_of(replayed(history, AS_OF_US)))


def lacking(cluster: Cluster) -> dict[str, tuple[Right, str]]:
    """Return rights of a worker, and what is said where one of them is lacking."""
    orders, outputs, group = cluster.orders, cluster.outputs, cluster.name
    begin = f"{group}/"
    return {
        "input": (Right("Read", "topic", orders), f"there is no topic {orders} that the user may see"),
        "clock, read": (Right("Read", "topic", outputs.clock), f"grant Read on the topic {outputs.clock}"),
        "clock, written": (
            Right("Write", "topic", outputs.clock),
            f"grant Write on the topic {outputs.clock}",
        ),
        "changes": (Right("Write", "topic", outputs.changes), f"grant Write on the topic {outputs.changes}"),
        "current": (Right("Write", "topic", outputs.current), f"grant Write on the topic {outputs.current}"),
        "rejected": (
            Right("Write", "topic", outputs.rejected),
            f"grant Write on the topic {outputs.rejected}",
        ),
        "signals": (Right("Write", "topic", outputs.signals), f"grant Write on the topic {outputs.signals}"),
        "creation": (Right("Create", "topic", outputs.current), f"may not create topic {outputs.current};"),
        "group": (Right("Read", "group", group), f"grant Read on the group {group}"),
        "transactions": (
            Right("Write", "transactional id", begin),
            f"grant Write on the transactional ids that begin with {begin}",
        ),
    }


def grant_all_but(secured: Secured, cluster: Cluster, which: str) -> str:
    """Make topics, grant what a worker needs but for one right, and return what is to be said of it."""
    right, said = lacking(cluster)[which]
    rights, outputs = rights_of_a_worker(cluster), cluster.outputs
    assert right in rights

    async def prepare() -> None:
        made = (outputs.changes, outputs.current, outputs.rejected, outputs.clock, outputs.signals)
        for topic in [cluster.orders, *(made if which != "creation" else ())]:
            await cluster.create(topic, PARTITIONS)
        await secured.grant("shop", rights - {right})

    asyncio.run(prepare())
    return said


@pytest.mark.parametrize("which", lacking(Cluster("", "")))
def test_rights_are_looked_at_first(which: str, secured: Secured, cluster: Cluster) -> None:
    said = grant_all_but(secured, cluster, which)
    config = cluster.config(
        client=load_client_config(secured.flags("shop"), environment=secured.password("shop"))
    )
    with pytest.raises(ConfigError) as raised:
        asyncio.run(prepare_topics(config))
    assert said in str(raised.value)


@pytest.mark.parametrize("which", ["changes", "group", "transactions"])
def test_a_worker_that_lacks_one_right_names_it(
    which: str, secured: Secured, cluster: Cluster, tmp_path: Path
) -> None:
    said = grant_all_but(secured, cluster, which)
    flags = flags_of(cluster, tmp_path / "state") | secured.flags("shop")
    with worker(flags, tmp_path / "log", secured.password("shop")) as process:
        assert process.exit_code() == 2, process.log.read_text()
    assert said in only_line(process.log)


@pytest.mark.parametrize("which", ["group", "transactions"])
def test_to_see_a_group_or_transactions_is_not_enough(
    which: str, secured: Secured, cluster: Cluster, tmp_path: Path
) -> None:
    said = grant_all_but(secured, cluster, which)
    right, _ = lacking(cluster)[which]
    asyncio.run(secured.grant("shop", [right._replace(operation="Describe")]))
    flags = flags_of(cluster, tmp_path / "state") | secured.flags("shop")
    with worker(flags, tmp_path / "log", secured.password("shop")) as process:
        assert process.exit_code() == 2, process.log.read_text()
    assert said in only_line(process.log)
    assert "worker starts" not in process.log.read_text(), "before anything was read"


TAKEN_AWAY = ["input", "changes", "current", "rejected", "group", "transactions"]


@pytest.mark.deep
@pytest.mark.parametrize("which", TAKEN_AWAY)
def test_a_worker_whose_right_is_taken_away_names_it_and_goes_on_once_it_is_back(
    which: str, secured: Secured, cluster: Cluster, history: list[pa.RecordBatch], tmp_path: Path
) -> None:
    right, said = lacking(cluster)[which]
    if which == "input":
        said = f"grant Read on the topic {cluster.orders}"
    orders = pa.Table.from_batches(history).combine_chunks()
    halves = [orders.slice(at, LINES // 2).to_batches() for at in (0, LINES // 2)]
    malformed = [(number, None, b"not an order") for number in range(PARTITIONS)]

    async def prepare() -> None:
        await cluster.create(cluster.orders, PARTITIONS, retention_ms="-1")
        await send(cluster, halves[0], PARTITIONS)
        await secured.grant("shop", rights_of_a_worker(cluster))

    async def go_on() -> None:
        await secured.revoke("shop", [right])
        await cluster.send(malformed)
        await send(cluster, halves[1], PARTITIONS)

    asyncio.run(prepare())
    flags = flags_of(cluster, tmp_path / "state", clock="event", listen=ANYWHERE) | secured.flags("shop")
    with worker(flags, tmp_path / "log", secured.password("shop")) as process:
        wait_until(lambda: records_read(process) == LINES // 2, process)
        asyncio.run(go_on())
        assert process.exit_code() == 2, process.log.read_text()
    # The client may have said so before, in lines of its own.
    line = process.log.read_text().splitlines()[-1]
    assert line.startswith(LINE)
    assert line.endswith(said)
    assert "Traceback" not in process.log.read_text()
    asyncio.run(secured.grant("shop", [right]))
    last = {**flags, "until_end": True, "as_of": AS_OF}
    with worker(last, tmp_path / "last", secured.password("shop")) as process:
        assert process.exit_code() == 0, process.log.read_text()
    assert_is_the_replay(cluster, PARTITIONS, values_of(replayed(history, AS_OF_US)))
    rejected = asyncio.run(cluster.committed_records(cluster.outputs.rejected, range(PARTITIONS)))
    assert [record.value for record in rejected] == [b"not an order"] * PARTITIONS


@pytest.mark.deep
def test_a_worker_that_may_no_longer_note_the_time_names_the_right(
    secured: Secured, cluster: Cluster, history: list[pa.RecordBatch], tmp_path: Path
) -> None:
    right, said = lacking(cluster)["clock, written"]
    flags = flags_of(cluster, tmp_path / "state") | secured.flags("shop")
    asyncio.run(cluster.create(cluster.orders, PARTITIONS, retention_ms="-1"))
    asyncio.run(secured.grant("shop", rights_of_a_worker(cluster)))
    log = tmp_path / "log"
    with worker(flags, log, secured.password("shop")) as process:
        wait_until(lambda: has_recovered(process), process)
        asyncio.run(secured.revoke("shop", [right]))
        # Once it has been through them, it has to note that time has passed since.
        asyncio.run(send(cluster, history, PARTITIONS))
        assert process.exit_code() == 2, process.log.read_text()
    assert log.read_text().splitlines()[-1].endswith(said)
    asyncio.run(secured.grant("shop", [right]))
    everything = replayed(history, time.time_ns() // 1000).num_rows
    with worker(flags, tmp_path / "last", secured.password("shop")) as process:
        wait_until(lambda: len(told(cluster)) == everything, process)
        process.terminate()
        assert process.exit_code() == 0, process.log.read_text()
    assert_is_the_replay(cluster, PARTITIONS, asyncio.run(retold(cluster, PARTITIONS)))


@pytest.mark.deep
def test_the_right_to_read_the_clock_topic_matters_when_partitions_are_taken_over(
    secured: Secured, cluster: Cluster, history: list[pa.RecordBatch], tmp_path: Path
) -> None:
    right, said = lacking(cluster)["clock, read"]
    flags = flags_of(cluster, tmp_path / "state", clock="event", listen=ANYWHERE) | secured.flags("shop")
    asyncio.run(cluster.create(cluster.orders, PARTITIONS, retention_ms="-1"))
    asyncio.run(secured.grant("shop", rights_of_a_worker(cluster)))
    with worker(flags, tmp_path / "log", secured.password("shop")) as process:
        wait_until(lambda: has_recovered(process), process)
        asyncio.run(secured.revoke("shop", [right]))
        asyncio.run(send(cluster, history, PARTITIONS))
        wait_until(lambda: records_read(process) == sum(batch.num_rows for batch in history), process)
        process.terminate()
        assert process.exit_code() == 0, process.log.read_text()
    with worker(flags, tmp_path / "again", secured.password("shop")) as process:
        assert process.exit_code() == 2, process.log.read_text()
    assert said in only_line(process.log)


def has_recovered(process: WorkerProcess) -> bool:
    """Return whether a worker reads all partitions."""
    return process.log.exists() and process.log.read_text().count("partition recovered") == PARTITIONS


def told(cluster: Cluster) -> list[ConsumerRecord]:
    return asyncio.run(cluster.committed_records(cluster.outputs.changes, range(PARTITIONS)))


def test_a_stranger_is_told_what_to_grant(
    secured: Secured, cluster: Cluster, purchases: Path, tmp_path: Path
) -> None:
    asyncio.run(cluster.create(cluster.orders, PARTITIONS))
    orders, flags = cluster.orders, secured.flags("stranger")
    with worker(
        flags_of(cluster, tmp_path) | flags, tmp_path / "log", secured.password("stranger")
    ) as process:
        assert process.exit_code() == 2, process.log.read_text()
    assert f"there is no topic {orders} that the user may see; " in only_line(process.log)
    tail = run("tail", "--changes-topic", orders, flags=flags, environment=secured.password("stranger"))
    assert f"grant Read on the topic {orders}" in complaint(secured, tail)
    produce = ("produce", purchases, "--map", "cdnow", "--topic", orders)
    sent = run(*produce, flags=flags, environment=secured.password("stranger"))
    assert f"grant Write on the topic {orders}" in complaint(secured, sent)
    asyncio.run(secured.grant("stranger", [Right("Write", "topic", f"{orders}.new")]))
    new = (*produce[:-1], f"{orders}.new", "--partitions", 1)
    sent = run(*new, flags=flags, environment=secured.password("stranger"))
    assert f"grant Create on the topic {orders}.new" in complaint(secured, sent)


TROUBLE = {
    "a wrong password": (
        {},
        {"RFMSTREAM_SASL_PASSWORD": "open sesame"},
        "refused the login; check user, password",
    ),
    "a wrong password, scrambled": (
        {"sasl_mechanism": "SCRAM-SHA-512"},
        {"RFMSTREAM_SASL_PASSWORD": "open sesame"},
        "refused the login; check user, password",
    ),
    "an unknown user": ({"sasl_username": "nobody"}, {}, "sasl_username: "),
    "another mechanism": ({"sasl_mechanism": "SCRAM-SHA-256"}, {}, "sasl_mechanism"),
    "an authority that is not the system's": ({"tls_ca_file": None}, {}, "tls_ca_file: "),
    "another authority": ({"tls_ca_file": "other-ca.pem"}, {}, "tls_ca_file: "),
    "no certificates in the file": (
        {"tls_ca_file": "client.pem.txt"},
        {},
        "client.pem.txt: the TLS files cannot be",
    ),
    "no such file": ({"tls_ca_file": "absent.pem"}, {}, "--tls-ca-file: "),
    "another name": ({"bootstrap_servers": OTHER_NAME}, {}, f"not valid for '{OTHER_NAME}'"),
}


@pytest.mark.parametrize("what", TROUBLE)
def test_what_tail_says_where_it_is_not_let_in(what: str, secured: Secured) -> None:
    changed, environment, said = TROUBLE[what]
    (secured.folder / "client.pem.txt").write_text("This is no certificate.\n")
    flags = secured.flags("shop") | changed
    if flags["tls_ca_file"] is None:
        del flags["tls_ca_file"]
    else:
        flags["tls_ca_file"] = secured.folder / str(flags["tls_ca_file"])
    if flags["bootstrap_servers"] == OTHER_NAME:
        flags["bootstrap_servers"] = secured.login.replace(HOST, OTHER_NAME)
    tail = run("tail", flags=flags, environment={**secured.password("shop"), **environment})
    assert said in complaint(secured, tail)


def test_names_that_certificates_lack_can_be_passed_over(secured: Secured, cluster: Cluster) -> None:
    topic = cluster.outputs.changes
    asyncio.run(cluster.create(topic, 1))
    asyncio.run(secured.grant("desk", [Right("Read", "topic", topic)]))
    flags = secured.flags("desk", bootstrap_servers=secured.login.replace(HOST, OTHER_NAME))
    tail = ("tail", "--until-end", "--changes-topic", topic, "--no-tls-check-hostname")
    assert run(*tail, flags=flags, environment=secured.password("desk")).exit_code == 0


def test_a_worker_with_a_wrong_password_gives_up(secured: Secured, cluster: Cluster, tmp_path: Path) -> None:
    flags = flags_of(cluster, tmp_path / "state") | secured.flags("shop")
    with worker(flags, tmp_path / "log", {"RFMSTREAM_SASL_PASSWORD": "open sesame"}) as process:
        assert process.exit_code() == 2, process.log.read_text()
    assert "sasl_username: " in only_line(process.log)


def complaint(secured: Secured, done: Result) -> str:
    """Return the one line that a command ends with."""
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    [line] = done.stderr.splitlines()
    assert line.startswith(LINE)
    assert not [user for user, password in secured.passwords.items() if password in line]
    return line


def only_line(log: Path) -> str:
    """Return the line that a worker ends with; what comes before is no complaint."""
    *before, last = log.read_text().splitlines()
    assert last.startswith(LINE), log.read_text()
    assert all(" INFO " in line for line in before), log.read_text()
    return last
