"""What a report is made of, as columns of numbers: tier changes and a snapshot.

Tiers are codes, positions in the ruleset's list of tiers; one more stands for no tier.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.events.zone import local_days
from rfmstream.engine.files.own_tables import CHANGES, SNAPSHOT, read_pieces, read_table
from rfmstream.engine.insight.report.columns import (
    Codes,
    Hashes,
    check_view,
    codes_of,
    hash_customers,
    instants_of,
    ints_of,
    of_view,
    read_only,
    views_in,
)
from rfmstream.engine.insight.report.local_time import DAY_US, Ints, midnight_us
from rfmstream.schemas.changes import CHANGE_REASONS
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError, InputError
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.ruleset_identity import ruleset_of


@dataclass(frozen=True)
class ChangeRows:
    """Some tier changes, in the files' order, which is each customer's own. Nobody writes to the arrays.

    Fields  customer   u64[n], a hash of (population, customer id)
            at_us      i64[n], effective_at
            from_tier, to_tier  tier codes
            reason     positions in CHANGE_REASONS
    """

    customer: Hashes
    at_us: Ints
    from_tier: Codes
    to_tier: Codes
    reason: Codes


@dataclass(frozen=True)
class Changes:
    """Tier changes, piece after piece, as they were read."""

    pieces: Sequence[ChangeRows]

    @cached_property
    def span_us(self) -> tuple[int, int] | None:
        """The oldest and the newest instant of a change; None: there is no change."""
        there = [piece.at_us for piece in self.pieces if len(piece.at_us)]
        if not there:
            return None
        return min(int(at_us.min()) for at_us in there), max(int(at_us.max()) for at_us in there)


@dataclass(frozen=True)
class Snapshot:
    """A snapshot: one row a customer, as of an instant.

    Fields  as_of_us   the instant, see `as_of_of`
            tier, next_tier   tier codes
            instants   µs since 1970 UTC, NEVER_US where there is none
            recency_days  -1 without an order
            customer_id, population  None unless read for them; population also where the file has none
    """

    ruleset: Ruleset
    as_of_us: int
    tier: Codes
    r_band: Ints
    f_band: Ints
    m_band: Ints
    last_paid_us: Ints
    first_paid_us: Ints
    recency_days: Ints
    frequency: Ints
    monetary_minor: Ints
    lifetime_orders: Ints
    lifetime_monetary_minor: Ints
    next_change_us: Ints
    next_tier: Codes
    customer_id: pa.ChunkedArray | None = None
    population: pa.ChunkedArray | None = None

    @property
    def no_tier(self) -> int:
        """The code of no tier."""
        return len(self.ruleset.tiers)


def read_snapshot(
    path: Path,
    ruleset: Ruleset | None,
    *,
    as_of_us: int | None = None,
    view: str | None = None,
    has_ids: bool = False,
) -> Snapshot:
    """Read a snapshot.

    In      ruleset   None: the built-in that the file names
            as_of_us  None: as the file tells, to the day (see `as_of_of`)
            view      the view to take where the file holds several
            has_ids   read the customers' ids, too
    Errors  InputError   not a snapshot, an empty one, or one of several rulesets
            ConfigError  its ruleset is no built-in and was not given, or another one was
    """
    names = [
        *("tier", "r_band", "f_band", "m_band", "last_paid_at", "first_paid_at", "recency_days", "frequency"),
        *("monetary_minor", "lifetime_orders", "lifetime_monetary_minor", "next_change_at", "next_tier"),
        *("effective_at", "ruleset", "view"),
        *(("customer_id", "population") if has_ids else ()),
    ]
    table = read_table(path, names, kind=SNAPSHOT)
    check_view([views_in(table)], view, path)
    table = of_view(table, view)
    if table.num_rows == 0:
        raise InputError("holds no customer", source=path, fix="replay some orders first")
    rules = _rules(table["ruleset"], ruleset, path)
    snapshot = snapshot_of(table, rules, source=path, as_of_us=as_of_us)
    if not has_ids:
        return snapshot
    population = table["population"] if "population" in table.column_names else None
    return replace(snapshot, customer_id=table["customer_id"], population=population)


def snapshot_of(table: pa.Table, rules: Ruleset, *, source: Path, as_of_us: int | None = None) -> Snapshot:
    """Return a snapshot's rows as columns of numbers.

    In      source    what they are from, for errors
            as_of_us  None: as the rows tell, to the day (see `as_of_of`)
    Errors  InputError   tiers that the ruleset has not
            ConfigError  the rows are of a later instant
    """
    path = source
    last_paid_us = instants_of(table["last_paid_at"])
    recency_days = ints_of(table["recency_days"], -1)
    known_us = max(
        int(last_paid_us.max(initial=NEVER_US)), int(instants_of(table["effective_at"]).max(initial=NEVER_US))
    )
    if as_of_us is None:
        as_of_us = as_of_of(rules, last_paid_us, recency_days, known_us)
    elif as_of_us < known_us:
        raise ConfigError("lies before the snapshot's newest change or order", key="--as-of")
    return Snapshot(
        ruleset=rules,
        as_of_us=as_of_us,
        tier=codes_of(table["tier"], [tier.id for tier in rules.tiers], path),
        r_band=ints_of(table["r_band"], 0),
        f_band=ints_of(table["f_band"], 0),
        m_band=ints_of(table["m_band"], 0),
        last_paid_us=last_paid_us,
        first_paid_us=instants_of(table["first_paid_at"]),
        recency_days=recency_days,
        frequency=ints_of(table["frequency"], 0),
        monetary_minor=ints_of(table["monetary_minor"], 0),
        lifetime_orders=ints_of(table["lifetime_orders"], 0),
        lifetime_monetary_minor=ints_of(table["lifetime_monetary_minor"], 0),
        next_change_us=instants_of(table["next_change_at"]),
        next_tier=codes_of(table["next_tier"], [tier.id for tier in rules.tiers], path),
    )


def ruleset_of_snapshot(path: Path) -> Ruleset:
    """Return the built-in ruleset of a snapshot.

    Errors  as of `read_snapshot`
    """
    return _rules(read_table(path, ["ruleset"], kind=SNAPSHOT)["ruleset"], None, path)


def as_of_of(ruleset: Ruleset, last_paid_us: Ints, recency_days: Ints, known_us: int) -> int:
    """Return the instant of a snapshot as far as its rows tell it, µs since 1970 UTC.

    Whole days since the last order are in each row: their sum is the day of the snapshot (calendar days), or within
    24 h of its instant (durations), and no change or order in it is newer.
    """
    there = recency_days >= 0
    if not there.any():
        return known_us
    last_us, days = last_paid_us[there], recency_days[there]
    if ruleset.day_unit == "duration":
        told_us = int((last_us + days * DAY_US).max())
    else:
        told_us = midnight_us(int((local_days(ruleset.time_zone, last_us) + days).max()), ruleset.time_zone)
    return max(known_us, told_us)


def read_changes(paths: Sequence[Path], ruleset: Ruleset, *, view: str | None = None) -> Changes:
    """Read tier changes; several files one after the other, as runs from a checkpoint leave them.

    Errors  InputError   not tier changes, or of tiers that the ruleset has not
            ConfigError  of other views
    """
    return Changes([rows for path in paths for rows in _read_file(path, ruleset, view)])


def _read_file(path: Path, ruleset: Ruleset, view: str | None) -> list[ChangeRows]:
    names = ["customer_id", "effective_at", "from_tier", "to_tier", "reason", "view", "population"]

    def numbers(table: pa.Table) -> tuple[set[str | None] | None, ChangeRows]:
        return views_in(table), _rows_of(of_view(table, view), ruleset, path)

    pieces = read_pieces(path, names, numbers, kind=CHANGES)
    check_view((there for there, _ in pieces), view, path)
    return [rows for _, rows in pieces]


def changes_of(tables: Sequence[pa.Table], ruleset: Ruleset, *, source: Path) -> Changes:
    """Return tier changes as columns of numbers, oldest first.

    In      source  what they are from, for errors
    Errors  InputError  tiers that the ruleset has not
    """
    return Changes([_rows_of(table, ruleset, source) for table in tables])


def _rows_of(table: pa.Table, ruleset: Ruleset, path: Path) -> ChangeRows:
    ids = [tier.id for tier in ruleset.tiers]
    return ChangeRows(
        customer=read_only(hash_customers(table)),
        at_us=instants_of(table["effective_at"]),
        from_tier=codes_of(table["from_tier"], ids, path),
        to_tier=codes_of(table["to_tier"], ids, path),
        reason=codes_of(table["reason"], CHANGE_REASONS, path),
    )


def _rules(column: pa.ChunkedArray, given: Ruleset | None, path: Path) -> Ruleset:
    identities = sorted({value for value in pc.unique(column.cast(pa.string())).to_pylist() if value})
    if len(identities) != 1:
        raise InputError(
            f"holds rows of {len(identities)} rulesets", source=path, fix="name a file of one ruleset"
        )
    identity = identities[0]
    own = ruleset_of(identity) if given is None else given
    if own is None:
        raise ConfigError(
            f"was made by {identity}, which is no built-in", file=path, key="--ruleset", fix="give its file"
        )
    if own.identity != identity:
        raise ConfigError(
            f"was made by {identity}, not by {own.identity}",
            file=path,
            key="--ruleset",
            fix="give that ruleset",
        )
    return own
