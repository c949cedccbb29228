"""What becomes of each row, and that a row which is not applied leaves everything as it was."""

import numpy as np
import pytest
from kernel_shards import batch_for, customers_of, event, fold_events, memory_of, shard_in
from oracle_days import DAY_US

from rfmstream import Engine
from rfmstream.engine.core.shard import Shard
from rfmstream.kernels.fold import BLOCK, fold
from rfmstream.kernels.layout import CHANGE, DONE, GROW, OUTPUT_FULL
from rfmstream.schemas.codes import NEVER_US, ChangeReason
from rfmstream.schemas.ruleset import load_ruleset

FIELDS = [name for name in CHANGE.names if not name.startswith("pad")]
REASONS = {reason.value: reason.name.lower() for reason in ChangeReason}


def changes_of(shard: Shard) -> list[tuple[int, str, int]]:
    """Return (seq, reason, row) of the changes since the last call."""
    return [(int(c["seq"]), REASONS[int(c["reason"])], int(c["row"])) for c in shard.take_changes()]


KNOWN = [
    event("a", "o1", 100, 500),
    event("a", "o2", 200, 0),
    event("a", "o3", 300, 700, event_id="e3"),
    event("a", "o1", 400, 200, type="refunded"),
    event("a", "o1", 500, 100, type="refunded", event_id="r5"),
    event("a", "credit", 600, -50, type="adjusted"),
    event("a", "o3", 700, 0, type="cancelled"),
]
"""o1 has 200 left; o2 is worth nothing; o3 is void."""

NOT_APPLIED = [
    (event("a", "o1", 100, 500), "duplicate"),
    (event("a", "o1", 100, 500, event_id="other"), "duplicate"),
    (event("a", "o1", 100, 200), "conflicting_duplicate"),  # what is left of it is not what it was
    (event("a", "o1", 101, 500), "conflicting_duplicate"),
    (event("a", "o3", 300, 700), "duplicate"),  # void or not
    (event("a", "o9", 900, 1, event_id="e3"), "conflicting_duplicate"),
    (event("a", "o9", 900, 1, event_id="o1"), "conflicting_duplicate"),
    (event("a", "e3", 900, 1), "conflicting_duplicate"),  # one namespace for ids of orders and events
    (event("a", "o1", 400, 200, type="refunded"), "duplicate"),
    (event("a", "o1", 400, 201, type="refunded"), "conflicting_duplicate"),
    (event("a", "o1", 500, 100, type="refunded", event_id="r5"), "duplicate"),
    (event("a", "o1", 501, 100, type="refunded", event_id="r5"), "conflicting_duplicate"),
    (event("a", "o1", 900, 201, type="refunded"), "refund_exceeds_order"),
    (event("a", "o2", 900, 0, type="refunded"), "refund_exceeds_order"),
    (event("a", "o3", 900, 1, type="refunded"), "refund_exceeds_order"),
    (event("a", "o9", 900, 1, type="refunded"), "unknown_order"),
    (event("a", "credit", 900, 1, type="refunded"), "unknown_order"),
    (event("a", "o9", 900, 0, type="cancelled"), "unknown_order"),
    (event("a", "o3", 900, 0, type="cancelled"), "duplicate"),
    (event("a", "credit", 600, -50, type="adjusted"), "duplicate"),
    (event("a", "credit", 600, 50, type="adjusted"), "conflicting_duplicate"),
    (event("a", "credit", 900, 1, type="adjusted", event_id="o1"), "conflicting_duplicate"),
    (event("b", "o1", 900, 1, type="refunded"), "unknown_order"),
    (event("b", "o1", 900, 0, type="cancelled"), "unknown_order"),
]


def test_known_history_is_applied() -> None:
    engine = Engine()
    assert fold_events(engine, KNOWN) == ["applied"] * len(KNOWN)
    (customer,) = customers_of(shard_in(engine))
    assert customer["lifetime_orders"] == 2
    assert (customer["monetary_minor"], customer["lifetime_monetary_minor"]) == (150, 150)
    assert (customer["first_paid_us"], customer["last_paid_us"]) == (100, 200)
    assert shard_in(engine).clock_us == 700


@pytest.mark.parametrize(("row", "outcome"), NOT_APPLIED)
def test_a_row_not_applied_changes_nothing(row: dict[str, object], outcome: str) -> None:
    engine = Engine()
    fold_events(engine, KNOWN)
    shard_in(engine).take_changes()
    before = memory_of(shard_in(engine))
    assert fold_events(engine, [row, row]) == [outcome, outcome]
    assert memory_of(shard_in(engine)) == before


def test_order_of_rows_of_one_block_counts() -> None:
    rows = [
        event("a", "o", 5, 0, type="cancelled"),
        event("a", "o", 1, 9),
        event("a", "o", 6, 0, type="cancelled"),
        event("b", "x", 6, -1, type="adjusted"),
    ]
    engine = Engine()
    assert fold_events(engine, rows) == ["unknown_order", "applied", "applied", "applied"]
    assert changes_of(shard_in(engine)) == [(1, "first_order", 1), (2, "cancellation", 2)]
    assert shard_in(engine).customers == 2


def test_time_passes_for_a_customer_before_its_row() -> None:
    engine = Engine()
    assert fold_events(engine, [event("a", "o1", 0), event("a", "o2", 40 * DAY_US)]) == ["applied"] * 2
    assert changes_of(shard_in(engine)) == [
        (1, "first_order", 0),
        (2, "recency_expired", -1),
        (3, "order", 1),
    ]


def test_a_late_row_is_measured_at_the_clock() -> None:
    engine = Engine()
    fold_events(engine, [event("b", "o", 100 * DAY_US), event("a", "o", 0)])
    late = shard_in(engine).take_changes()[1]
    assert engine.ruleset.tiers[late["to_tier"]].id == "000"
    assert late["effective_us"] == 100 * DAY_US


def test_the_log_is_the_clock_and_the_future_is_refused() -> None:
    engine = Engine()
    rows = [
        event("a", "o1", 10),
        event("a", "o2", 26),  # one beyond the tolerance
        event("b", "o1", 1000),
        event("a", "o3", 25),
        event("a", "o4", 5),
        event("b", "o1", 30, type="refunded"),
    ]
    outcomes = fold_events(engine, rows, log_us=[20, 20, 20, 20, 30, 30], tolerance_us=5)
    assert outcomes == ["applied", "future_time", "future_time", "applied", "applied", "unknown_order"]
    shard = shard_in(engine)
    assert shard.clock_us == 30
    assert shard.customers == 1  # nobody is made by a row that is refused
    assert [int(change["effective_us"]) for change in shard.take_changes()] == [20, 30]


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 3])
def test_goes_on_where_the_output_was_full(size: int) -> None:
    rows = [event(f"c{i % 7}", f"o{i}", i * 40 * DAY_US) for i in range(size)]
    rules = load_ruleset("rfm8").without_signals()  # whose room in the output is another
    whole, bit_by_bit = Engine(rules), Engine(rules)
    fold_events(whole, rows)
    expected = shard_in(whole).take_changes()[FIELDS].tolist()
    shard, changes = shard_in(bit_by_bit), np.zeros(1, dtype=CHANGE)
    shard.state.point(changes=changes)
    batch = batch_for(bit_by_bit, rows)
    outcome = np.full(size, 255, dtype=np.uint8)
    scratch = (shard._rows, shard._handles, shard._hashes)
    found, row, status = [], 0, GROW
    while status != DONE:
        row, status = fold(shard.state.rows, shard.rules.rows, batch.rows, row, outcome, *scratch)
        assert status != OUTPUT_FULL or shard.state.row.n_changes == 1
        found += changes[: shard.state.row.n_changes][FIELDS].tolist()
        shard.state.row.n_changes = 0
        if status == GROW:
            shard._make_room(GROW)
    assert found == expected
    assert not outcome.any()


def test_a_shard_takes_its_own_rows_only() -> None:
    rows = [event(f"c{i}", "o", i) for i in range(1000)]
    engine = Engine(threads=3)
    batch = batch_for(engine, rows)
    seen = np.zeros(1000, dtype=np.int64)
    for shard in engine.shards:
        outcome = np.full(1000, 255, dtype=np.uint8)
        shard.fold(batch, outcome)
        assert shard.customers == (outcome == 0).sum() > 200
        seen += outcome == 0
    assert (seen == 1).all()


def test_an_empty_batch() -> None:
    engine = Engine()
    shard = shard_in(engine)
    before = memory_of(shard)
    assert fold_events(engine, []) == []
    assert memory_of(shard) == before
    assert shard.clock_us == NEVER_US
