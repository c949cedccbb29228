"""What another ruleset would make of the same customers: who moves where, and what activating it would send at once.

An engine is asked by doing it: its state, a copy in memory, is put under the new ruleset, and what that emits is what
it would send. Of a worker there is only a snapshot, which answers the same where both rulesets count alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.events.instants import to_text
from rfmstream.engine.events.zone import local_days
from rfmstream.schemas.columns import TIMESTAMP, WORD
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.ruleset import Ruleset

DIFF_SCHEMA: Final = pa.schema(
    [
        pa.field("customer_id", pa.string(), nullable=False),
        pa.field("old_tier", WORD),
        pa.field("new_tier", WORD),
        pa.field("is_sent", pa.bool_(), nullable=False),
        *(pa.field(name, pa.int16(), nullable=False) for name in ("r_band", "f_band", "m_band")),
        pa.field("last_paid_at", TIMESTAMP),
        *(
            pa.field(name, pa.int64(), nullable=False)
            for name in ("frequency", "monetary_minor", "lifetime_orders", "lifetime_monetary_minor")
        ),
        pa.field("population", pa.string()),
    ]
)
"""A row a customer; bands, F and M are the new ruleset's. `is_sent`: activating it emits a change of this customer.
`population` tells a customer of several apart: the `per` value of the view, null without one."""

_NEW: Final = DIFF_SCHEMA.names[4:]
_DAY_US: Final = 86_400_000_000
_LONG_AGO_DAYS: Final = int(np.iinfo(np.int64).max)
_EXACT: Final = pa.decimal128(38, 0)


@dataclass(frozen=True)
class Cell:
    """The customers of one tier by the old ruleset and one by the new; None: no tier.

    Fields  sent           of them: would get a tier change at once
            revenue_minor  over their lifetimes
    """

    old_tier: str | None
    new_tier: str | None
    customers: int
    sent: int
    revenue_minor: int


@dataclass(frozen=True)
class Diff:
    """The customers under both rulesets at one instant.

    Fields  as_of_us  the instant; None: whatever is the present of the workers that were asked
            cells     those that have customers, in the rulesets' order of tiers
    """

    old: Ruleset
    new: Ruleset
    as_of_us: int | None
    cells: tuple[Cell, ...]

    @property
    def customers(self) -> int:
        """All of them."""
        return sum(cell.customers for cell in self.cells)

    @property
    def sent(self) -> int:
        """Tier changes that activating the new ruleset emits at once."""
        return sum(cell.sent for cell in self.cells)

    @property
    def sent_share(self) -> float | None:
        """Of all customers, 0..1; None without any."""
        return self.sent / self.customers if self.customers else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it: money in minor units of `currency`."""
        return {
            "old": self.old.identity,
            "new": self.new.identity,
            "currency": self.new.currency,
            "as_of": None if self.as_of_us is None else to_text(self.as_of_us),
            "customers": self.customers,
            "sent": self.sent,
            "sent_share": self.sent_share,
            "cells": [vars(cell) for cell in self.cells],
        }


def diff_rows_of_engine(engine: Engine, new: Ruleset) -> pa.Table:
    """Put an engine under another ruleset at its clock, and return what that did to every customer.

    Returns DIFF_SCHEMA; the engine has gone over to the new ruleset
    Errors  ConfigError  the new ruleset counts in another currency
    """
    before = engine.snapshot()
    sent = engine.resegment(new)
    after = engine.snapshot()
    columns = {
        "customer_id": after["customer_id"],
        "old_tier": _words(before["tier"]),
        "new_tier": _words(after["tier"]),
        "is_sent": pc.is_in(_whose(after), value_set=_whose(sent)),
    }
    return _table(columns | {name: after[name] for name in _NEW})


def _whose(table: pa.Table) -> pa.ChunkedArray:
    """Return what tells customers apart: the id, and before it the population where there are some."""
    if table["population"].null_count == table.num_rows:
        return table["customer_id"]
    sizes = pc.cast(pc.binary_length(table["population"]), pa.string())
    return pc.binary_join_element_wise(sizes, ":", table["population"], table["customer_id"], "")


def diff_rows_of_snapshot(
    snapshot: pa.RecordBatch, old: Ruleset, new: Ruleset, as_of_us: int | None = None
) -> pa.Table:
    """Return what another ruleset makes of the customers in a snapshot by the old one.

    In      as_of_us  the instant of the snapshot; None: unknown, which is enough where both count days alike
    Returns DIFF_SCHEMA
    Errors  ConfigError  what the new ruleset counts is not in the snapshot; see `check_comparable`
    """
    check_comparable(old, new)
    is_lifetime = new.window_days is None
    frequency = snapshot["lifetime_orders" if is_lifetime else "frequency"]
    monetary = snapshot["lifetime_monetary_minor" if is_lifetime else "monetary_minor"]
    days = _recency_days(snapshot, old, new, as_of_us)
    within = np.array(new.recency_cuts_days, np.int64) - (new.day_unit == "duration")
    bands = {
        "r_band": within.size - np.searchsorted(within, days),
        "f_band": np.searchsorted(new.frequency_cuts, frequency.to_numpy(), side="right"),
        "m_band": np.searchsorted(new.monetary_cuts_minor, monetary.to_numpy(), side="right"),
    }
    orders = snapshot["lifetime_orders"].to_numpy()
    code = new.lookup[(orders == 1).astype(np.int64), *bands.values()]
    ids = pa.array([tier.id for tier in new.tiers])
    tier = ids.take(pa.array(code, pa.int64(), mask=orders == 0))
    before = _words(pa.chunked_array([snapshot["tier"]]))
    # A tier whose id the new ruleset does not have is none to it, so whoever was in it is told.
    known = pc.if_else(pc.is_in(before, value_set=ids), before, pa.scalar(None, pa.string()))
    is_sent = pc.and_(pc.is_valid(tier), pc.not_equal(known, tier).fill_null(True))  # noqa: FBT003
    columns = {
        "customer_id": snapshot["customer_id"],
        "old_tier": before,
        "new_tier": tier,
        "is_sent": is_sent,
        **{name: pa.array(band, pa.int16()) for name, band in bands.items()},
        "last_paid_at": snapshot["last_paid_at"],
        "frequency": frequency,
        "monetary_minor": monetary,
        "lifetime_orders": snapshot["lifetime_orders"],
        "lifetime_monetary_minor": snapshot["lifetime_monetary_minor"],
        "population": snapshot["population"],
    }
    return _table(columns)


def counts_days_alike(old: Ruleset, new: Ruleset) -> bool:
    """Tell whether two rulesets have the same time zone and day unit."""
    return (old.time_zone, old.day_unit) == (new.time_zone, new.day_unit)


def _recency_days(
    snapshot: pa.RecordBatch, old: Ruleset, new: Ruleset, as_of_us: int | None
) -> NDArray[np.int64]:
    """Return the whole days since each customer's newest order as a ruleset counts them: i64[n]."""
    if counts_days_alike(old, new):
        same: NDArray[np.int64] = snapshot["recency_days"].fill_null(_LONG_AGO_DAYS).to_numpy()
        return same
    assert as_of_us is not None, "whoever asked for the snapshot named an instant"
    paid = snapshot["last_paid_at"].cast(pa.int64())
    paid_us = paid.fill_null(0).to_numpy()
    if new.day_unit == "duration":
        days = (as_of_us - paid_us) // _DAY_US
    else:
        days = local_days(new.time_zone, np.array([as_of_us])) - local_days(new.time_zone, paid_us)
    found: NDArray[np.int64] = np.where(paid.is_valid().to_numpy(zero_copy_only=False), days, _LONG_AGO_DAYS)
    return found


def check_comparable(old: Ruleset, new: Ruleset) -> None:
    """Refuse a new ruleset whose R, F and M a snapshot by the old one does not tell.

    A snapshot has the instant of the newest order, which any zone and day unit can count from; F and M within the old
    window, and over the lifetime.

    Errors  ConfigError  another currency; or a window, no lifetime, that is not the old one in the same days
    """
    if new.currency != old.currency:
        raise ConfigError(
            f"{old.identity} counts in {old.currency}, {new.identity} in {new.currency}: a state does not change its "
            "currency",
            key="currency",
            fix="name one currency for both (--currency), or compare over order files, with NEW as a state of its own",
        )
    if new.window_days is None:
        return
    for key in ("window_days", "day_unit", "time_zone"):
        ours, theirs = getattr(new, key), getattr(old, key)
        if ours != theirs:
            raise ConfigError(
                f"{new.identity} counts F and M within {new.window_days} days and has {ours!r}, {old.identity} has "
                f"{theirs!r}: a worker's snapshot does not tell what lies within",
                key=key,
                fix="ask its checkpoint (--checkpoint), which holds the orders, or name order files without --worker",
            )


def make_diff(old: Ruleset, new: Ruleset, as_of_us: int | None, rows: Iterable[pa.Table]) -> Diff:
    """Sum up rows of DIFF_SCHEMA."""
    counted: dict[tuple[str | None, str | None], list[int]] = {}
    for table in rows:
        revenue = pc.cast(table["lifetime_monetary_minor"], pa.decimal128(19, 0)).cast(_EXACT)
        plain = pa.table(
            {
                "old": _words(table["old_tier"]),
                "new": _words(table["new_tier"]),
                "sent": table["is_sent"].cast(pa.int64()),
                "revenue": revenue,
            }
        )
        sums = plain.group_by(["old", "new"]).aggregate(
            [([], "count_all"), ("sent", "sum"), ("revenue", "sum")]
        )
        for row in sums.to_pylist():
            cell = counted.setdefault((row["old"], row["new"]), [0, 0, 0])
            found = (row["count_all"], row["sent_sum"], int(row["revenue_sum"]))
            cell[:] = [sum(pair) for pair in zip(cell, found, strict=True)]
    old_order, new_order = _order(old), _order(new)
    ordered = sorted(counted, key=lambda pair: (old_order[pair[0]], new_order[pair[1]]))
    return Diff(old, new, as_of_us, tuple(Cell(*pair, *counted[pair]) for pair in ordered))


def _order(ruleset: Ruleset) -> dict[str | None, int]:
    ids: Sequence[str | None] = [*(tier.id for tier in ruleset.tiers), None]
    return {tier: place for place, tier in enumerate(ids)}


def _words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def _table(columns: dict[str, Any]) -> pa.Table:
    table = pa.table(columns).select(DIFF_SCHEMA.names)
    for name in ("old_tier", "new_tier"):
        at = table.schema.get_field_index(name)
        words = table.column(at).combine_chunks().dictionary_encode().cast(WORD)
        table = table.set_column(at, pa.field(name, WORD), words)
    return table.cast(DIFF_SCHEMA)
