"""Histories that bite: instants on edges of days, cuts and windows, amounts around cuts, ids that collide.

Few customers and few order ids, so that refunds, cancellations, duplicates and conflicts meet. Instants are
mostly made from those before: two things happen at once, or one a microsecond before the other expires.
"""

from dataclasses import dataclass, fields, replace
from datetime import date
from itertools import product

from hypothesis import strategies as st
from oracle import BUILT_IN, Event, Rules, place
from oracle_days import DAY_US, FIRST_US, LAST_US, local_midnight_us
from oracle_signals import SignalRules

EPOCH_DAY = date(1970, 1, 1)
HOUR_US = DAY_US // 24

ZONE_DAYS = {
    "UTC": ["2024-02-28", "1969-12-31"],
    "Europe/Berlin": ["2024-03-30", "2024-10-26"],
    "America/Sao_Paulo": ["2018-11-03", "2018-02-17"],  # 00:00 does not exist; 23:00 comes twice
    "Africa/Cairo": ["2023-04-27", "2010-09-30", "2014-05-15"],  # gaps and folds at midnight
    "Asia/Beirut": ["2024-03-30", "2024-10-26"],
    "Pacific/Apia": ["2011-12-28"],  # 2011-12-30 was skipped
    "America/St_Johns": ["2010-11-06", "2010-03-13"],  # 00:01 back to 23:01: a date comes twice
    "America/Havana": ["2024-11-02", "2024-03-09"],
    "Asia/Kathmandu": ["2024-02-28", "1985-12-31"],
    "Pacific/Kiritimati": ["2024-02-28", "1994-12-30"],
    "America/New_York": ["2024-11-02", "1883-11-17"],  # in 1883 local mean time ended, by seconds
}
"""A day or two before something happens to the clocks of a zone."""

FIRST_DAY, LAST_DAY = (date.min - EPOCH_DAY).days, (date.max - EPOCH_DAY).days
DAYS_MAX = LAST_DAY - FIRST_DAY

CUSTOMERS = ["ada", "ada ", "42", "00042", "ü" * 128, "\x00", "x" * 255 + "a", "x" * 255 + "b"]
ORDERS = ["o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8"]
EVENT_IDS = ["e1", "e2", "o1", "o2", "e" * 256, "e" * 256 + "f", "e" * 256 + "g"]
"""Event ids have no bound, unlike the others; those beyond 256 bytes are remembered otherwise."""

NUDGES_US = [0, -1, 1]
SHIFTS_US = [0, 0, -1, 1, HOUR_US, -HOUR_US, 30 * 60_000_000, -30 * 60_000_000, 12 * HOUR_US]


@dataclass(frozen=True)
class Table:
    """A tier function at random: cell by cell, as the compiled lookup is laid out."""

    cells: bytes
    shape: tuple[int, int, int]
    tiers: int

    def __call__(self, r_band: int, f_band: int, m_band: int, first: bool) -> str:  # noqa: FBT001
        _, frequencies, amounts = self.shape
        index = ((int(first) * self.shape[0] + r_band) * frequencies + f_band) * amounts + m_band
        return f"t{self.cells[index] % self.tiers}"


def cuts(values: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, ...]]:
    """Up to four ascending cuts."""
    return st.lists(values, max_size=4, unique=True).map(lambda drawn: tuple(sorted(drawn)))


def forget_days(window_days: int | None) -> st.SearchStrategy[int | None]:
    """No order is forgotten, or those are that a window, or a few days more, leaves behind."""
    least = window_days or 1
    more = st.integers(0, 3) | st.sampled_from([30, 365])
    return st.none() | more.map(lambda days: min(least + days, DAYS_MAX))


@st.composite
def random_rules(draw: st.DrawFn) -> Rules:
    """Any cuts, any tier function over the bands, windows shorter and longer than the R cuts."""
    recency = draw(cuts(st.integers(0, 8) | st.sampled_from([30, 31, 365, DAYS_MAX])))
    frequency = draw(cuts(st.integers(1, 5)))
    monetary = draw(cuts(st.integers(1, 300) | st.sampled_from([-50, 0, 10**12, 2 * 10**12])))
    shape = (len(recency) + 1, len(frequency) + 1, len(monetary) + 1)
    size = 2 * shape[0] * shape[1] * shape[2]
    window_days = draw(st.none() | st.integers(1, 10) | st.sampled_from([30, 365, DAYS_MAX]))
    return Rules(
        tier=Table(draw(st.binary(min_size=size, max_size=size)), shape, draw(st.integers(1, 5))),
        recency_cuts_days=recency,
        frequency_cuts=frequency,
        monetary_cuts_minor=monetary,
        window_days=window_days,
        forget_days=draw(forget_days(window_days)),
        day_unit=draw(st.sampled_from(["calendar_day", "duration"])),
        time_zone=draw(st.sampled_from(sorted(ZONE_DAYS))),
        identity="random",
    )


@st.composite
def shipped_rules(draw: st.DrawFn) -> Rules:
    """One of the five built-ins in some zone and either day unit, with orders forgotten or not."""
    chosen = BUILT_IN[draw(st.sampled_from(sorted(BUILT_IN)))](
        time_zone=draw(st.sampled_from(sorted(ZONE_DAYS))),
        day_unit=draw(st.sampled_from(["calendar_day", "duration"])),
    )
    return replace(chosen, forget_days=draw(forget_days(chosen.window_days)))


@st.composite
def signal_rules(draw: st.DrawFn) -> SignalRules:
    """Rules of any kind that ask for signals."""
    base = draw(rules())
    shape = [
        len(cuts) + 1 for cuts in (base.recency_cuts_days, base.frequency_cuts, base.monetary_cuts_minor)
    ]
    tiers = sorted(
        {base.tier(*bands, bool(first)) for first, *bands in product(range(2), *map(range, shape))}
    )
    days = cuts(st.integers(1, 12) | st.sampled_from([29, 30, 90, 365]))
    amount = cuts(st.integers(1, 300) | st.sampled_from([100_000, 100_001, 250_000]))
    return SignalRules(
        **{field.name: getattr(base, field.name) for field in fields(Rules)},
        warn_days={tier: draw(days) for tier in tiers},
        dwell_days={tier: draw(days) for tier in tiers},
        orders=draw(cuts(st.integers(1, 5))),
        spend_minor=draw(amount),
        single_order_minor=draw(amount),
    )


@st.composite
def signal_cases(draw: st.DrawFn, max_size: int = 16) -> "Case":
    """Rules that ask for signals, and a history for them."""
    drawn = draw(signal_rules())
    return Case(drawn, draw(histories(drawn, max_size)))


def rules() -> st.SearchStrategy[Rules]:
    return st.one_of(random_rules(), shipped_rules())


@st.composite
def first_days(draw: st.DrawFn, zone: str) -> int:
    """Draw the day, since 1970, at which a history plays: where clocks change, or at an end of time."""
    day = draw(st.sampled_from([*ZONE_DAYS[zone], *ZONE_DAYS[zone], "first", "last"]))
    if day in ("first", "last"):
        return {"first": FIRST_DAY, "last": LAST_DAY - draw(st.sampled_from([3, 30, 60, 400]))}[day]
    return (date.fromisoformat(day) - EPOCH_DAY).days


def instants(rules_: Rules, first_day: int, past: list[int]) -> st.SearchStrategy[int]:
    """Draw near a midnight, or tied to one of ``past``: the same, or where that leaves a cut or window."""
    limits = (rules_.window_days, rules_.forget_days)
    days = [*rules_.recency_cuts_days, *(limit for limit in limits if limit is not None)]
    near_midnight = st.builds(
        lambda day, shift: local_midnight_us(rules_.time_zone, first_day + day) + shift,
        st.integers(0, 4),
        st.sampled_from(SHIFTS_US),
    )
    choices = [near_midnight]
    if past:
        choices.append(st.builds(int.__add__, st.sampled_from(past), st.sampled_from(SHIFTS_US)))
    if past and days:

        def leaving(at_us: int, cut: int, nudge: int) -> int:
            return (rules_.stop_us(at_us, cut) or LAST_US) + nudge

        edges = st.builds(leaving, st.sampled_from(past), st.sampled_from(days), st.sampled_from(NUDGES_US))
        choices += [edges, edges]
    return st.one_of(choices).map(lambda at_us: min(max(at_us, FIRST_US), LAST_US))


def amounts(rules_: Rules) -> st.SearchStrategy[int]:
    """Nothing, a little, or around a cut and its fractions."""
    around = {0, 1, 2, 100, 10**12}
    for cut in rules_.monetary_cuts_minor:
        around |= {cut - 1, cut, cut + 1, cut // 2, cut // 3}
    return st.sampled_from(sorted(amount for amount in around if 0 <= amount <= 10**12))


@st.composite
def histories(draw: st.DrawFn, rules_: Rules, max_size: int = 16) -> list[Event]:
    """Events in order of arrival, which is not the order of time."""
    first_day = draw(first_days(rules_.time_zone))
    customers = draw(st.lists(st.sampled_from(CUSTOMERS), min_size=1, max_size=3, unique=True))
    events: list[Event] = []
    # The end is drawn together with the types and each event at one go, so that hypothesis can leave events out.
    types = st.sampled_from(
        ["end"]
        + ["paid"] * 8
        + ["refunded"] * 3
        + ["refunded_total"] * 2
        + ["cancelled", "adjusted", "again", "erased"]
    )
    amount = amounts(rules_)
    while len(events) < max_size and (type_ := draw(types)) != "end":
        past = [event["occurred_at_us"] for event in events]
        if type_ == "again":
            if events:
                events.append(draw(repeats(draw(st.sampled_from(events)))))
            continue
        event = {
            "customer_id": draw(st.sampled_from(customers)),
            "order_id": draw(st.sampled_from(ORDERS)),
            "type": type_,
            "occurred_at_us": draw(instants(rules_, first_day, past)),
            "amount_minor": 0 if type_ in ("cancelled", "erased") else draw(amount),
            "event_id": draw(st.sampled_from([None] * 20 + EVENT_IDS)),
        }
        paid = [before for before in events if before["type"] == "paid"]
        if type_ in ("refunded", "refunded_total", "cancelled") and paid and draw(st.integers(0, 4)):
            # Mostly an order that is there, all of it or all but a little.
            order = draw(st.sampled_from(paid))
            event |= {"customer_id": order["customer_id"], "order_id": order["order_id"]}
            if type_ != "cancelled" and draw(st.booleans()):
                left = order["amount_minor"] + draw(st.sampled_from([0, 0, -1, 1]))
                event["amount_minor"] = min(max(left, 0), 10**12)
        if type_ == "adjusted" and draw(st.booleans()):
            event["amount_minor"] *= -1
        events.append(event)
    return events


def repeats(event: Event) -> st.SearchStrategy[Event]:
    """Draw the event again: exactly, under another identity, at another instant or with another amount."""
    later = min(event["occurred_at_us"] + 1, LAST_US)
    other = event["amount_minor"] - 1 if event["amount_minor"] > 0 else event["amount_minor"]
    return st.sampled_from(
        [
            dict(event),
            {**event, "event_id": "e1"},
            {**event, "occurred_at_us": later},
            {**event, "amount_minor": other},
        ]
    )


@dataclass(frozen=True)
class Case:
    """Rules and a history for them."""

    rules: Rules
    events: list[Event]

    def sorted(self) -> "Case":
        """Return the same history in the order in which a replay applies it."""
        return replace(self, events=sorted(self.events, key=place))


@st.composite
def cases(draw: st.DrawFn, max_size: int = 16) -> Case:
    drawn = draw(rules())
    return Case(drawn, draw(histories(drawn, max_size)))


def splits(size: int) -> st.SearchStrategy[list[slice]]:
    """Ways to cut ``size`` rows into batches, empty ones among them."""
    return st.lists(st.integers(0, size), max_size=5).map(
        lambda at: [slice(a, b) for a, b in zip([0, *sorted(at)], [*sorted(at), size], strict=True)]
    )


def later_instants(rules_: Rules, events: list[Event]) -> st.SearchStrategy[int]:
    """Instants to pass time to or to look at: edges of what happened, days and years afterwards."""
    past = [event["occurred_at_us"] for event in events] or [0]
    jumps = st.builds(
        int.__add__, st.just(max(past)), st.sampled_from([0, 1, DAY_US, 40 * DAY_US, 400 * DAY_US])
    )
    first_day = max(past) // DAY_US
    return st.one_of(instants(rules_, min(first_day, LAST_DAY - 5), past), jumps).map(
        lambda at_us: min(at_us, LAST_US)
    )
