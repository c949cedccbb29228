"""Draw synthetic order histories: who orders, when, for how much, and what happens to the order afterwards.

The model is the one that fits real shops (NBD, Ehrenberg 1959; Pareto/NBD, Schmittlein, Morrison & Colombo
1987): a customer orders at a rate drawn from a gamma of shape 1/2 (CDNOW is fitted with 0.55) until it
drops out after a Pareto lifetime of shape 1/2 (0.61). Given their number, the orders of such customers are
independent draws in proportion to rate, presence and season. So an order costs O(1): draws from one alias
table over the rates, refused while the customer has not joined yet or has left.

Same seed, same rows, on any machine. Every draw is a splitmix64 hash of (stream, counter) and everything
from there on is integer arithmetic: bell curves are sums of uniforms, exponentials come from a table of 2^x
in fixed point. The one floating-point operation is the product in `fill_alias`, alone and correctly
rounded, so neither libm nor fused multiply-add nor vector width can show.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from rfmstream.kernels._jit import inline, jit
from rfmstream.schemas.codes import FOREVER_US, NEVER_US, OrderType

SLOT_MS: Final = 3_600_000
"""The season is constant within a slot of one hour."""

CUSTOMER_ID_BYTES: Final = 12
ORDER_ID_BYTES: Final = 11

# Streams: one key each, so that no two purposes share a draw.
STREAMS: Final = 10
_JITTER, _REPEAT, _RATE, _LIFE, _SPEND, _FATE, _ROW, _LATE, _AGAIN, _FOLLOW = range(STREAMS)

# Slots of `progress`, what a history remembers between two batches.
PROGRESS: Final = 10
SLOT, IN_SLOT, PAID, DRAWN, PENDING, REFUNDED, CANCELLED, DUPLICATES, LATE, JOINED = range(PROGRESS)

# Columns of a row of `pending`.
PENDING_COLUMNS: Final = 6
PENDING_SPARE: Final = 8
"""One order puts at most six rows aside: itself, two refunds and a duplicate of each."""

_PAID, _REFUNDED, _CANCELLED = int(OrderType.PAID), int(OrderType.REFUNDED), int(OrderType.CANCELLED)
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_LATE_MS_MAX: Final = 6 * _HOUR_MS
_AGAIN_MS_MAX: Final = _HOUR_MS
_LIFE_SCALE_H: Final = 84 * 24  # hours; 12 weeks, CDNOW's is 11.7
_RATE_MEAN_BITS: Final = 12
_RATE_FLOOR: Final = 1 << (
    _RATE_MEAN_BITS - 6
)  # bounds how often the last customer standing must be drawn for
_AMOUNT_LOG2: Final = 27 << 23  # 13.5 in 8.24 fixed point: a median of 115.85 in a currency with two decimals
_AMOUNT_MINOR_LEAST: Final = 100

_U16 = np.uint64(16)
_U27 = np.uint64(27)
_U30 = np.uint64(30)
_U31 = np.uint64(31)
_U32 = np.uint64(32)
_U44 = np.uint64(44)
_TEN = np.uint64(10)
_LOW16 = np.uint64(0xFFFF)
_LOW32 = np.uint64(0xFFFFFFFF)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


class Plan(NamedTuple):
    """Everything about a history that is decided before its first row.

    Fields  key          u64[STREAMS]    keys of the streams
            slot_orders  i64[slots]      paid orders of each hour
            joined       i64[slots + 1]  customers that joined before each hour; numbered as they join
            last_slot    i32[customers]  last hour in which the customer still orders
            alias        u32[customers, 2]  table over the rates, see `fill_alias`
            share        i64[4]          late, duplicate, refunded, cancelled; in 2^-32
            exp2         i64[257]        2^(i/256) in 32.32 fixed point
            start_ms     i64[1]          ms since 1970 UTC of the first hour
    """

    key: Any
    slot_orders: Any
    joined: Any
    last_slot: Any
    alias: Any
    share: Any
    exp2: Any
    start_ms: Any


class Rows(NamedTuple):
    """One batch of rows to be filled in.

    Fields  customer_id    u8[rows, CUSTOMER_ID_BYTES]  c00000000042
            order_id       u8[rows, ORDER_ID_BYTES]     o0000000042, numbered in order of payment
            type           i8[rows]    OrderType code
            occurred_us    i64[rows]   µs since 1970 UTC, whole milliseconds
            amount_minor   i64[rows]   0 for cancelled
    """

    customer_id: Any
    order_id: Any
    type: Any
    occurred_us: Any
    amount_minor: Any


@inline
def _hash(key, counter):
    """Return output `counter` of the splitmix64 sequence that starts at `key`: 64 uniform bits."""
    bits = key + np.uint64(counter) * _GOLDEN
    bits = (bits ^ (bits >> _U30)) * _MIX_1
    bits = (bits ^ (bits >> _U27)) * _MIX_2
    return bits ^ (bits >> _U31)


@inline
def _below(bits, bound):
    """Map the upper half of 64 uniform bits to 0 .. bound - 1, for bound <= 2^31."""
    return np.int64(((bits >> _U32) * np.uint64(bound)) >> _U32)


@inline
def _skewed_ms(bits, span_ms):
    """Return a duration in (0, span_ms], the square of a uniform: a third of it on average, mostly short."""
    uniform = bits >> _U32
    return np.int64(1) + np.int64((((uniform * uniform) >> _U32) * np.uint64(span_ms)) >> _U32)


@inline
def _bell(bits):
    """Return a bell-shaped draw, mean 0 and deviation 1, with 16 bits of fraction: a sum of four uniforms."""
    lanes = (bits & _LOW16) + ((bits >> _U16) & _LOW16) + ((bits >> _U32) & _LOW16) + (bits >> np.uint64(48))
    # The sum of four has the deviation 65536 / sqrt(3).
    return ((np.int64(lanes) - np.int64(2 * 65535)) * np.int64(7094)) >> np.int64(12)


@inline
def _exp2_mantissa(exp2, x):
    """Return 2^(fraction of x) in 32.32 fixed point, for x with 24 bits of fraction; within 1e-6."""
    index = (x >> np.int64(16)) & np.int64(255)
    return exp2[index] + (((exp2[index + 1] - exp2[index]) * (x & np.int64(65535))) >> np.int64(16))


@inline
def _pick(alias, bits):
    """Draw a row of an alias table from 64 uniform bits."""
    column = _below(bits, alias.shape[0])
    if np.int64(bits & _LOW32) < np.int64(alias[column, 0]):
        return column
    return np.int64(alias[column, 1])


@inline
def _write_number(out, row, letter, number):
    """Write `letter` and then `number` in decimal, right-aligned with zeros, over the whole of out[row]."""
    out[row, 0] = letter
    for place in range(out.shape[1] - 1, 0, -1):
        out[row, place] = np.int64(48) + np.int64(number % _TEN)
        number //= _TEN


@inline
def _write_row(rows, row, customer, order, kind, occurred_ms, amount_minor):
    _write_number(rows.customer_id, row, 99, np.uint64(customer))
    _write_number(rows.order_id, row, 111, np.uint64(order))
    rows.type[row] = kind
    rows.occurred_us[row] = occurred_ms * 1000
    rows.amount_minor[row] = amount_minor


@jit
def fill_keys(seed, key):
    """Derive the key of every stream from the seed.

    In      seed  u64
    Out     key   u64[STREAMS]
    """
    for stream in range(key.shape[0]):
        key[stream] = _hash(_hash(seed, 0), stream + 1)


@jit
def fill_zipf_weights(exponent, exp2, weight):
    """Give the customer of rank k the weight k^-exponent, the first one 2^36.

    In      exponent  i64          with 16 bits of fraction
            exp2      i64[257]     2^(i/256) in 32.32 fixed point
    Out     weight    u64[customers]
    Cost    O(24 n): log2 bit by bit, by squaring, because libm's may differ in the last bit between machines
    """
    for customer in range(weight.shape[0]):
        rank = np.uint64(customer + 1)
        whole = np.int64(0)
        while (rank >> np.uint64(whole + 1)) != np.uint64(0):
            whole += 1
        mantissa = rank << np.uint64(31 - whole)
        log2 = whole
        for _ in range(24):
            mantissa = (mantissa * mantissa) >> _U31
            carry = mantissa >> _U32
            mantissa >>= carry
            log2 = (log2 << 1) | np.int64(carry)
        x = -((exponent * log2) >> np.int64(16))
        shift = min(-(x >> np.int64(24)), np.int64(63))
        weight[customer] = max((_exp2_mantissa(exp2, x) << np.int64(4)) >> shift, np.int64(1))


@jit
def fill_alias(weight, unit, alias):
    """Build Walker's alias table (Vose's way), from which a draw in proportion to `weight` costs O(1).

    In      weight  u64[n]     n < 2^31
            unit    f64        n * 2^32 / sum of the weights
    Out     alias   u32[n, 2]  column's threshold in 2^-32, and whom it yields above
    Cost    O(n), 12 bytes a row of scratch
    """
    n = weight.shape[0]
    height = np.empty(n, np.int64)
    stack = np.empty(n, np.int32)  # columns below the mean from the left, above it from the right
    low, high = 0, n
    full = np.int64(1) << np.int64(32)
    for i in range(n):
        height[i] = np.int64(np.float64(weight[i]) * unit)
        if height[i] < full:
            stack[low] = i
            low += 1
        else:
            high -= 1
            stack[high] = i
    while low > 0 and high < n:
        low -= 1
        short, tall = stack[low], stack[high]
        alias[short, 0] = height[short]
        alias[short, 1] = tall
        height[tall] -= full - height[short]
        if height[tall] < full:
            high += 1
            stack[low] = tall
            low += 1
    # What rounding left over stands for itself.
    for i in range(low):
        alias[stack[i], 0] = full - 1
        alias[stack[i], 1] = stack[i]
    for i in range(high, n):
        alias[stack[i], 0] = full - 1
        alias[stack[i], 1] = stack[i]


@jit
def fill_customers(key, joined, weight, last_slot, presence):
    """Draw every customer's purchase rate and the hour in which it drops out.

    In      key        u64[STREAMS]
            joined     i64[slots + 1]  customers that join before each hour
    Out     weight     u64[customers]  rate: a squared bell, that is gamma of shape 1/2, mean 2^12
            last_slot  i32[customers]  hour of joining + one day + Pareto of shape 1/2 and scale 12 weeks
            presence   i64[slots]      sum of the rates of those who may order again in each hour
    """
    slots = presence.shape[0]
    presence[:] = 0
    for slot in range(slots):
        for customer in range(joined[slot], joined[slot + 1]):
            bell = np.int64(0)  # of three, as the tail of the rates matters
            for part in range(3):
                bell += _bell(_hash(key[_RATE], 3 * customer + part))
            rate = np.int64(_RATE_FLOOR) + (((bell * bell) // np.int64(3)) >> np.int64(32 - _RATE_MEAN_BITS))
            weight[customer] = rate
            # Quantile of the Pareto: scale * (u^-2 - 1), u in (0, 1] with 20 bits.
            u = np.int64(_hash(key[_LIFE], customer) >> _U44) + np.int64(1)
            hours = (np.int64(_LIFE_SCALE_H) << np.int64(40)) // (u * u) - np.int64(_LIFE_SCALE_H)
            last = min(slot + hours + np.int64(24), np.int64(slots - 1))
            last_slot[customer] = last
            if last > slot:
                presence[slot + 1] += rate
                if last + 1 < slots:
                    presence[last + 1] -= rate
    for slot in range(1, slots):
        presence[slot] += presence[slot - 1]


@inline
def _push(pending, progress, due_ms, customer, order, kind, occurred_ms, amount_minor):
    """Put a row aside until `due_ms`, in a binary heap whose rows are its nodes."""
    hole = progress[PENDING]
    progress[PENDING] += 1
    while hole > 0 and pending[(hole - 1) >> 1, 0] > due_ms:
        pending[hole] = pending[(hole - 1) >> 1]
        hole = (hole - 1) >> 1
    pending[hole, 0] = due_ms
    pending[hole, 1] = customer
    pending[hole, 2] = order
    pending[hole, 3] = kind
    pending[hole, 4] = occurred_ms
    pending[hole, 5] = amount_minor


@inline
def _pop(pending, progress):
    """Take the row that is due first off the heap."""
    progress[PENDING] -= 1
    size = progress[PENDING]
    hole = np.int64(0)
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        if child + 1 < size and pending[child + 1, 0] < pending[child, 0]:
            child += 1
        if pending[child, 0] >= pending[size, 0]:
            break
        pending[hole] = pending[child]
        hole = child
    pending[hole] = pending[size]


@inline
def _send(plan, progress, pending, event, customer, order, kind, occurred_ms, amount_minor):
    """Decide when a row reaches the file, and put its duplicate aside if it is to have one.

    Returns the ms at which the file sees it: `occurred_ms`, or up to six hours later for a late row.
    """
    bits = _hash(plan.key[_ROW], event)
    due_ms = occurred_ms
    if np.int64(bits & _LOW32) < plan.share[0]:
        due_ms += _skewed_ms(_hash(plan.key[_LATE], event), _LATE_MS_MAX)
        progress[LATE] += 1
    if np.int64(bits >> _U32) < plan.share[1]:
        again_ms = due_ms
        if plan.share[0] > 0:
            again_ms += _skewed_ms(_hash(plan.key[_AGAIN], event), _AGAIN_MS_MAX)
        _push(pending, progress, again_ms, customer, order, kind, occurred_ms, amount_minor)
        progress[DUPLICATES] += 1
    return due_ms


@inline
def _follow(plan, progress, pending, event, customer, order, kind, occurred_ms, amount_minor):
    """Put a refund or cancellation aside, unless the history ends before; return when the file sees it."""
    end_ms = plan.start_ms[0] + plan.slot_orders.shape[0] * np.int64(SLOT_MS)
    if occurred_ms >= end_ms:
        return occurred_ms
    due_ms = _send(plan, progress, pending, event, customer, order, kind, occurred_ms, amount_minor)
    _push(pending, progress, due_ms, customer, order, kind, occurred_ms, amount_minor)
    progress[REFUNDED if kind == _REFUNDED else CANCELLED] += 1
    return due_ms


@inline
def _decide_fate(plan, progress, pending, customer, order, seen_ms, amount_minor):
    """Cancel the order within hours, refund it whole or in one or two parts within weeks, or leave it alone.

    Everything happens after the file has seen the order (`seen_ms`), so a follow-up never comes before its
    order, neither by its own time nor by its place in the file.
    """
    fate = _hash(plan.key[_FATE], order)
    level = np.int64(fate & _LOW32)
    if level < plan.share[3]:
        at_ms = seen_ms + _skewed_ms(_hash(plan.key[_FOLLOW], 2 * order), 12 * _HOUR_MS)
        _follow(plan, progress, pending, 3 * order + 1, customer, order, _CANCELLED, at_ms, 0)
    elif level < plan.share[3] + plan.share[2]:
        at_ms = seen_ms + 12 * _HOUR_MS + _skewed_ms(_hash(plan.key[_FOLLOW], 2 * order), 45 * _DAY_MS)
        amount = amount_minor
        if (fate >> np.uint64(61)) < np.uint64(3):
            # Three of eight are partial: 1/16 to 15/16 of the order.
            sixteenths = np.int64((fate >> np.uint64(40)) % np.uint64(15)) + np.int64(1)
            amount = amount_minor * sixteenths // 16
        seen_ms = _follow(plan, progress, pending, 3 * order + 1, customer, order, _REFUNDED, at_ms, amount)
        rest = amount_minor - amount
        if rest > 0 and ((fate >> np.uint64(36)) & np.uint64(3)) == np.uint64(0):
            # One of four partial refunds is followed by another, of half or all of the rest.
            if ((fate >> np.uint64(35)) & np.uint64(1)) == np.uint64(0):
                rest = (rest + 1) // 2
            at_ms = seen_ms + _HOUR_MS + _skewed_ms(_hash(plan.key[_FOLLOW], 2 * order + 1), 14 * _DAY_MS)
            _follow(plan, progress, pending, 3 * order + 2, customer, order, _REFUNDED, at_ms, rest)


@inline
def _draw_customer(plan, progress):
    """Return who places the next order: the next to join, or someone who has joined and not left, by rate."""
    slot, position, orders = progress[SLOT], progress[IN_SLOT], plan.slot_orders[progress[SLOT]]
    joins = plan.joined[slot + 1] - plan.joined[slot]
    # The hour's joins are spread evenly over its orders.
    if (position + 1) * joins // orders > position * joins // orders:
        customer = progress[JOINED]
        progress[JOINED] += 1
        return customer
    while True:
        customer = _pick(plan.alias, _hash(plan.key[_REPEAT], progress[DRAWN]))
        progress[DRAWN] += 1
        if customer < plan.joined[slot] and plan.last_slot[customer] >= slot:
            return customer


@inline
def _draw_amount(plan, customer, order):
    """Return an amount in minor units, log-normal in shape: sigma 0.69 between customers, 0.42 within one."""
    mean = _bell(_hash(plan.key[_SPEND], 2 * customer))
    own = _bell(_hash(plan.key[_SPEND], 2 * order + 1))
    x = np.int64(_AMOUNT_LOG2) + (mean << np.int64(8)) + ((own * 614) >> np.int64(2))
    amount = _exp2_mantissa(plan.exp2, x) >> (np.int64(32) - (x >> np.int64(24)))
    return max(amount, np.int64(_AMOUNT_MINOR_LEAST))


@inline
def _next_paid_ms(plan, progress):
    """Return when the next order is paid: the hour is cut into one part for each of its orders."""
    orders, position = plan.slot_orders[progress[SLOT]], progress[IN_SLOT]
    lower = position * SLOT_MS // orders
    upper = (position + 1) * SLOT_MS // orders
    jitter = _hash(plan.key[_JITTER], progress[PAID]) % np.uint64(max(upper - lower, 1))
    return plan.start_ms[0] + progress[SLOT] * np.int64(SLOT_MS) + lower + np.int64(jitter)


@jit
def draw_history(plan, progress, pending, rows, row):
    """Draw the next rows of a history, in file order, until the batch or `pending` is full or it is over.

    In      plan      Plan
            row       i64   rows of this batch that are filled already
    State   progress  i64[PROGRESS]  all 0 before the first batch
            pending   i64[capacity, PENDING_COLUMNS]  heap of rows put aside, by due_ms; the caller grows it
    Out     rows      Rows
    Returns rows of this batch filled now; the history is over when every slot is done and nothing is pending
    Holds   paid orders come in order of time, and so does the file but for late rows and duplicates
    Cost    O(1) an order (about three draws while half the customers are away), O(log) a row put aside
    """
    capacity = rows.type.shape[0]
    slots = plan.slot_orders.shape[0]
    paid_ms = np.int64(NEVER_US)
    while row < capacity and progress[PENDING] + PENDING_SPARE <= pending.shape[0]:
        while progress[SLOT] < slots and progress[IN_SLOT] == plan.slot_orders[progress[SLOT]]:
            progress[SLOT] += 1
            progress[IN_SLOT] = 0
        if progress[SLOT] == slots:
            if progress[PENDING] == 0:
                break
            paid_ms = np.int64(FOREVER_US)
        elif paid_ms == NEVER_US:
            paid_ms = _next_paid_ms(plan, progress)
        if progress[PENDING] > 0 and pending[0, 0] <= paid_ms:
            first = pending[0]
            _write_row(rows, row, first[1], first[2], first[3], first[4], first[5])
            _pop(pending, progress)
            row += 1
            continue
        order = progress[PAID]
        customer = _draw_customer(plan, progress)
        amount = _draw_amount(plan, customer, order)
        due_ms = _send(plan, progress, pending, 3 * order, customer, order, _PAID, paid_ms, amount)
        if due_ms > paid_ms:
            _push(pending, progress, due_ms, customer, order, _PAID, paid_ms, amount)
        else:
            _write_row(rows, row, customer, order, _PAID, paid_ms, amount)
            row += 1
        _decide_fate(plan, progress, pending, customer, order, due_ms, amount)
        progress[PAID] += 1
        progress[IN_SLOT] += 1
        paid_ms = np.int64(NEVER_US)
    return row


@jit
def draw_load(key, alias, customers, start_us, gap_us, order, rows):
    """Draw a plain load of paid orders, evenly over time: what a benchmark wants, not what a shop looks like.

    In      key        u64[STREAMS]
            alias      u32[customers, 2]  table over the customers, or of length 0 for uniform
            customers  i64  < 2^31
            start_us   i64  µs since 1970 UTC
            gap_us     i64  µs between two orders, each is paid somewhere within its own
            order      i64  number of the first order of this batch
    Out     rows       Rows, filled entirely; amounts are uniform over 20.00 .. 500.00
    """
    for row in range(rows.type.shape[0]):
        bits = _hash(key[_REPEAT], order)
        customer = _pick(alias, bits) if alias.shape[0] > 0 else _below(bits, customers)
        jitter = _hash(key[_JITTER], order)
        amount = np.int64(2_000) + _below(_hash(key[_SPEND], order), 48_001)
        occurred_us = start_us + order * gap_us + np.int64(jitter % np.uint64(max(gap_us, 1)))
        _write_number(rows.customer_id, row, 99, np.uint64(customer))
        _write_number(rows.order_id, row, 111, np.uint64(order))
        rows.type[row] = _PAID
        rows.occurred_us[row] = occurred_us
        rows.amount_minor[row] = amount
        order += 1
