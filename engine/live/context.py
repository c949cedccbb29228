"""What the parts of one partition's runner share."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from rfmstream.engine.live.committer import Committer
from rfmstream.engine.live.law import Law
from rfmstream.engine.live.model import PartitionLog, Runs, Source
from rfmstream.engine.live.options import RunnerOptions
from rfmstream.engine.live.saver import Saver
from rfmstream.engine.live.stats import PartitionStats
from rfmstream.engine.live.store import Store
from rfmstream.schemas.plan import Plan


@dataclass(frozen=True)
class PartitionContext:
    """A partition's log, its store, and everything else that outlives one ownership of it.

    Fields  plan     its views
            law      of the plan and the options
            run      calls a function here or in another thread
            now_us   the wall clock
            commits  this worker's side of the log
            saver    writes the checkpoints
            hold     is held while the state moves, and while it is read: a checkpoint may be taken between two steps
    """

    source: Source
    plan: Plan
    options: RunnerOptions
    law: Law
    log: PartitionLog
    store: Store
    run: Runs
    now_us: Callable[[], int]
    stats: PartitionStats
    commits: Committer
    saver: Saver
    hold: asyncio.Lock = field(default_factory=asyncio.Lock)
