"""Flaps counted as they happen are those of the file of changes, over restarts too."""

from collections import Counter
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
from kernel_shards import event
from oracle_days import DAY_US
from twins import canonical_batch

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.flaps import follow_flaps, take_flaps
from rfmstream.engine.insight.flaps import count_flaps


def history(seed: int) -> list[dict[str, object]]:
    random = Random(seed)  # noqa: S311 - no secret
    rows = []
    for n in range(3_000):
        at_us = n * DAY_US // 3
        rows.append(
            event(f"c{random.randrange(60)}", f"o{n}", 0, random.choice([100, 40_000, 150_000]))
            | {"occurred_at_us": at_us}
        )
    return rows


@pytest.mark.parametrize("within_days", [1, 30, 400])
@pytest.mark.parametrize("ruleset", ["rfm8-annual", "types7"])
def test_flaps_are_those_of_the_changes(tmp_path: Path, ruleset: str, within_days: int) -> None:
    rows = history(within_days)
    engine, tables, found = Engine(ruleset, threads=2), [], Counter[tuple[str, str]]()
    for start in range(0, len(rows), 500):
        follow_flaps(engine, within_days)
        tables.append(engine.step_canonical(canonical_batch(rows[start : start + 500], start)).changes)
        found += take_flaps(engine)
        engine.snapshot(engine.clock_us + 300 * DAY_US)  # looking ahead changes nothing
        assert take_flaps(engine) == {}
        engine.checkpoint(tmp_path / "state")
        engine = Engine.restore(tmp_path / "state")
    follow_flaps(engine, within_days)
    tables.append(engine.advance(engine.clock_us + 500 * DAY_US))
    found += take_flaps(engine)
    expected = count_flaps(pa.concat_tables(tables), within_days)
    assert expected.undone > 20
    assert found == {
        (pair.from_tier or "", pair.to_tier or ""): pair.undone for pair in expected.pairs if pair.undone
    }


def test_nobody_who_did_not_ask_is_told() -> None:
    engine = Engine("rfm8-annual")
    engine.step_canonical(canonical_batch(history(1)))
    assert take_flaps(engine) == {}
