import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from little_history import HISTORY
from served_workers import served

from rfmstream import Engine, Ruleset, list_rulesets, load_ruleset
from rfmstream.engine.cli.app import cli
from rfmstream.engine.core.explain import explain, match, stops_at
from rfmstream.engine.events.instants import to_us
from rfmstream.schemas.ruleset_file import read_ruleset_file, shipped_path

SCORED = """name = "scored"
extends = "scores4"
title = "x"
[weights]
r = "0.5"
f = "0.3"
m = "0.2"
[[rules]]
tier = "high_value"
first_order = false
weighted_score = { min = "3.4" }
[[rules]]
tier = "potential"
r_score = { min = 4 }
[[rules]]
tier = "lost"
f_score = { max = 2 }
m_score = 1
[[rules]]
tier = "regular"
"""


def orders(*rows: tuple[str, str, str, str]) -> pa.Table:
    names = ("customer_id", "order_id", "occurred_at", "amount")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    path = tmp_path / "scored.toml"
    path.write_text(SCORED)
    return path


def test_the_rule_that_matches_is_the_one_that_gives_the_tier(scored: Path) -> None:
    for source in (*list_rulesets(), scored):
        ruleset = load_ruleset(source)
        file = read_ruleset_file(source if isinstance(source, Path) else shipped_path(source) or Path())
        for first, *bands in product(range(2), *map(range, ruleset.lookup.shape[1:])):
            matched = match(file, (bands[0], bands[1], bands[2]), is_first=bool(first))
            assert matched is not None
            tier = ruleset.tiers[ruleset.lookup[(first, *bands)]].id
            assert file.rules[matched.number - 1].tier == tier


def test_conditions_in_words(scored: Path) -> None:
    file = read_ruleset_file(scored)
    shown = [match(file, bands, is_first=first) for bands, first in (((4, 4, 4), False), ((4, 0, 0), True))]
    assert [matched and matched.conditions for matched in shown] == [
        "weighted score at least 3.4, not the first order",
        "r_band at least 3",
    ]
    assert (match(file, (0, 0, 0), is_first=False) or shown[0]).conditions == "f_band at most 1, m_band = 0"  # type: ignore[union-attr]
    assert (match(file, (0, 2, 1), is_first=False) or shown[0]).conditions == "everybody else"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "zone",
    [
        "UTC",
        "America/New_York",
        "Asia/Beirut",
        "Africa/Cairo",
        "America/Havana",
        "America/Sao_Paulo",
        "Pacific/Apia",
    ],
)
@pytest.mark.parametrize("day_unit", ["calendar_day", "duration"])
def test_when_a_cut_ends_is_when_the_engine_says(
    zone: str, day_unit: Literal["calendar_day", "duration"]
) -> None:
    ruleset = replace(load_ruleset("rfm8", time_zone=zone), day_unit=day_unit, identity=zone)
    moments = np.arange("2011-12-25T07:30", "2019-06-01T07:30", 5 * 24 * 60 + 173, dtype="datetime64[m]")
    texts = [f"{moment}:00Z" for moment in moments.astype(str)]
    changes = (
        Engine(ruleset).step(orders(*((str(at), "o", text, "10") for at, text in enumerate(texts)))).changes
    )
    first = changes.filter(pc.equal(changes["reason"].cast(pa.string()), "first_order")).to_pylist()
    assert len(first) == len(texts)
    for row in first:
        assert stops_at(to_us(row["last_paid_at"]), 30, ruleset) == to_us(row["next_change_at"])


def test_beyond_the_calendar_there_is_no_end() -> None:
    assert stops_at(to_us("9999-12-20T00:00:00Z"), 30, load_ruleset("rfm8")) is None


def little(ruleset: Ruleset) -> Ruleset:
    """Return a ruleset with cuts so small that all buying can be tried."""
    return replace(
        ruleset,
        frequency_cuts=tuple(range(2, 2 + len(ruleset.frequency_cuts))),
        monetary_cuts_minor=tuple(3 * (n + 1) for n in range(len(ruleset.monetary_cuts_minor))),
    )


@settings(deadline=None)
@given(
    st.sampled_from(["rfm8", "rfm8-annual", "rfm8-grace", "scores4", "groups3", "types7"]),
    st.integers(0, 6),
    st.integers(-4, 15),
    st.integers(0, 4),
)
def test_the_least_buying_is_the_least_of_all(name: str, frequency: int, monetary: int, r: int) -> None:
    ruleset = little(load_ruleset(name))
    r_band = min(r, len(ruleset.recency_cuts_days))
    f_band, m_band = (
        int(np.searchsorted(cuts, value, side="right"))
        for cuts, value in ((ruleset.frequency_cuts, frequency), (ruleset.monetary_cuts_minor, monetary))
    )
    lifetime = frequency
    code = ruleset.lookup[int(lifetime == 1), r_band, f_band, m_band]
    tier = ruleset.tiers[code].id if lifetime else None
    row = {
        "customer_id": "x",
        "tier": tier,
        "tier_since": None,
        "seq": 1,
        "reason": "order",
        "order_id": None,
        "r_band": r_band,
        "f_band": f_band,
        "m_band": m_band,
        "last_paid_at": None,
        "recency_days": None,
        "frequency": frequency,
        "monetary_minor": monetary,
        "lifetime_orders": lifetime,
        "next_change_at": None,
        "next_tier": None,
    }
    found = {reach.tier: (reach.orders, reach.amount_minor) for reach in explain(row, ruleset).reach}
    expected: dict[str, tuple[int | None, int | None]] = {}
    for orders_more, amount in product(range(1, 8), range(25)):
        cell = ruleset.lookup[
            int(lifetime + orders_more == 1),
            len(ruleset.recency_cuts_days),
            np.searchsorted(ruleset.frequency_cuts, frequency + orders_more, side="right"),
            np.searchsorted(ruleset.monetary_cuts_minor, monetary + amount, side="right"),
        ]
        expected.setdefault(ruleset.tiers[cell].id, (orders_more, amount))
    others = [other.id for other in ruleset.tiers if other.id != tier]
    assert found == {other: expected.get(other, (None, None)) for other in others}


@pytest.mark.parametrize("name", ["rfm8", "types7", "scores4"])
def test_whoever_buys_so_much_is_in_that_tier(name: str, tmp_path: Path) -> None:
    engine = Engine(name)
    engine.step(
        orders(
            ("new", "1", "2026-01-01T10:00:00Z", "20"),
            ("often", "1", "2026-01-01T10:00:00Z", "20"),
            ("often", "2", "2026-01-02T10:00:00Z", "20"),
            ("often", "3", "2026-01-03T10:00:00Z", "20"),
            ("much", "1", "2026-01-04T10:00:00Z", "5000"),
        )
    )
    engine.advance("2026-03-20")
    engine.checkpoint(tmp_path / "state")
    tried = 0
    for row in engine.snapshot().to_pylist():
        for reach in explain(row, engine.ruleset).reach:
            if reach.orders is None or reach.amount_minor is None:
                continue
            for short in (0, 1):
                if reach.amount_minor < short:
                    continue
                again = Engine.restore(tmp_path / "state")
                amounts = [reach.amount_minor - short, *[0] * (reach.orders - 1)]
                bought = {
                    "customer_id": [row["customer_id"]] * reach.orders,
                    "order_id": [f"more {n}" for n in range(reach.orders)],
                    "occurred_at": ["2026-03-20T00:00:00Z"] * reach.orders,
                    "amount_minor": amounts,
                }
                again.step(pa.table(bought))
                after = {each["customer_id"]: each["tier"] for each in again.snapshot().to_pylist()}
                assert (after[row["customer_id"]] == reach.tier) == (short == 0)
                tried += 1
    assert tried > 5


def run(*arguments: object) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner(env={"COLUMNS": "140"}).invoke(cli, words, prog_name="rfmstream")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    source = tmp_path / "orders.csv"
    source.write_text(HISTORY)
    options = ("--changes", tmp_path / "changes.parquet", "--checkpoint", tmp_path / "state")
    assert run("replay", source, "--as-of", "2026-03-01", *options).exit_code == 0
    return tmp_path / "state"


def test_a_checkpoint_a_worker_and_changes_say_the_same(state: Path) -> None:
    results = [
        run("explain", "ann", "--checkpoint", state, "--json"),
        run("explain", "ann", "--changes", state.parent / "changes.parquet", "--json"),
    ]
    with served(Engine.restore(state)) as url:
        results.append(run("explain", "ann", "--worker", url, "--json"))
    documents = [json.loads(result.stdout) for result in results]
    # A change tells of its own instant, and a worker's present is the worker's.
    assert [document.pop("as_of") for document in documents] == [
        "2026-03-01T00:00:00Z",
        "2026-02-05T00:00:00Z",
        None,
    ]
    days = [document["recency"].pop("value") for document in documents]
    assert days == [55, 31, 55]
    assert documents[0] == documents[1] == documents[2]
    found = documents[0]
    assert (found["tier"], found["matched"]) == (
        "001",
        {"number": 4, "conditions": "r_band = 0, f_band = 0, m_band = 1"},
    )
    assert found["recency"]["cuts"] == [
        {"at": 30, "is_reached": False, "until": "2026-02-05T00:00:00Z", "missing": None}
    ]
    assert found["frequency"]["cuts"][0]["missing"] == 1
    assert found["monetary"]["cuts"][0] == {"at": 100_000, "is_reached": True, "until": None, "missing": 0}
    reach = {each["tier"]: (each["orders"], each["amount_minor"]) for each in found["reach"]}
    assert reach["111"] == (1, 0)
    assert reach["101"] == reach["000"] == (None, None)


def test_the_text_for_people(state: Path) -> None:
    result = run("explain", "ann", "--checkpoint", state)
    assert result.exit_code == 0, result.output
    for words in (
        "001 High-value Win-back since 2026-02-05T00:00:00Z (change 3, recency_expired)",
        "rule 4: r_band = 0, f_band = 0, m_band = 1",
        "30 days: ended 2026-02-05T00:00:00Z",
        "3: 1 missing",
        "without an order nothing changes any more",
    ):
        assert words in result.output
    soon = run("explain", "bob", "--checkpoint", state)
    assert "no tier" in soon.output
    assert "never paid" in soon.output


def test_the_future_of_a_checkpoint(tmp_path: Path) -> None:
    source = tmp_path / "orders.csv"
    source.write_text(HISTORY)
    run("replay", source, "--checkpoint", tmp_path / "state", "--ruleset", "types7")
    now, then = (
        json.loads(run("explain", "ann", "--checkpoint", tmp_path / "state", *more, "--json").stdout)
        for more in ((), ("--as-of", "2026-02-05"))
    )
    assert (now["tier"], now["next_tier"], now["next_change_at"]) == (
        "key_develop",
        "key_win_back",
        "2026-02-05T00:00:00Z",
    )
    assert (then["tier"], then["next_tier"]) == ("key_win_back", "dormant")


@pytest.mark.parametrize("name", ["types7", "rfm8-annual"])
def test_a_first_order_is_told_from_a_change(name: str) -> None:
    engine = Engine(name)
    changes = engine.step(orders(("x", "1", "2026-01-01T10:00:00Z", "20"))).changes
    (row,) = changes.to_pylist()
    file = read_ruleset_file(shipped_path(name) or Path())
    found = explain(row, engine.ruleset, file)
    assert found.is_first_order is (True if name == "types7" else None)
    assert found.matched is not None
    assert file.rules[found.matched.number - 1].tier == row["to_tier"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "name one of --checkpoint, --worker and --changes"),
        (("--changes", "changes.parquet", "--as-of", "2026-01-01"), 2, "leave --as-of out"),
        (("--changes", "changes.parquet"), 3, "holds no change of customer 'nobody'"),
        (("--checkpoint", "state"), 3, "there is no customer 'nobody'"),
        (("--checkpoint", "state", "--as-of", "2026-01-01"), 2, "lies before the clock"),
        (("--checkpoint", "state", "--ruleset", "scores4"), 4, "belongs to ruleset rfm8"),
        (("--checkpoint", "none"), 4, "none"),
    ],
)
def test_what_is_refused(
    state: Path, arguments: tuple[str, ...], code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(state.parent)
    result = run("explain", "nobody", *arguments)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert words in result.stderr


def test_changes_of_another_ruleset(state: Path) -> None:
    result = run("explain", "ann", "--changes", state.parent / "changes.parquet", "--ruleset", "groups3")
    assert (result.exit_code, "decided by rfm8, not by groups3" in result.stderr) == (2, True)
