"""The tiers of any past instant, out of the log of tier changes.

A customer's tier as of T is that of its last change at or before T, exactly. R, F and M move without a tier change, so
a log does not tell them as of T: they are left out rather than guessed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.events.instants import parse_instant, to_text
from rfmstream.engine.files.own_tables import CHANGES, read_table
from rfmstream.engine.insight.report.columns import hash_customers
from rfmstream.engine.insight.report.movement import by_customer
from rfmstream.schemas.errors import ConfigError, InputError
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.ruleset_identity import ruleset_of
from rfmstream.schemas.snapshots import SNAPSHOT_SCHEMA

PAST_COLUMNS: Final = (
    *(
        "customer_id",
        "tier",
        "tier_since",
        "seq",
        "from_tier",
        "to_tier",
        "reason",
        "order_id",
        "effective_at",
    ),
    *("ruleset", "mode"),
)
"""What a change tells of every later instant until the next; as in a snapshot."""

_READ: Final = (
    *("customer_id", "seq", "effective_at", "from_tier", "to_tier", "reason", "order_id", "ruleset", "mode"),
    *("view", "population"),
)
_NAMED_MAX: Final = 10


def past_tiers(
    paths: Sequence[Path],
    as_of: str,
    ruleset: Ruleset | None = None,
    *,
    view: str | None = None,
    population: str | None = None,
) -> tuple[pa.Table, int]:
    """Return one row a customer that had a change by then, and the instant, µs since 1970 UTC.

    In      paths    files of tier changes; several, oldest first, as runs from a checkpoint leave them
            as_of    ISO 8601; without an offset it is local in the ruleset's time zone
            ruleset  None: the built-in that the changes name
            view, population  only of these; None: of all
    Returns columns PAST_COLUMNS, and `view` and `population` where the changes have them
    Errors  InputError   not tier changes, or none are in them
            ConfigError  no instant, or one after the last change of a view: what time has changed since is not in the
                         log; or no such view or population
    """
    table = pa.concat_tables([read_table(path, _READ, kind=CHANGES) for path in paths]).unify_dictionaries()
    if table.num_rows == 0:
        raise InputError("holds no changes", source=paths[0])
    table = _of_one(table, "view", view)
    as_of_us = parse_instant(as_of, _zone(as_of, table, ruleset), key="--as-of")
    _check_told(table, as_of_us)
    table = _of_one(table, "population", population)
    at_us = table["effective_at"].cast(pa.int64()).to_numpy()
    rows = np.flatnonzero(at_us <= as_of_us)
    customer = hash_customers(table)[rows]
    order = by_customer(customer)
    customer = customer[order]
    is_last = np.ones(len(order), bool)
    is_last[:-1] = customer[1:] != customer[:-1]
    found = table.take(pa.array(np.sort(rows[order[is_last]])))
    # Who was erased is nobody's customer any more.
    found = found.filter(pc.not_equal(found["reason"].cast(pa.string()), "erased"))
    return _as_snapshot(found), as_of_us


def _of_one(table: pa.Table, key: str, value: str | None) -> pa.Table:
    """Return the rows of one view, or of one population; None: all."""
    if value is None:
        return table
    names = table[key].cast(pa.string()) if key in table.column_names else pa.chunked_array([], pa.string())
    if value not in (there := pc.unique(names).drop_null().to_pylist()):
        raise ConfigError(
            f"there are no changes in the {key} {value!r}",
            key=f"--{key}",
            fix=f"name one of {', '.join(map(str, there[:_NAMED_MAX]))}" if there else "leave it out",
        )
    return table.filter(pc.equal(names, value))


def _check_told(table: pa.Table, as_of_us: int) -> None:
    """Refuse an instant that the changes do not reach; each view ends by itself."""
    by = ["view"] if "view" in table.column_names else []
    newest = table.group_by(by).aggregate([("effective_at", "max")]).sort_by("effective_at_max")
    newest_us = newest["effective_at_max"].cast(pa.int64())[0].as_py()
    if as_of_us > newest_us:
        of_view = f" of the view {newest['view'][0].as_py()}" if newest.num_rows > 1 else ""
        raise ConfigError(
            f"the changes{of_view} end at {to_text(newest_us)}: what time has changed since is not in them",
            key="--as-of",
            fix="name an instant of theirs, or a --checkpoint, whose forecast is exact",
        )


def _as_snapshot(found: pa.Table) -> pa.Table:
    named = {"tier": found["to_tier"], "tier_since": found["effective_at"]}
    fields = [SNAPSHOT_SCHEMA.field(name) for name in PAST_COLUMNS]
    columns = [named[name] if name in named else found[name] for name in PAST_COLUMNS]
    fields += [found.schema.field(name) for name in ("view", "population") if name in found.column_names]
    columns += [found[field.name] for field in fields[len(PAST_COLUMNS) :]]
    return pa.table(
        [column.cast(field.type) for column, field in zip(columns, fields, strict=True)],
        schema=pa.schema(fields),
    )


def _zone(as_of: str, table: pa.Table, ruleset: Ruleset | None) -> str:
    if ruleset is not None:
        return ruleset.time_zone
    own = ruleset_of(str(table["ruleset"][0].as_py()))
    if own is not None:
        return own.time_zone
    if "T" in as_of and (as_of.endswith("Z") or "+" in as_of or as_of.count("-") > 2):
        return "UTC"  # the instant says its own
    raise ConfigError(
        "the time zone of its days is in the ruleset, which is no built-in",
        key="--as-of",
        fix="give --ruleset FILE, or an instant with its offset",
    )
