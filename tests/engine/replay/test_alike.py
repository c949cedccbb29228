"""Refunds that are alike: one by the contract, and the summary says so."""

from pathlib import Path

import pytest

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.files import sorting
from rfmstream.engine.replay.replay import replay
from rfmstream.engine.replay.summary import summarise
from rfmstream.schemas.ruleset import load_ruleset

HEADER = "customer_id,order_id,occurred_at,amount,type,event_id\n"
PAID = "bo,A1,2024-03-01,1500.00,paid,\n"


@pytest.mark.parametrize(
    ("refunds", "alike", "duplicates", "left_minor"),
    [
        (("300.00,refunded,", "300.00,refunded,"), 1, 1, 120_000),
        (("300.00,refunded,", "300.00,refunded,", "300.00,refunded,"), 2, 2, 120_000),
        (("300.00,refunded,r1", "300.00,refunded,r2"), 0, 0, 90_000),
        (("300.00,refunded,r1", "300.00,refunded,r1"), 0, 1, 120_000),
        (("300.00,adjusted,", "300.00,adjusted,"), 1, 1, 180_000),
        (("300.00,refunded,", "200.00,refunded_total,"), 0, 1, 120_000),
    ],
)
def test_they_count_once_and_are_named(
    tmp_path: Path, refunds: tuple[str, ...], alike: int, duplicates: int, left_minor: int
) -> None:
    path = tmp_path / "in.csv"
    path.write_text(HEADER + PAID + "".join(f"bo,A1,2024-03-05,{refund}\n" for refund in refunds))
    result = replay(Engine(load_ruleset("rfm8", currency="USD")), [path])
    assert (result.alike, result.counters.duplicates) == (alike, duplicates)
    assert summarise(result).as_dict()["input"]["alike_without_event_id"] == alike
    assert result.snapshot["lifetime_monetary_minor"].to_pylist() == [left_minor]


def test_they_are_found_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "BATCH_ROWS", 2)
    path = tmp_path / "in.csv"
    rows = [f"c{at % 3},o{at % 3},2024-03-05,1.00,refunded,\n" for at in range(9)]
    path.write_text(
        HEADER + "".join(f"c{at},o{at},2024-03-01,9.00,paid,\n" for at in range(3)) + "".join(rows)
    )
    assert replay(Engine(load_ruleset("rfm8", currency="USD")), [path]).alike == 6
