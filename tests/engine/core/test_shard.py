"""A shard makes room where the kernels ask for it, and says what it holds."""

import pytest
from kernel_shards import event, fold_events, shard_by, shard_in
from oracle_days import DAY_US
from twins import canonical_batch

from rfmstream import Engine, StateError
from rfmstream.kernels.fold import BLOCK, ENTRIES_PER_ROW
from rfmstream.kernels.layout import CUSTOMER, ENTRY, GROUP
from rfmstream.schemas.codes import NEVER_US


def assert_has_room(engine: Engine) -> None:
    """Hold that everything used lies inside what there is."""
    for shard in engine.shards:
        state = shard.state.row
        assert state.n_customers <= state.customers_size
        assert state.n_entries <= state.entries_size
        assert (state.n_entries - 1) // GROUP < state.id_base_size
        assert state.id_bytes + 8 <= state.id_data_size
        assert state.key_bytes <= state.key_data_size
        assert state.n_chunks <= state.chunks_size
        for table in shard._tables.values():
            assert table.pairs.size <= table.record.row.pairs_size


def test_an_empty_shard() -> None:
    shard = shard_by()
    assert shard.clock_us == NEVER_US
    assert shard.customers == 0
    assert shard.take_changes().size == 0
    shard.advance(5)
    assert shard.clock_us == 5
    assert shard.take_changes().size == 0


@pytest.mark.parametrize("id_bytes", [1, 16, 17, 256])
@pytest.mark.parametrize("customers", [1, 300, 10_000])
def test_growth_through_many_sizes(id_bytes: int, customers: int) -> None:
    engine = Engine("rfm8-annual")
    width = max(id_bytes, 5)
    total = 20_000
    for first in range(0, total, 977):
        rows = [
            event(
                f"{i % customers:x}".rjust(width, "-")[-256:],
                f"{i:x}".rjust(width, "-"),
                i * DAY_US // 50,
                1000,
            )
            for i in range(first, min(first + 977, total))
        ]
        assert set(fold_events(engine, rows)) == {"applied"}
        shard_in(engine).advance(engine.clock_us)
        assert_has_room(engine)
    assert engine.customers == customers
    assert engine.orders == total
    snapshot = engine.snapshot()
    assert sum(snapshot["lifetime_monetary_minor"].to_pylist()) == total * 1000
    assert len(set(snapshot["customer_id"].to_pylist())) == customers


def test_changes_are_taken_once() -> None:
    engine = Engine()
    fold_events(engine, [event(f"c{i}", "o", 0) for i in range(2000)])
    shard = shard_in(engine)
    assert shard.take_changes().size == 2000
    assert shard.take_changes().size == 0
    shard.advance(31 * DAY_US)
    assert shard.take_changes().size == 2000


def test_memory_is_what_is_used() -> None:
    engine = Engine()
    fold_events(engine, [event(f"customer-{i:05d}", f"o{i:05d}", 0) for i in range(1000)])
    fold_events(engine, [event("x" * 100, "y" * 50, 0)])
    memory = shard_in(engine).memory()
    assert memory["customers"] == 1002 * CUSTOMER.itemsize
    assert memory["orders"] == 1002 * ENTRY.itemsize + (1002 // GROUP + 1) * 8
    assert memory["ids"] == 1000 * 6 + 50 + 100  # short customer ids stand inside the records
    assert engine.memory == memory


def test_records_are_as_small_as_promised() -> None:
    # 120 bytes a customer with its place in the index, 48 an order with its own, at the lowest load.
    assert CUSTOMER.itemsize + 8 / 0.52 <= 120
    assert ENTRY.itemsize + 8 / GROUP + 8 / 0.52 <= 48


@pytest.mark.parametrize("what", ["customers", "orders"])
def test_a_shard_says_that_it_is_full_before_a_number_wraps(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is lowered: nobody has the memory to reach it."""
    engine = Engine("rfm8")
    most = 13 * BLOCK * ENTRIES_PER_ROW + 7
    monkeypatch.setattr("rfmstream.engine.core.shard.HANDLES_MAX", most)
    before, applied = engine.snapshot(), 0

    def fill() -> None:
        nonlocal applied, before
        for first in range(0, 2 * most, 100):
            ids = [f"c{n}" if what == "customers" else "one" for n in range(first, first + 100)]
            engine.step_canonical(
                canonical_batch([event(customer, f"o{first + n}", 1, 100) for n, customer in enumerate(ids)])
            )
            assert_has_room(engine)
            state = engine.shards[0].state.row
            assert max(state.customers_size, state.entries_size) <= most
            applied, before = engine.counters.applied, engine.snapshot()

    # An order has a number as well as its customer, so orders are what there is no room for.
    with pytest.raises(StateError, match=f"a shard holds {most:,} orders and notes at the most"):
        fill()
    assert applied > most // 2
    assert before["lifetime_orders"].to_numpy().sum() == applied
    with pytest.raises(StateError, match="restore it"):
        engine.snapshot()
