"""Local days of instants, a column at a time, in a zone given as a table of offsets: engine/events/zone.py.

For a shard's rules, which hold such a table, see kernels/calendar.py.
"""

import numpy as np

from rfmstream.kernels._jit import borrow, inline, jit, keep_apart, part
from rfmstream.kernels.calendar import CYCLE_US
from rfmstream.kernels.layout import DAY_US


@part
def _segment_of(starts, at_us):
    keep_apart()
    low, high = np.int64(0), np.int64(starts.size)
    while high - low > 1:
        middle = (low + high) >> 1
        if starts[middle] <= at_us:
            low = middle
        else:
            high = middle
    return low


@inline
def day_at(starts, offsets, cycle_us, at_us, segment):
    """Return the local day of an instant, and the segment of the zone's table it is in.

    In      segment  one that it may be in: neighbours in a column often share theirs
    """
    inside = at_us - ((at_us - cycle_us) // CYCLE_US + 1) * CYCLE_US if at_us >= cycle_us else at_us
    if inside < starts[segment] or (segment + 1 < starts.size and inside >= starts[segment + 1]):
        segment = _segment_of(starts, inside)
    return (at_us + offsets[segment]) // DAY_US, segment


@jit
def local_days(at_us, starts, offsets, cycle_us, out):
    """Find the local days of instants.

    In      at_us  i64[n]; starts, offsets i64[z], cycle_us: see engine/events/zone.py
    Out     out    i64[n], days since 1970-01-01
    """
    at_us, starts, offsets, out = borrow(at_us), borrow(starts), borrow(offsets), borrow(out)
    segment = np.int64(0)
    for i in range(out.size):
        out[i], segment = day_at(starts, offsets, cycle_us, at_us[i], segment)
