"""The budget goes through the stages of a real replay: it makes the same file, and every stage has its line."""

import re
from pathlib import Path

import pyarrow.parquet as pq

from bench.budget import STAGES, lines, stages
from rfmstream.engine.replay.generate import generate
from rfmstream.engine.replay.replay import Outputs, open_engine, replay
from rfmstream.schemas.ruleset import load_ruleset


def test_the_stages_make_the_file_of_a_replay(tmp_path: Path) -> None:
    orders = tmp_path / "orders.parquet"
    generate(customers=200, orders=2_000, seed=3, keys="uniform", out=orders)
    ruleset = load_ruleset("rfm8-annual").without_signals()
    spent = stages(orders, ruleset, tmp_path / "staged.parquet")
    assert set(spent) == set(STAGES)
    replay(open_engine(ruleset), [orders], outputs=Outputs(changes=tmp_path / "replayed.parquet"))
    staged, replayed = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("staged", "replayed"))
    assert staged.equals(replayed)


def test_every_stage_has_its_line(tmp_path: Path) -> None:
    orders = tmp_path / "orders.parquet"
    generate(customers=20, orders=100, seed=3, keys="uniform", out=orders)
    told = list(lines(orders, "rfm8", 1))
    assert [re.split(r" *\| *", line)[1] for line in told[2:-3]] == ["start", *STAGES, "sum"]
    assert re.fullmatch(r"\| one core's wall time over that of two \| \d+\.\d\dx \| \|", told[-1])
