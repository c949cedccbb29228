"""An engine and its checkpoint go on alike, also where another version or ruleset goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from checkpoints import customers_of, grown, history, rewritten, told
from oracle_days import DAY_US
from twins import canonical_batch, in_order, plain_rows

from rfmstream import Engine, StateError, load_ruleset
from rfmstream.engine.core.checkpoint import read
from rfmstream.schemas.ruleset import Milestones


@pytest.mark.parametrize("ruleset", ["rfm8", "rfm8-annual", "scores4"])
@pytest.mark.parametrize(("shards", "threads"), [(1, None), (1, 3), (3, 1), (3, None), (3, 2)])
def test_both_go_on_alike(tmp_path: Path, ruleset: str, shards: int, threads: int | None) -> None:
    engine = grown(ruleset=ruleset, threads=shards, mode="live")
    engine.checkpoint(tmp_path)
    again = Engine.restore(tmp_path, threads=threads)
    assert again.mode == "live"
    assert again.ruleset == engine.ruleset
    for _ in range(2):
        assert told(again) == told(engine)
        assert (again.clock_us, again.counters, again.customers, again.orders) == (
            engine.clock_us,
            engine.counters,
            engine.customers,
            engine.orders,
        )
        more = canonical_batch(history(200, first=400))  # half of it known
        assert in_order(plain_rows(again.step_canonical(more).changes)) == in_order(
            plain_rows(engine.step_canonical(more).changes)
        )
        later = engine.clock_us + 100 * DAY_US
        assert in_order(plain_rows(again.advance(later))) == in_order(plain_rows(engine.advance(later)))


def test_an_empty_engine_comes_back(tmp_path: Path) -> None:
    Engine(threads=2).checkpoint(tmp_path)
    again = Engine.restore(tmp_path)
    assert (again.clock, again.customers, again.snapshot().num_rows) == (None, 0, 0)
    assert again.step_canonical(canonical_batch(history(3))).changes.num_rows > 0


def test_an_engine_without_customers_keeps_its_clock(tmp_path: Path) -> None:
    engine = Engine()
    engine.advance("2026-01-01")
    engine.checkpoint(tmp_path)
    assert Engine.restore(tmp_path).clock == engine.clock


def test_a_newer_checkpoint_takes_the_place_of_the_older(tmp_path: Path) -> None:
    engine = grown(50)
    names = set()
    for _ in range(3):
        engine.checkpoint(tmp_path)
        files = {path.name for path in tmp_path.iterdir()}
        assert len(files) == 3
        names |= files
        engine.step_canonical(canonical_batch(history(50, first=engine.counters.read)))
    assert len(names) == 7  # names of files are not used again


def test_nothing_is_pickled(saved: Path) -> None:
    for path in saved.iterdir():
        if path.suffix == ".arrow":
            assert path.read_bytes()[:4] == b"\xff\xff\xff\xff"  # an Arrow IPC stream
        else:
            orjson.loads(path.read_bytes())
    sources = list(Path(str(read.__file__)).parent.glob("*.py"))
    assert len(sources) > 4
    assert not [source for source in sources if "pickle" in source.read_text()]


@pytest.mark.parametrize(
    "other",
    [
        load_ruleset("rfm8"),
        load_ruleset("rfm8-annual", time_zone="Asia/Tokyo"),
        load_ruleset("rfm8-annual", currency="EUR"),
        "scores4",
    ],
)
def test_another_ruleset_is_refused_by_name(saved: Path, other: Any) -> None:  # noqa: ANN401
    name = other if isinstance(other, str) else other.identity
    with pytest.raises(StateError) as caught:
        Engine.restore(saved, ruleset=other)
    assert "rfm8-annual" in str(caught.value)
    assert name in str(caught.value)
    assert caught.value.fix is not None


@pytest.mark.parametrize("options", [{"time_zone": "Asia/Tokyo"}, {"currency": "JPY"}])
def test_overrides_come_back_without_being_named(tmp_path: Path, options: dict[str, str]) -> None:
    ruleset = load_ruleset("rfm8", **options)
    Engine(ruleset).checkpoint(tmp_path)
    assert Engine.restore(tmp_path).ruleset == ruleset
    with pytest.raises(StateError, match="rfm8"):
        Engine.restore(tmp_path, ruleset="rfm8")


ASKED = replace(
    load_ruleset("rfm8-annual"),
    fingerprint="another",
    tiers=tuple(
        replace(tier, warn_days=(25,), dwell_days=(30, 90)) for tier in load_ruleset("rfm8-annual").tiers
    ),
    milestones=Milestones((1, 2, 4), (50_000,), (31_000,)),
)


def test_signals_begin_where_a_state_without_them_goes_on(tmp_path: Path) -> None:
    plain = replace(ASKED.without_signals(), fingerprint=ASKED.tier_fingerprint)
    grown(ruleset=plain).checkpoint(tmp_path)
    engine = Engine.restore(tmp_path, ruleset=ASKED)
    assert told(engine) == told(grown(ruleset=plain))
    more = canonical_batch(history(300, first=500))
    result = engine.step_canonical(more)
    # What was reached before gives nothing: everybody had more than four orders.
    assert set(result.signals["kind"].to_pylist()) <= {"warning", "dwell", "single_order"}
    assert engine.counters.signals["warning"] > 0
    # And by a ruleset without signals it goes on again, keeping what it remembers.
    engine.checkpoint(tmp_path)
    quiet = Engine.restore(tmp_path, ruleset=plain)
    quiet.advance(quiet.clock_us + 400 * DAY_US)
    assert quiet.signals.num_rows == 0
    engine.advance(engine.clock_us + 400 * DAY_US)
    assert told(quiet) == told(engine)


def test_a_column_that_an_older_program_did_not_write_has_its_default(tmp_path: Path) -> None:
    engine = grown(ruleset=ASKED)
    engine.checkpoint(tmp_path)
    assert set(customers_of(tmp_path)["warned_days"].to_pylist()) == {25}
    rewritten(tmp_path, 0, customers_of(tmp_path).drop_columns(["warned_us", "warned_days"]))
    again = Engine.restore(tmp_path, ruleset=ASKED)
    again.checkpoint(tmp_path)
    assert set(customers_of(tmp_path)["warned_days"].to_pylist()) == {0}
    assert told(again) == told(engine)


def test_a_column_of_a_newer_program_is_refused_by_its_name(saved: Path) -> None:
    table = customers_of(saved)
    rewritten(saved, 0, table.append_column("mood", pa.array([1] * table.num_rows)))
    with pytest.raises(StateError, match="column mood") as caught:
        Engine.restore(saved)
    assert "newer" in str(caught.value.fix)


def test_a_column_that_every_program_wrote_is_missed(saved: Path) -> None:
    rewritten(saved, 0, customers_of(saved).drop_columns(["seq"]))
    with pytest.raises(StateError, match="other columns"):
        Engine.restore(saved)
