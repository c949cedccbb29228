"""What the stream peers are compared by: the load and its changes, the rules in Python, and the comparison itself."""

import sys
from itertools import chain
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[2] / "bench" / "peers" / "stream"))
import rfm8

from bench.peers.stream.load import CLOSING_AFTER, Change, Load, draw, partition_of
from bench.peers.stream.run import compare
from bench.peers.stream.topics import Made, change_of

PARTITIONS = 3


@pytest.fixture(scope="module")
def load() -> Load:
    return draw(
        orders=4_000, customers=300, keys="zipf:1.2", partitions=PARTITIONS, warm=1_000, seed=3, days=200
    )


@pytest.fixture(scope="module")
def made(load: Load) -> list[Made]:
    """Return what a peer makes of the load that knows nothing but its partition."""
    rows = []
    for partition, (warm, timed) in enumerate(zip(load.warm, load.timed, strict=True)):
        segments = rfm8.Segments()
        changes = chain.from_iterable(segments.apply(record.value) for record in (*warm, *timed))
        rows += [
            Made(change_of(rfm8.encode(change)), partition, offset) for offset, change in enumerate(changes)
        ]
    return rows


def test_rules_in_python_are_those_of_the_engine(load: Load, made: list[Made]) -> None:
    assert {row.change.reason for row in made} == {"first_order", "order", "recency_expired"}
    assert compare(made, load) == ""


def test_records_lie_where_clients_send_them_and_end_at_one_instant(load: Load) -> None:
    for partition, (warm, timed) in enumerate(zip(load.warm, load.timed, strict=True)):
        assert {partition_of(record.key, PARTITIONS) for record in (*warm, *timed)} == {partition}
        *_, before, closing = timed
        assert closing.timestamp_ms == load.as_of_us // 1000
        assert closing.timestamp_ms - before.timestamp_ms >= CLOSING_AFTER.total_seconds() * 1000
    records = list(chain.from_iterable((*load.warm, *load.timed)))
    assert len(records) == load.warm_orders + load.timed_orders
    assert 0 < len(records) - len(set(records)) < 100, "some orders are sent twice"


def test_each_kind_of_difference_is_seen(load: Load, made: list[Made]) -> None:
    first = made[0]
    later = first._replace(change=first.change._replace(effective_us=first.change.effective_us + 1))
    second = next(row for row in made if row.change.seq == 2)
    moved = [second, *(row for row in made if row is not second)]
    assert "1 changes missing, 0 wrong" in compare(made[1:], load)
    assert "1 changes missing, 1 wrong" in compare([later, *made[1:]], load)
    assert compare([*made, first], load) == "1 changes repeated"
    assert compare(moved, load).startswith("out of order")


def test_instants_are_read_however_a_peer_writes_them() -> None:
    text = (
        b'{"customer_id":"a","seq":1,"effective_at":"%s","from_tier":null,"to_tier":"100","reason":"order"}'
    )
    for written in (b"2024-02-01T00:00:00Z", b"2024-02-01T00:00:00.000000000Z", b"2024-02-01T00:00:00+00:00"):
        assert change_of(text % written) == Change("a", 1, 1_706_745_600_000_000, None, "100", "order")
