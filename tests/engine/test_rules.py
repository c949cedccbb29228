"""A compiled ruleset: numbers where the kernels look for them, and cells that time cannot change."""

from dataclasses import replace

import numpy as np
import pytest

from engine.rules import LIFETIME, compile_rules
from schemas.ruleset import list_rulesets, load_ruleset


@pytest.mark.parametrize("name", list_rulesets())
def test_fields(name: str) -> None:
    ruleset = load_ruleset(name)
    rules = compile_rules(ruleset)
    kept = rules._kept
    assert rules.row["calendar"] == 1
    assert rules.row["window_days"] == (LIFETIME if ruleset.window_days is None else ruleset.window_days)
    assert tuple(kept["recency_cuts"]) == ruleset.recency_cuts_days
    assert tuple(kept["frequency_cuts"]) == ruleset.frequency_cuts
    assert tuple(kept["monetary_cuts"]) == ruleset.monetary_cuts_minor
    assert kept["lookup"].tolist() == ruleset.lookup.reshape(-1).tolist()
    for array, values in kept.items():
        assert rules.row[array + "_size"] == values.size
        assert rules.row[array + "_at"] == values.__array_interface__["data"][0]


def test_day_unit_and_zone() -> None:
    rules = compile_rules(replace(load_ruleset("rfm8", time_zone="Europe/Berlin"), day_unit="duration"))
    assert rules.row["calendar"] == 0
    assert rules.row["zone_start_us_size"] > 100


@pytest.mark.parametrize("name", list_rulesets())
@pytest.mark.parametrize("field", ["settled", "settled_any"])
def test_settled_cells_are_those_time_leaves_alone(name: str, field: str) -> None:
    ruleset = load_ruleset(name)
    lookup = ruleset.lookup
    settled = compile_rules(ruleset)._kept[field].reshape(lookup.shape)
    for cell in np.ndindex(*lookup.shape):
        first, r, f, m = cell
        reachable = {
            int(lookup[first, below_r, below_f, other_m])
            for below_r in range(r + 1)
            for below_f in range(f + 1)
            for other_m in (range(lookup.shape[3]) if field == "settled_any" else range(m + 1))
        }
        assert settled[cell] == (len(reachable) == 1)
