"""What the kernels keep in memory: the records of a shard, byte for byte, and the records kernels receive.

A customer is one record of 96 bytes (a cache line and a half) because an order reads and writes most of it and the
cache miss is what an order costs; columns of their own would be a miss each. An entry (an order or another event that
must be remembered) is 32 bytes. Handle 0 of both means "none", so zeroed memory is empty memory.

Source: docs/semantics.md 3 (what must be remembered), docs/decisions/.
"""

from typing import Any, Final

import numpy as np

from rfmstream.schemas.codes import ChangeReason

CUSTOMER: Final = np.dtype(
    (
        np.record,
        np.dtype(
            [
                ("key0", "u8"),  # the id's first eight bytes, zero-padded
                ("key1", "u8"),  # its next eight, or for an id longer than 16 bytes its offset in key_data
                ("last_paid_us", "i8"),  # newest order that is not void; NEVER_US
                ("monetary_minor", "i8"),  # M as of the last evaluation
                ("deadline_us", "i8"),  # no tier change by time alone before it; FOREVER_US
                ("frequency", "i4"),  # F as of the last evaluation
                ("head", "u4"),  # oldest entry still in the window
                ("tail", "u4"),  # newest entry
                ("armed", "u4"),  # slot of the timing wheel that holds this customer; 0 none
                ("seq", "u4"),  # tier changes so far; WAS_ERASED
                ("tier", "i1"),  # tier code; NO_TIER
                ("from_tier", "i1"),  # tier before the newest change
                ("key_size", "u1"),  # bytes of the id less one
                (
                    "marks",
                    "u1",
                ),  # HAS_ADJUSTMENT, NEXT_TIER, and the newest change's reason from REASON_SHIFT on
                ("tier_since_us", "i8"),  # effective_at of the newest change; NEVER_US
                ("first_paid_us", "i8"),  # oldest order that is not void; FOREVER_US
                ("lifetime_monetary_minor", "i8"),
                ("lifetime_orders", "i4"),
                ("change_entry", "u4"),  # entry whose id the newest change names; 0 where time changed it
            ],
            align=True,
        ),
    )
)

ENTRY: Final = np.dtype(
    (
        np.record,
        np.dtype(
            [
                ("at_us", "i8"),
                ("amount_minor", "i8"),  # what is left of an order; the amount of any other event
                ("customer", "u4"),
                ("previous", "u4"),  # older entry of the customer; for REFUND, EVENT: the entry it speaks of
                ("next", "u4"),  # newer entry of the customer
                ("id_start", "u2"),  # its id's place after that of the first entry of its group of 64
                ("id_size", "u1"),  # bytes of the id less one
                ("marks", "u1"),  # the kind in the low three bits, then IS_VOID ...
            ],
            align=True,
        ),
    )
)

CHANGE: Final = np.dtype(
    (
        np.record,
        np.dtype(
            [
                ("effective_us", "i8"),
                ("last_paid_us", "i8"),
                ("monetary_minor", "i8"),
                ("next_change_us", "i8"),  # FOREVER_US: never
                ("key0", "u8"),  # the customer's id as in CUSTOMER, whose record may be far away by then
                ("key1", "u8"),
                ("customer", "u4"),
                ("row", "i4"),  # row of the batch whose order_id the change names; -1 where time changed it
                ("seq", "u4"),
                ("frequency", "i4"),
                ("r_band", "i2"),
                ("f_band", "i2"),
                ("m_band", "i2"),
                ("from_tier", "i1"),
                ("to_tier", "i1"),
                ("next_tier", "i1"),
                ("reason", "u1"),
                ("key_size", "u1"),  # bytes of the customer's id less one
            ],
            align=True,
        ),
    )
)

EXTRA: Final = np.dtype(
    (
        np.record,
        np.dtype(
            [
                # What a ruleset asks for beyond R, F and M, by the customer's handle; zeroed memory says that nothing
                # has happened yet. There are such records only where a ruleset asks for them.
                (
                    "warned_us",
                    "i8",
                ),  # the change of tier that the newest warning told of; of no matter without one
                ("spend_minor", "i8"),  # the highest lifetime amount there ever was
                ("orders", "i4"),  # the most lifetime orders there ever were
                ("warned_days", "i4"),  # days of the newest warning given in this tier; 0: none was
                ("dwells", "u4"),  # how many of the tier's dwell_days have passed in this tier
            ],
            align=True,
        ),
    )
)

SIGNAL: Final = np.dtype(
    (
        np.record,
        np.dtype(
            [
                ("effective_us", "i8"),
                ("at_us", "i8"),  # when the tier is going to change; FOREVER_US: of no matter
                ("amount_minor", "i8"),  # the cut reached; NO_NUMBER
                ("stay_minor", "i8"),  # NO_NUMBER: nothing does it
                ("key0", "u8"),  # the customer's id as in CUSTOMER
                ("key1", "u8"),
                ("row", "i4"),  # row of the batch whose order_id the signal names; -1 where time gave it
                ("seq", "u4"),
                ("days", "i4"),  # NO_NUMBER
                ("count", "i4"),  # NO_NUMBER
                ("stay_orders", "i4"),  # NO_NUMBER
                ("tier", "i1"),
                ("next_tier", "i1"),
                ("kind", "u1"),  # SignalKind
                ("key_size", "u1"),
            ],
            align=True,
        ),
    )
)

NO_NUMBER: Final = -1
"""Stands for null in a SIGNAL's numbers, none of which is negative."""

# Kinds of entries, in the low bits of their flags.
ORDER: Final = 0  # a paid order, in the customer's list unless void
ADJUSTMENT: Final = 1  # a signed amount on the customer, in its list
REFUND: Final = 2  # remembers a refund without an event_id, by order and instant
EVENT: Final = 3  # remembers an explicit event_id
ORIGINAL: Final = 4  # remembers the amount of an order before its first refund
ERASURE: Final = 5  # remembers the instant at which its customer was erased
GONE: Final = 6  # was of a customer since erased: nothing is left of it but its place
KIND_MASK: Final = 7
IS_VOID: Final = 8
IS_CANCELLED: Final = 16
IS_REFUNDED: Final = 32
HAS_EVENT_ID: Final = 64  # it came with an event_id of its own, which is its identity

# Flags of customers.
HAS_ADJUSTMENT: Final = 1
NEXT_TIER: Final = (
    14  # code of the tier that begins at the deadline, if it is 1 to 7; 0: not noted, or none does
)
NEXT_TIER_SHIFT: Final = 1
REASON_SHIFT: Final = 4

WAS_ERASED: Final = 1 << 31
"""The highest bit of a customer's `seq`: an ERASURE entry says when it was erased."""
SEQ_MASK: Final = WAS_ERASED - 1

# What a checkpoint and the caches rely on. A bit of ENTRY's marks, 128, is free; of CUSTOMER's none is.
assert (CUSTOMER.itemsize, ENTRY.itemsize, EXTRA.itemsize) == (96, 32, 32)
assert len(ChangeReason) << REASON_SHIFT <= 1 << 8
assert HAS_ADJUSTMENT | NEXT_TIER == (1 << REASON_SHIFT) - 1
assert HAS_ADJUSTMENT & NEXT_TIER == 0
assert max(ORDER, ADJUSTMENT, REFUND, EVENT, ORIGINAL, ERASURE, GONE) <= KIND_MASK
assert KIND_MASK + IS_VOID + IS_CANCELLED + IS_REFUNDED + HAS_EVENT_ID == (1 << 7) - 1

GROUP: Final = 64
"""Entries that share one 64-bit base offset of their ids."""

DAY_US: Final = 86_400_000_000

# The timing wheel: slots of 2**27 us (134 s) inside an open bucket of 512 slots (19 h), buckets beyond it.
SLOT_BITS: Final = 27
BUCKET_SLOT_BITS: Final = 9
BUCKET_SLOTS: Final = 1 << BUCKET_SLOT_BITS
WHEEL_ORIGIN_US: Final = -62_167_219_200_000_000  # 0000-01-01
WHEEL_KEY_MAX: Final = (
    253_402_300_800_000_000 + 366 * DAY_US - WHEEL_ORIGIN_US
) >> SLOT_BITS  # the year 10000
BUCKETS: Final = (WHEEL_KEY_MAX >> BUCKET_SLOT_BITS) + 2
CHUNK_WORDS: Final = 64
CHUNK_HEAD: Final = 2  # words before the handles: link to the next chunk, handles used

SEGMENT_LINE_BITS: Final = 10
SEGMENT: Final = 8 << SEGMENT_LINE_BITS
"""Slots of a segment, the piece by which a table grows: 64 KB."""
DIRECTORY: Final = 1 << 20
"""Places of a table's directory at the most: as many segments as all handles can fill."""

# What a kernel says when it returns.
DONE: Final = 0
OUTPUT_FULL: Final = 1
GROW: Final = 2


def _arrays(*names: str) -> list[tuple[str, str]]:
    """Return the two words that stand for each array in a record kernels receive: its address and its length."""
    return [(name + word, "i8") for name in names for word in ("_at", "_size")]


def _record(fields: list[tuple[str, str]]) -> np.dtype[Any]:
    return np.dtype((np.record, np.dtype(fields, align=True)))


TABLE: Final = _record(
    [
        # A hash table from ids to handles; kernels.table.
        *_arrays("pairs"),  # i64: segments of SEGMENT slots, the first of them the spare one
        *_arrays("directory"),  # u32[DIRECTORY]: number of the segment of each place
        ("shift", "i8"),  # a tag's place is its turn without so many low bits
        ("n_segments", "i8"),
    ]
)

STATE: Final = _record(
    [
        # The memory of one shard; whoever fills the record keeps the arrays alive. Dtypes: kernels.memory.
        *_arrays("customers", "entries"),
        *_arrays("id_data"),  # ids of entries, in order
        *_arrays("id_base"),  # where the ids of each GROUP of entries begin
        *_arrays("key_data"),  # customer ids longer than 16 bytes
        *_arrays("index", "orders"),  # TABLE[1] each, of customers and of entries
        *_arrays("buckets", "slots"),  # newest chunk of each bucket, and of each slot of the open bucket
        *_arrays("slot_min_us"),  # no deadline in the slot before it
        *_arrays("chunks", "seeds"),
        *_arrays("changes", "signals"),  # the output
        *_arrays("extras"),  # as long as customers where a ruleset asks for them, else of length 0
        *_arrays("flaps"),  # i64[FLAP_TIERS * FLAP_TIERS] where somebody follows them, else of length 0
        ("shard", "i8"),  # number of this shard, of so many
        ("shards", "i8"),
        ("n_customers", "i8"),  # handles used, handle 0 included
        ("n_entries", "i8"),
        ("n_orders", "i8"),  # entries that are orders
        ("n_changes", "i8"),  # changes in the output
        ("n_erased", "i8"),  # records that are no customer now: erased, or given up by one that was
        (
            "given_up",
            "i8",
        ),  # the newest record given up since the last purge, each with the one before in `head`
        ("n_signals", "i8"),
        ("id_bytes", "i8"),
        ("key_bytes", "i8"),
        ("clock_us", "i8"),
        ("known_us", "i8"),  # what is dated before it is forgotten, whatever the rules say now; NEVER_US
        ("late_entry", "i8"),  # the last entry put before a newer one of its customer; 0 none
        ("wheel_key", "i8"),  # slots before it are drained; 0 until the first customer
        ("n_today", "i8"),  # handles in the open bucket's slots
        ("n_chunks", "i8"),
        ("free_chunk", "i8"),
        ("n_free_chunks", "i8"),
        ("kept_chunk", "i8"),  # customers of the slot being drained that are not due yet
        ("kept_min_us", "i8"),
        ("flap_us", "i8"),  # a change that the next one undoes within so long is a flap
        ("n_flaps", "i8"),  # flaps counted since they were taken
    ]
)

FLAP_TIERS: Final = 128
"""A tier's code, one more so that NO_TIER has a place, is below this: `flaps` counts by tier before and after."""

RULES: Final = _record(
    [
        # A ruleset as kernels read it; cuts ascend, in days, orders and minor units.
        ("calendar", "i8"),  # 1: calendar days, 0: durations
        ("day_can_fall", "i8"),  # 1: calendar days in a zone whose clocks were once set back across midnight
        ("window_days", "i8"),  # -1: lifetime
        ("forget_days", "i8"),  # -1: no order is ever forgotten; kernels.horizon
        ("forget_near_us", "i8"),  # what is no older than this is not forgotten, whatever the calendar says
        *_arrays("zone_start_us"),  # first instant of each offset from UTC
        *_arrays("zone_offset_us"),
        ("zone_cycle_us", "i8"),  # instants from here on repeat every 400 years
        *_arrays("recency_cuts", "frequency_cuts", "monetary_cuts"),
        *_arrays("lookup"),  # tier code of [first order, r band, f band, m band]
        *_arrays("settled"),  # same shape: 1 where no band falling from here changes the tier
        *_arrays("settled_any"),  # same shape: nor any movement of M
        (
            "signals_max",
            "i8",
        ),  # signals that one look at a customer can give at the most; 0: none are asked for
        *_arrays(
            "warn_first", "dwell_first"
        ),  # where the days of each tier begin, and of one more where they end
        *_arrays("warn_days", "dwell_days"),  # of all tiers, ascending within each
        *_arrays("order_milestones", "spend_milestones", "single_milestones"),  # ascending
    ]
)

BATCH: Final = _record(
    [
        # The rows of a canonical batch; ids are Arrow offsets and bytes.
        *_arrays("customer_offset", "customer_data", "order_offset", "order_data"),
        *_arrays(
            "event_offset", "event_data"
        ),  # offsets of length 0: no row has an event_id; an empty one is none
        *_arrays("kind", "at_us", "amount_minor", "customer_hash", "order_hash"),
        *_arrays("route"),  # hash of the customer that says its shard; length 0: there is but one
        *_arrays("log_us"),  # the log's clock, never falling; length 0: the clock is the newest event applied
        ("tolerance_us", "i8"),  # how far beyond the log's clock an event may be dated
    ]
)
