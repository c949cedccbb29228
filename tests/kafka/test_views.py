"""Several views of a worker on a real broker: each tells what a replay of its own tells, whatever happens."""

import asyncio
import json
import shutil
import zlib
from collections import Counter
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from kafka_cluster import Cluster
from kafka_logs import Sent, send_records, wait_until, written
from kafka_workers import flags_of, worker

from rfmstream.engine.core.views import Views
from rfmstream.engine.events.instants import to_text
from rfmstream.engine.live.encode import Encoder
from rfmstream.schemas.plan import Plan
from rfmstream.schemas.plan_file import load_plan

PARTITIONS = 3
BEGIN_US = 1_700_000_000_000_000
DAY_US = 86_400_000_000
AS_OF = "2026-06-01T00:00:00Z"
PLAN = """
[[view]]
name = "all"
ruleset = "rfm8-annual"

[[view]]
name = "hk"
ruleset = "types7"
where = { store = ["hk"] }

[[view]]
name = "by-store"
ruleset = "scores4"
per = "store"

[[view]]
name = "next"
ruleset = "types7"
shadow = true
"""


def history(count: int) -> list[dict[str, Any]]:
    """Orders of two years, in order of time; a few say no store, and one is damaged."""
    random = Random(7)  # noqa: S311 - no secret
    rows = []
    for n in range(count):
        row = {
            "customer_id": f"customer-{random.randrange(count // 20)}",
            "order_id": f"order-{n}",
            "occurred_at": to_text(BEGIN_US + n * 700 * DAY_US // count),
            "amount_minor": random.choice([100, 40_000, 150_000]),
            "store": random.choice(["hk", "tw", "hk", "hk", None]),
        }
        if n % 400 == 399:
            row["amount_minor"] = -5
        rows.append(row)
    return rows


def sent(rows: list[dict[str, Any]]) -> list[Sent]:
    """Return rows as records of each form that can say an attribute."""
    records = []
    for n, row in enumerate(rows):
        key = row["customer_id"].encode()
        partition = zlib.crc32(key) % PARTITIONS
        said = {name: value for name, value in row.items() if value is not None}
        store = said.pop("store", None)
        if n % 3 == 0:
            value, headers = orjson.dumps(said), [("ce_store", store.encode())] if store else []
        elif n % 3 == 1:
            table = pa.RecordBatch.from_pylist([row])
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_batch(table)
            value, headers = sink.getvalue().to_pybytes(), []
        else:
            value, headers = orjson.dumps(said | ({"store": store} if store else {})), []
        records.append(Sent(partition, value, key, headers, BEGIN_US // 1000))
    return records


def replayed(plan: Plan, rows: list[dict[str, Any]]) -> dict[str, Counter[bytes | None]]:
    """Return what each view tells by itself, as the values of its records."""
    found = {}
    for view in plan.views:
        alone = Views(Plan((view,)))
        result = alone.step(pa.Table.from_pylist(rows))
        tables = [result.views[view.name].changes, alone.advance(AS_OF).views[view.name].changes]
        encoder = Encoder(view.ruleset, source="/test")
        found[view.name] = Counter(record.value for table in tables for record in encoder.changes(table))
    return found


def by_view(records: list[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for record in records:
        found.setdefault(json.loads(record.value)["view"], []).append(record)
    return found


def test_each_view_tells_what_its_replay_tells(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "views.toml"
    path.write_text(PLAN)
    flags = {**flags_of(cluster, tmp_path / "state", clock="event", plan=path), "currency": None}
    del flags["ruleset"]
    flags["shadow_topic"] = shadow_topic = f"{cluster.name}.shadow"
    asyncio.run(cluster.create(cluster.orders, PARTITIONS, retention_ms="-1"))
    rows = history(4_000)
    plan = load_plan(path)
    asyncio.run(send_records(cluster, sent(rows[:2_500])))
    # Killed at some place in the middle; then all of its state is lost, and everything is applied again in silence.
    with worker(flags, tmp_path / "killed") as process:
        wait_until(lambda: asyncio.run(written(cluster, cluster.outputs.changes, PARTITIONS)) > 0, process)
        process.kill()
    shutil.rmtree(tmp_path / "state", ignore_errors=True)
    with worker({**flags, "until_end": True}, tmp_path / "half") as process:
        assert process.exit_code() == 0, process.log.read_text()
    asyncio.run(send_records(cluster, sent(rows[2_500:])))
    with worker({**flags, "until_end": True, "as_of": AS_OF}, tmp_path / "rest") as process:
        assert process.exit_code() == 0, process.log.read_text()

    def read(topic: str) -> list[Any]:
        return asyncio.run(cluster.committed_records(topic, range(PARTITIONS)))

    changes, expected = read(cluster.outputs.changes), replayed(plan, rows)
    told = by_view(changes) | by_view(read(shadow_topic))
    assert set(by_view(changes)) == {"all", "hk", "by-store"}
    assert {view: Counter(each.value for each in records) for view, records in told.items()} == expected
    ids = Counter((dict(record.headers)["ce_source"], dict(record.headers)["ce_id"]) for record in changes)
    assert set(ids.values()) == {1}
    newest = {}
    for record in changes:
        data = json.loads(record.value)
        assert record.key == data["customer_id"].encode()
        newest[data["view"], data["population"], data["customer_id"]] = record.value
    current = {tuple(json.loads(record.key)): record.value for record in read(cluster.outputs.current)}
    assert current == newest
    signals = by_view(read(cluster.outputs.signals))
    assert set(signals) <= {"all", "hk", "by-store"}
    assert signals
    rejected = Counter(
        (dict(record.headers)["rfm-reason"], dict(record.headers)["rfm-views"])
        for record in read(cluster.outputs.rejected)
    )
    bad = [row for row in rows if row["amount_minor"] < 0]
    absent = sum(row["store"] is None for row in rows)
    assert rejected[b"malformed", b"by-store"] == absent
    negative = {
        reason_views: n for reason_views, n in rejected.items() if reason_views[0] == b"negative_amount"
    }
    assert sum(negative.values()) == len(bad)
    assert {views for _, views in negative} <= {b"all,hk,by-store,next", b"all,by-store,next", b"all,next"}


def test_a_view_joins_a_running_worker(cluster: Cluster, tmp_path: Path) -> None:
    rows = history(1_500)
    flags = begun(cluster, tmp_path, rows[:1_000])
    plan = load_plan(flags["plan"])
    asyncio.run(send_records(cluster, sent(rows[1_000:])))
    with worker({**flags, "as_of": AS_OF}, tmp_path / "second") as process:
        assert process.exit_code() == 0, process.log.read_text()
        assert "views begin with the topic's first record" in process.log.read_text()
    changes = asyncio.run(cluster.committed_records(cluster.outputs.changes, range(PARTITIONS)))
    told = {view: Counter(each.value for each in records) for view, records in by_view(changes).items()}
    assert told == replayed(plan, rows)


def test_a_view_joins_with_a_file_of_history(cluster: Cluster, tmp_path: Path) -> None:
    """The topic lacks the first orders, of which a file has all; some are in both. It is killed on the way."""
    rows = history(6_000)
    path = tmp_path / "history.parquet"
    old = [row | {"occurred_at": datetime.fromisoformat(row["occurred_at"])} for row in rows[:4_000]]
    pq.write_table(pa.Table.from_pylist(old), path)
    flags = begun(cluster, tmp_path, rows[3_000:5_000]) | {"view_history": path}
    plan = load_plan(flags["plan"])
    asyncio.run(send_records(cluster, sent(rows[5_000:])))
    before = asyncio.run(written(cluster, cluster.outputs.changes, PARTITIONS))
    with worker(flags, tmp_path / "killed") as process:
        wait_until(
            lambda: asyncio.run(written(cluster, cluster.outputs.changes, PARTITIONS)) > before, process
        )
        process.kill()
        assert "views begin with files of history" in process.log.read_text()
    with worker({**flags, "as_of": AS_OF}, tmp_path / "second") as process:
        assert process.exit_code() == 0, process.log.read_text()
    changes = asyncio.run(cluster.committed_records(cluster.outputs.changes, range(PARTITIONS)))
    told = {view: Counter(each.value for each in records) for view, records in by_view(changes).items()}
    assert told["by-store"] == replayed(plan, rows)["by-store"]
    assert told["rfm8-annual"] == replayed(plan, rows[3_000:])["rfm8-annual"]


def begun(cluster: Cluster, tmp_path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Let a worker of one ruleset read orders and stop; return the flags of one that a view joins."""
    flags = {
        **flags_of(cluster, tmp_path / "state", clock="event"),
        "currency": None,
        "until_end": True,
        "ruleset": "rfm8-annual",
    }
    asyncio.run(cluster.create(cluster.orders, PARTITIONS, retention_ms="-1"))
    asyncio.run(send_records(cluster, sent(rows)))
    with worker(flags, tmp_path / "first") as process:
        assert process.exit_code() == 0, process.log.read_text()
    path = tmp_path / "views.toml"
    path.write_text(
        '[[view]]\nruleset = "rfm8-annual"\n[[view]]\nname = "by-store"\nruleset = "scores4"\nper = "store"\n'
    )
    del flags["ruleset"]
    return {**flags, "plan": path}
