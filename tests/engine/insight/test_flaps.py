from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_changes import cdnow_changes, complete_journey_changes

from rfmstream.engine.files.output import write_table
from rfmstream.engine.insight.flaps import DAY_US, Flaps, count_flaps, read_flaps
from rfmstream.schemas.changes import CHANGE_SCHEMA
from rfmstream.schemas.errors import ConfigError, InputError

TIERS = ("a", "b", "c", None)


def changes_of(rows: Sequence[tuple[str, int, int, str | None, str | None]], **more: list[Any]) -> pa.Table:
    """Make a table of (customer, seq, µs, from, to)."""
    columns = list(zip(*rows, strict=True)) or [[]] * 5
    names = ("customer_id", "seq", "effective_at", "from_tier", "to_tier")
    types = (pa.string(), pa.int64(), pa.int64(), pa.string(), pa.string())
    arrays = {name: pa.array(column, kind) for name, column, kind in zip(names, columns, types, strict=True)}
    arrays["effective_at"] = arrays["effective_at"].cast(pa.timestamp("us", "UTC"))
    return pa.table(arrays | {name: pa.array(column, pa.string()) for name, column in more.items()})


def pairs(flaps: Flaps) -> dict[tuple[str | None, str | None], tuple[int, int]]:
    return {(pair.from_tier, pair.to_tier): (pair.changes, pair.undone) for pair in flaps.pairs}


@pytest.mark.parametrize(("ruleset", "champions"), [("rfm8-annual", (322, 241)), ("rfm8-grace", (19, 5))])
def test_champions_of_complete_journey(ruleset: str, champions: tuple[int, int]) -> None:
    flaps = count_flaps(complete_journey_changes(ruleset), 30)
    assert pairs(flaps)["111", "011"] == champions


def test_figures_counted_before_there_was_this_module() -> None:
    annual = complete_journey_changes("rfm8-annual")
    shares = [count_flaps(annual, days).share for days in (30, 14)]
    assert [round(share or 0, 2) for share in shares] == [0.16, 0.11]
    assert pairs(count_flaps(annual, 7))["111", "011"] == (322, 125)
    assert round(count_flaps(cdnow_changes(), 30).share or 0, 2) == 0.07


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 40), st.sampled_from(TIERS)), max_size=40),
    st.integers(1, 30),
    st.randoms(use_true_random=False),
)
def test_every_pair_as_a_loop_over_customers_counts_it(
    moves: list[tuple[str, int, str | None]], within_days: int, random: Random
) -> None:
    stories: dict[str, list[tuple[str, int, int, str | None, str | None]]] = {}
    for customer, days, tier in moves:
        story = stories.setdefault(customer, [])
        before, at_us = (story[-1][4], story[-1][2]) if story else (None, 0)
        if tier != before:
            story.append((customer, len(story) + 1, at_us + days * DAY_US // 2, before, tier))
    expected: dict[tuple[str | None, str | None], tuple[int, int]] = {}
    for story in stories.values():
        for at, (_, _, at_us, before, after) in enumerate(story):
            following = story[at + 1] if at + 1 < len(story) else None
            undone = (
                following is not None
                and following[4] == before
                and following[2] - at_us <= within_days * DAY_US
            )
            count, back = expected.get((before, after), (0, 0))
            expected[before, after] = count + 1, back + undone
    rows = [row for story in stories.values() for row in story]
    random.shuffle(rows)
    flaps = count_flaps(changes_of(rows), within_days)
    assert pairs(flaps) == expected
    assert (flaps.changes, flaps.undone) == (len(rows), sum(undone for _, undone in expected.values()))


def test_as_a_window_function_counts_them() -> None:
    changes = cdnow_changes()
    counted = duckdb.sql("""
        SELECT from_tier, to_tier, count(*), count(*) FILTER (
            following IS NOT DISTINCT FROM from_tier AND comes_at - effective_at <= INTERVAL 21 DAY)
        FROM (SELECT *, lead(to_tier) OVER own AS following, lead(effective_at) OVER own AS comes_at
              FROM changes WINDOW own AS (PARTITION BY customer_id ORDER BY seq))
        GROUP BY ALL""").fetchall()
    assert changes.num_rows == 95_405
    assert pairs(count_flaps(changes, 21)) == {(before, after): tuple(n) for before, after, *n in counted}


def test_customers_of_one_id_in_two_views_are_two() -> None:
    rows = [("x", 1, 0, None, "a"), ("x", 1, 1, "b", "a"), ("x", 2, 2, "a", "b"), ("x", 2, 3, "a", None)]
    assert count_flaps(changes_of(rows, view=["1", "2", "2", "1"])).undone == 2
    assert count_flaps(changes_of(rows, population=["1", None, None, "1"])).undone == 2


def test_no_changes() -> None:
    flaps = count_flaps(changes_of([]), 30)
    assert (flaps.changes, flaps.undone, flaps.share, flaps.pairs) == (0, 0, None, ())


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv", ".jsonl"])
def test_a_file_of_any_format(tmp_path: Path, suffix: str) -> None:
    changes = complete_journey_changes("rfm8-annual")
    path = tmp_path / f"changes{suffix}"
    write_table(path, changes)
    assert read_flaps(path) == count_flaps(changes, 30)


@pytest.mark.parametrize("days", [0, -1, 10**9])
def test_days_that_are_none(days: int) -> None:
    with pytest.raises(ConfigError, match=r"within: .* days; use a whole number"):
        count_flaps(changes_of([]), days)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("none.parquet", None, "cannot be read as tier changes"),
        ("changes.txt", "", "its suffix is one of"),
        ("orders.csv", "customer_id,order_id\n1,2\n", "it has no seq, effective_at"),
        ("damaged.parquet", "PAR1", "cannot be read as tier changes"),
        (
            "gap.csv",
            ",".join(CHANGE_SCHEMA.names[:5]) + "\n,1,2026-01-01T00:00:00Z,,100\n",
            "has no customer_id in some rows",
        ),
    ],
)
def test_files_that_are_no_changes(tmp_path: Path, name: str, text: str | None, words: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_flaps(path)
