"""Outcomes: what customers did after a tier change, a signal or a campaign's contact, treated beside held out.

An entry is one tier change, signal or contact; its window is the time after it, up to some span later. A purchase at
the very instant of an entry is what brought it about, and counts for nothing. Every join is a search in sorted numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rfmstream.engine.events.instants import to_text
from rfmstream.engine.insight.codes import encode, instants_us
from rfmstream.engine.insight.flaps import FLAP_FIELDS, Flaps
from rfmstream.engine.insight.intervals import newcombe
from rfmstream.engine.insight.purchases import Purchases
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.columns import TIMESTAMP, WORD

CHANGE_FIELDS: Final = (*FLAP_FIELDS, pa.field("holdout", pa.bool_()))
"""What is read of a file of tier changes."""

SIGNAL_FIELDS: Final = (
    pa.field("customer_id", pa.string(), nullable=False),
    pa.field("kind", WORD, nullable=False),
    pa.field("effective_at", TIMESTAMP, nullable=False),
    pa.field("tier", WORD),
    pa.field("view", WORD),
    pa.field("holdout", pa.bool_()),
)
"""What is read of a file of signals."""

CONTACT_FIELDS: Final = (
    pa.field("customer_id", pa.string(), nullable=False),
    pa.field("campaign", pa.string(), nullable=False),
    pa.field("contacted_at", TIMESTAMP, nullable=False),
    pa.field("responded_at", TIMESTAMP),
)
"""What is read of a file of contacts: a row each time a campaign reached a customer."""


@dataclass(frozen=True)
class Arm:
    """The treated, or the held-out customers of a group.

    Fields  entries    tier changes or signals of the group
            answered   of them: followed by a purchase within the window
            customers  who had an entry; the first one counts
            bought     of them: within the window of that first entry
            revenue_minor  of the purchases within those windows
    """

    entries: int
    answered: int
    customers: int
    bought: int
    revenue_minor: int

    @property
    def rate(self) -> float | None:
        """Customers who bought of all customers, 0..1."""
        return self.bought / self.customers if self.customers else None

    @property
    def revenue_per_customer_minor(self) -> float | None:
        """Minor units."""
        return self.revenue_minor / self.customers if self.customers else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        more = {"rate": self.rate, "revenue_per_customer_minor": self.revenue_per_customer_minor}
        return {**vars(self), **more}


@dataclass(frozen=True)
class Outcome:
    """What followed an entry into a tier, or a signal.

    Fields  view        of the changes; None without views
            tier        the tier entered, or that of the signal; None: any
            kind        of the signal; None: a tier change
            difference  the treated customers' rate less the held-out ones', with Newcombe's 95 % interval; None where
                        either are none
    """

    view: str | None
    tier: str | None
    kind: str | None
    treated: Arm
    held: Arm
    difference: float | None
    low: float | None
    high: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "view": self.view,
            **({} if self.kind is None else {"kind": self.kind}),
            "tier": self.tier,
            "treated": self.treated.as_dict(),
            "holdout": self.held.as_dict(),
            "difference": self.difference,
            "difference_low": self.low,
            "difference_high": self.high,
        }


@dataclass(frozen=True)
class Response:
    """What followed a campaign's contacts with the customers of a tier.

    Fields  tier       of the customer at the contact; None: no tier
            contacts   how many there were
            responded  of them: answered within the window, as their `responded_at` says, or else by a purchase
            customers  who were contacted
            bought     of them: within the window of any contact
    """

    view: str | None
    tier: str | None
    campaign: str
    contacts: int
    responded: int
    customers: int
    bought: int

    @property
    def response_rate(self) -> float:
        """Contacts that were answered of all contacts, 0..1."""
        return self.responded / self.contacts

    @property
    def conversion_rate(self) -> float:
        """Customers who bought of all customers who were contacted, 0..1."""
        return self.bought / self.customers

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            **vars(self),
            "response_rate": self.response_rate,
            "conversion_rate": self.conversion_rate,
        }


@dataclass(frozen=True)
class Outcomes:
    """All of them.

    Fields  within_us  length of a window, µs
            until_us   newest instant the orders tell of
            left_out   entries whose window was still open then
            flaps      changes undone within the window's days; None where it is shorter than a day
    """

    within_us: int
    until_us: int
    left_out: int
    tiers: tuple[Outcome, ...]
    signals: tuple[Outcome, ...]
    contacts: tuple[Response, ...]
    flaps: Flaps | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it: money in minor units."""
        return {
            "within_s": self.within_us / 1_000_000,
            "until": to_text(self.until_us),
            "left_out": self.left_out,
            "tiers": [outcome.as_dict() for outcome in self.tiers],
            "signals": [outcome.as_dict() for outcome in self.signals],
            "contacts": [response.as_dict() for response in self.contacts],
            "flaps": None if self.flaps is None else self.flaps.as_dict(),
        }


@dataclass(frozen=True)
class _Entries:
    """Entries as columns: their customer (a code, and that of the purchases), instant, group and arm."""

    customer: NDArray[np.int64]
    buyer: NDArray[np.int64]
    at_us: NDArray[np.int64]
    is_held: NDArray[np.bool_]

    def where(self, mask: NDArray[np.bool_]) -> "_Entries":
        return _Entries(*(column[mask] for column in vars(self).values()))


class Window:
    """Measures what follows entries within a span, by purchases that are known up to an instant.

    In      within_us    length of a window, µs
            is_open_kept whether an entry counts whose window reaches beyond what is known
            until_us     what is known ends here; None: at the newest event of the purchases
    """

    def __init__(
        self, purchases: Purchases, within_us: int, *, until_us: int | None = None, is_open_kept: bool = False
    ) -> None:
        self.purchases = purchases
        self.within_us = within_us
        self.until_us = purchases.newest_us if until_us is None else until_us
        self.left_out = 0
        self._is_open_kept = is_open_kept

    def of_changes(self, changes: pa.Table) -> tuple[Outcome, ...]:
        """Measure what follows the entries into each tier, by view.

        In      changes  CHANGE_FIELDS
        """
        entered = changes.filter(pc.is_valid(changes["to_tier"]))
        (group, names) = _groups(entered["view"], entered["to_tier"])
        return tuple(
            _outcome(view, tier, None, *arms) for (view, tier), arms in self._arms(entered, group, names)
        )

    def of_signals(self, signals: pa.Table) -> tuple[Outcome, ...]:
        """Measure what follows the signals of each kind: in any tier, and in each where there are several.

        In      signals  SIGNAL_FIELDS
        """
        group, names = _groups(signals["view"], signals["kind"])
        whole = [
            _outcome(view, None, str(kind), *arms) for (view, kind), arms in self._arms(signals, group, names)
        ]
        left_out = self.left_out  # those below are the same signals once more
        group, names = _groups(signals["view"], signals["kind"], signals["tier"])
        parts = [
            _outcome(view, tier, str(kind), *arms)
            for (view, kind, tier), arms in self._arms(signals, group, names)
        ]
        self.left_out = left_out
        return tuple(
            row
            for total in whole
            for row in (total, *_several(part for part in parts if _is_of(part, total)))
        )

    def of_contacts(self, contacts: pa.Table, changes: pa.Table) -> tuple[Response, ...]:
        """Measure what follows the contacts of each campaign, by view and the customer's tier at the contact.

        In      contacts  CONTACT_FIELDS; changes: CHANGE_FIELDS. Several populations count as one customer here: the
                          newest change of any of them says the tier
        """
        (view,), views = encode(changes["view"])
        found: list[Response] = []
        for code in np.unique(view).tolist() or [-1]:
            left_out = self.left_out
            found += self._of_contacts(contacts, changes.filter(pa.array(view == code)), _name(views, code))
            self.left_out = max(left_out, self.left_out)
        return tuple(found)

    def _of_contacts(self, contacts: pa.Table, changes: pa.Table, view: str | None) -> Iterable[Response]:
        at_us = instants_us(contacts["contacted_at"])
        tier, tiers = _tiers_at(contacts["customer_id"], at_us, changes)
        (campaign,), campaigns = encode(contacts["campaign"])
        entries = self._entries(contacts["customer_id"], at_us, np.zeros(at_us.size, np.bool_))
        is_closed = self._closed(at_us)
        entries, tier, campaign = entries.where(is_closed), tier[is_closed], campaign[is_closed]
        count, _ = self.purchases.within(entries.buyer, entries.at_us, self.within_us)
        responded_us = contacts["responded_at"].cast(pa.int64()).to_numpy()[is_closed]
        has_response = contacts["responded_at"].is_valid().to_numpy()[is_closed]
        says_response = contacts["responded_at"].null_count < contacts.num_rows
        since_us = np.where(has_response, responded_us - entries.at_us, -1)
        is_response = (since_us >= 0) & (since_us <= self.within_us) if says_response else count > 0
        group = (tier + 1) * len(campaigns) + campaign
        for key in np.unique(group).tolist():
            own = group == key
            customers = np.unique(entries.customer[own])
            yield Response(
                view,
                _name(tiers, key // len(campaigns) - 1),
                str(_name(campaigns, key % len(campaigns))),
                contacts=int(own.sum()),
                responded=int(is_response[own].sum()),
                customers=customers.size,
                bought=np.unique(entries.customer[own & (count > 0)]).size,
            )

    def _arms(
        self, table: pa.Table, group: NDArray[np.int64], names: Sequence[tuple[str | None, ...]]
    ) -> list[tuple[tuple[Any, ...], tuple[Arm, Arm]]]:
        """Return the treated and the held-out arm of each group that has an entry."""
        is_held = table["holdout"].cast(pa.bool_()).fill_null(False).to_numpy().astype(np.bool_)  # noqa: FBT003
        entries = self._entries(table["customer_id"], instants_us(table["effective_at"]), is_held)
        is_closed = self._closed(entries.at_us)
        entries, group = entries.where(is_closed), group[is_closed]
        count, revenue_minor = self.purchases.within(entries.buyer, entries.at_us, self.within_us)
        # The first entry of each customer in each group: what is sorted last changes fastest.
        order = np.lexsort((entries.at_us, entries.customer, group))
        is_first = np.zeros(order.size, np.bool_)
        by_group, by_customer = group[order], entries.customer[order]
        is_first[order] = np.concatenate(([True], (np.diff(by_group) != 0) | (np.diff(by_customer) != 0)))[
            : order.size
        ]
        cell = group * 2 + entries.is_held

        def counts(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
            return np.bincount(cell[mask], minlength=2 * len(names))

        every = np.ones(order.size, np.bool_)
        revenue = np.zeros(2 * len(names), np.int64)
        np.add.at(revenue, cell[is_first], revenue_minor[is_first])
        columns = [
            counts(every),
            counts(count > 0),
            counts(is_first),
            counts(is_first & (count > 0)),
            revenue,
        ]
        arms = [Arm(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
        pairs = zip(names, zip(arms[::2], arms[1::2], strict=True), strict=True)
        return [(name, pair) for name, pair in pairs if pair[0].entries or pair[1].entries]

    def _entries(
        self, customer_id: pa.ChunkedArray, at_us: NDArray[np.int64], is_held: NDArray[np.bool_]
    ) -> _Entries:
        (customer,), _ = encode(customer_id)
        return _Entries(customer, self.purchases.codes_of(customer_id), at_us, is_held)

    def _closed(self, at_us: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which windows end within what is known, and count the others."""
        is_closed = np.asarray(at_us <= self.until_us - self.within_us)
        if self._is_open_kept or self.until_us == NEVER_US:
            return np.ones(at_us.size, np.bool_)
        self.left_out += int(at_us.size - is_closed.sum())
        return is_closed


def _outcome(view: str | None, tier: str | None, kind: str | None, treated: Arm, held: Arm) -> Outcome:
    found = newcombe(treated.bought, treated.customers, held.bought, held.customers)
    difference, low, high = (None if isnan(number) else float(number) for number in found)
    return Outcome(view, tier, kind, treated, held, difference, low, high)


def _groups(*columns: pa.ChunkedArray) -> tuple[NDArray[np.int64], list[tuple[str | None, ...]]]:
    """Give each combination of words that occurs a number, in order of the words.

    Returns (i64[n] the number of each row's; the words of each number)
    """
    group = np.zeros(len(columns[0]), np.int64)
    widths, words = [], []
    for column in columns:
        (code,), names = encode(column)
        group = group * (len(names) + 1) + code + 1
        widths.append(len(names) + 1)
        words.append([None, *names.to_pylist()])
    found, number = np.unique(group, return_inverse=True)
    combinations = [
        tuple(word[place] for word, place in zip(words, places, strict=True))
        for places in zip(*(part.tolist() for part in np.unravel_index(found, widths)), strict=True)
    ]
    order = sorted(range(len(combinations)), key=lambda at: [word or "" for word in combinations[at]])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[number], [combinations[at] for at in order]


def _tiers_at(
    customer_id: pa.ChunkedArray, at_us: NDArray[np.int64], changes: pa.Table
) -> tuple[NDArray[np.int64], pa.Array]:
    """Find the tier of customers at instants: that of their newest change at or before it.

    Returns (i64 code, -1 for no tier; string[k], the tiers)
    """
    (own, of_changes), _ = encode(customer_id, changes["customer_id"])
    (tier,), tiers = encode(changes["to_tier"])
    change_us = instants_us(changes["effective_at"])
    order = np.lexsort((changes["seq"].to_numpy(), change_us, of_changes))
    moments = np.unique(change_us)
    width = moments.size + 1
    keys = of_changes[order] * width + np.searchsorted(moments, change_us[order])
    place = np.searchsorted(keys, own * width + np.searchsorted(moments, at_us, side="right")) - 1
    if not keys.size:
        return np.full(own.size, -1, np.int64), tiers
    newest = order[np.maximum(place, 0)]
    is_own = (place >= 0) & (of_changes[newest] == own)
    return np.where(is_own, tier[newest], -1), tiers


def _name(words: pa.Array, code: int) -> str | None:
    return None if code < 0 else str(words[code])


def _is_of(part: Outcome, total: Outcome) -> bool:
    return (part.view, part.kind) == (total.view, total.kind)


def _several(parts: Iterable[Outcome]) -> tuple[Outcome, ...]:
    found = tuple(parts)
    return found if len(found) > 1 else ()


_ARM_FIELDS: Final = (
    *((name, pa.int64()) for name in ("entries", "answered", "customers", "bought", "revenue_minor")),
    ("rate", pa.float64()),
    ("revenue_per_customer_minor", pa.float64()),
)

OUTCOME_SCHEMA: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("about", "view", "tier", "kind", "campaign")),
        *((f"treated_{name}", kind) for name, kind in _ARM_FIELDS),
        *((f"holdout_{name}", kind) for name, kind in _ARM_FIELDS),
        *((name, pa.float64()) for name in ("difference", "difference_low", "difference_high")),
        *((name, pa.int64()) for name in ("contacts", "responded", "customers", "bought")),
        *((name, pa.float64()) for name in ("response_rate", "conversion_rate")),
    ]
)
"""The rows of `outcome_table`: `about` says whether a row is of a tier entered, a signal or a campaign's contacts."""


def outcome_table(outcomes: Outcomes) -> pa.Table:
    """Return all outcomes as one table of OUTCOME_SCHEMA."""
    rows: list[dict[str, Any]] = []
    for about, found in (("tier", outcomes.tiers), ("signal", outcomes.signals)):
        for outcome in found:
            row = {"about": about, **outcome.as_dict()}
            for arm in ("treated", "holdout"):
                row |= {f"{arm}_{name}": value for name, value in row.pop(arm).items()}
            rows.append(row)
    rows += [{"about": "contact", **response.as_dict()} for response in outcomes.contacts]
    return pa.Table.from_pylist(rows, schema=OUTCOME_SCHEMA)
