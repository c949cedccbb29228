"""When the memory of forgotten orders is given back, and how.

Which orders are forgotten is the kernels' business (`kernels.horizon`), and no result depends on when their memory is
given back. A shard is looked at when it has grown by so much that it may pay, which costs little; where it holds half
as much again as what is known, the rest goes. So memory stays near one and a half times of what is known, and an order
is moved three times at the most on its way out.
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
"""So many entries more than at the last look are not worth another one."""


def follow_horizon(state: KernelRecord, rules: KernelRecord) -> None:
    """Note from which date on orders are known at the clock of a shard."""
    if rules.row.forget_days != NO_DAYS:
        known_us = horizon_of(rules.rows, np.int64(rules.row.forget_days), np.int64(state.row.clock_us))
        state.row.known_us = max(state.row.known_us, int(known_us))


def placed(state: KernelRecord) -> tuple[NDArray[np.uint32], int]:
    """Return where each entry of a shard is to stand without those that are forgotten, and how many stay."""
    places = np.zeros(state.row.n_entries, dtype=np.uint32)
    newest = np.zeros(state.row.n_customers, dtype=np.uint32)
    return places, int(place_kept(state.rows, places, newest))


def drop(state: KernelRecord, rules: KernelRecord, places: NDArray[np.uint32]) -> None:
    """Drop what is forgotten from a shard's records; its table of entries is to be `refilled`, by the same places."""
    drop_forgotten(state.rows, rules.rows, places)


def refilled(state: KernelRecord, places: NDArray[np.uint32]) -> Table:
    """Return a new table of a shard's entries after a `drop`; what it had is that of before."""
    table = Table()
    table.make_room(state.row.n_entries)
    refill(state.rows, table.record.rows, places)
    return table


def is_worth(entries: int, kept: int) -> bool:
    """Tell whether it pays to drop what is forgotten, where so many of the entries of a shard are not."""
    return entries >= kept + kept // 2


def next_look(entries: int, kept: int) -> int:
    """Return how many entries a shard is to hold when it is looked again, where so many of what it holds are kept."""
    return max(kept + kept // 2, entries + entries // 16, entries + ENTRIES_MORE)


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
