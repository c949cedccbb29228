"""Crashes at any moment change nothing: a seeded log, read in pieces, by engines that die and come back.

A failing seed is in the test's name; SIMULATION_SEEDS=7,8,9 runs those instead.
"""

import os
from pathlib import Path
from random import Random
from typing import Any

import pytest
from oracle import BUILT_IN, Event, Oracle, Rules
from oracle_days import DAY_US
from twins import Driven, assert_in_order_per_customer, in_order

from rfmstream import Engine
from rfmstream.schemas.errors import StateError

SEEDS = [int(seed) for seed in os.environ.get("SIMULATION_SEEDS", "1,2,3,4,5").split(",")]
ROWS = 1000
START_US = 1_700_000_000_000_000
MANIFEST = "manifest.json"

Item = Event | int
"""An event, or an instant up to which time passes."""


class Crash(BaseException):
    """The process is gone."""


def rules_of(seed: int) -> Rules:
    name = sorted(BUILT_IN)[seed % len(BUILT_IN)]
    zone = ["UTC", "America/St_Johns", "Africa/Cairo"][seed % 3]
    return BUILT_IN[name](time_zone=zone, day_unit="duration" if seed % 4 == 0 else "calendar_day")


def log_of(random: Random, *, late: bool) -> list[Item]:
    """Draw a log: orders of some customers over three years, what happens to them later, and repeats of it all."""
    now_us, log, events = START_US, [], []
    while len(log) < ROWS:
        now_us += random.choice([0, 1, 1000, DAY_US // 7, DAY_US, 3 * DAY_US])
        customer_id = f"c{random.randrange(40)}".ljust(random.choice([3, 40]), "-")
        roll = random.random()
        if roll < 0.6 or not events:
            event = row("paid", customer_id, f"o{len(events)}", now_us, random.randrange(0, 60_000))
        elif roll < 0.87:
            event = later_of(random, random.choice(events), now_us)
        elif roll < 0.95:
            event = random.choice(events[-200:])  # delivered again
        else:
            log.append(now_us)
            continue
        events.append(event)
        log.append(event)
    return shuffled_a_little(random, log) if late else in_order_of_time(log)


def later_of(random: Random, event: Event, now_us: int) -> Event:
    """Draw what may happen to the order of an event, or to its customer."""
    kind = random.choice(["refunded", "refunded", "cancelled", "adjusted"])
    amount = {"cancelled": 0, "adjusted": random.randrange(-9000, 9000)}.get(
        kind, random.choice([event["amount_minor"], event["amount_minor"] // 3, 1])
    )
    event_id = random.choice([None, None, f"e{random.randrange(300)}"])
    return row(
        kind,
        event["customer_id"],
        event["order_id"],
        now_us,
        max(amount, 0) if kind != "adjusted" else amount,
        event_id,
    )


def row(  # noqa: PLR0917 - the fields of an event
    kind: str, customer_id: str, order_id: str, at_us: int, amount: int, event_id: str | None = None
) -> Event:
    return {
        "customer_id": customer_id,
        "order_id": order_id,
        "type": kind,
        "occurred_at_us": at_us,
        "amount_minor": amount,
        "event_id": event_id,
    }


def shuffled_a_little(random: Random, log: list[Item]) -> list[Item]:
    """Let every item come up to ten places late."""
    places = sorted(range(len(log)), key=lambda at: at + random.randrange(10))
    return [log[at] for at in places]


def in_order_of_time(log: list[Item]) -> list[Item]:
    return sorted(log, key=lambda item: item if isinstance(item, int) else item["occurred_at_us"])


def told_by_oracle(rules: Rules, log: list[Item]) -> Oracle:
    oracle = Oracle(rules)
    for item in log:
        if isinstance(item, int):
            oracle.advance(item)
        else:
            oracle.step([item])
    return oracle


class Life:
    """One engine after another over the same log; what they tell is collected as a consumer would."""

    def __init__(
        self, random: Random, rules: Rules, log: list[Item], directory: Path, *, threads: int
    ) -> None:
        self.random, self.rules, self.log, self.directory, self.threads = (
            random,
            rules,
            log,
            directory,
            threads,
        )
        self.seen: dict[tuple[str, int], dict[str, Any]] = {}
        self.saved_at = 0
        self.crashes = 0
        self.begin()

    def begin(self) -> None:
        """Start from the newest checkpoint, at the place in the log where it was taken."""
        self.driven = Driven(self.rules, threads=self.threads)
        self.at = 0
        if self.saved_at:
            threads = self.random.choice([None, 1, 2])
            self.driven.engine = Engine.restore(self.directory, ruleset=self.driven.ruleset, threads=threads)
            self.at = self.saved_at
            self.driven.rows_read = self.driven.engine.counters.read

    def run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        while self.at < len(self.log):
            roll = self.random.random()
            if roll < 0.8:
                self.read()
            elif roll < 0.87:
                self.driven.engine.checkpoint(self.directory)
                self.saved_at = self.at
            elif roll < 0.94:
                self.die_while_writing(monkeypatch)
            else:
                self.crashes += 1
                self.begin()

    def read(self) -> None:
        """Take the next item that passes time, or the next few events as one batch."""
        size = self.random.choice([1, 2, 5, 30, 100])
        items = self.log[self.at : self.at + size]
        events = [item for item in items if not isinstance(item, int)]
        if len(events) < len(items):
            items = items[: next(i for i, item in enumerate(items) if isinstance(item, int))] or items[:1]
        if isinstance(items[0], int):
            self.driven.advance(items[0])
        else:
            self.driven.step(items)
        self.at += len(items)
        self.collect()

    def collect(self) -> None:
        """Keep each change once; one told again must be the same word for word."""
        for change in self.driven.changes:
            key = change["customer_id"], change["seq"]
            assert self.seen.setdefault(key, change) == change
        self.driven.changes.clear()

    def die_while_writing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Die in one of the calls that reach the disk, sometimes without a chance to clean up."""
        calls = self.random.randrange(1, 2 * len(self.driven.engine.shards) + 4)
        before = manifest_of(self.directory)

        def counted(function: Any) -> Any:  # noqa: ANN401
            def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401
                nonlocal calls
                calls -= 1
                if calls == 0:
                    raise self.random.choice([Crash(), OSError(5, "Input/output error")])
                return function(*args, **options)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", counted(os.fsync))
            patch.setattr(Path, "replace", counted(Path.replace))
            if self.random.random() < 0.5:
                patch.setattr(Path, "unlink", lambda *_args, **_options: None)
            try:
                self.driven.engine.checkpoint(self.directory)
            except (Crash, StateError):
                self.crashes += 1
        if manifest_of(self.directory) != before:
            self.saved_at = self.at
        self.begin()


def manifest_of(directory: Path) -> bytes | None:
    path = directory / MANIFEST
    return path.read_bytes() if path.exists() else None


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("late", "threads"), [(True, 1), (False, 3)], ids=["late rows", "threads"])
def test_crashes_change_nothing(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, late: bool, threads: int
) -> None:
    random = Random(seed)  # noqa: S311 - a seed that reproduces
    rules = rules_of(seed)
    log = log_of(random, late=late)
    oracle = told_by_oracle(rules, log)
    life = Life(random, rules, log, tmp_path / "state", threads=threads)
    life.run(monkeypatch)
    assert life.crashes > 3
    assert in_order(life.seen.values()) == in_order(oracle.changes)
    assert_in_order_per_customer(in_order(life.seen.values()))
    assert life.driven.counters == oracle.counters
    assert life.driven.clock_us == oracle.clock_us
    assert life.driven.snapshot() == oracle.snapshot()
