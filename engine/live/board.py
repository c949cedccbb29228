"""The facts that a worker's status pages show: its partitions, and the stats of each. Only they read it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol, TypeVar

import pyarrow as pa

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.feed import Feed
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.stats import PartitionStats
from rfmstream.schemas.plan import View
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.ruleset_model import RulesetFile

_T = TypeVar("_T")

PARTITIONS_HEADER: Final = "Rfmstream-Partitions"
"""Of a snapshot over HTTP: which partitions it holds, so that whoever asks several workers sees what is twice."""

EXPECTED_HEADER: Final = "Rfmstream-Partitions-Expected"
"""Of a snapshot over HTTP: all partitions of the input topics, so that whoever asks sees what is missing."""

READY_STATES: Final = ("live", "finished")


class Reads(Protocol):
    """A partition's state, for questions about single customers; `engine.live.runner.Runner`."""

    def committed(self, ids: Sequence[str], as_of_us: int, view: str | None = None) -> Engine | None:
        """Return a view's engine if it can be read at this moment; None: ask for it."""
        ...

    async def ask(
        self, question: Callable[[Engine], _T], view: str | None = None, *, small: bool = False
    ) -> _T:
        """Return what a question finds in a view's engine once all is committed."""
        ...


class Watched(NamedTuple):
    """One partition this worker has.

    Fields  stats     kept up to date by its runner
            snapshot  one row a customer as of an instant (None: the partition's clock), of committed state; of a view
                      by its name, where there are several
            reads      its state, where single customers are asked for; None: it cannot be read
    """

    stats: PartitionStats
    snapshot: Callable[..., Awaitable[pa.Table]]
    reads: "Reads | None" = None


def details(stats: PartitionStats) -> dict[str, object]:
    """Return what whoever looks at a partition should know of it beyond its state; nothing where all is well."""
    found: dict[str, object] = {}
    if stats.rejected:
        found["rejected"] = dict(stats.rejected)
    if stats.times_ahead:
        found["times_ahead"] = stats.times_ahead
    if stats.placement is not None and stats.placement.is_mixed:
        found["producers_mixed"] = {
            "murmur2": stats.placement.murmur2,
            "elsewhere": stats.placement.elsewhere,
        }
    return found


@dataclass
class Board:
    """What the worker shows; the worker keeps it up to date.

    Fields  partitions  those this worker has
            rebalances  how often partitions were handed out
            joined      they were, at least once: a worker that got none is ready too
            expected    all partitions of the input topics, whichever worker has them
            owners      the URL of the worker that has a partition, as far as that is known; of other workers'
            rules       rulesets as their files give them, by their identity: for the rule that a customer's tier
                        follows from
            feed        the newest committed tier changes of all views but shadows; None: nobody can follow them
            shadows     the same of shadows, which are told only to who names one; None: there are none
            views       those of a plan; empty: there is the ruleset's alone
    """

    ruleset: Ruleset
    clock: Literal["log", "event"]
    partitions: dict[Source, Watched] = field(default_factory=dict)
    rebalances: int = 0
    joined: bool = False
    expected: list[Source] = field(default_factory=list)
    owners: dict[Source, str] = field(default_factory=dict)
    rules: Mapping[str, RulesetFile] = field(default_factory=dict)
    feed: Feed | None = None
    shadows: Feed | None = None
    views: Sequence[View] = ()

    def feed_of(self, view: View | None) -> Feed | None:
        """Return where a view's changes are; None of a view: those of all that are no shadows."""
        return self.shadows if view is not None and view.shadow else self.feed

    @property
    def ready(self) -> bool:
        """Whether every partition this worker has is past its recovery."""
        return self.joined and all(one.stats.state in READY_STATES for one in self.partitions.values())
