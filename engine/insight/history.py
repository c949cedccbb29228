"""How restless rulesets are: tier changes a day, and flaps, over the last days of a history that all of them see."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.insight.flaps import DAY_US, Flaps, count_flaps
from rfmstream.schemas.codes import NEVER_US

_COLUMNS: Final = ("customer_id", "seq", "effective_at", "from_tier", "to_tier")
_INSTANT: Final = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Pace:
    """The tier changes of the last days by one ruleset.

    Fields  days   how many, of 24 hours; fewer than were asked for where the history is younger
            flaps  the changes of those days, and how many of them were undone within them
    """

    ruleset: str
    days: float
    flaps: Flaps

    @property
    def changes_per_day(self) -> float:
        """On the average of those days."""
        return self.flaps.changes / self.days if self.days else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        flaps = self.flaps.as_dict()
        return {
            "ruleset": self.ruleset,
            "days": self.days,
            "changes_per_day": self.changes_per_day,
            "flaps": flaps,
        }


class History:
    """Runs engines of several rulesets over the same orders, and keeps the changes of each one's last days.

    >>> history = History([Engine("rfm8"), Engine("rfm8-grace")], days=90)
    >>> history.follow(batches)
    >>> history.end(as_of_us)
    >>> history.paces(within_days=30)
    """

    def __init__(self, engines: Sequence[Engine], days: int) -> None:
        self.engines = engines
        self._span_us = days * DAY_US
        self._kept: list[list[tuple[int, pa.Table]]] = [[] for _ in engines]
        self._first_us = NEVER_US

    def follow(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Apply batches of schemas.orders.CANONICAL_SCHEMA, in order of time."""
        for batch in batches:
            if self._first_us == NEVER_US and batch.num_rows:
                self._first_us = batch["occurred_at"][0].value
            self._take(lambda engine, batch=batch: engine.step_canonical(batch).changes)  # type: ignore[misc]

    def end(self, as_of_us: int | None) -> None:
        """Let time pass to the end."""
        if as_of_us is not None:
            self._take(lambda engine: engine.advance(as_of_us))

    def paces(self, within_days: int) -> tuple[Pace, ...]:
        """Return the pace of each engine's changes; flaps are those undone within so many days."""
        end_us = max(engine.clock_us for engine in self.engines)
        days = (
            min(self._span_us, max(end_us - self._first_us, 0)) / DAY_US
            if self._first_us != NEVER_US
            else 0.0
        )
        paces = []
        for engine, kept in zip(self.engines, self._kept, strict=True):
            empty = engine.no_changes.select(_COLUMNS)
            recent = self._recent(pa.concat_tables([empty, *(table for _, table in kept)]), end_us)
            paces.append(Pace(engine.ruleset.identity, days, count_flaps(recent, within_days)))
        return tuple(paces)

    def _take(self, make: Callable[[Engine], pa.Table]) -> None:
        for engine, kept in zip(self.engines, self._kept, strict=True):
            changes = make(engine).select(_COLUMNS)
            if changes.num_rows:
                kept.append((engine.clock_us, changes))
            # Whatever is too old by now is too old at the end: no change is later than the clock was.
            while kept and kept[0][0] <= engine.clock_us - self._span_us:
                del kept[0]

    def _recent(self, changes: pa.Table, end_us: int) -> pa.Table:
        after = pa.scalar(max(end_us - self._span_us, NEVER_US), pa.int64()).cast(_INSTANT)
        return changes.filter(pc.greater(changes["effective_at"], after))
