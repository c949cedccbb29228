"""What is found, and what lists say, after the memory of forgotten orders was given back."""

import numpy as np
import pytest
from kernel_shards import event, fold_events, shard_in
from oracle import BUILT_IN, Event
from oracle_days import DAY_US
from twins import ruleset_of

from rfmstream import Engine
from rfmstream.kernels import layout

DAYS = 100
FIRST_US = 1_700_000_000_000_000


def history(seed: int, size: int) -> list[Event]:
    """Paid orders over two hundred days, some late, some with event ids; refunds, adjustments, cancellations."""
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    for n, day in enumerate(np.sort(rng.random(size)) * 2 * DAYS):
        late = rng.random() < 0.1
        at_us = FIRST_US + int((day - late * rng.random() * 10) * DAY_US)
        customer, order = (
            f"c{rng.integers(size // 20)}",
            f"order {n} " + "x" * int(rng.integers(0, 200, endpoint=True)),
        )
        own = {"event_id": f"event {n}"} if rng.random() < 0.2 else {}
        events.append(event(customer, order, at_us, 100, **own))
        if rng.random() < 0.2:
            events.append(event(customer, order, at_us + 1, 10, type="refunded"))
        if rng.random() < 0.1:
            events.append(event(customer, order, at_us + 2, 0, type="cancelled"))
        if rng.random() < 0.1:
            events.append(event(customer, f"credit {n}", at_us + 3, -5, type="adjusted"))
    return events


@pytest.mark.parametrize("name", ["rfm8", "rfm8-annual"])
@pytest.mark.parametrize("size", [40, 12_000])
def test_what_is_known_is_found_and_nothing_else(name: str, size: int) -> None:
    window = {} if name == "rfm8" else {"window_days": DAYS}
    ruleset = ruleset_of(BUILT_IN[name](forget_days=DAYS, **window))
    engine, events = Engine(ruleset), history(size, size)
    for first in range(0, len(events), 5000):
        fold_events(engine, events[first : first + 5000])
    shard = shard_in(engine)
    shard.advance(shard.clock_us)
    held = int(shard.state.row.n_entries)
    for _ in range(2):  # the second time there is nothing to do
        shard.forget()
        assert shard.fault(len(ruleset.tiers)) is None
    entries = shard.entry_records()[1:]
    assert entries.size < 0.8 * held
    kinds = entries["marks"] & layout.KIND_MASK
    about = np.where(kinds <= layout.ADJUSTMENT, np.arange(1, entries.size + 1), entries["previous"])
    is_old = shard.entry_records()["at_us"][about] < shard.known_us
    assert set(kinds[is_old].tolist()) <= {layout.ORDER, layout.ADJUSTMENT}
    assert is_old.sum() <= 2 * shard.customers
    assert int(shard.state.row.n_orders) == (kinds == layout.ORDER).sum()
    # An event a second time: what is known is a duplicate, however it is found; nothing else is known.
    dated: dict[str, int] = {}
    for one in events:
        dated.setdefault(one["order_id"], one["occurred_at_us"])
    outcomes = fold_events(engine, events)
    for one, outcome in zip(events, outcomes, strict=True):
        assert outcome == ("unknown_order" if dated[one["order_id"]] < shard.known_us else "duplicate"), one


def test_table_is_as_small_as_one_of_what_is_left() -> None:
    engine = Engine(ruleset_of(BUILT_IN["rfm8"](forget_days=DAYS)))
    fold_events(engine, history(3, 30_000))
    shard = shard_in(engine)
    shard.advance(FIRST_US + 1000 * DAY_US)
    before = shard.memory()
    shard.forget()
    after = shard.memory()
    for name in ("orders", "order_index", "ids"):
        assert after[name] < before[name] / 3, name
    assert after["customers"] == before["customers"]
