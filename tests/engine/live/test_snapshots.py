"""Snapshots of workers over real connections, and of real checkpoints."""

from pathlib import Path

import pyarrow as pa
import pytest
from served_workers import serving, watched

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.board import Board, Watched
from rfmstream.engine.live.law import Law
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.snapshots import snapshot_of_store, snapshot_of_workers
from rfmstream.engine.live.stats import PartitionStats
from rfmstream.engine.live.store import Store
from rfmstream.schemas.errors import ConfigError, StateError, TransportError
from rfmstream.schemas.ruleset import Ruleset, load_ruleset

RFM8 = load_ruleset("rfm8")


def engine_of(*customers: str, day: int = 1, ruleset: Ruleset = RFM8) -> Engine:
    engine = Engine(ruleset, mode="live")
    engine.step(
        pa.table(
            {
                "customer_id": customers,
                "order_id": ["o"] * len(customers),
                "occurred_at": [f"2026-01-{day:02d}T10:00:00Z"] * len(customers),
                "amount": ["10.00"] * len(customers),
            }
        )
    )
    return engine


def board_of(*parts: tuple[int, Engine], ruleset: Ruleset = RFM8) -> Board:
    partitions = {Source("orders.v1", number): watched(engine) for number, engine in parts}
    return Board(ruleset, "event", partitions, joined=True)


def test_two_workers_make_one_snapshot() -> None:
    with (
        serving(board_of((0, engine_of("ann", "bob")), (2, engine_of("dee")))) as one,
        serving(board_of((1, engine_of("cid", day=3)))) as two,
    ):
        found = snapshot_of_workers([one, f"{two}/"], "2026-02-10")
        table = pa.Table.from_batches(found.batches, schema=found.schema)
    assert found.partitions == ["orders.v1-0", "orders.v1-2", "orders.v1-1"]
    assert table["customer_id"].to_pylist() == ["ann", "bob", "dee", "cid"]
    assert table["recency_days"].to_pylist() == [40, 40, 40, 38]
    assert found.schema.metadata[b"rfmstream.ruleset"] == b"rfm8"


def test_a_worker_without_partitions_has_no_rows() -> None:
    with serving(board_of()) as url:
        found = snapshot_of_workers([url], None)
        assert (list(found.batches), found.partitions) == ([], [])


def test_a_partition_at_two_workers_is_refused() -> None:
    with serving(board_of((0, engine_of("ann")))) as one, serving(board_of((0, engine_of("ann")))) as two:
        found = snapshot_of_workers([one, two], None)
        with pytest.raises(TransportError, match=r"orders\.v1-0 belongs to two workers.*try again"):
            list(found.batches)


def test_workers_of_two_rulesets_are_refused() -> None:
    annual = load_ruleset("rfm8-annual")
    other = board_of((1, engine_of("cid", ruleset=annual)), ruleset=annual)
    with serving(board_of((0, engine_of("ann")))) as one, serving(other) as two:
        found = snapshot_of_workers([one, two], None)
        with pytest.raises(StateError, match="another ruleset"):
            list(found.batches)


def test_what_a_worker_refuses_is_told() -> None:
    board = board_of((0, engine_of("ann")))
    with serving(board) as url:
        with pytest.raises(ConfigError, match=r"lies before the clock of orders\.v1-0"):
            snapshot_of_workers([url], "2025-01-01")
        board.joined = False
        with pytest.raises(TransportError, match="not ready: no partitions yet; try again"):
            snapshot_of_workers([url], None)
    with pytest.raises(TransportError, match="no snapshot comes from there"):
        snapshot_of_workers([url], None)


@pytest.mark.parametrize("url", ["127.0.0.1:8765", "file:///etc/passwd", "worker"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is no URL of a worker"):
        snapshot_of_workers([url], None)


def test_a_snapshot_that_breaks_off_is_an_error() -> None:
    async def broken(_: int | None) -> pa.Table:
        raise OSError("gone")

    board = board_of((0, engine_of("ann")))
    board.partitions[Source("orders.v1", 1)] = Watched(PartitionStats(state="live"), broken)
    with serving(board) as url, pytest.raises(TransportError, match="broke off"):
        list(snapshot_of_workers([url], None).batches)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "state"), app_id="shop")
    law = str(Law.of(RFM8, "event", 0))
    store.save(Source("orders.v1", 0), engine_of("ann"), 5, law)
    store.save(Source("orders.v1", 0), engine_of("ann", "bob"), 7, law)
    store.save(Source("orders.v1", 1), engine_of("cid", day=3), 9, law)
    return store


def test_the_newest_checkpoints_make_one_snapshot(store: Store) -> None:
    found = snapshot_of_store(store, None, None)
    table = pa.Table.from_batches(found.batches, schema=found.schema)
    assert found.partitions == ["orders.v1-0", "orders.v1-1"]
    assert table["customer_id"].to_pylist() == ["ann", "bob", "cid"]
    # All as of the newest clock, the third of January.
    assert table["recency_days"].to_pylist() == [2, 2, 0]
    later = snapshot_of_store(store, RFM8, "2026-01-05T00:00:00Z")
    assert pa.Table.from_batches(later.batches)["recency_days"].to_pylist() == [4, 4, 2]


def test_checkpoints_that_cannot_answer(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="belongs to the ruleset rfm8"):
        snapshot_of_store(store, load_ruleset("rfm8-annual"), None)
    with pytest.raises(ConfigError, match="before the clock"):
        list(snapshot_of_store(store, None, "2026-01-02").batches)
    with pytest.raises(StateError, match="no checkpoints of partitions"):
        snapshot_of_store(Store(str(tmp_path / "empty"), app_id="shop"), None, None)
    for file in (tmp_path / "state" / "orders.v1-1").rglob("position.json"):
        file.write_text("{}")
    with pytest.raises(StateError, match="no whole checkpoint"):
        snapshot_of_store(store, None, None)
