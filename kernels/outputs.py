"""The columns kernels write for tables that leave: each one's name, dtype and whether it may be null, said once.

A kernel receives a named tuple of arrays and writes `out.seq[i]`; whoever makes the arrays goes through the same tuple,
so a new column is one line here and one where it is computed. Names are those of schemas/.

Source: docs/semantics.md 6, 7 and 9.
"""

from collections import namedtuple
from typing import Final, NamedTuple

import numpy as np

from rfmstream.kernels._jit import inline


class Output(NamedTuple):
    """A column that a kernel writes.

    Fields  dtype     of its values; an instant is i8 in us, a word i1, its code
            nullable  there is an Arrow validity bitmap of it, too
    """

    name: str
    dtype: str
    nullable: bool = False


CHANGE_OUTPUTS: Final = (
    Output("seq", "i8"),
    Output("effective_at", "i8"),
    Output("from_tier", "i1", nullable=True),
    Output("to_tier", "i1", nullable=True),
    Output("reason", "i1"),
    Output("r_band", "i2"),
    Output("f_band", "i2"),
    Output("m_band", "i2"),
    Output("last_paid_at", "i8", nullable=True),
    Output("frequency", "i8"),
    Output("monetary_minor", "i8"),
    Output("next_change_at", "i8", nullable=True),
    Output("next_tier", "i1", nullable=True),
)

SNAPSHOT_OUTPUTS: Final = (
    Output("tier", "i1", nullable=True),
    Output("tier_since", "i8", nullable=True),
    Output("seq", "i8", nullable=True),
    Output("from_tier", "i1", nullable=True),
    Output("reason", "i1", nullable=True),
    Output("order_entry", "i8"),  # the entry whose id the newest change names; 0: none
    Output("r_band", "i2"),
    Output("f_band", "i2"),
    Output("m_band", "i2"),
    Output("last_paid_at", "i8", nullable=True),
    Output("recency_days", "i8", nullable=True),
    Output("frequency", "i8"),
    Output("monetary_minor", "i8"),
    Output("first_paid_at", "i8", nullable=True),
    Output("lifetime_orders", "i8"),
    Output("lifetime_monetary_minor", "i8"),
    Output("average_order_minor", "i8", nullable=True),
    Output("next_change_at", "i8", nullable=True),
    Output("next_tier", "i1", nullable=True),
)

SIGNAL_OUTPUTS: Final = (
    Output("kind", "i1"),
    Output("effective_at", "i8"),
    Output("tier", "i1", nullable=True),
    Output("seq", "i8"),
    Output("days", "i8", nullable=True),
    Output("count", "i8", nullable=True),
    Output("amount_minor", "i8", nullable=True),
    Output("at", "i8", nullable=True),
    Output("next_tier", "i1", nullable=True),
    Output("stay_orders", "i8", nullable=True),
    Output("stay_minor", "i8", nullable=True),
)

# Written out by name and not made in a function: numba's cache finds a class by its module and name.
ChangeColumns = namedtuple("ChangeColumns", [column.name for column in CHANGE_OUTPUTS])  # noqa: PYI024
ChangeValidity = namedtuple(  # noqa: PYI024
    "ChangeValidity", [*(column.name for column in CHANGE_OUTPUTS if column.nullable), "order_id"]
)
SnapshotColumns = namedtuple("SnapshotColumns", [column.name for column in SNAPSHOT_OUTPUTS])  # noqa: PYI024
SnapshotValidity = namedtuple(  # noqa: PYI024
    "SnapshotValidity", [column.name for column in SNAPSHOT_OUTPUTS if column.nullable]
)
# A field named count would hide the tuple's method of that name, so namedtuple takes it and typing.NamedTuple does not.
SignalColumns = namedtuple("SignalColumns", [column.name for column in SIGNAL_OUTPUTS])  # noqa: PYI024
SignalValidity = namedtuple(  # noqa: PYI024
    "SignalValidity", [*(column.name for column in SIGNAL_OUTPUTS if column.nullable), "order_id"]
)


@inline
def put_valid(bitmap, i, is_there):
    """Write bit i of an Arrow validity bitmap; rows come in order from 0, and the memory need not be zeroed."""
    bit = np.uint8(is_there) << np.uint8(i & 7)
    if i & 7 == 0:
        bitmap[i >> 3] = bit
    else:
        bitmap[i >> 3] |= bit
