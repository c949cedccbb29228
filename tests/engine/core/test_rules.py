"""A compiled ruleset: numbers where the kernels look for them, and cells that time cannot change."""

from dataclasses import replace

import numpy as np
import pytest
from oracle_days import DAY_US

from rfmstream.engine.core.rules import LIFETIME, compile_rules
from rfmstream.engine.events.zone import zone_table
from rfmstream.schemas.ruleset import list_rulesets, load_ruleset


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


@pytest.mark.parametrize(
    ("zone", "falls"),
    [
        ("UTC", False),
        ("Asia/Tokyo", False),
        ("Europe/Berlin", False),  # back from 03:00 to 02:00
        ("America/St_Johns", True),  # for years back from 00:01 to 23:01
        ("America/Sao_Paulo", False),  # back from 24:00 to 23:00: the next date had not begun
        ("America/Havana", False),  # back from 01:00 to 00:00
    ],
)
def test_whether_a_later_instant_can_have_an_earlier_date(zone: str, *, falls: bool) -> None:
    ruleset = load_ruleset("rfm8", time_zone=zone)
    starts, offsets, _ = zone_table(zone)
    days = [
        ((start - 1 + before) // DAY_US, (start + after) // DAY_US)
        for start, before, after in zip(
            starts[1:].tolist(), offsets.tolist(), offsets[1:].tolist(), strict=False
        )
    ]
    assert any(after < before for before, after in days) is falls
    assert compile_rules(ruleset).row["day_can_fall"] == any(after < before for before, after in days)
    assert not compile_rules(replace(ruleset, day_unit="duration")).row["day_can_fall"]
