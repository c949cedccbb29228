import json
from pathlib import Path

import pyarrow as pa

from rfmstream.engine.replay.replay import open_engine, replay
from rfmstream.engine.replay.summary import summarise
from rfmstream.engine.replay.tiers import count_tiers
from rfmstream.schemas.ruleset import load_ruleset

RULESET = load_ruleset("rfm8")


def snapshot(*rows: tuple[str | None, int, int]) -> pa.Table:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    return pa.table(
        {
            "tier": pa.array(columns[0], pa.string()).dictionary_encode(),
            "lifetime_orders": pa.array(columns[1], pa.int64()),
            "lifetime_monetary_minor": pa.array(columns[2], pa.int64()),
        }
    )


def test_tiers_are_counted_and_come_in_the_ruleset_order() -> None:
    tiers = count_tiers(snapshot(("111", 3, 700), ("000", 1, 50), ("111", 4, 250), (None, 0, 0)), RULESET)
    assert [tier.id for tier in tiers] == [*(tier.id for tier in RULESET.tiers), None]
    champions = next(tier for tier in tiers if tier.id == "111")
    assert (champions.customers, champions.orders, champions.revenue_minor) == (2, 7, 950)
    assert (champions.customer_share, champions.revenue_share) == (0.5, 0.95)
    assert champions.average_order_minor == 135
    assert tiers[-1].customers == 1
    assert tiers[-1].average_order_minor is None


def test_without_customers_there_are_no_shares() -> None:
    tiers = count_tiers(snapshot(), RULESET)
    assert len(tiers) == 8
    assert all(tier.customer_share is None and tier.revenue_share is None for tier in tiers)


def test_sums_beyond_int64_are_exact() -> None:
    tiers = count_tiers(snapshot(*[("111", 1, 2**62)] * 5), RULESET)
    assert sum(tier.revenue_minor for tier in tiers) == 5 * 2**62


def test_chunks_with_dictionaries_of_their_own() -> None:
    both = pa.concat_tables([snapshot(("111", 1, 1), ("000", 1, 1)), snapshot(("000", 1, 1), (None, 0, 0))])
    found = {tier.id: tier.customers for tier in count_tiers(both, RULESET)}
    assert (found["111"], found["000"], found[None]) == (1, 2, 1)


def test_the_summary_adds_up(history: Path) -> None:
    summary = summarise(replay(open_engine(), [history])).as_dict()
    rows = summary["rows"]
    assert rows["read"] == rows["applied"] + rows["duplicates"] + rows["rejected"] == 7
    assert sum(rows["rejected_by_reason"].values()) == rows["rejected"]
    assert sum(summary["changes"]["by_reason"].values()) == summary["changes"]["total"]
    assert sum(tier["customers"] for tier in summary["tiers"]) == summary["customers"] == 2
    memory = summary["memory"]
    assert sum(memory["by_use_bytes"].values()) == memory["total_bytes"] > 0
    assert memory["retained_orders"] >= 2
    assert summary["as_of"] == "2026-01-09T00:00:00Z"
    assert json.loads(json.dumps(summary)) == summary
