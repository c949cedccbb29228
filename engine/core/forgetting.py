"""When the memory of forgotten orders is given back, and how.

Which orders are forgotten is the kernels' business (`kernels.horizon`), and no result depends on when their memory is
given back. That is done once a shard holds half as much again as what stayed the last time: it costs as much for each
order as a few of the steps that brought it, and memory stays below one and a half times of what lives.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from rfmstream.engine.core.kernel_records import KernelRecord
from rfmstream.engine.core.rules import NO_DAYS, compile_rules
from rfmstream.engine.core.table import Table
from rfmstream.engine.events.instants import FIRST_US, to_text
from rfmstream.kernels.forget import drop_forgotten, place_kept, refill
from rfmstream.kernels.horizon import horizon_of
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.ruleset import Ruleset

ENTRIES_MORE: Final = 1 << 16
"""So many entries more than stayed the last time are not worth a look."""


def follow_horizon(state: KernelRecord, rules: KernelRecord) -> None:
    """Note from which date on orders are known at the clock of a shard."""
    if rules.row.forget_days != NO_DAYS:
        known_us = horizon_of(rules.rows, np.int64(rules.row.forget_days), np.int64(state.row.clock_us))
        state.row.known_us = max(state.row.known_us, int(known_us))


def drop(state: KernelRecord, rules: KernelRecord) -> NDArray[np.uint32]:
    """Drop what is dated before the horizon from a shard's records; return what `refilled` needs to know of it."""
    places = np.zeros(state.row.n_entries, dtype=np.uint32)
    newest = np.zeros(state.row.n_customers, dtype=np.uint32)
    place_kept(state.rows, places, newest)
    drop_forgotten(state.rows, rules.rows, places)
    return places


def refilled(state: KernelRecord, places: NDArray[np.uint32]) -> Table:
    """Return a new table of a shard's entries after a `drop`; what it had is that of before."""
    table = Table()
    table.make_room(state.row.n_entries)
    refill(state.rows, table.record.rows, places)
    return table


def next_size(entries: int) -> int:
    """Return how many entries a shard is to hold when it is worth looking again, where so many have stayed."""
    return entries + max(entries // 2, ENTRIES_MORE)


def check_window(ruleset: Ruleset, known_us: int, now_us: int) -> None:
    """Refuse a ruleset whose window at `now_us` begins before `known_us`, from which date on a state knows orders.

    Errors  ConfigError  it does
    """
    if ruleset.window_days is None or known_us == NEVER_US:
        return
    begins_us = horizon_of(compile_rules(ruleset).rows, np.int64(ruleset.window_days), np.int64(now_us))
    if begins_us < known_us:
        raise ConfigError(
            f"ruleset {ruleset.identity} counts {ruleset.window_days} days back, and the state has forgotten the "
            f"orders from before {to_text(max(known_us, FIRST_US))}",
            key="window_days",
            fix='use a window that begins no earlier, or "lifetime", or begin anew',
        )
