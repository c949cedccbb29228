"""Views: what a second look at the same orders costs beside the first, and what parting the customers costs.

A second view costs at most 0.6 of the first where t(2 views) <= 1.6 t(1 view): the rate of two is 0.625 of one's.
On one core, so that reading, which a second view shares, is in the time and not beside it.
"""

from pathlib import Path
from typing import Final

import pytest
from loads import UNIFORM, ZIPF, Load, Loads
from process import confined
from pytest_benchmark.fixture import BenchmarkFixture
from report import Report
from scale import SCALE, short

from rfmstream import Outputs, Plan, View, Views, load_ruleset, replay_views

SECOND_OF_TWO: Final = 1 / 1.6

RFM8, ANNUAL = load_ruleset("rfm8"), load_ruleset("rfm8-annual")
PLANS = {
    "one view": Plan((View("first", RFM8),)),
    "two views": Plan((View("first", RFM8), View("second", RFM8))),
    "two views, the second annual": Plan((View("first", RFM8), View("second", ANNUAL))),
}
FORMS: dict[str, tuple[Load, str]] = {
    "JSON lines, zipf": (ZIPF, ".jsonl"),
    "CSV, zipf": (ZIPF, ".csv"),
    "Parquet, zipf": (ZIPF, ".parquet"),
    "Parquet, uniform": (UNIFORM, ".parquet"),
}


@pytest.mark.parametrize("case", [(form, plan) for form in FORMS for plan in PLANS], ids=", ".join)
def bench_views(
    case: tuple[str, str], loads: Loads, report: Report, benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    """Replay a file to changes as Parquet."""
    form, plan = case
    loads.forget()
    load, suffix = FORMS[form]
    orders = loads.file(load, suffix)
    outputs = Outputs(changes=tmp_path / "changes.parquet")

    def run() -> None:
        views = Views(PLANS[plan])
        result = replay_views(views, [orders], outputs=outputs)
        assert all(one.counters.applied == SCALE.orders for one in result.results.values())

    with confined(1):
        benchmark.pedantic(run, rounds=SCALE.long_rounds)
    regime = f"{plan} from {form} {short(SCALE.customers)}, one core"
    report.rate(benchmark, regime, SCALE.orders)
    if plan != "one view":
        first = regime.replace(plan, "one view")
        report.ratio(
            benchmark,
            f"{plan} over one, {form}",
            regime,
            first,
            at_least=SECOND_OF_TWO if plan == "two views" else None,
        )
