"""Several views in one runner: a stage, a history of stores, and what a view gives by itself."""

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from kernel_shards import event
from live_stage import OPTIONS, SOURCE, Stage, run
from live_world import START_US, Record, ScriptedLog, plain
from oracle_days import DAY_US
from twins import canonical_batch, plain_rows

from rfmstream.engine.core.view import NOT_OURS
from rfmstream.engine.core.views import Views
from rfmstream.engine.live.decoders import decoder_for
from rfmstream.engine.live.runner import Runner
from rfmstream.engine.live.stats import PartitionStats
from rfmstream.engine.live.store import Store
from rfmstream.schemas.plan import ATTRIBUTE, Plan, View
from rfmstream.schemas.ruleset import load_ruleset

STORES = [None, "hk", "tw", "hk", "hk"]
RFM8, SCORES, TYPES = (load_ruleset(name) for name in ("rfm8-annual", "scores4", "types7"))
ALL = View("all", RFM8)
HONG_KONG = View("hk", TYPES, where=(("store", ("hk",)),))
BY_STORE = View("by-store", SCORES, per="store")
SHADOW = View("next", TYPES, shadow=True)
PLAN = Plan((ALL, HONG_KONG, BY_STORE, SHADOW))


class ViewsStage(Stage):
    """A stage whose runner has a plan of views."""

    def put_orders(self, events: list[dict[str, Any]]) -> None:
        """Append a record of each event, dated as it is."""
        for each in events:
            self.world.now_us = max(self.world.now_us, each["occurred_at_us"])
            value = plain(each) | ({} if each["store"] is None else {"store": each["store"]})
            record = Record(self.world.end, orjson.dumps(value), each["occurred_at_us"] // 1000, [each])
            self.world.records.append(record)
            self.world.end += 1

    def views(self, plan: Plan, **options: Any) -> Runner:  # noqa: ANN401
        return Runner(
            SOURCE,
            ruleset=plan,
            options=OPTIONS.__class__(**{**vars(OPTIONS), **options}),
            log=ScriptedLog(self.world),
            store=Store(str(self.root), app_id="app"),
            decoder=decoder_for(plan),
            run=run,
            now_us=lambda: self.world.now_us,
            stats=PartitionStats(),
        )

    def told(self, kind: str, view: str) -> list[dict[str, Any]]:
        """Return what a view told, in order."""
        tables = [
            getattr(told, kind)
            for step in self.world.history
            for told in step.told
            if told.view == view and getattr(told, kind) is not None
        ]
        return [row for table in tables for row in plain_rows(table)]


def history(seed: int, count: int) -> list[dict[str, Any]]:
    """Orders, refunds and erasures of a few customers over two years, in order of time."""
    random, events = Random(seed), []  # noqa: S311 - no secret
    for n in range(count):
        at_us = START_US + n * 700 * DAY_US // count
        kind = random.choice(["paid"] * 12 + ["refunded", "cancelled", "erased"])
        customer, store = f"c{random.randrange(9)}", random.choice(STORES)
        row = event(customer, f"o{n}", 0, random.choice([100, 40_000, 150_000])) | {"store": store}
        if kind in ("refunded", "cancelled") and events:
            other = random.choice(events)
            row |= {
                "customer_id": other["customer_id"],
                "order_id": other["order_id"],
                "store": other["store"],
            }
            row |= {"type": kind, "amount_minor": 50 if kind == "refunded" else 0}
        elif kind == "erased" and random.random() < 0.4:
            row |= {"type": kind, "order_id": "", "amount_minor": 0}
        events.append(row | {"occurred_at_us": at_us})
    return events


def alone(
    view: View, events: list[dict[str, Any]], until_us: int, old: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Return what a view gives that runs by itself, and the rows it rejects.

    In      old  orders of a file of history, which come before the others
    """
    [of] = Views(Plan((view,)), mode="live").views.values()
    rows = [*sorted(old, key=lambda each: (each["occurred_at_us"], each["type"] != "paid")), *events]
    stores = pa.array([each["store"] for each in rows], pa.string())
    times = [each["occurred_at_us"] for each in rows]
    # The topic's clock is in ms.
    times[len(old) :] = [us // 1000 * 1000 for us in times[len(old) :]]
    changes, outcome = of.step_log(
        canonical_batch(rows).append_column(ATTRIBUTE + "store", stores),
        np.maximum.accumulate(np.array(times, dtype=np.int64)),
        tolerance_us=300_000_000,
    )
    signals = [of.engine.signals]
    changes = pa.concat_tables([changes, of.engine.advance(until_us)])
    signals.append(of.engine.signals)
    return {
        "changes": plain_rows(changes),
        "signals": plain_rows(pa.concat_tables(signals)),
        "snapshot": plain_rows(of.engine.snapshot(until_us)),
        "rejected": int(((outcome >= 8) & (outcome != NOT_OURS)).sum()),
    }


def by_customer(rows: list[dict[str, Any]]) -> dict[Any, list[dict[str, Any]]]:
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["population"], row["customer_id"]), []).append(row)
    return found


def by_id(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["population"] or "", row["customer_id"]))


async def read_some(stage: ViewsStage, runner: Runner, random: Random) -> None:
    while not runner.live or runner.position < stage.world.end:
        fetched = stage.world.fetch(runner.position, random.choice([1, 7, 50]))
        if fetched.offsets:
            await runner.feed(fetched)
        else:
            await runner.idle(stage.world.end, None)
