"""What the kernels of a report count, against plain Python: customers followed from change to change, days, sums."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import some

from rfmstream.engine.events.zone import local_days
from rfmstream.engine.insight.report import movement
from rfmstream.engine.insight.report.columns import read_only
from rfmstream.engine.insight.report.local_time import months_of
from rfmstream.engine.insight.report.sources import ChangeRows, Changes
from rfmstream.engine.insight.report.sums import binned, sums, total

DAY_US = movement.DAY_US
TIERS = 3
INT64 = st.integers(-(2**63), 2**63 - 1)

Row = tuple[int, int, int, int]


def made_up(random: Random, customers: int, changes: int) -> list[Row]:
    """Return (customer, at, from, to); some are in disorder, as changes of a late order are."""
    tier: dict[int, int] = {}
    rows = []
    for at in range(changes):
        customer = random.choice([random.randrange(1, customers + 1), 2**63 + random.randrange(customers)])
        came = tier.get(customer, TIERS)
        tier[customer] = went = random.choice([to for to in range(TIERS) if to != came])
        rows.append((customer, at * DAY_US // 5 - random.choice([0, 0, 3 * DAY_US]), came, went))
    return rows


def pieces_of(rows: list[Row], cuts: list[int]) -> Changes:
    pieces = []
    for begin, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        columns = list(zip(*rows[begin:end], strict=True)) or [(), (), (), ()]
        customer, at_us, came, went = (
            read_only(np.array(values, form))
            for values, form in zip(columns, (np.uint64, np.int64, np.int8, np.int8), strict=True)
        )
        pieces.append(ChangeRows(customer, at_us, came, went, read_only(np.zeros(end - begin, np.int8))))
    return Changes(pieces)


@pytest.mark.parametrize("seed", range(12))
def test_customers_are_followed_wherever_the_rows_are_cut(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(seed)  # noqa: S311
    rows = made_up(random, random.choice([1, 5, 300]), random.choice([0, 1, 40, 2_000]))
    end_us = len(rows) * DAY_US // 5
    since_us, until_us = sorted(random.randrange(end_us + 1) for _ in range(2))
    newest: dict[int, Row] = {}
    pairs: Counter[tuple[int, int]] = Counter()
    undone = [Counter[tuple[int, int]]() for _ in movement.FLAP_DAYS]
    between: dict[int, list[int]] = defaultdict(list)
    after = [0] * (TIERS + 1)
    for customer, at, came, went in rows:
        pairs[came, went] += 1
        if customer in newest and newest[customer][2] == went:
            for days, found in zip(movement.FLAP_DAYS, undone, strict=True):
                found[newest[customer][2:]] += at - newest[customer][1] <= days * DAY_US
        newest[customer] = customer, at, came, went
        if at > until_us:
            after[came] += 1
            after[went] -= 1
        elif at > since_us:
            between[customer] += [came, went]
    cuts = sorted(random.randrange(len(rows) + 1) for _ in range(random.randrange(4)))

    tables, larger = [], movement.enlarged
    monkeypatch.setattr(movement, "enlarged", lambda last: tables.append(last) or larger(last))
    # A snapshot of nobody: the table begins small.
    nobody = SimpleNamespace(no_tier=TIERS, tier=())
    found = movement.follow(pieces_of(rows, cuts), nobody, since_us, until_us)
    assert bool(tables) or len(newest) < 3
    assert counted(found.pairs) == pairs
    assert [counted(numbers) for numbers in found.undone] == [+numbers for numbers in undone]
    assert counted(found.between) == Counter((tiers[0], tiers[-1]) for tiers in between.values())
    assert found.after.tolist() == after


def counted(numbers: np.ndarray) -> Counter[tuple[int, int]]:
    return +Counter({(came, went): int(number) for (came, went), number in np.ndenumerate(numbers)})


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Shanghai", "Africa/Casablanca"])
def test_changes_of_each_local_day(zone: str) -> None:
    random = Random(zone)  # noqa: S311
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    rows = [
        (
            1,
            int((begin + timedelta(hours=random.randrange(9000))).timestamp()) * 1_000_000,
            n % 3,
            (n + 1) % 3,
        )
        for n in range(3000)
    ]
    as_of_us = max(row[1] for row in rows) + 3 * DAY_US
    snapshot = SimpleNamespace(
        no_tier=TIERS, as_of_us=as_of_us, ruleset=SimpleNamespace(time_zone=zone, tiers=())
    )
    found = movement.daily(pieces_of(rows, [1000, 1000]), snapshot)
    days = [day_of(at_us, zone) for _, at_us, *_ in rows]
    assert (found.first_day, len(found.moves)) == (min(days), day_of(as_of_us, zone) - min(days) + 1)
    expected = Counter((day - min(days), *row[2:]) for day, row in zip(days, rows, strict=True))
    assert {place: int(number) for place, number in np.ndenumerate(found.moves) if number} == expected
    assert found.reasons[:, 0].tolist() == [
        sum(number for place, number in expected.items() if place[0] == day)
        for day in range(len(found.moves))
    ]
    nothing = movement.daily(Changes([]), snapshot)
    assert (nothing.first_day, nothing.moves.sum(), len(nothing.moves)) == (day_of(as_of_us, zone), 0, 1)


def day_of(at_us: int, zone: str) -> int:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
    return (at.astimezone(ZoneInfo(zone)).date() - datetime(1970, 1, 1, tzinfo=UTC).date()).days


@given(
    st.lists(st.datetimes(datetime(1000, 1, 1), datetime(9998, 1, 1)), max_size=30),  # noqa: DTZ001
    st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia", "America/Toronto"]),
)
@settings(max_examples=some(100), deadline=None)
def test_local_days_are_those_of_the_calendar(instants: list[datetime], zone: str) -> None:
    epoch = datetime(1970, 1, 1)  # noqa: DTZ001
    at_us = [(instant - epoch) // timedelta(microseconds=1) for instant in instants]
    found = local_days(zone, np.array(at_us, np.int64)).tolist()
    assert found == [day_of(at, zone) for at in at_us]
    first = np.datetime64("1970-01", "M")
    months = months_of(np.array(found, np.int64)).tolist()
    assert months == [
        int((np.datetime64(day, "D").astype("datetime64[M]") - first).astype(int)) for day in found
    ]


@given(st.lists(st.tuples(st.integers(0, 3), INT64)), st.lists(INT64, max_size=5, unique=True))
@settings(max_examples=some(200), deadline=None)
def test_sums_are_exact(rows: list[tuple[int, int]], edges: list[int]) -> None:
    group, values = np.array([row[0] for row in rows], np.int8), np.array([row[1] for row in rows], np.int64)
    assert sums(group, values, 4) == [sum(value for at, value in rows if at == of) for of in range(4)]
    assert total(values) == sum(value for _, value in rows)
    edges = sorted(edges)
    bounds = list(zip([-(2**63), *edges], [*edges, 2**63], strict=True))
    inside = [[value for _, value in rows if low <= value < high] for low, high in bounds]
    assert binned(values, edges, values) == ([len(bin_) for bin_ in inside], [sum(bin_) for bin_ in inside])
