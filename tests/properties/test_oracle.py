"""The oracle is only as good as its days: midnights figured by hand from what the clocks of a zone did."""

from datetime import UTC, date, datetime, timedelta

import pytest
from oracle import BUILT_IN, replay
from oracle_days import DAY_US, EPOCH, LAST_US, local_day, local_midnight_us


def us(text: str) -> int:
    return (datetime.fromisoformat(text).astimezone(UTC) - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [
        ("UTC", "2024-02-29", "2024-02-29T00:00Z"),
        ("Europe/Berlin", "2024-03-31", "2024-03-30T23:00Z"),  # the hour is taken at 02:00
        ("Europe/Berlin", "2024-04-01", "2024-03-31T22:00Z"),
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00Z"),  # 24:00 -03 became 01:00 -02
        ("America/Sao_Paulo", "2018-02-18", "2018-02-18T03:00Z"),  # 24:00 -02 became 23:00 -03
        ("Africa/Cairo", "2023-04-28", "2023-04-27T22:00Z"),  # 24:00 +02 became 01:00 +03
        ("Asia/Beirut", "2024-10-27", "2024-10-26T22:00Z"),  # 24:00 +03 became 23:00 +02
        ("Pacific/Apia", "2011-12-29", "2011-12-29T10:00Z"),
        ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00Z"),  # the day that was skipped: at once the 31st
        ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00Z"),
        ("America/St_Johns", "2010-11-07", "2010-11-07T02:30Z"),  # at 00:01 back to 23:01 of the 6th
        ("America/St_Johns", "2010-11-08", "2010-11-08T03:30Z"),
        ("America/Havana", "2024-03-10", "2024-03-10T05:00Z"),  # 00:00 -05 became 01:00 -04
        ("America/Havana", "2024-11-03", "2024-11-03T04:00Z"),  # 00:00 comes twice, the first counts
    ],
)
def test_local_midnight(zone: str, day: str, expected: str) -> None:
    number = (date.fromisoformat(day) - date(1970, 1, 1)).days
    assert local_midnight_us(zone, number) == us(expected)


@pytest.mark.parametrize(
    ("zone", "at", "expected"),
    [
        ("America/St_Johns", "2010-11-07T02:30:59Z", "2010-11-07"),
        ("America/St_Johns", "2010-11-07T02:31:00Z", "2010-11-06"),  # once more the 6th
        ("America/St_Johns", "2010-11-07T03:30:00Z", "2010-11-07"),
        ("Pacific/Kiritimati", "2024-02-28T10:00Z", "2024-02-29"),
        ("America/New_York", "1970-01-01T00:00Z", "1969-12-31"),
    ],
)
def test_local_day(zone: str, at: str, expected: str) -> None:
    assert date(1970, 1, 1) + timedelta(days=local_day(zone, us(at))) == date.fromisoformat(expected)


def test_days_go_on_where_datetime_ends() -> None:
    last = (date.max - date(1970, 1, 1)).days
    first = (date.min - date(1970, 1, 1)).days
    assert local_day("Pacific/Kiritimati", LAST_US) == last + 1
    assert local_midnight_us("Pacific/Kiritimati", last + 1) == (last + 1) * DAY_US - 14 * DAY_US // 24
    # 10000-07-01 in Berlin: summer time, as in every July the rules can foresee.
    summer = last + 1 + (date(2000, 7, 1) - date(2000, 1, 1)).days
    assert local_midnight_us("Europe/Berlin", summer) == summer * DAY_US - 2 * DAY_US // 24
    assert local_day("America/New_York", first * DAY_US) == first - 1


def test_a_deadline_after_the_last_instant_never_comes() -> None:
    event = {"customer_id": "ada", "order_id": "o1", "type": "paid", "amount_minor": 1, "event_id": None}
    oracle = replay(BUILT_IN["rfm8"](), [{**event, "occurred_at_us": LAST_US - 5 * DAY_US}], LAST_US)
    assert [(row["to_tier"], row["next_change_at"]) for row in oracle.changes] == [("100", None)]
