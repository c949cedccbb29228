"""The arrays behind the addresses in the records a kernel receives.

A kernel gets one pointer for a whole shard instead of a dozen numpy arrays: passing an array down to a helper costs
seven words and two atomic reference counts, which is more than what most helpers do. Each function here is free once
compiled. Offsets and ids of batches are Arrow's own buffers.
"""

import numpy as np

from rfmstream.kernels._jit import array_at, inline, jit, touch_word
from rfmstream.kernels.layout import CHANGE, CHUNK_WORDS, CUSTOMER, ENTRY, EXTRA, SIGNAL, TABLE

PAGE = 4096


@inline
def customers_of(state):
    """Return `customers` of a shard."""
    return array_at(state.customers_at, (state.customers_size,), CUSTOMER)


@inline
def entries_of(state):
    """Return `entries` of a shard."""
    return array_at(state.entries_at, (state.entries_size,), ENTRY)


@inline
def id_data_of(state):
    """Return `id_data` of a shard."""
    return array_at(state.id_data_at, (state.id_data_size,), np.uint8)


@inline
def id_base_of(state):
    """Return `id_base` of a shard."""
    return array_at(state.id_base_at, (state.id_base_size,), np.int64)


@inline
def key_data_of(state):
    """Return `key_data` of a shard."""
    return array_at(state.key_data_at, (state.key_data_size,), np.uint8)


@inline
def index_of(state):
    """Return `index` of a shard, a TABLE."""
    return array_at(state.index_at, (1,), TABLE)[0]


@inline
def orders_of(state):
    """Return `orders` of a shard, a TABLE."""
    return array_at(state.orders_at, (1,), TABLE)[0]


@inline
def pairs_of(table):
    """Return `pairs` of a table."""
    return array_at(table.pairs_at, (table.pairs_size,), np.int64)


@inline
def directory_of(table):
    """Return `directory` of a table."""
    return array_at(table.directory_at, (table.directory_size,), np.uint32)


@inline
def buckets_of(state):
    """Return `buckets` of a shard."""
    return array_at(state.buckets_at, (state.buckets_size,), np.int32)


@inline
def slots_of(state):
    """Return `slots` of a shard."""
    return array_at(state.slots_at, (state.slots_size,), np.int32)


@inline
def slot_min_us_of(state):
    """Return `slot_min_us` of a shard."""
    return array_at(state.slot_min_us_at, (state.slot_min_us_size,), np.int64)


@inline
def seeds_of(state):
    """Return `seeds` of a shard."""
    return array_at(state.seeds_at, (state.seeds_size,), np.uint64)


@inline
def changes_of(state):
    """Return `changes` of a shard."""
    return array_at(state.changes_at, (state.changes_size,), CHANGE)


@inline
def flaps_of(state):
    """Return `flaps` of a shard."""
    return array_at(state.flaps_at, (state.flaps_size,), np.int64)


@inline
def signals_of(state):
    """Return `signals` of a shard."""
    return array_at(state.signals_at, (state.signals_size,), SIGNAL)


@inline
def extras_of(state):
    """Return `extras` of a shard."""
    return array_at(state.extras_at, (state.extras_size,), EXTRA)


@inline
def zone_start_us_of(rules):
    """Return `zone_start_us` of a ruleset."""
    return array_at(rules.zone_start_us_at, (rules.zone_start_us_size,), np.int64)


@inline
def zone_offset_us_of(rules):
    """Return `zone_offset_us` of a ruleset."""
    return array_at(rules.zone_offset_us_at, (rules.zone_offset_us_size,), np.int64)


@inline
def recency_cuts_of(rules):
    """Return `recency_cuts` of a ruleset."""
    return array_at(rules.recency_cuts_at, (rules.recency_cuts_size,), np.int64)


@inline
def frequency_cuts_of(rules):
    """Return `frequency_cuts` of a ruleset."""
    return array_at(rules.frequency_cuts_at, (rules.frequency_cuts_size,), np.int64)


@inline
def monetary_cuts_of(rules):
    """Return `monetary_cuts` of a ruleset."""
    return array_at(rules.monetary_cuts_at, (rules.monetary_cuts_size,), np.int64)


@inline
def lookup_of(rules):
    """Return `lookup` of a ruleset."""
    return array_at(rules.lookup_at, (rules.lookup_size,), np.int8)


@inline
def settled_of(rules):
    """Return `settled` of a ruleset."""
    return array_at(rules.settled_at, (rules.settled_size,), np.uint8)


@inline
def settled_any_of(rules):
    """Return `settled_any` of a ruleset."""
    return array_at(rules.settled_any_at, (rules.settled_any_size,), np.uint8)


@inline
def warn_first_of(rules):
    """Return `warn_first` of a ruleset."""
    return array_at(rules.warn_first_at, (rules.warn_first_size,), np.int64)


@inline
def dwell_first_of(rules):
    """Return `dwell_first` of a ruleset."""
    return array_at(rules.dwell_first_at, (rules.dwell_first_size,), np.int64)


@inline
def warn_days_of(rules):
    """Return `warn_days` of a ruleset."""
    return array_at(rules.warn_days_at, (rules.warn_days_size,), np.int64)


@inline
def dwell_days_of(rules):
    """Return `dwell_days` of a ruleset."""
    return array_at(rules.dwell_days_at, (rules.dwell_days_size,), np.int64)


@inline
def order_milestones_of(rules):
    """Return `order_milestones` of a ruleset."""
    return array_at(rules.order_milestones_at, (rules.order_milestones_size,), np.int64)


@inline
def spend_milestones_of(rules):
    """Return `spend_milestones` of a ruleset."""
    return array_at(rules.spend_milestones_at, (rules.spend_milestones_size,), np.int64)


@inline
def single_milestones_of(rules):
    """Return `single_milestones` of a ruleset."""
    return array_at(rules.single_milestones_at, (rules.single_milestones_size,), np.int64)


@inline
def customer_offset_of(batch):
    """Return `customer_offset` of a batch."""
    return array_at(batch.customer_offset_at, (batch.customer_offset_size,), np.int32)


@inline
def customer_data_of(batch):
    """Return `customer_data` of a batch."""
    return array_at(batch.customer_data_at, (batch.customer_data_size,), np.uint8)


@inline
def order_offset_of(batch):
    """Return `order_offset` of a batch."""
    return array_at(batch.order_offset_at, (batch.order_offset_size,), np.int32)


@inline
def order_data_of(batch):
    """Return `order_data` of a batch."""
    return array_at(batch.order_data_at, (batch.order_data_size,), np.uint8)


@inline
def event_offset_of(batch):
    """Return `event_offset` of a batch."""
    return array_at(batch.event_offset_at, (batch.event_offset_size,), np.int32)


@inline
def event_data_of(batch):
    """Return `event_data` of a batch."""
    return array_at(batch.event_data_at, (batch.event_data_size,), np.uint8)


@inline
def kind_of(batch):
    """Return `kind` of a batch."""
    return array_at(batch.kind_at, (batch.kind_size,), np.uint8)


@inline
def at_us_of(batch):
    """Return `at_us` of a batch."""
    return array_at(batch.at_us_at, (batch.at_us_size,), np.int64)


@inline
def amount_minor_of(batch):
    """Return `amount_minor` of a batch."""
    return array_at(batch.amount_minor_at, (batch.amount_minor_size,), np.int64)


@inline
def customer_hash_of(batch):
    """Return `customer_hash` of a batch."""
    return array_at(batch.customer_hash_at, (batch.customer_hash_size,), np.uint64)


@inline
def order_hash_of(batch):
    """Return `order_hash` of a batch."""
    return array_at(batch.order_hash_at, (batch.order_hash_size,), np.uint64)


@inline
def route_of(batch):
    """Return `route` of a batch."""
    return array_at(batch.route_at, (batch.route_size,), np.uint64)


@inline
def log_us_of(batch):
    """Return `log_us` of a batch."""
    return array_at(batch.log_us_at, (batch.log_us_size,), np.int64)


@inline
def chunks_of(state):
    """Return `chunks` of a shard, u32[size, CHUNK_WORDS]."""
    return array_at(state.chunks_at, (state.chunks_size, CHUNK_WORDS), np.uint32)


@jit
def touch_pages(address, size):
    """Write to each page of `size` bytes at an address, which makes it resident; the content stays.

    Holds   other threads may use the memory meanwhile
    Cost    what the system takes to hand out the pages that are not resident yet
    """
    first = (address + 7) & ~7
    for place in range(first, address + size - 7, PAGE):
        touch_word(place)
