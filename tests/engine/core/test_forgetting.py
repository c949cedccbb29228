"""Orders that a ruleset forgets: their sums stay, nothing speaks of them any more, and memory stops to grow."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from oracle import BUILT_IN, Event, Oracle, Rules
from oracle_days import DAY_US
from twins import Driven, assert_same, canonical_batch, plain_rows, ruleset_of

from rfmstream import Engine
from rfmstream.engine.core import forgetting
from rfmstream.engine.core.checkpoint.manifest import read_manifest
from rfmstream.engine.core.views import Views
from rfmstream.kernels import layout
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError, StateError
from rfmstream.schemas.plan import Plan, View

ANNUAL = BUILT_IN["rfm8-annual"](forget_days=400, identity="annual-400")
LIFETIME = BUILT_IN["rfm8"](forget_days=400, identity="lifetime-400")
FIRST_US = 1_600_000_000 * 1_000_000


def event(customer: str, order: str, day: float, amount: int = 100, **fields: object) -> Event:
    return {
        "customer_id": customer,
        "order_id": order,
        "type": "paid",
        "occurred_at_us": FIRST_US + int(day * DAY_US),
        "amount_minor": amount,
        "event_id": None,
    } | fields


def years(customers: int, count: int, *, orders_a_day: int = 20) -> list[list[Event]]:
    """Return a year's events after another's: orders of customers in turn, one in ten refunded, some with event ids."""
    made, number = [], 0
    for year in range(count):
        events = []
        for day in range(365 * year, 365 * (year + 1)):
            for k in range(orders_a_day):
                number += 1
                name = f"customer {number * 7919 % customers}"
                order = f"order-{number}"
                own = {"event_id": f"event-{number}"} if number % 7 == 0 else {}
                at = day + k / orders_a_day
                events.append(event(name, order, at, 1_000 + number % 900, **own))
                if number % 10 == 0:
                    events.append(event(name, order, at + 0.01, 500, type="refunded"))
                if number % 50 == 0:
                    events.append(event(name, f"credit-{number}", at + 0.02, -7, type="adjusted"))
        made.append(events)
    return made


def entries(engine: Engine) -> int:
    return sum(int(shard.state.row.n_entries) - 1 for shard in engine.shards)


@pytest.mark.parametrize("rules", [ANNUAL, LIFETIME], ids=lambda rules: rules.identity)
def test_memory_stops_to_grow_and_nothing_else_shows_it(
    rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "ENTRIES_MORE", 1 << 10)
    forgets, keeps = Driven(rules), Driven(replace(rules, forget_days=None))
    bytes_of: dict[str, list[int]] = {"forgets": [], "keeps": []}
    for events in years(300, 6):
        for first in range(0, len(events), 1000):
            for driven in (forgets, keeps):
                # Not Driven.step, which gives memory back after each step.
                result = driven.engine.step_canonical(canonical_batch(events[first : first + 1000]))
                driven.changes += plain_rows(result.changes)
                assert result.rejected.num_rows == 0
        bytes_of["forgets"].append(sum(forgets.engine.memory.values()))
        bytes_of["keeps"].append(sum(keeps.engine.memory.values()))
    assert forgets.changes == keeps.changes
    assert forgets.snapshot() == keeps.snapshot()
    # 400 days are kept, up to half as many entries more before it is worth looking, and two of each customer.
    lives = sum(len(events) for events in years(300, 1)) * 400 / 365 * 1.3
    assert entries(forgets.engine) <= 1.5 * lives + 2 * 300 + 1024
    assert max(bytes_of["forgets"][2:]) <= 1.2 * bytes_of["forgets"][2]
    assert bytes_of["keeps"][5] > 1.7 * bytes_of["keeps"][2]


def test_what_stays_of_a_customer() -> None:
    driven = Driven(ANNUAL)
    driven.step(
        [
            event("ada", "first", 0, 70_000),
            event("ada", "void", 1),
            event("ada", "void", 2, type="cancelled", event_id="c"),
            event("ada", "gold", 3, 40_000, event_id="e"),
            event("ada", "gold", 4, 1_000, type="refunded"),
            event("ada", "last", 5, 10),
            event("ada", "credit", 6, -5, type="adjusted"),
        ]
    )
    before = driven.snapshot()[0]
    driven.advance(FIRST_US + 500 * DAY_US)
    driven.forget()
    (shard,) = driven.engine.shards
    kept = shard.entry_records()[1:]
    # R falls back to the newest order; the newest change by an order named none: time brought it.
    assert [int(marks) & layout.KIND_MASK for marks in kept["marks"]] == [layout.ORDER]
    assert kept["at_us"].tolist() == [FIRST_US + 5 * DAY_US]
    after = driven.snapshot()[0]
    for name in ("last_paid_at", "first_paid_at", "lifetime_orders", "lifetime_monetary_minor"):
        assert after[name] == before[name]
    assert (after["frequency"], after["monetary_minor"]) == (0, 0)
    # A later order that is voided leaves R at that of the forgotten one.
    driven.step([event("ada", "new", 600), event("ada", "new", 601, type="cancelled")])
    assert driven.snapshot()[0]["last_paid_at"] == FIRST_US + 5 * DAY_US


def test_the_order_that_a_change_names_stays(tmp_path: Path) -> None:
    rules = replace(LIFETIME, recency_cuts_days=(10_000,))
    driven = Driven(rules)
    driven.step([event("ada", "first", 0), event("ada", "another", 1)])
    driven.advance(FIRST_US + 900 * DAY_US)
    driven.restart(str(tmp_path))
    assert driven.snapshot()[0]["order_id"] == "first"
    assert entries(driven.engine) == 2


@pytest.mark.parametrize(
    ("late", "outcome"),
    [
        (event("ada", "old", 399, type="refunded", amount=10), "applied"),
        (event("ada", "old", 401, type="refunded", amount=10), "unknown_order"),
        (event("ada", "old", 401, type="refunded_total", amount=10), "unknown_order"),
        (event("ada", "old", 401, type="cancelled", amount=0), "unknown_order"),
        (event("ada", "old", 0), "unknown_order"),  # a duplicate: whether it is one nobody knows
        (event("ada", "never seen", 0), "unknown_order"),
        (event("nobody", "never seen", 0), "unknown_order"),
        (event("ada", "credit", 0, -5, type="adjusted"), "unknown_order"),
        (event("ada", "old", 402, 7), "applied"),  # the id is free again
        (event("ada", "other", 402, 7, event_id="e"), "applied"),
        (event("ada", "recent", 400), "duplicate"),
        (event("ada", "recent", 402), "conflicting_duplicate"),
    ],
)
@pytest.mark.parametrize("is_freed", [False, True])
def test_what_speaks_of_it_is_rejected(late: Event, outcome: str, *, is_freed: bool) -> None:
    events = [
        event("ada", "old", 0, event_id="e"),
        event("ada", "recent", 400),
        event("bob", "clock", max(402, late["occurred_at_us"] // DAY_US - FIRST_US // DAY_US)),
    ]
    if late["occurred_at_us"] == FIRST_US + 399 * DAY_US:
        events = events[:1]
    driven, oracle = Driven(ANNUAL), Oracle(ANNUAL)
    oracle.step(events)
    driven.engine.step_canonical(canonical_batch(events))
    if is_freed:
        driven.forget()
    result = driven.engine.step_canonical(canonical_batch([late], 3))
    assert oracle.step([late]) == [outcome]
    reasons = [row["reason"] for row in plain_rows(result.rejected)]
    assert reasons == ([] if outcome in ("applied", "duplicate") else [outcome])
    assert driven.snapshot() == oracle.snapshot()


def test_the_log_s_clock_decides_however_late_a_record_is() -> None:
    engine = Engine(ruleset_of(ANNUAL), mode="live")
    day = [FIRST_US + n * DAY_US for n in (0, 401)]
    events = [event("ada", "a", 0), event("ada", "a", 0.5, 10, type="refunded")]
    log_us = pa.array([day[0], day[1]], pa.int64()).to_numpy()
    _, outcomes = engine.step_log(canonical_batch(events), log_us, tolerance_us=DAY_US)
    assert outcomes.tolist() == [0, 11]


def state_files(folder: Path) -> list[bytes]:
    return [
        (folder / file["name"]).read_bytes()
        for file in read_manifest(folder)["files"]
        if (folder / file["name"]).exists()
    ]


def test_a_checkpoint_holds_what_lives_whenever_memory_was_given_back(tmp_path: Path) -> None:
    whole, parts, last = Driven(ANNUAL), Driven(ANNUAL), [event("bob", "now", 3 * 365)]
    history = [event for events in years(40, 3, orders_a_day=2) for event in events]
    whole.engine.step_canonical(canonical_batch(history + last))
    for first in range(0, len(history), 37):
        parts.step(history[first : first + 37])
        if first % 5 == 0:
            parts.restart(str(tmp_path / "between"))
    parts.step(last)
    whole.engine.checkpoint(tmp_path / "whole")
    parts.engine.checkpoint(tmp_path / "parts")
    assert state_files(tmp_path / "whole") == state_files(tmp_path / "parts")
    manifest = read_manifest(tmp_path / "whole")
    assert manifest["version"] == 4
    assert all(shard["known_us"] > FIRST_US for shard in manifest["shards"])
    assert manifest["files"][1]["rows"] < 1300 < entries(whole.engine)
    text = b"".join(state_files(tmp_path / "whole"))
    assert b"order-12345" not in text
    assert b"order-9\x00" not in text
    # What is written is a copy: the engine goes on, and so does another from the checkpoint.
    restored = Engine.restore(tmp_path / "whole", ruleset=whole.ruleset)
    assert plain_rows(restored.snapshot()) == plain_rows(whole.engine.snapshot())
    frozen = whole.engine.frozen()
    frozen.checkpoint(tmp_path / "frozen")
    assert state_files(tmp_path / "frozen") == state_files(tmp_path / "whole")


def test_without_the_key_a_checkpoint_is_as_before(tmp_path: Path) -> None:
    engine = Engine(ruleset_of(replace(ANNUAL, forget_days=None)))
    engine.step_canonical(canonical_batch([event("ada", "a", 0), event("ada", "b", 2000)]))
    engine.checkpoint(tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest["version"] == 2
    assert [sorted(shard) for shard in manifest["shards"]] == [["clock_us", "wheel_key"]]
    assert manifest["files"][1]["rows"] == 2


def test_a_ruleset_of_another_bound_has_to_take_over(tmp_path: Path) -> None:
    engine = Engine(ruleset_of(replace(ANNUAL, forget_days=None)))
    engine.step_canonical(canonical_batch([event("ada", "a", 0), event("ada", "b", 2000)]))
    engine.checkpoint(tmp_path)
    with pytest.raises(StateError, match="belongs to ruleset"):
        Engine.restore(tmp_path, ruleset=ruleset_of(ANNUAL))
    engine.resegment(ruleset_of(ANNUAL))
    assert entries(engine) == 2, "the newest order stays, and so does the one that lives"
    result = engine.step_canonical(canonical_batch([event("ada", "a", 2001, type="cancelled", amount=0)]))
    assert result.rejected["reason"].to_pylist() == ["unknown_order"]


@pytest.mark.parametrize("is_restored", [False, True])
def test_what_is_forgotten_stays_so_under_rules_that_keep(tmp_path: Path, *, is_restored: bool) -> None:
    engine = Engine(ruleset_of(ANNUAL))
    engine.step_canonical(canonical_batch([event("ada", "a", 0, 500), event("ada", "b", 1000)]))
    keeps = replace(ANNUAL, forget_days=None, identity="keeps")
    with pytest.raises(ConfigError, match="has forgotten the orders from before 2022-05-06") as caught:
        engine.resegment(ruleset_of(replace(keeps, window_days=401)))
    assert (caught.value.key, str(caught.value).count("\n")) == ("window_days", 0)
    assert engine.ruleset.identity == ANNUAL.identity
    engine.resegment(ruleset_of(keeps))
    if is_restored:
        engine.checkpoint(tmp_path)
        engine = Engine.restore(tmp_path, ruleset=ruleset_of(keeps))
    later = [
        event("ada", "a", 1001, 0, type="cancelled"),
        event("ada", "a", 0, 500),
        event("ada", "b", 1001, 0, type="cancelled"),
    ]
    result = engine.step_canonical(canonical_batch(later))
    assert result.rejected["reason"].to_pylist() == ["unknown_order"] * 2
    engine.resegment(ruleset_of(replace(keeps, window_days=None)))
    row = plain_rows(engine.snapshot())[0]
    assert (row["frequency"], row["monetary_minor"], row["last_paid_at"]) == (1, 500, FIRST_US)


def test_a_view_forgets_by_its_own_ruleset(tmp_path: Path) -> None:
    keeps = replace(ANNUAL, forget_days=None, identity="keeps")
    plan = Plan((View("keeps", ruleset_of(keeps)), View("forgets", ruleset_of(ANNUAL))))
    views = Views(plan)
    columns: dict[str, list[Any]] = {
        "customer_id": ["ada"] * 3,
        "order_id": ["a", "b", "a"],
        "type": ["paid", "paid", "cancelled"],
        "occurred_at": ["2020-01-01T00:00:00Z", "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"],
        "amount": ["5.00"] * 3,
    }
    step = views.step(pa.table(columns))
    assert step.rejected["reason"].to_pylist() == ["unknown_order"]
    assert step.rejected["views"].to_pylist() == ["forgets"]
    views.checkpoint(tmp_path)
    restored = Views.restore(tmp_path, plan)
    rejected = [restored[name].engine.counters.rejected for name in ("keeps", "forgets")]
    assert rejected == [{}, {"unknown_order": 1}]
    with pytest.raises(ConfigError, match="window_days"):
        views.resegment("forgets", ruleset_of(replace(keeps, window_days=9000)))
    assert views.plan.view("forgets").ruleset.identity == ANNUAL.identity
    assert views.step(pa.table({name: values[:1] for name, values in columns.items()})).rejected.num_rows == 1


def test_an_erased_customer_is_forgotten_all_the_same() -> None:
    driven, oracle = Driven(ANNUAL), Oracle(ANNUAL)
    events = [
        event("ada", "a", 0),
        event("bob", "a", 1),
        event("ada", "", 2, 0, type="erased"),
        event("ada", "b", 3),
        event("bob", "b", 900),
        event("ada", "b", 901, 0, type="cancelled"),
        event("ada", "late", 1),
        event("ada", "c", 902),
    ]
    for one in events:
        oracle.step([one])
        driven.step([one])
    assert_same(driven, oracle)
    assert oracle.outcomes[5:7] == ["unknown_order", "erased_customer"]


def test_the_horizon_never_falls_where_a_clock_is_set_back_across_midnight() -> None:
    """St John's, 2010-11-07: 00:01 becomes 23:01 of the day before."""
    rules = replace(ANNUAL, time_zone="America/St_Johns", window_days=1, forget_days=1)
    fall_us = 1_289_097_060_000_000
    driven, oracle = Driven(rules), Oracle(rules)
    base = {"occurred_at_us": fall_us - 26 * 3_600_000_000}
    events = [
        event("ada", "a", 0) | base,
        event("ada", "b", 0) | {"occurred_at_us": fall_us - 30_000_000},
        event("ada", "c", 0) | {"occurred_at_us": fall_us + 60_000_000},
        event("ada", "a", 0, 0, type="cancelled") | {"occurred_at_us": fall_us + 120_000_000},
    ]
    for one in events:
        oracle.step([one])
        driven.step([one])
    assert_same(driven, oracle)
    assert driven.engine.shards[0].known_us > NEVER_US
