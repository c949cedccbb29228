"""`rfmstream state` against a real broker: what is told of an app, a copy that goes on, and an end that is one."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from kafka_cluster import Cluster
from kafka_workers import WorkerProcess, flags_of, real_history, send, worker

from rfmstream.engine.cli.app import cli
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.store import Store
from rfmstream.engine.live.stored import Note

PARTITIONS = 2
ANYWHERE = "127.0.0.1:0"


def state(command: str, flags: Mapping[str, object], *more: str) -> Result:
    named = ("bootstrap_servers", "app_id", "clock_topic", "checkpoints")
    arguments = [f"--{name.replace('_', '-')}={flags[name]}" for name in named]
    return CliRunner().invoke(cli, ["state", command, *arguments, *more])


def told(command: str, flags: Mapping[str, object], *more: str) -> dict[str, Any]:
    done = state(command, flags, "--json", *more)
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def read_to_the_end(process: WorkerProcess) -> None:
    process.wait_for("history read")


def changes_of(cluster: Cluster) -> Counter[tuple[bytes, bytes]]:
    records = asyncio.run(cluster.committed_records(cluster.outputs.changes, range(PARTITIONS)))
    return Counter((record.key, record.value) for record in records)


def test_what_is_told_of_an_app_that_runs(cluster: Cluster, tmp_path: Path) -> None:
    flags = flags_of(cluster, tmp_path / "state", listen=ANYWHERE)
    assert state("status", flags).exit_code == 2
    asyncio.run(cluster.create(cluster.orders, PARTITIONS, retention_ms="-1"))
    asyncio.run(send(cluster, real_history()[:1], PARTITIONS))
    with worker(flags, tmp_path / "log") as process:
        read_to_the_end(process)
        found = told("status", flags)
        assert (found["workers"], found["group"]) == (1, "Stable")
        for number, one in enumerate(found["partitions"]):
            assert (one["topic"], one["partition"]) == (cluster.orders, number)
            assert one["committed"] == one["end"] > 0
            assert one["lag"] == 0
            assert one["committed_by_worker"]
            assert "rfmstream" in one["worker"]
            assert one["notes"] > 0
        apps = {one["app_id"]: one for one in told("list", flags)["apps"]}
        assert apps[cluster.name]["partitions"] == PARTITIONS
        assert apps[cluster.name]["workers"] == 1
        assert cluster.name in state("list", flags).stdout
        assert f"{cluster.orders}-1" in state("status", flags).stdout
        for command, more in (
            ("reset", ["--yes"]),
            ("copy", ["--to-app-id", "x", "--to-checkpoints", str(tmp_path / "x")]),
        ):
            refused = state(command, flags, *more)
            assert refused.exit_code == 4
            assert "a worker of" in refused.output
        process.terminate()
        assert process.exit_code() == 0
    found = told("status", flags)
    assert (found["workers"], found["group"]) == (0, "Empty")
    for one in found["partitions"]:
        assert one["checkpoints"][-1]["offset"] == one["committed"]
        assert one["checkpoints"][-1]["law"].startswith("rfm8-annual[currency=USD] ")


def test_a_copy_of_an_app_that_was_killed_goes_on_as_it_would(cluster: Cluster, tmp_path: Path) -> None:
    batches = real_history()[:2]
    first, rest = [batch.slice(0, batch.num_rows // 2) for batch in batches[:1]], batches
    trial = replace(cluster, name=f"{cluster.name}trial")
    flags = flags_of(cluster, tmp_path / "state", listen=ANYWHERE, checkpoint_interval_s=1)
    # Outputs of its own, and the clock topic of the other.
    copy_flags = flags_of(
        trial,
        tmp_path / "copy",
        input_topics=cluster.orders,
        clock_topic=flags["clock_topic"],
        listen=ANYWHERE,
    )
    asyncio.run(cluster.create(cluster.orders, PARTITIONS, retention_ms="-1"))
    asyncio.run(send(cluster, first, PARTITIONS))
    with worker(flags, tmp_path / "log") as process:
        read_to_the_end(process)
        process.kill()
    asyncio.run(cluster.expel(cluster.name))
    before = changes_of(cluster)
    assert before
    left_out = Note(is_running=True, poison=(3,))
    Store(str(tmp_path / "state"), app_id=cluster.name).note(Source(cluster.orders, 0), left_out)
    more = ("--to-app-id", trial.name, "--to-checkpoints", str(tmp_path / "copy"))
    assert told("copy", flags, *more)["partitions"] == PARTITIONS
    copied_to = Store(str(tmp_path / "copy"), app_id=trial.name)
    assert copied_to.noted(Source(cluster.orders, 0)) == left_out
    for place, app_id in (("state", cluster.name), ("copy", trial.name)):
        # The rest goes on without: the record was read already.
        Store(str(tmp_path / place), app_id=app_id).note(Source(cluster.orders, 0), Note())
    again = state("copy", flags, *more)
    assert again.exit_code == 4
    assert f"there is a state of {trial.name} already" in again.output
    original, copied = told("status", flags), told("status", copy_flags)
    places = [[(one["committed"], one["end"]) for one in each["partitions"]] for each in (original, copied)]
    assert places[0] == places[1]
    asyncio.run(send(cluster, rest, PARTITIONS))
    for each, log in ((flags, "again.log"), (copy_flags, "copy.log")):
        with worker(each, tmp_path / log) as process:
            read_to_the_end(process)
            process.terminate()
            assert process.exit_code() == 0
    after = changes_of(cluster)
    assert after > before
    assert changes_of(trial) == after - before


def test_an_app_begins_anew_after_a_reset(cluster: Cluster, tmp_path: Path) -> None:
    flags = flags_of(cluster, tmp_path / "state", listen=ANYWHERE)
    asyncio.run(cluster.create(cluster.orders, PARTITIONS, retention_ms="-1"))
    asyncio.run(send(cluster, real_history()[:1], PARTITIONS))
    for log in ("first", "second"):
        with worker(flags, tmp_path / log) as process:
            read_to_the_end(process)
            process.terminate()
            assert process.exit_code() == 0, process.log.read_text()
        if log == "first":
            told_once = changes_of(cluster)
            checkpoints = Store(str(tmp_path / "state"), app_id=cluster.name)
            checkpoints.note(Source(cluster.orders, 1), Note(poison=(1,)))
            shown = state("reset", flags)
            assert shown.exit_code == 2
            assert "nothing is dropped yet" in shown.output
            assert told("status", flags)["partitions"][0]["checkpoints"]
            assert told("reset", flags, "--yes")["dropped"]
            assert checkpoints.noted(Source(cluster.orders, 1)) == Note()
            assert state("status", flags).exit_code == 2
            assert state("reset", flags, "--yes").exit_code == 2
    assert changes_of(cluster) == told_once + told_once
    assert "gap" not in process.log.read_text()
