"""What a report is made of, as columns of numbers: tier changes and a snapshot.

Tiers are codes, positions in the ruleset's list of tiers; one more stands for no tier.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rfmstream.engine.files.own_tables import CHANGES, SNAPSHOT, read_table
from rfmstream.engine.insight.report.local_time import DAY_US, Ints, local_days, midnight_us
from rfmstream.kernels.ids import hash_ids
from rfmstream.schemas.changes import CHANGE_REASONS
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError, InputError
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.ruleset_identity import ruleset_of

Codes = NDArray[np.int8]


@dataclass(frozen=True)
class Changes:
    """Tier changes, in the files' order, which is each customer's own.

    Fields  customer   u64[n], a hash of (population, customer id)
            at_us      i64[n], effective_at
            from_tier, to_tier  tier codes
            reason     positions in CHANGE_REASONS
    """

    customer: NDArray[np.uint64]
    at_us: Ints
    from_tier: Codes
    to_tier: Codes
    reason: Codes


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
    table = _one_view(read_table(path, names, kind=SNAPSHOT), view, path)
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
    last_paid_us = _instants(table["last_paid_at"])
    recency_days = _ints(table["recency_days"], -1)
    known_us = max(
        int(last_paid_us.max(initial=NEVER_US)), int(_instants(table["effective_at"]).max(initial=NEVER_US))
    )
    if as_of_us is None:
        as_of_us = as_of_of(rules, last_paid_us, recency_days, known_us)
    elif as_of_us < known_us:
        raise ConfigError("lies before the snapshot's newest change or order", key="--as-of")
    return Snapshot(
        ruleset=rules,
        as_of_us=as_of_us,
        tier=_codes(table["tier"], [tier.id for tier in rules.tiers], path),
        r_band=_ints(table["r_band"], 0),
        f_band=_ints(table["f_band"], 0),
        m_band=_ints(table["m_band"], 0),
        last_paid_us=last_paid_us,
        first_paid_us=_instants(table["first_paid_at"]),
        recency_days=recency_days,
        frequency=_ints(table["frequency"], 0),
        monetary_minor=_ints(table["monetary_minor"], 0),
        lifetime_orders=_ints(table["lifetime_orders"], 0),
        lifetime_monetary_minor=_ints(table["lifetime_monetary_minor"], 0),
        next_change_us=_instants(table["next_change_at"]),
        next_tier=_codes(table["next_tier"], [tier.id for tier in rules.tiers], path),
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
        told_us = midnight_us(int((local_days(last_us, ruleset.time_zone) + days).max()), ruleset.time_zone)
    return max(known_us, told_us)


def read_changes(paths: Sequence[Path], ruleset: Ruleset, *, view: str | None = None) -> Changes:
    """Read tier changes; several files one after the other, as runs from a checkpoint leave them.

    Errors  InputError  not tier changes, or of tiers that the ruleset has not
    """
    parts = [_read_part(path, ruleset, view) for path in paths]
    return Changes(
        **{name: np.concatenate([part[name] for part in parts]) for name in Changes.__dataclass_fields__}
    )


def _read_part(path: Path, ruleset: Ruleset, view: str | None) -> dict[str, NDArray[Any]]:
    names = ["customer_id", "effective_at", "from_tier", "to_tier", "reason", "view", "population"]
    return _numbers_of(_one_view(read_table(path, names, kind=CHANGES), view, path), ruleset, path)


def changes_of(tables: Sequence[pa.Table], ruleset: Ruleset, *, source: Path) -> Changes:
    """Return tier changes as columns of numbers, oldest first.

    In      source  what they are from, for errors
    Errors  InputError  tiers that the ruleset has not
    """
    parts = [_numbers_of(table, ruleset, source) for table in tables] or [_no_numbers()]
    return Changes(
        **{name: np.concatenate([part[name] for part in parts]) for name in Changes.__dataclass_fields__}
    )


def _no_numbers() -> dict[str, NDArray[Any]]:
    empty = np.empty(0, np.int8)
    none = {"customer": np.empty(0, np.uint64), "at_us": np.empty(0, np.int64)}
    return none | dict.fromkeys(("from_tier", "to_tier", "reason"), empty)


def _numbers_of(table: pa.Table, ruleset: Ruleset, path: Path) -> dict[str, NDArray[Any]]:
    ids = [tier.id for tier in ruleset.tiers]
    return {
        "customer": hash_customers(table),
        "at_us": _instants(table["effective_at"]),
        "from_tier": _codes(table["from_tier"], ids, path),
        "to_tier": _codes(table["to_tier"], ids, path),
        "reason": _codes(table["reason"], CHANGE_REASONS, path),
    }


def hash_customers(table: pa.Table) -> NDArray[np.uint64]:
    """Hash the customers of tier changes: one view's, and one population's, customer is another's stranger."""
    customer = hash_column(table["customer_id"], _keys(0))
    if "view" in table.column_names and len(pc.unique(table["view"])) > 1:
        customer ^= hash_column(table["view"].cast(pa.string()), _keys(2))
    if "population" in table.column_names and table["population"].null_count < table.num_rows:
        customer ^= hash_column(table["population"].cast(pa.string()).fill_null("\0"), _keys(1))
    return customer


def seeds(number: int, count: int) -> NDArray[np.uint64]:
    """Return keys for `hash_column`, four each: fixed ones, since nobody gains by a collision in a report."""
    return np.random.SeedSequence(number).generate_state(count, np.uint64).astype(np.uint64)


def hash_column(column: pa.ChunkedArray, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash a column of strings, 64 bits each.

    Of ten million customers two are taken for one in one of 370,000 reports.
    """
    parts = []
    for chunk in column.chunks:
        values = chunk.fill_null("") if chunk.null_count else chunk
        hashes = np.empty(len(values), np.uint64)
        if len(values):
            _, offsets, data = values.buffers()
            form = np.int64 if pa.types.is_large_string(values.type) else np.int32
            offset = np.frombuffer(offsets, form, values.offset + len(values) + 1)[values.offset :]
            hash_ids(offset, _bytes(data), keys, hashes)
        parts.append(hashes)
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _keys(which: int) -> NDArray[np.uint64]:
    return seeds(20_261_128 + which, 4)


def _bytes(data: pa.Buffer | None) -> NDArray[np.uint8]:
    return np.zeros(0, np.uint8) if data is None or data.size == 0 else np.frombuffer(data, np.uint8)


def _one_view(table: pa.Table, view: str | None, path: Path) -> pa.Table:
    if "view" not in table.column_names:
        if view is not None:
            raise ConfigError("the file has no views", file=path, key="--view", fix="leave it out")
        return table
    there = [name.as_py() for name in pc.unique(table["view"].cast(pa.string()))]
    if view is None and len(there) <= 1:
        return table
    if view not in there:
        names = ", ".join(sorted(str(name) for name in there))
        raise ConfigError(
            f"the file holds the views {names}", file=path, key="--view", fix="name one of them"
        )
    return table.filter(pc.equal(table["view"].cast(pa.string()), view))


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


def _instants(column: pa.ChunkedArray) -> Ints:
    return _ints(column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()), NEVER_US)


def _ints(column: pa.ChunkedArray, absent: int) -> Ints:
    column = column.cast(pa.int64())
    values: Ints = (column.fill_null(absent) if column.null_count else column).to_numpy()
    return values


def _codes(column: pa.ChunkedArray, words: Sequence[str], path: Path) -> Codes:
    """Return the positions of a dictionary's words in `words`; null is one beyond the last."""
    absent = len(words)
    place = {word: at for at, word in enumerate(words)}
    parts = []
    for chunk in column.chunks:
        own = chunk.dictionary.to_pylist()
        used = set(pc.unique(chunk.indices).to_pylist()) - {None}
        strange = [own[at] for at in used if own[at] not in place]
        if strange:
            raise InputError(
                f"names {strange[0]!r}, which the ruleset does not", source=path, fix="give --ruleset"
            )
        codes = np.array([place.get(word, absent) for word in own] + [absent], np.int8)
        indices = chunk.indices
        parts.append(codes[(indices.fill_null(len(own)) if indices.null_count else indices).to_numpy()])
    return np.concatenate(parts) if parts else np.empty(0, np.int8)
