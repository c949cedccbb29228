"""Carry rules, events and rows between the oracle's plain Python and the product's Arrow."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
from oracle import Event, Oracle, Row, Rules

from rfmstream import Engine
from rfmstream.schemas.codes import OrderType
from rfmstream.schemas.orders import CANONICAL_SCHEMA
from rfmstream.schemas.ruleset import Milestones, Ruleset, load_ruleset


def ruleset_of(rules: Rules) -> Ruleset:
    """Compile the oracle's rules into the product's, calling the tier function once for every combination."""
    shape = tuple(
        len(cuts) + 1 for cuts in (rules.recency_cuts_days, rules.frequency_cuts, rules.monetary_cuts_minor)
    )
    cells = [rules.tier(*bands, bool(first)) for first, *bands in product(range(2), *map(range, shape))]
    ids = sorted(set(cells))
    lookup = np.array([ids.index(cell) for cell in cells], np.int8).reshape(2, *shape)
    rfm8 = load_ruleset("rfm8")
    decides = [getattr(rules, field.name) for field in fields(rules) if field.name != "tier"]
    return replace(
        rfm8,
        name=rules.identity,
        identity=rules.identity,
        fingerprint=hashlib.sha256(repr((decides, cells)).encode()).hexdigest(),
        tier_fingerprint="",
        time_zone=rules.time_zone,
        day_unit=rules.day_unit,
        window_days=rules.window_days,
        forget_orders_after_days=rules.forget_days,
        recency_cuts_days=rules.recency_cuts_days,
        frequency_cuts=rules.frequency_cuts,
        monetary_cuts_minor=rules.monetary_cuts_minor,
        tiers=tuple(
            replace(
                rfm8.tiers[0],
                id=tier,
                warn_days=getattr(rules, "warn_days", {}).get(tier, ()),
                dwell_days=getattr(rules, "dwell_days", {}).get(tier, ()),
            )
            for tier in ids
        ),
        lookup=lookup,
        milestones=Milestones(
            *(getattr(rules, name, ()) for name in ("orders", "spend_minor", "single_order_minor"))
        ),
    )


def canonical_batch(events: Sequence[Event], first_row: int = 0) -> pa.RecordBatch:
    """Lay events out as the batch that readers hand to the core."""
    columns = [
        [event["customer_id"] for event in events],
        [event["order_id"] for event in events],
        [OrderType[event["type"].upper()].value for event in events],
        [event["occurred_at_us"] for event in events],
        [event["amount_minor"] for event in events],
        [event["event_id"] for event in events],
        range(first_row, first_row + len(events)),
    ]
    arrays = [
        # Through int64: pa.array would want a datetime for a timestamp.
        pa.array(values, pa.int64()).cast(field.type)
        if pa.types.is_timestamp(field.type)
        else pa.array(values, field.type)
        for values, field in zip(columns, CANONICAL_SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=CANONICAL_SCHEMA)


def plain_rows(table: pa.Table | pa.RecordBatch) -> list[Row]:
    """Read an Arrow table as the oracle's rows: words as str, instants as µs."""
    arrays = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in table.columns
    ]
    columns = [array.to_pylist() for array in arrays]
    return [dict(zip(table.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Sort change rows the way their identity goes."""
    return sorted(rows, key=lambda row: (row["customer_id"], row["seq"]))


class Driven:
    """An engine driven by plain events, which collects what comes out of it as plain rows."""

    def __init__(self, rules: Rules, **options: Any) -> None:  # noqa: ANN401
        self.ruleset = ruleset_of(rules)
        self.engine = Engine(self.ruleset, **options)
        self.changes: list[Row] = []
        self.signals: list[Row] = []
        self.rejected: list[tuple[int, str]] = []
        self.rows_read = 0

    def forget(self) -> None:
        """Give back the memory of what is forgotten, which is to be seen nowhere."""
        for shard in self.engine.shards:
            if shard.forgets:
                shard.forget()

    def step(self, events: Sequence[Event]) -> None:
        result = self.engine.step_canonical(canonical_batch(events, self.rows_read))
        self.rows_read += len(events)
        self.changes += plain_rows(result.changes)
        self.signals += plain_rows(result.signals)
        self.rejected += [(row["row"], row["reason"]) for row in plain_rows(result.rejected)]
        self.forget()

    def advance(self, now_us: int) -> None:
        self.changes += plain_rows(self.engine.advance(now_us))
        self.signals += plain_rows(self.engine.signals)

    def snapshot(self, as_of_us: int | None = None) -> list[Row]:
        return sorted(plain_rows(self.engine.snapshot(as_of_us)), key=lambda row: row["customer_id"])

    def restart(self, directory: str, **options: Any) -> None:  # noqa: ANN401
        """Write a checkpoint, forget the engine and go on with one restored from it."""
        self.engine.checkpoint(directory)
        self.engine = Engine.restore(directory, ruleset=self.ruleset, **options)

    @property
    def clock_us(self) -> int | None:
        return None if self.engine.clock is None else self.engine.clock_us

    @property
    def counters(self) -> Row:
        """The engine's counters as the oracle writes them: reasons that never occurred are left out."""
        counters = self.engine.counters
        return {
            "read": counters.read,
            "applied": counters.applied,
            "duplicates": counters.duplicates,
            "rejected": {reason: count for reason, count in counters.rejected.items() if count},
            "changes": {reason: count for reason, count in counters.changes.items() if count},
        }


def by_customer(signals: Iterable[Row]) -> dict[str, list[Row]]:
    """Return signals by customer, those of each in the order in which they came."""
    found: dict[str, list[Row]] = {}
    for row in signals:
        found.setdefault(row["customer_id"], []).append(row)
    return found


def rejected_rows(oracle: Oracle) -> list[tuple[int, str]]:
    """Return (row, reason) of what the oracle rejected, in input order."""
    return [
        (row, outcome)
        for row, outcome in enumerate(oracle.outcomes)
        if outcome not in ("applied", "duplicate")
    ]


def assert_same(driven: Driven, oracle: Oracle) -> None:
    """Compare all they tell: every change in all columns and its place, rejections, counters, snapshot."""
    assert in_order(driven.changes) == in_order(oracle.changes)
    assert_in_order_per_customer(driven.changes)
    assert sorted(driven.rejected) == rejected_rows(oracle)
    assert driven.counters == oracle.counters
    assert driven.clock_us == oracle.clock_us
    assert driven.snapshot() == oracle.snapshot()


def assert_in_order_per_customer(changes: Iterable[Row]) -> None:
    """Hold that a customer's changes come out one by one: seq 1, 2, 3 ..., each from the tier before."""
    tier: dict[str, tuple[int, str | None]] = {}
    for row in changes:
        seq, before = tier.get(row["customer_id"], (0, None))
        assert (row["seq"], row["from_tier"]) == (seq + 1, before)
        assert row["to_tier"] != before
        tier[row["customer_id"]] = row["seq"], row["to_tier"]
