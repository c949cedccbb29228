"""The small integers that stand for words inside kernels, in one place.

Source: docs/semantics.md 1, 3 and 6. The values are part of the checkpoint format: append, never renumber.
"""

from enum import IntEnum
from typing import Final

NEVER_US: Final = -(2**63)
"""An instant that has not happened (int64 minimum): no order yet, no deadline behind us."""

FOREVER_US: Final = 2**63 - 1
"""An instant that will not come (int64 maximum): nothing will change by time alone."""

AMOUNT_MINOR_MAX: Final = 10**12
"""Largest absolute amount of one event, in minor units."""

ID_BYTES_MAX: Final = 256
"""Longest customer or order id, in UTF-8 bytes."""

NO_TIER: Final = -1
"""Tier code of a customer without an order that is not void."""


class OrderType(IntEnum):
    """What an order event says happened; the name in lower case is the wire value."""

    PAID = 0
    REFUNDED = 1
    CANCELLED = 2
    ADJUSTED = 3
    REFUNDED_TOTAL = 4
    ERASED = 5


class Outcome(IntEnum):
    """What became of one input row. From MALFORMED on these are the rejection reasons, in order of precedence."""

    APPLIED = 0
    DUPLICATE = 1
    MALFORMED = 2
    MISSING_CUSTOMER_ID = 3
    MISSING_ORDER_ID = 4
    BAD_TIME = 5
    FUTURE_TIME = 6
    BAD_AMOUNT = 7
    NEGATIVE_AMOUNT = 8
    CURRENCY_MISMATCH = 9
    UNKNOWN_TYPE = 10
    UNKNOWN_ORDER = 11
    CONFLICTING_DUPLICATE = 12
    REFUND_EXCEEDS_ORDER = 13
    ROUNDED_ID = 14
    ERASED_CUSTOMER = 15
    NO_RATE = 16


REJECTIONS: Final = tuple(outcome for outcome in Outcome if outcome >= Outcome.MALFORMED)
"""The outcomes that are rejections, in order of precedence: a row with two faults gets the first.

ERASED_CUSTOMER stands last, yet comes before what is said of an order: that customer's orders are not known any more.
"""


class ChangeReason(IntEnum):
    """Why a tier changed; the name in lower case is the wire value."""

    FIRST_ORDER = 0
    ORDER = 1
    REFUND = 2
    CANCELLATION = 3
    ADJUSTMENT = 4
    RECENCY_EXPIRED = 5
    WINDOW_EXPIRED = 6
    RULES_CHANGED = 7
    ERASED = 8


class SignalKind(IntEnum):
    """What a signal tells; the name in lower case is the wire value, the order that at one instant."""

    ORDERS = 0
    SPEND = 1
    SINGLE_ORDER = 2
    WARNING = 3
    DWELL = 4
