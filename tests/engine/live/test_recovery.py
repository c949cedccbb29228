"""Where a partition goes on, case by case."""

from dataclasses import replace
from typing import Any

import pytest

from rfmstream import Engine
from rfmstream.engine.events.instants import FIRST_US
from rfmstream.engine.live.law import Law
from rfmstream.engine.live.model import Bounds, Source, Tick
from rfmstream.engine.live.recovery import Plan, Progress, first_tick, plan_recovery
from rfmstream.engine.live.stored import LoadedCheckpoint
from rfmstream.schemas.errors import StateError
from rfmstream.schemas.ruleset import load_ruleset

RULES = load_ruleset("rfm8")
OTHER = load_ruleset("types7")
LAW = Law.of(RULES, "log", 5)
OTHER_LAW = Law.of(OTHER, "log", 5)
FIRST = first_tick(0, LAW)


def plan(
    *,
    committed: int | None = 50,
    bounds: tuple[int, int] = (0, 90),
    ticks: list[Tick] | None = None,
    loaded: tuple[int, int, Law] | None = (30, 1000, LAW),
    law: Law = LAW,
    **allowed: Any,  # noqa: ANN401
) -> Plan:
    checkpoint = None
    if loaded is not None:
        made_by = RULES if loaded[2].identity == "rfm8" else OTHER
        engine = Engine(made_by)
        engine.advance(loaded[1])
        checkpoint = LoadedCheckpoint(engine, loaded[0], str(loaded[2]), "name")
    return plan_recovery(
        Source("orders", 1),
        Progress(committed, Bounds(*bounds), [FIRST] if ticks is None else ticks),
        checkpoint,
        RULES if law.identity == "rfm8" else OTHER,
        law,
        **{"resegment": False, "accept_gap": False, **allowed},
    )


def told(found: Plan) -> tuple[int, int, list[int]]:
    return found.offset, found.until, [tick.clock_us for tick in found.ticks]


def test_the_very_first_start() -> None:
    found = plan(committed=None, ticks=[], loaded=None, bounds=(7, 90))
    assert told(found) == (7, 7, [])
    assert found.begins


def test_from_the_checkpoint_to_what_is_committed() -> None:
    ticks = [FIRST, Tick(20, 900), Tick(30, 1000), Tick(30, 1001), Tick(40, 2000)]
    found = plan(ticks=ticks)
    assert told(found) == (30, 50, [1001, 2000])
    assert (found.begins, found.changes) == (False, False)
    assert told(plan(ticks=ticks, loaded=None)) == (0, 50, [900, 1000, 1001, 2000])
    assert told(plan(ticks=ticks, loaded=(0, FIRST_US, LAW))) == (0, 50, [900, 1000, 1001, 2000])


LOST = {
    "records before the checkpoint": ({"bounds": (31, 90)}, (31, 50)),
    "all records that were committed": ({"bounds": (60, 90)}, (60, 60)),
    "the whole topic": ({"bounds": (0, 40)}, (0, 0)),
    "all checkpoints and the first records": ({"bounds": (1, 90), "loaded": None}, (1, 50)),
    "the offset": ({"committed": None}, (30, 30)),
    "the offset and all checkpoints": (
        {"committed": None, "loaded": None, "ticks": [FIRST, Tick(20, 9)]},
        (0, 20),
    ),
    "the offset and the ticks": ({"committed": None, "ticks": []}, (0, 0)),
    "the ticks": ({"ticks": [], "loaded": None}, (0, 50)),
}


@pytest.mark.parametrize("case", LOST)
def test_what_is_lost_is_missed_unless_the_gap_is_accepted(case: str) -> None:
    options, (offset, until) = LOST[case]
    with pytest.raises(StateError, match="accept the gap"):
        plan(**options)  # type: ignore[arg-type]
    found = plan(**options, accept_gap=True)  # type: ignore[arg-type]
    assert (found.offset, found.until) == (offset, until)


def test_records_that_nobody_needs_may_go() -> None:
    assert told(plan(bounds=(30, 90))) == (30, 50, [])
    assert told(plan(committed=30, bounds=(30, 30))) == (30, 30, [])


def test_another_ruleset_is_refused_or_goes_on_after_a_clean_stop() -> None:
    clean = {"committed": 30, "loaded": (30, 1000, OTHER_LAW), "ticks": [first_tick(0, OTHER_LAW)]}
    with pytest.raises(StateError, match="belongs to ruleset types7, not to rfm8"):
        plan(**clean)  # type: ignore[arg-type]
    assert plan(**clean, resegment=True).changes  # type: ignore[arg-type]
    for unclean in ({"committed": 31}, {"ticks": [first_tick(0, OTHER_LAW), Tick(30, 1001)]}):
        with pytest.raises(StateError, match="clean stop"):
            plan(**(clean | unclean), resegment=True)  # type: ignore[arg-type]


def test_other_signals_change_no_law() -> None:
    before = Law("rfm8", RULES.tier_fingerprint, "log", 5)
    ticks = [first_tick(0, before), Tick(40, 2000)]
    assert told(plan(loaded=None, ticks=ticks)) == (0, 50, [2000])
    assert told(plan(loaded=(30, 1000, before), ticks=ticks)) == (30, 50, [2000])
    # The tiers of a checkpoint decide, where the text of its law does not tell.
    other = Law("rfm8", "0" * 64, "log", 5)
    assert told(plan(loaded=(30, 1000, other), ticks=[Tick(40, 2000)])) == (30, 50, [2000])
    with pytest.raises(StateError, match="made by ruleset rfm8"):
        plan(loaded=None, ticks=[first_tick(0, other)])


def test_a_change_of_clock_is_repeated_under_other_signals() -> None:
    before = Law("rfm8", RULES.tier_fingerprint, "log", 6)
    after = Law("rfm8", RULES.tier_fingerprint, "log", 5)
    ticks = [first_tick(0, before), Tick(30, 1001, str(after)), Tick(35, 1500)]
    found = plan(loaded=(30, 1000, before), ticks=ticks)
    assert (*told(found), found.law_at_us, found.changes) == (30, 50, [1500], 1001, False)
    assert plan(committed=30, loaded=(30, 1000, before), ticks=ticks[:1]).changes


@pytest.mark.parametrize(
    "before",
    [Law.of(RULES, "event", 5), Law.of(RULES, "log", 6), Law.of(RULES, "log", 5, "0123456789abcdef")],
)
def test_another_clock_needs_a_clean_stop_only(before: Law) -> None:
    ticks = [first_tick(0, before)]
    assert plan(committed=30, loaded=(30, 1000, before), ticks=ticks).changes
    with pytest.raises(StateError, match="clean stop"):
        plan(committed=31, loaded=(30, 1000, before), ticks=ticks)


def test_a_change_of_law_is_repeated_where_it_was() -> None:
    ticks = [first_tick(0, OTHER_LAW), Tick(30, 1001, str(LAW)), Tick(35, 1500)]
    found = plan(loaded=(30, 1000, OTHER_LAW), ticks=ticks)
    assert (*told(found), found.law_at_us, found.changes) == (30, 50, [1500], 1001, False)
    with pytest.raises(StateError, match="newer checkpoint"):
        plan(loaded=(29, 900, OTHER_LAW), ticks=ticks)
    with pytest.raises(
        StateError,
        match=r"no checkpoint, and its history was made by ruleset types7, clock log, time tolerance .*, then ruleset",
    ):
        plan(loaded=None, ticks=ticks)
    with pytest.raises(StateError, match="went on under ruleset types7"):
        plan(ticks=[FIRST, Tick(35, 1500, str(OTHER_LAW))])


def test_without_a_checkpoint_another_law_is_refused() -> None:
    with pytest.raises(StateError, match="made by ruleset types7, clock log"):
        plan(loaded=None, ticks=[first_tick(0, OTHER_LAW)], resegment=True)


def test_a_law_is_read_as_it_was_written() -> None:
    for law in (LAW, LAW._replace(identity="rfm8[currency=EUR,time_zone=Asia/Shanghai]"), OTHER_LAW):
        assert Law.parse(str(law)) == law
    assert Law.parse("something else") is None
    assert Law.of(RULES, "event", 5) == Law.of(RULES, "event", 6)
    assert Law.of(replace(RULES, fingerprint="x"), "log", 5) != LAW
