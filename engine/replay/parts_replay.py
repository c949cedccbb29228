"""What a replay in parts did: as much as a run knows that never had all of the state in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from rfmstream.engine.core.counters import Counters
from rfmstream.schemas.ruleset import Ruleset


@dataclass(frozen=True)
class PartsReplay:
    """What a replay in parts did; fields of the same names as of `ReplayResult`.

    Fields  parts      how many
            tiers      of each part's snapshot: `tiers.tier_sums`
            customers, orders, memory  of the states of all parts together, though they were never all in memory
    """

    ruleset: Ruleset
    parts: int
    tiers: Sequence[pa.Table]
    customers: int
    orders: int
    memory: Mapping[str, int]
    counters: Counters
    input_rows: int
    excluded: tuple[tuple[str, int], ...]
    lines_repeated: int
    sheets_unread: tuple[str, ...]
    alike: int
    rows_after_until: int
    rows_ahead: int
    newest_ahead_us: int
    rejected: tuple[dict[str, Any], ...]
    as_of_us: int
    files: Mapping[Path, int]
    kept: Mapping[Path, int]
    replaced: Mapping[Path, int]
    elapsed_s: float
