"""Flaps: tier changes that the customer's next one undoes, soon (A → B → A within some days).

Whoever acts on tier changes acts on a flap twice, and the second time against the first. The share of flaps says
whether a ruleset moves customers or only shakes them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from rfmstream.engine.files.own_tables import read_fields
from rfmstream.engine.insight.codes import encode, instants_us
from rfmstream.schemas.changes import CHANGE_SCHEMA
from rfmstream.schemas.columns import WORD
from rfmstream.schemas.errors import ConfigError

DAY_US: Final = 86_400_000_000
WITHIN_DAYS_MAX: Final = 36_500

_KEY: Final = ("view", "population", "customer_id")
FLAP_FIELDS: Final = (
    *(CHANGE_SCHEMA.field(name) for name in ("customer_id", "seq", "effective_at", "from_tier", "to_tier")),
    pa.field("view", WORD),
    pa.field("population", pa.string()),
)
"""What is read of a file of tier changes; those of a run without views have no view and no population."""


@dataclass(frozen=True)
class FlapPair:
    """The changes from one tier to another.

    Fields  from_tier, to_tier  tier ids; None: no tier
            changes  how many there are
            undone   of them: the customer's next change led back, within the days
    """

    from_tier: str | None
    to_tier: str | None
    changes: int
    undone: int


@dataclass(frozen=True)
class Flaps:
    """How many tier changes were undone.

    Fields  within_days  a change is undone if the next one of its customer leads back at most so many times 24 h later
            changes, undone  over all pairs
            pairs   those with the most undone changes first
    """

    within_days: int
    changes: int
    undone: int
    pairs: tuple[FlapPair, ...]

    @property
    def share(self) -> float | None:
        """Undone changes of all changes, 0..1; None without changes."""
        return self.undone / self.changes if self.changes else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "within_days": self.within_days,
            "changes": self.changes,
            "undone": self.undone,
            "share": self.share,
            "pairs": [vars(pair) for pair in self.pairs],
        }


def read_flaps(path: Path, within_days: int = 30) -> Flaps:
    """Count the flaps in a file of tier changes.

    Errors  InputError  it is none
    """
    table = read_fields(path, FLAP_FIELDS, what="tier changes", fix="name a file of replay --changes")
    return count_flaps(table, within_days)


def count_flaps(changes: pa.Table, within_days: int = 30) -> Flaps:
    """Count the changes that the customer's next one undoes.

    In      changes  columns customer_id, seq, effective_at, from_tier, to_tier; `view` and `population` part customers
                     where they are there; in any order. Changes near the end may still be undone later
    Errors  ConfigError  within_days is no number of days
    """
    if not 0 < within_days <= WITHIN_DAYS_MAX:
        raise ConfigError(
            f"{within_days} days",
            key="within",
            fix=f"use a whole number of days from 1 to {WITHIN_DAYS_MAX:,}",
        )
    keys = [encode(changes[name])[0][0] for name in _KEY if name in changes.column_names]
    seq = changes["seq"].to_numpy()
    order = np.lexsort((seq, *reversed(keys)))
    (before, after), tiers = encode(changes["from_tier"], changes["to_tier"])
    before, after, at_us = before[order], after[order], instants_us(changes["effective_at"])[order]
    is_next = np.ones(max(order.size - 1, 0), np.bool_)
    for key in keys:
        is_next &= key[order][1:] == key[order][:-1]
    is_undone = np.zeros(order.size, np.bool_)
    is_undone[:-1] = is_next & (after[1:] == before[:-1]) & (np.diff(at_us) <= within_days * DAY_US)
    return Flaps(within_days, int(order.size), int(is_undone.sum()), _pairs(before, after, is_undone, tiers))


def _pairs(
    before: np.ndarray[Any, np.dtype[np.int64]],
    after: np.ndarray[Any, np.dtype[np.int64]],
    is_undone: np.ndarray[Any, np.dtype[np.bool_]],
    tiers: pa.Array,
) -> tuple[FlapPair, ...]:
    ids = [*tiers.to_pylist(), None]  # code -1 is the last
    width = len(ids)
    found, place, counts = np.unique(
        (before + 1) * width + after + 1, return_inverse=True, return_counts=True
    )
    undone = np.bincount(place, weights=is_undone, minlength=found.size).astype(np.int64)
    pairs = [
        FlapPair(ids[pair // width - 1], ids[pair % width - 1], count, back)
        for pair, count, back in zip(found.tolist(), counts.tolist(), undone.tolist(), strict=True)
    ]
    return tuple(
        sorted(
            pairs, key=lambda pair: (-pair.undone, -pair.changes, pair.from_tier or "", pair.to_tier or "")
        )
    )
