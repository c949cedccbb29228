"""The table of the benches: what is flagged, and what a result file says of where it was made."""

import json
from pathlib import Path

import pytest

from bench import machine
from bench.report import Figure, Report, kept_figures


@pytest.mark.parametrize(
    ("value", "unit", "bounds", "is_worse"),
    [
        (1.11, "s", {}, True),
        (1.09, "s", {}, False),
        (0.5, "s", {}, False),
        (0.9, "M orders/s", {}, True),
        (0.92, "M orders/s", {}, False),
        (2.0, "M orders/s", {}, False),
        (0.9, "times", {"at_least": 1.7}, True),
        (1.2, "times", {"at_least": 1.7}, False),
        (1.2, "times", {"at_most": 2.0}, True),
        (5.0, "times", {}, False),
        (0.2, "times", {}, False),
        (1.2, "MB", {}, True),
    ],
)
def test_what_is_more_than_a_tenth_worse_than_the_kept_run(
    value: float, unit: str, bounds: dict[str, float], *, is_worse: bool
) -> None:
    figure = Figure("r", value, unit, kept=1.0, **bounds)
    assert figure.is_worse is is_worse
    assert ("WORSE" in figure.cells()[3]) is is_worse
    assert not Figure("r", value, unit, **bounds).is_worse


def test_the_table_names_them_once_more() -> None:
    slow, fast = Figure("slow", 2.0, "s", kept=1.0), Figure("fast", 1.0, "s", kept=1.0)
    text = "\n".join(Report({"slow": 1.0}, {"slow": slow, "fast": fast}).lines())
    assert "more than a tenth worse than the kept run: slow" in text
    assert "kept run: nothing" in "\n".join(Report({"fast": 1.0}, {"fast": fast}).lines())
    assert "worse than the kept run" not in "\n".join(Report({}, {"fast": fast}).lines())


def test_a_kept_run_is_read_by_regime(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    assert kept_figures(path) == {}
    benches = [{"extra_info": {"r": {"value": 2.0}, "memory": {"regime": "r"}}}]
    path.write_text(json.dumps({"benchmarks": benches}))
    assert kept_figures(path) == {"r": 2.0}


def test_a_run_says_machine_versions_and_commit_and_not_whose() -> None:
    found = machine.machine()
    assert found["cores"] > 0
    assert {"python", "numpy", "pyarrow"} <= set(found["versions"])
    assert found["commit"] is None or len(found["commit"].rstrip("+")) == 12
    told = machine.told(found)
    assert found["versions"]["pyarrow"] in told
    assert str(machine.ROOT) not in json.dumps(found) + told
