"""What people and disks do to a worker's state, on a real broker: it goes on exactly, or it says what is missing."""

import asyncio
import random
import shutil
import time
from collections import Counter
from functools import cache, partial
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import OffsetAndMetadata
from kafka_cluster import Cluster
from kafka_logs import decoded, records_of, records_read, wait_until, written
from kafka_workers import (
    RULESET,
    assert_is_the_replay,
    flags_of,
    real_history,
    replayed,
    send,
    values_of,
    worker,
)

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.kafka.transport import FETCH_WAIT_MS
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.store import Store
from rfmstream.schemas.changes import CHANGE_SCHEMA
from rfmstream.schemas.ruleset import load_ruleset

AS_OF = "2000-01-01T00:00:00Z"
AS_OF_US = 946_684_800_000_000
OTHER = "types7"
NOTHING = CHANGE_SCHEMA.empty_table()


@cache
def history() -> pa.RecordBatch:
    """Return the purchases of the first months of CDNOW, in order of time."""
    return pa.Table.from_batches(real_history()).combine_chunks().slice(0, 20_000).to_batches()[0]


@cache
def values_of_its_replay() -> Counter[bytes | None]:
    return values_of(replayed([history()], AS_OF_US))


def run(flags: dict[str, object], log: Path, *, code: int = 0) -> str:
    """Run a worker to the end of its topics, or until it refuses; return what it says."""
    with worker(flags, log) as process:
        assert process.exit_code() == code, log.read_text()
    return log.read_text()


def refused(flags: dict[str, object], log: Path) -> str:
    """Return the one line in which a worker says why it does not go on."""
    text = run(flags, log, code=4)
    assert "Traceback" not in text
    line = text.splitlines()[-1]
    assert line.startswith("rfmstream: ")
    return line


def flip_a_byte(checkpoint: Path, chance: random.Random) -> None:
    file = max(checkpoint.glob("*.arrow"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def test_damaged_and_deleted_checkpoints_and_records(cluster: Cluster, tmp_path: Path) -> None:
    partitions, state, chance = 3, tmp_path / "state", random.Random(5)  # noqa: S311
    flags = flags_of(cluster, state, clock="event", until_end=True)
    piece = history().num_rows // 4 + 1

    def send_and_run(number: int, **more: object) -> str:
        asyncio.run(send(cluster, [history().slice(number * piece, piece)], partitions))
        return run({**flags, **more}, tmp_path / f"log-{number}")

    asyncio.run(cluster.create(cluster.orders, partitions, retention_ms="-1"))
    send_and_run(0)
    shutil.rmtree(state)
    assert send_and_run(1).count("checkpoint=None offset=0") == partitions, "from the topic's start"
    send_and_run(2)
    kept = {}
    for number in range(partitions):
        older, newest = sorted((state / f"{cluster.orders}-{number}").iterdir())
        flip_a_byte(newest, chance)
        kept[TopicPartition(cluster.orders, number)] = older.name
    # The older one needs no record from before it.
    asyncio.run(delete_records(cluster, {place: int(name.split("-")[0]) for place, name in kept.items()}))
    text = send_and_run(3, as_of=AS_OF)
    assert text.count("checkpoint passed over") == partitions
    assert all(
        f"partition={topic}-{number} checkpoint={name} " in text for (topic, number), name in kept.items()
    )
    assert_is_the_replay(cluster, partitions, values_of_its_replay())

    # From here on it can only refuse to go on.
    ends = asyncio.run(written(cluster, cluster.outputs.changes, partitions))
    line = refused({**flags, "checkpoints": str(tmp_path / "elsewhere")}, tmp_path / "gone")
    assert "there is no checkpoint, and records from offset 0 to" in line
    assert "accept" in line
    for offset in (0, 10**9):
        asyncio.run(commit_offset(cluster, offset))
        line = refused(flags, tmp_path / f"foreign-{offset}")
        assert f"the committed offset {offset} was set by something other than a worker" in line
        assert "at offset" in line
    asyncio.run(commit_offset(cluster, 10**9, "token@writer"))
    assert "offset 1000000000 is committed, but the topic ends at" in refused(flags, tmp_path / "beyond")
    assert asyncio.run(written(cluster, cluster.outputs.changes, partitions)) == ends


@pytest.mark.deep
def test_records_that_are_deleted_unread_are_missed_until_the_gap_is_accepted(
    cluster: Cluster, tmp_path: Path
) -> None:
    partitions, state = 3, tmp_path / "state"
    pieces = [history().slice(at, 5000) for at in range(0, 15_000, 5000)]
    flags = flags_of(cluster, state, clock="event", listen="127.0.0.1:0")
    places = [TopicPartition(cluster.orders, number) for number in range(partitions)]

    async def delete_all() -> dict[TopicPartition, int]:
        ends = await cluster.ends(places)
        await delete_records(cluster, ends)
        return ends

    asyncio.run(cluster.create(cluster.orders, partitions, retention_ms="-1"))
    log = tmp_path / "running"
    with worker(flags, log) as process:
        asyncio.run(send(cluster, [pieces[0]], partitions))
        wait_until(lambda: records_read(process) == pieces[0].num_rows, process)
        # Nobody needs those any more, and the worker has nothing else to do. Meanwhile others come and go.
        committed = asyncio.run(delete_all())
        process.pause()
        time.sleep(2 * FETCH_WAIT_MS / 1000)
        asyncio.run(send(cluster, [pieces[1]], partitions))
        begins = asyncio.run(delete_all())
        process.wake()
        assert process.exit_code() == 4, log.read_text()
    line = log.read_text().splitlines()[-1]
    assert line.startswith("rfmstream: the broker has deleted records that were still to be read")
    assert "--accept-gap" in line
    assert "Traceback" not in log.read_text()

    asyncio.run(send(cluster, [pieces[2]], partitions))
    last = {**flags, "until_end": True, "as_of": AS_OF}
    line = refused(last, tmp_path / "refused")
    assert any(
        f"partition {cluster.orders}-{place.partition}: offset {committed[place]} is committed, "
        f"and records up to {begins[place]} are gone; " in line
        for place in places
    )
    assert line.endswith("or accept the gap with --accept-gap")
    text = run({**last, "accept_gap": True}, tmp_path / "accepted")
    assert text.count("gap accepted") >= partitions
    assert_is_the_replay(cluster, partitions, values_of(replayed([pieces[0], pieces[2]], AS_OF_US)))
    # It is behind the worker now; and who has no checkpoint can do without all that is gone.
    run(last, tmp_path / "again")
    elsewhere = {**last, "accept_gap": True, "checkpoints": str(tmp_path / "elsewhere")}
    assert (
        run(elsewhere, tmp_path / "from the gap on").count("there is no checkpoint, and records")
        == partitions
    )
    assert_is_the_replay(cluster, partitions, values_of(replayed([pieces[0], pieces[2]], AS_OF_US)))


async def delete_records(cluster: Cluster, before: dict[TopicPartition, int]) -> None:
    """Delete the records before an offset in each partition, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        wanted = {place: RecordsToDelete(offset) for place, offset in before.items()}
        assert await admin.delete_records(wanted, timeout_ms=10_000) == before
    finally:
        await admin.close()


async def commit_offset(cluster: Cluster, offset: int, note: str = "") -> None:
    """Set the offset of the group in partition 0: without a note, as Kafka's own tool does."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=cluster.bootstrap, group_id=cluster.name, enable_auto_commit=False
    )
    await consumer.start()
    try:
        place = TopicPartition(cluster.orders, 0)
        consumer.assign([place])
        await consumer.commit({place: OffsetAndMetadata(offset, note)})
    finally:
        await consumer.stop()


@pytest.mark.deep
def test_other_rules_take_over_once_whoever_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    partitions = 3
    flags = flags_of(cluster, tmp_path / "state", clock="event", until_end=True)

    async def prepare() -> None:
        await cluster.create(cluster.orders, partitions, retention_ms="-1")
        await send(cluster, [history()], partitions)

    asyncio.run(prepare())
    run(flags, tmp_path / "first")
    told = asyncio.run(records_of(cluster, cluster.outputs.changes, partitions))
    other = {**flags, "ruleset": OTHER}
    line = refused(other, tmp_path / "refused")
    assert "belongs to ruleset rfm8-annual" in line
    assert "resegment" in line

    expected = values_by_both(cluster, partitions)
    taking_over = {**other, "resegment": True}
    for number in range(3):
        log = tmp_path / f"killed-{number}"
        log.touch()
        ends = asyncio.run(written(cluster, cluster.outputs.changes, partitions))
        last = {"until_end": True, "as_of": AS_OF} if number == 2 else {"until_end": False}
        with worker({**taking_over, **last}, log) as process:
            if number == 2:
                assert process.exit_code() == 0, log.read_text()
                break
            if number == 0:
                # By then some partitions have been taken over; others may not.
                wait_until(partial(has_gone_on, cluster, partitions, ends), process)
            else:
                process.wait_for("partition recovered")
            process.kill()
            asyncio.run(cluster.expel(cluster.name))

    changes = asyncio.run(records_of(cluster, cluster.outputs.changes, partitions))
    rows = [orjson.loads(record.value) for of in changes.values() for record in of]
    switched = Counter(row["customer_id"] for row in rows if row["reason"] == "rules_changed")
    assert switched == {record.key.decode(): 1 for of in told.values() for record in of}
    assert_is_the_replay(cluster, partitions, expected)

    ends = asyncio.run(written(cluster, cluster.outputs.changes, partitions))
    asyncio.run(make_anew(cluster, partitions))
    line = refused(other, tmp_path / "anew")
    assert (
        f"topic {cluster.orders} is not the one its state was made from: it was deleted and created anew"
        in line
    )
    assert asyncio.run(written(cluster, cluster.outputs.changes, partitions)) == ends
    text = run({**other, "accept_gap": True}, tmp_path / "accepted")
    assert text.count("gap accepted") >= partitions
    # All of these orders are known.
    assert_is_the_replay(cluster, partitions, expected)


def has_gone_on(cluster: Cluster, partitions: int, ends: int) -> bool:
    return asyncio.run(written(cluster, cluster.outputs.changes, partitions)) > ends


def values_by_both(cluster: Cluster, partitions: int) -> Counter[bytes | None]:
    """Return what is told by the first rules, of the change to the others, and by those up to the end."""
    ruleset = load_ruleset(OTHER, currency="USD")
    before, after = Encoder(RULESET, source="/test"), Encoder(ruleset, source="/test")
    values: Counter[bytes | None] = Counter()
    for records in asyncio.run(records_of(cluster, cluster.orders, partitions)).values():
        engine = Engine(RULESET)
        first = engine.step_canonical(decoded(records, "USD").orders).changes
        values.update(record.value for record in before.changes(first))
        switched = engine.resegment(ruleset, engine.clock_us + 1)
        for changes in (switched, engine.advance(AS_OF_US)):
            values.update(record.value for record in after.changes(changes))
    return values


async def make_anew(cluster: Cluster, partitions: int) -> None:
    """Delete the topic of the orders, and create it again with other orders in it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([cluster.orders])
        while cluster.orders in await admin.list_topics():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    finally:
        await admin.close()
    await cluster.create(cluster.orders, partitions, retention_ms="-1")
    await send(cluster, [history().slice(0, 1000)], partitions)


@pytest.mark.deep
def test_orders_repeated_and_out_of_order_in_twelve_partitions(cluster: Cluster, tmp_path: Path) -> None:
    """Two workers read what a careless producer sends.

    Compared with: a replay of the same records in the order in which they lie in the log, partition by partition, all
    changes of it. And, since all orders are applied in the end whatever their order: the tier and the measures with
    which each customer ends are those of the replay of the orderly history.
    """
    partitions, copies = 12, 3
    chance = np.random.default_rng(11)
    rows = np.repeat(np.arange(history().num_rows), chance.integers(1, copies + 1, history().num_rows))
    # Some arrive long after others that were later; and all of it in one stream, since workers may have it in any way.
    shuffled = history().take(pa.array(rows[np.argsort(rows + chance.integers(0, 20_000, rows.size))]))
    flags = flags_of(cluster, tmp_path / "state", clock="event", checkpoint_interval_s=1)
    asyncio.run(cluster.create(cluster.orders, partitions, retention_ms="-1"))
    logs = tmp_path / "one", tmp_path / "two"
    for log in logs:
        log.touch()
    with worker(flags, logs[0]) as one, worker(flags, logs[1]) as two:
        half = shuffled.num_rows // 2
        asyncio.run(send(cluster, [shuffled.slice(0, half)], partitions))
        for process in (one, two):
            process.wait_for("partitions assigned count=6")
        asyncio.run(send(cluster, [shuffled.slice(half)], partitions))
        for process in (one, two):
            process.terminate()
            assert process.exit_code() == 0, process.log.read_text()
    run({**flags, "until_end": True, "as_of": AS_OF}, tmp_path / "last")

    expected: Counter[bytes | None] = Counter()
    duplicates = 0
    for records in asyncio.run(records_of(cluster, cluster.orders, partitions)).values():
        engine = Engine(RULESET)
        changes = [engine.step_canonical(decoded(records, "USD").orders).changes, engine.advance(AS_OF_US)]
        expected += values_of(pa.concat_tables(changes))
        duplicates += engine.counters.duplicates
    assert duplicates == rows.size - history().num_rows
    assert expected != values_of_its_replay(), "the order made a difference"
    assert_is_the_replay(cluster, partitions, expected)
    store = Store(str(tmp_path / "state"), app_id=cluster.name)
    loaded = [store.load(Source(cluster.orders, number)) for number in range(partitions)]
    in_the_end = pa.concat_tables([one.engine.snapshot() for one in loaded if one is not None])
    orderly = Engine(RULESET)
    orderly.step_canonical(history())
    assert sorted(measures(in_the_end)) == sorted(measures(orderly.snapshot(AS_OF_US)))


def measures(snapshot: pa.Table) -> list[str]:
    """Return what a snapshot says of each customer, without how that came about."""
    names = [
        "customer_id",
        "tier",
        "r_band",
        "f_band",
        "m_band",
        "last_paid_at",
        "frequency",
        "monetary_minor",
    ]
    names += ["first_paid_at", "lifetime_orders", "lifetime_monetary_minor"]
    return [str(row) for row in snapshot.select(names).to_pylist()]
