"""Counters of a partition's runner, for metrics and logs. No decision depends on them."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import values_of
from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.placement import Placement
from rfmstream.schemas.changes import CHANGE_REASONS, CHANGE_SCHEMA
from rfmstream.schemas.codes import NO_TIER
from rfmstream.schemas.ruleset import Ruleset

_COUNTED: Final = tuple(CHANGE_SCHEMA.get_field_index(name) for name in ("reason", "from_tier", "to_tier"))

SECONDS_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Seconds:
    """Durations in the buckets of a Prometheus histogram.

    Fields  counts  how many lay within each of SECONDS_BOUNDS and above the one before; the last: beyond them all
            total   their sum
            last    the newest
    """

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS_BOUNDS) + 1)
        self.total = 0.0
        self.last = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(SECONDS_BOUNDS, seconds)] += 1
        self.total += seconds
        self.last = seconds


@dataclass
class ViewStats:
    """What a view has done.

    Fields  applied, duplicates  orders
            changes      tier changes committed, by (reason, to_tier; "" for none)
            signals      committed, by kind
            flaps        tier changes that the customer's next one undid soon, by (from_tier, to_tier; "" for none)
            tiers        customers that have one, by tier
            customers, orders, memory   the state's: memory in bytes by what it holds
    """

    applied: int = 0
    duplicates: int = 0
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    flaps: Counter[tuple[str, str]] = field(default_factory=Counter)
    tiers: Counter[str] = field(default_factory=Counter)
    customers: int = 0
    orders: int = 0
    memory: dict[str, int] = field(default_factory=dict)


@dataclass
class PartitionStats(ViewStats):
    """Counters of one partition since this process took it over; a silent replay counts in `replayed` alone.

    Those of ViewStats are of its first view.

    Fields  view         the name of the first view; "": not known yet
            further      of the other views, by name
            state        recovering, replaying, live, parked, finished, fenced, failed, stopped
            records      records read
            rejected     rows, by reason
            replayed     records replayed silently
            ticks        ticks committed
            position     the offset to read next; committed: the committed one; end: one after the partition's last
            clock_us     NEVER_US before the first record
            log_us       time of the newest record applied; NEVER_US
            step, commit durations of computing a step, of committing one; commits: how many
            retries      commits and calls that had to be tried again
            checkpoint_*     newest one: wall instant, offset, bytes; how many were written, how many failed
            placement    what the keys say of their producers; None: nobody looks
            unsaved_us   the wall instant of the first commit that is in no checkpoint; None: all are
            committed_us the wall instant of the newest commit
            left_out     objects that an input map left out
            times_ahead  records whose time lay further ahead of the wall clock than the tolerance
            told         who is told of tier changes once they are committed; None: nobody
    """

    view: str = ""
    further: dict[str, ViewStats] = field(default_factory=dict)
    state: str = "recovering"
    records: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    replayed: int = 0
    ticks: int = 0
    position: int = 0
    committed: int = 0
    end: int = 0
    clock_us: int = -(2**63)
    log_us: int = -(2**63)
    step: Seconds = field(default_factory=Seconds)
    commit: Seconds = field(default_factory=Seconds)
    retries: int = 0
    checkpoints: int = 0
    checkpoint_failures: int = 0
    checkpoint_us: int | None = None
    checkpoint_offset: int | None = None
    checkpoint_bytes: int = 0
    checkpoint: Seconds = field(default_factory=Seconds)
    placement: Placement | None = None
    left_out: int = 0
    times_ahead: int = 0
    committed_us: int | None = None
    unsaved_us: int | None = None
    told: Callable[[str, pa.Table], None] | None = None

    def of(self, view: str) -> ViewStats:
        """Return the counters of a view."""
        if not self.view:
            self.view = view
        return self if view in (self.view, "") else self.further.setdefault(view, ViewStats())

    @property
    def views(self) -> dict[str, ViewStats]:
        """The counters of each view, by name."""
        return {self.view: self, **self.further}

    @property
    def lag(self) -> int:
        """How many offsets of the partition are still to be read."""
        return max(self.end - self.position, 0)


def no_changes(ruleset: Ruleset) -> Counter[tuple[str, str]]:
    """Return a count of 0 of every kind of tier change: who counts an increase misses what a series is born with."""
    tiers = ("", *(tier.id for tier in ruleset.tiers))
    return Counter(dict.fromkeys(product(CHANGE_REASONS, tiers), 0))


def count_changes(changes: pa.Table, counts: Counter[tuple[str, str]], tiers: Counter[str]) -> None:
    """Add tier changes, schemas.changes, to what is known of a view.

    In      counts  of changes by (reason, to_tier), "" for no tier
            tiers   of customers by tier
    """
    for batch in changes.to_batches():
        reason, before, after = (batch.column(at) for at in _COUNTED)
        words = [("", *column.dictionary.to_pylist()) for column in (before, after)]
        reasons = reason.dictionary.to_pylist()
        shape = len(reasons), len(words[0]), len(words[1])
        cells = (_codes(reason) * shape[1] + _codes(before) + 1) * shape[2] + _codes(after) + 1
        counted = np.bincount(cells, minlength=1)
        for cell in np.flatnonzero(counted).tolist():
            count = int(counted[cell])
            rest, to = divmod(cell, shape[2])
            why, left = divmod(rest, shape[1])
            counts[reasons[why], words[1][to]] += count
            if left:
                tiers[words[0][left]] -= count
            if to:
                tiers[words[1][to]] += count


def _codes(words: pa.DictionaryArray) -> NDArray[np.int64]:
    """Return i64[n], the codes of words; -1 for null."""
    indices = words.indices
    codes = values_of(indices, np.int8).astype(np.int64)
    if indices.null_count:
        end = indices.offset + len(indices)
        valid = np.unpackbits(np.frombuffer(indices.buffers()[0], np.uint8), count=end, bitorder="little")
        codes[valid[indices.offset :] == 0] = -1
    return codes


def count_signals(signals: pa.Table) -> Counter[str]:
    """Count signals, schemas.signals, by kind."""
    counts: Counter[str] = Counter()
    for kind in signals["kind"].chunks:
        words = kind.dictionary.to_pylist()
        counts.update(dict(zip(words, np.bincount(_codes(kind)).tolist(), strict=False)))
    return counts


def tiers_of(engine: Engine) -> Counter[str]:
    """Count the customers of an engine that have a tier, by each of its tiers."""
    names = [tier.id for tier in engine.ruleset.tiers]
    tiers: Counter[str] = Counter(dict.fromkeys(names, 0))
    for shard in engine.shards:
        codes = shard.customer_records()[0]["tier"][1 : shard.customers + 1]
        counts = np.bincount(codes.astype(np.int64) - NO_TIER, minlength=1)[1:].tolist()
        for name, count in zip(names, counts, strict=False):
            tiers[name] += count
    return tiers
