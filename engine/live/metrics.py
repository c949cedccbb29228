"""The worker's metrics for Prometheus. They are read from the board when they are scraped.

Counters count in this process and this ownership: they start at 0 when a partition is assigned, and end with it.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from rfmstream.engine.core.flaps import FLAP_DAYS
from rfmstream.engine.live.board import Board
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.stats import SECONDS_BOUNDS, PartitionStats, Seconds, ViewStats
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.orders import REJECTION_REASONS
from rfmstream.schemas.signals import SIGNAL_KINDS

_Samples = Iterable[tuple[tuple[str, ...], float]]
_PLACE: Final = ("topic", "partition")


class PartitionMetric(NamedTuple):
    """A counter or gauge of each partition.

    Fields  labels  besides topic and partition
            read    (stats, now in µs) to (values of the labels, value)
    """

    name: str
    kind: type[CounterMetricFamily | GaugeMetricFamily]
    help: str
    read: Callable[[PartitionStats, int], _Samples]
    labels: tuple[str, ...] = ()


class SecondsMetric(NamedTuple):
    """A histogram of each partition."""

    name: str
    help: str
    read: Callable[[PartitionStats], Seconds]


def _by_view(
    read: Callable[[ViewStats], Iterable[tuple[tuple[str, ...], float]]],
) -> Callable[[PartitionStats, int], _Samples]:
    """Read something of each view; the view is the first label."""
    return lambda stats, _: [
        ((view, *labels), value) for view, own in stats.views.items() for labels, value in read(own)
    ]


def _one(read: Callable[[PartitionStats], float]) -> Callable[[PartitionStats, int], _Samples]:
    return lambda stats, _: [((), read(stats))]


def _lag_s(stats: PartitionStats, now_us: int) -> _Samples:
    if stats.lag == 0:
        return [((), 0.0)]
    # A partition without a record has no age.
    return [] if stats.log_us == NEVER_US else [((), max(now_us - stats.log_us, 0) / 1e6)]


def _clock_s(stats: PartitionStats, _: int) -> _Samples:
    return [] if stats.clock_us == NEVER_US else [((), stats.clock_us / 1e6)]


def _checkpoint_age_s(stats: PartitionStats, now_us: int) -> _Samples:
    # An unchanged state needs no checkpoint, however old the newest one is.
    since_us = stats.unsaved_us
    return [((), 0.0 if since_us is None else max(now_us - since_us, 0) / 1e6)]


def _committed_s(stats: PartitionStats, _: int) -> _Samples:
    return [] if stats.committed_us is None else [((), stats.committed_us / 1e6)]


def _keys(stats: PartitionStats, _: int) -> _Samples:
    found = stats.placement
    if found is None or found.partitions < 2:
        return []
    return [(("murmur2",), found.murmur2), (("elsewhere",), found.elsewhere)]


_REJECTED: Final = sorted(REJECTION_REASONS)
"""Each exists at 0 from the start: who counts an increase misses what a series is born with."""

COUNTER: Final = CounterMetricFamily
GAUGE: Final = GaugeMetricFamily

PARTITION_METRICS: Final = (
    PartitionMetric("records", COUNTER, "Records read.", _one(lambda s: s.records)),
    PartitionMetric(
        "orders_applied", COUNTER, "Orders applied.", _by_view(lambda s: [((), s.applied)]), ("view",)
    ),
    PartitionMetric(
        "orders_duplicate",
        COUNTER,
        "Exact duplicates, counted and ignored.",
        _by_view(lambda s: [((), s.duplicates)]),
        ("view",),
    ),
    PartitionMetric(
        "orders_rejected",
        COUNTER,
        "Rows rejected, by reason.",
        lambda s, _: [((reason,), s.rejected[reason]) for reason in _REJECTED],
        ("reason",),
    ),
    PartitionMetric(
        "tier_changes",
        COUNTER,
        "Tier changes committed, by reason and by the new tier (empty: none).",
        _by_view(lambda s: sorted(s.changes.items())),
        ("view", "reason", "tier"),
    ),
    PartitionMetric(
        "flaps",
        COUNTER,
        f"Tier changes that the customer's next one undid within {FLAP_DAYS} days, by what they were (empty: none).",
        _by_view(lambda s: sorted(s.flaps.items())),
        ("view", "from_tier", "to_tier"),
    ),
    PartitionMetric(
        "signals",
        COUNTER,
        "Signals committed, by kind: warning, dwell, orders, spend, single_order.",
        _by_view(lambda s: [((kind,), s.signals[kind]) for kind in SIGNAL_KINDS]),
        ("view", "kind"),
    ),
    PartitionMetric(
        "left_out",
        COUNTER,
        "Objects that the input map left out, by its [[exclude]] sections.",
        _one(lambda s: s.left_out),
    ),
    PartitionMetric(
        "times_ahead",
        COUNTER,
        "Records whose time was further ahead of the wall clock than the tolerance; they count as of then.",
        _one(lambda s: s.times_ahead),
    ),
    PartitionMetric(
        "keys",
        GAUGE,
        "Keyed records in the partition that murmur2 chooses, and elsewhere: both mean customers in two partitions. "
        "Of fetches of more than 1,024 records a sample.",
        _keys,
        ("partitioner",),
    ),
    PartitionMetric(
        "producers_mixed",
        GAUGE,
        "1 if producers choose partitions differently, beyond what chance explains.",
        _one(lambda s: float(s.placement is not None and s.placement.is_mixed)),
    ),
    PartitionMetric(
        "commit_time_seconds",
        GAUGE,
        "When the newest step was committed, in seconds since 1970 UTC.",
        _committed_s,
    ),
    PartitionMetric(
        "customers_tier",
        GAUGE,
        "Customers of each tier.",
        _by_view(lambda s: [((tier,), count) for tier, count in sorted(s.tiers.items())]),
        ("view", "tier"),
    ),
    PartitionMetric(
        "ticks", COUNTER, "Times the passing of time alone was committed.", _one(lambda s: s.ticks)
    ),
    PartitionMetric(
        "records_replayed",
        COUNTER,
        "Records read again after a start, in silence.",
        _one(lambda s: s.replayed),
    ),
    PartitionMetric(
        "retries", COUNTER, "Calls to the brokers that had to be tried again.", _one(lambda s: s.retries)
    ),
    PartitionMetric(
        "state",
        GAUGE,
        "1 for the state the partition is in: recovering, replaying, live, parked, finished, ...",
        lambda s, _: [((s.state,), 1)],
        ("state",),
    ),
    PartitionMetric("lag_records", GAUGE, "Offsets still to be read.", _one(lambda s: s.lag)),
    PartitionMetric(
        "lag_seconds",
        GAUGE,
        "Age of the newest record applied while others wait; 0 when all are read.",
        _lag_s,
    ),
    PartitionMetric("position", GAUGE, "Offset to be read next.", _one(lambda s: s.position)),
    PartitionMetric("committed_position", GAUGE, "Offset committed.", _one(lambda s: s.committed)),
    PartitionMetric("clock_seconds", GAUGE, "The partition's clock, in seconds since 1970 UTC.", _clock_s),
    PartitionMetric(
        "customers", GAUGE, "Customers known.", _by_view(lambda s: [((), s.customers)]), ("view",)
    ),
    PartitionMetric(
        "orders_retained", GAUGE, "Orders kept in memory.", _by_view(lambda s: [((), s.orders)]), ("view",)
    ),
    PartitionMetric(
        "state_bytes",
        GAUGE,
        "Memory of the state, by what it holds.",
        _by_view(lambda s: [((name,), size) for name, size in sorted(s.memory.items())]),
        ("view", "holds"),
    ),
    PartitionMetric("checkpoints", COUNTER, "Checkpoints written.", _one(lambda s: s.checkpoints)),
    PartitionMetric(
        "checkpoint_failures",
        COUNTER,
        "Checkpoints that could not be written.",
        _one(lambda s: s.checkpoint_failures),
    ),
    PartitionMetric(
        "checkpoint_age_seconds",
        GAUGE,
        "Since the oldest commit that is in no checkpoint; 0 when all is saved.",
        _checkpoint_age_s,
    ),
    PartitionMetric("checkpoint_bytes", GAUGE, "Size of the newest.", _one(lambda s: s.checkpoint_bytes)),
)

SECONDS_METRICS: Final = (
    SecondsMetric("step_seconds", "Working out one step.", lambda s: s.step),
    SecondsMetric("commit_seconds", "Committing one step: one Kafka transaction.", lambda s: s.commit),
    SecondsMetric("checkpoint_seconds", "Writing a checkpoint.", lambda s: s.checkpoint),
)

WORKER_METRICS: Final = {
    "partitions": "Partitions this worker has.",
    "partitions_expected": "Partitions of the input topic, whichever worker has them.",
    "rebalances": "Times partitions were handed out.",
    "ruleset_info": "Always 1; the labels name the ruleset and its fingerprint.",
}


def registry_of(board: Board) -> CollectorRegistry:
    """Return a registry of its own that reads the board, and this process's memory and time."""
    registry = CollectorRegistry()
    registry.register(_BoardCollector(board))
    ProcessCollector(registry=registry)
    return registry


def metrics_reference() -> str:
    """Return all metrics as a Markdown table, as docs/live.md shows it."""
    rows = [
        (
            _name(one.name, one.kind),
            "counter" if one.kind is COUNTER else "gauge",
            (*_PLACE, *one.labels),
            one.help,
        )
        for one in PARTITION_METRICS
    ]
    rows += [(_name(one.name, None), "histogram", _PLACE, one.help) for one in SECONDS_METRICS]
    rows += [
        (_name("partitions", GAUGE), "gauge", (), WORKER_METRICS["partitions"]),
        (_name("partitions_expected", GAUGE), "gauge", ("topic",), WORKER_METRICS["partitions_expected"]),
        (_name("rebalances", COUNTER), "counter", (), WORKER_METRICS["rebalances"]),
        (_name("ruleset_info", GAUGE), "gauge", ("ruleset", "fingerprint"), WORKER_METRICS["ruleset_info"]),
    ]
    lines = ["| metric | kind | labels | |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {', '.join(labels)} | {text} |" for name, kind, labels, text in rows]
    return "\n".join(lines) + "\n"


class _BoardCollector(Collector):
    def __init__(self, board: Board) -> None:
        self._board = board

    def describe(self) -> Iterable[Metric]:
        # Otherwise the registry would collect once at registration, to learn the names.
        return []

    def collect(self) -> Iterator[Metric]:
        now_us = time.time_ns() // 1000
        board = self._board
        partitions = [(_place(source), one.stats) for source, one in sorted(board.partitions.items())]
        for metric in PARTITION_METRICS:
            family = metric.kind(f"rfmstream_{metric.name}", metric.help, labels=(*_PLACE, *metric.labels))
            for place, stats in partitions:
                for labels, value in metric.read(stats, now_us):
                    family.add_metric((*place, *labels), value)
            yield family
        for seconds in SECONDS_METRICS:
            histogram = HistogramMetricFamily(f"rfmstream_{seconds.name}", seconds.help, labels=_PLACE)
            for place, stats in partitions:
                found = seconds.read(stats)
                histogram.add_metric(place, _buckets(found), found.total)
            yield histogram
        yield GaugeMetricFamily("rfmstream_partitions", WORKER_METRICS["partitions"], len(partitions))
        expected = GaugeMetricFamily(
            "rfmstream_partitions_expected", WORKER_METRICS["partitions_expected"], labels=("topic",)
        )
        for topic, count in Counter(source.topic for source in board.expected).items():
            expected.add_metric((topic,), count)
        yield expected
        yield CounterMetricFamily("rfmstream_rebalances", WORKER_METRICS["rebalances"], board.rebalances)
        info = GaugeMetricFamily(
            "rfmstream_ruleset_info", WORKER_METRICS["ruleset_info"], labels=("ruleset", "fingerprint")
        )
        info.add_metric((board.ruleset.identity, board.ruleset.fingerprint), 1)
        yield info


def _place(source: Source) -> tuple[str, str]:
    return source.topic, str(source.partition)


def _name(name: str, kind: object) -> str:
    return f"rfmstream_{name}_total" if kind is COUNTER else f"rfmstream_{name}"


def _buckets(seconds: Seconds) -> list[tuple[str, float]]:
    bounds = [*map(str, SECONDS_BOUNDS), "+Inf"]
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip(bounds, seconds.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets
