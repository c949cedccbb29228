"""A partition without a log around it: steps, rejections with their bytes, time in pieces."""

from itertools import islice, pairwise

import orjson
import pyarrow as pa
import pytest
from oracle_days import DAY_US
from twins import in_order, plain_rows

from rfmstream import Engine, load_ruleset
from rfmstream.engine.events.instants import to_text
from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.model import LogBatch, RawRecords, Step, Tick
from rfmstream.engine.live.partition import Partition
from rfmstream.schemas.codes import NEVER_US

START_US = 1_700_000_000_000_000
REFUND = {
    "customer_id": "a",
    "order_id": "none",
    "type": "refunded",
    "amount_minor": 1,
    "occurred_at": "2023-11-14",
}
ORDER = {"customer_id": "a", "order_id": "o", "amount_minor": 1, "occurred_at": "2023-11-14"}


def batch_of(*values: bytes | None, times_us: list[int] | None = None, first: int = 10) -> LogBatch:
    count = len(values)
    times = [START_US] * count if times_us is None else times_us
    return Decoder(currency="CNY").decode(
        RawRecords(
            keys=[b"k%d" % at for at in range(count)],
            values=list(values),
            headers=[()] * count,
            timestamps_ms=[at // 1000 for at in times],
            offsets=list(range(first, first + 2 * count, 2)),
            position=first + 2 * count,
        )
    )


def partition_of(ruleset: str = "rfm8", **options: int) -> Partition:
    # Tier changes alone: how many steps a way takes is counted by them.
    rules = load_ruleset(ruleset).without_signals()
    return Partition(
        Engine(rules, mode="live"), clock="log", **{"tolerance_us": 0, "position": 10, **options}
    )


def arrow(*rows: dict[str, object]) -> bytes:
    table = pa.Table.from_pylist(list(rows)).set_column(
        2, "occurred_at", pa.array([START_US] * len(rows), pa.timestamp("us", "UTC"))
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def test_what_is_rejected_is_told_with_its_bytes() -> None:
    refund, order = orjson.dumps(REFUND), orjson.dumps(ORDER)
    refund_of_arrow = {
        "customer_id": "a",
        "order_id": "x",
        "occurred_at": 0,
        "amount_minor": 1,
        "type": "refunded",
    }
    batch = batch_of(
        refund,
        b"[" + order + b" , " + refund + b",5 ]",
        b"{",
        refund + b"\n" + order + b"\n",
        None,
        arrow(refund_of_arrow, refund_of_arrow | {"order_id": "y"}),
        b" " + refund + b"\n",
    )
    [step] = partition_of().apply(batch)
    told = [(one.offset, one.row, one.reason, one.key, one.original) for one in step.rejections]
    of_arrow = [orjson.loads(one.original or b"") for one in step.rejections if one.offset == 20]
    assert [row["order_id"] for row in of_arrow] == ["x", "y"]
    assert [one for one in told if one[0] != 20] == [
        (10, 0, "unknown_order", b"k0", refund),
        (12, 1, "unknown_order", b"k1", refund),
        (12, 2, "malformed", b"k1", b"5"),
        (14, 0, "malformed", b"k2", b"{"),
        (16, 0, "unknown_order", b"k3", refund),
        (18, 0, "malformed", b"k4", None),
        (22, 0, "unknown_order", b"k6", b" " + refund + b"\n"),
    ]
    assert {one.log_us for one in step.rejections} == {START_US}
    assert step.position == 24


def test_a_rejections_time_is_its_own() -> None:
    batch = batch_of(b"{", b"{", b"{", times_us=[START_US, START_US - 5000, -1000])
    [step] = partition_of().apply(batch)
    assert [one.log_us for one in step.rejections] == [START_US, START_US - 5000, NEVER_US]


def test_records_without_an_order_pass_time_too() -> None:
    partition = partition_of()
    list(partition.apply(batch_of(orjson.dumps(ORDER), b"{", times_us=[START_US, START_US + 60 * DAY_US])))
    assert partition.engine.clock_us == START_US + 60 * DAY_US


def history(days: list[int]) -> LogBatch:
    """Return the first orders of as many customers, some days after the start."""
    times_us = [START_US + day * DAY_US for day in days]
    values = [
        orjson.dumps(ORDER | {"customer_id": f"c{at}", "occurred_at": to_text(at_us)})
        for at, at_us in enumerate(times_us)
    ]
    return batch_of(*values, times_us=times_us)


def rows_of(steps: list[Step]) -> list[dict[str, object]]:
    return plain_rows(pa.concat_tables([step.changes for step in steps]))


def begun(limit: int = 10**6) -> tuple[Partition, LogBatch]:
    """Return a partition with three customers, and records that come long after."""
    partition = partition_of(step_changes=limit)
    list(partition.apply(history([0, 1, 2])))
    return partition, history([0, 1, 2, 40, 41, 500, 500])


@pytest.mark.parametrize("limit", [1, 2, 10**6])
def test_long_ways_are_gone_in_steps(limit: int) -> None:
    (partition, batch), (other, _) = begun(limit), begun()
    steps, expected = list(partition.apply(batch, 3)), list(other.apply(batch, 3))
    assert in_order(rows_of(steps)) == in_order(rows_of(expected))
    assert len(expected) == 1
    assert len(steps) == {1: 4, 2: 2}.get(limit, 1)
    assert [step.position for step in steps] == sorted(step.position for step in steps)
    assert steps[-1].position == batch.position
    for step, following in pairwise(steps):
        assert step.changes.num_rows >= limit
        assert step.tick is None or step.tick.position == step.position <= following.position
    assert any(step.tick is not None for step in steps) == (limit < 3)


def test_going_on_from_any_step_is_the_same() -> None:
    first, batch = begun(1)
    whole = list(first.apply(batch, 3))
    for kept in range(1, len(whole)):
        partition, _ = begun(1)
        steps = list(islice(partition.apply(batch, 3), kept))
        offsets = list(batch.records.offsets)
        steps += partition.apply(batch, offsets.index(partition.position))
        assert in_order(rows_of(steps)) == in_order(rows_of(whole))


def test_nothing_due_makes_no_step() -> None:
    partition = partition_of()
    assert list(partition.pass_time(START_US)) == []
    list(partition.apply(batch_of(orjson.dumps(ORDER))))
    assert list(partition.pass_time(START_US + DAY_US)) == []
    assert partition.engine.clock_us == START_US
    [step] = partition.pass_time(START_US + DAY_US, to_the_end=True)
    assert (step.changes.num_rows, step.tick) == (0, Tick(12, START_US + DAY_US))


def test_the_clock_of_events_takes_no_notice_of_the_log() -> None:
    partition = Partition(Engine(), clock="event", tolerance_us=0, position=0)
    [step] = partition.apply(batch_of(orjson.dumps(ORDER), orjson.dumps(REFUND)))
    assert step.tick is None
    assert partition.engine.clock_us == 1_699_920_000_000_000


def test_signals_go_with_the_step_that_brings_them() -> None:
    values = [
        orjson.dumps(ORDER | {"order_id": f"o{at}", "occurred_at": to_text(START_US + at * DAY_US)})
        for at in range(4)
    ]
    times_us = [START_US + at * DAY_US for at in range(4)]
    partition = Partition(Engine(mode="live"), clock="log", tolerance_us=0, position=10)
    [step] = partition.apply(batch_of(*values, times_us=times_us))
    steps = [step, *partition.pass_time(START_US + 700 * DAY_US)]
    told = [plain_rows(each.signals) for each in steps if each.signals is not None]
    engine = Engine(mode="live")
    rows = [orjson.loads(value) for value in values]
    expected = plain_rows(engine.step(pa.Table.from_pylist(rows)).signals)
    assert told[0] == expected
    assert {row["kind"] for row in expected} == {"orders"}
    engine.advance(START_US + 700 * DAY_US)
    assert [row for rows in told[1:] for row in rows] == plain_rows(engine.signals)
    assert {row["kind"] for row in plain_rows(engine.signals)} == {"warning"}
    assert partition_of().cap(batch_of(values[0]).records, 0, 1, START_US).signals is None


def test_steps_end_with_many_signals_too() -> None:
    values = [
        orjson.dumps(ORDER | {"customer_id": f"c{at}", "occurred_at": to_text(START_US)}) for at in range(4)
    ]
    partition = Partition(Engine(mode="live"), clock="log", tolerance_us=0, position=10, step_changes=4)
    list(partition.apply(batch_of(*values)))
    steps = list(partition.pass_time(START_US + 700 * DAY_US))
    assert len(steps) > 2
    assert all(each.changes.num_rows < 4 or each.signals is None for each in steps)
