"""The metrics of delivery for Prometheus: read from the runners when somebody asks."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rfmstream.engine.deliver.runner import Runner

COUNTER: Final = CounterMetricFamily
GAUGE: Final = GaugeMetricFamily

_Samples = Iterable[tuple[tuple[str, ...], float]]


class DeliveryMetric(NamedTuple):
    """A counter or gauge of each destination; `labels` besides its name."""

    name: str
    kind: type[CounterMetricFamily | GaugeMetricFamily]
    help: str
    read: Callable[[Runner], _Samples]
    labels: tuple[str, ...] = ()


def _counted(name: str) -> Callable[[Runner], _Samples]:
    return lambda runner: [] if runner.sender is None else [((), runner.sender.lanes.counts[name])]


def _filtered(runner: Runner) -> _Samples:
    return (
        []
        if runner.sender is None
        else [((by,), count) for by, count in sorted(runner.sender.filtered.items())]
    )


def _oldest_s(runner: Runner) -> _Samples:
    oldest_ms = runner.facts.oldest_ms
    return [((), 0.0 if oldest_ms is None else max(time.time() - oldest_ms / 1000, 0.0))]


def _retention_s(runner: Runner) -> _Samples:
    left_s = runner.facts.retention_left_s
    return [] if left_s is None else [((), left_s)]


def _state(runner: Runner) -> _Samples:
    lanes = None if runner.sender is None else runner.sender.lanes
    now = state_of(runner) if lanes is not None else "starting"
    return [((state,), float(state == now)) for state in STATES]


STATES: Final = ("starting", "sending", "down", "parked", "guarded", "held")


def state_of(runner: Runner) -> str:
    """Return in a word how a destination fares."""
    lanes = None if runner.sender is None else runner.sender.lanes
    if lanes is None or not runner.facts.has_joined:
        return "starting"
    if lanes.parked:
        return "parked"
    if runner.scout is not None and runner.scout.guard.tripped_at_ms is not None:
        return "guarded"
    if lanes.held:
        return "held"
    return "down" if lanes.is_down() else "sending"


def _guard(read: Callable[[Runner], float]) -> Callable[[Runner], _Samples]:
    return lambda runner: [] if runner.scout is None else [((), read(runner))]


def _changes(runner: Runner) -> float:
    assert runner.scout is not None
    return runner.scout.guard.count


def _limit(runner: Runner) -> float:
    assert runner.scout is not None
    return runner.scout.guard.limit


DELIVERY_METRICS: Final = (
    DeliveryMetric("sent", COUNTER, "Events that the destination took.", _counted("sent")),
    DeliveryMetric("retried", COUNTER, "Requests that are tried again.", _counted("retried")),
    DeliveryMetric(
        "rejected", COUNTER, "Events that the destination refused for ever.", _counted("rejected")
    ),
    DeliveryMetric(
        "coalesced", COUNTER, "Events that a newer one overtook while they waited.", _counted("coalesced")
    ),
    DeliveryMetric("filtered", COUNTER, "Events that are not to be sent.", _filtered, ("by",)),
    DeliveryMetric(
        "lost", COUNTER, "Records that were deleted before they were read.", lambda r: [((), r.facts.lost)]
    ),
    DeliveryMetric(
        "lag_records",
        GAUGE,
        "Records from the lowest unfinished one to the end.",
        lambda r: [((), r.facts.lag)],
    ),
    DeliveryMetric("oldest_seconds", GAUGE, "Age of the oldest event that is not delivered.", _oldest_s),
    DeliveryMetric(
        "retention_left_seconds",
        GAUGE,
        "Until the oldest such event is deleted from its topic.",
        _retention_s,
    ),
    DeliveryMetric(
        "requests_in_flight",
        GAUGE,
        "Requests without an answer.",
        lambda r: [((), 0 if r.sender is None else r.sender.lanes.requests)],
    ),
    DeliveryMetric("state", GAUGE, "1 for the state that the destination is in.", _state, ("state",)),
    DeliveryMetric(
        "guard_changes", GAUGE, "Changes of the last hour, as the guard counts them.", _guard(_changes)
    ),
    DeliveryMetric("guard_limit", GAUGE, "Changes an hour that the guard lets through.", _guard(_limit)),
)


class DeliveryCollector(Collector):
    """Collects the metrics of all destinations."""

    def __init__(self, runners: Sequence[Runner]) -> None:
        self._runners = runners

    def collect(self) -> Iterator[Metric]:
        """Yield each family."""
        for metric in DELIVERY_METRICS:
            family = metric.kind(
                f"rfmstream_deliver_{metric.name}", metric.help, labels=("destination", *metric.labels)
            )
            for runner in self._runners:
                for labels, value in metric.read(runner):
                    family.add_metric((runner.destination.name, *labels), value)
            yield family


def delivery_registry(runners: Sequence[Runner]) -> CollectorRegistry:
    """Return a registry of the destinations' metrics and the process's."""
    registry = CollectorRegistry()
    registry.register(DeliveryCollector(runners))
    ProcessCollector(registry=registry)
    return registry


def delivery_metrics_reference() -> str:
    """Return all metrics as a Markdown table, as docs/deliver.md shows it."""
    lines = ["| metric | labels | |", "|---|---|---|"]
    for metric in DELIVERY_METRICS:
        name = f"rfmstream_deliver_{metric.name}" + ("_total" if metric.kind is COUNTER else "")
        labels = ", ".join(f"`{label}`" for label in ("destination", *metric.labels))
        lines.append(f"| `{name}` | {labels} | {metric.help} |")
    return "\n".join(lines) + "\n"
