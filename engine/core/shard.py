"""One shard: the state of its customers, and the two things that can happen to it, a batch and the passing of time.

A shard is the deterministic core (docs/decisions/): no I/O, no clock of its own, and nothing random that could
show in a result. It makes room where the kernels ask for it; everything else happens in them.
"""

from collections.abc import Iterable
from copy import copy
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.core.arena import Arena
from rfmstream.engine.core.buffers import Slabs, offsets_and_data
from rfmstream.engine.core.forgetting import drop, follow_horizon, is_worth, next_look, placed, refilled
from rfmstream.engine.core.kernel_records import KernelRecord
from rfmstream.engine.core.measured import Measured
from rfmstream.engine.core.rules import NO_DAYS
from rfmstream.engine.core.table import Table
from rfmstream.kernels import layout
from rfmstream.kernels.entry_ids import gather_entry_ids, size_entry_ids
from rfmstream.kernels.erase import purge
from rfmstream.kernels.fold import BLOCK, ENTRIES_PER_ROW, fold
from rfmstream.kernels.ids import SPARE_BYTES, gather_customer_ids, size_customer_ids
from rfmstream.kernels.layout import CHANGE, CUSTOMER, ENTRY, EXTRA, GROUP, SIGNAL, STATE
from rfmstream.kernels.resegment import resegment
from rfmstream.kernels.restore import BLOCK as RESTORE_BLOCK
from rfmstream.kernels.restore import load_customer_ids, load_entry_ids
from rfmstream.kernels.snapshot import write_snapshot
from rfmstream.kernels.verify import verify_clock, verify_customers, verify_entries
from rfmstream.kernels.wheel import PUSH_RESERVE, advance, next_due, rearm
from rfmstream.schemas.codes import FOREVER_US, ID_BYTES_MAX, NEVER_US, ChangeReason
from rfmstream.schemas.errors import StateError

HANDLES_MAX: Final = 2**32 - 1
"""Records are known by numbers of 32 bits, 0 being none."""
_ROOM_ENTRIES: Final = BLOCK * ENTRIES_PER_ROW
_ROOM_ID_BYTES: Final = _ROOM_ENTRIES * ID_BYTES_MAX + 8
_ROOM_KEY_BYTES: Final = BLOCK * ID_BYTES_MAX
_CHUNK: Final = np.dtype((np.uint32, (layout.CHUNK_WORDS,)))

_ARENAS: Final[dict[str, tuple[Any, int]]] = {
    "customers": (CUSTOMER, 2 * BLOCK),
    "entries": (ENTRY, 2 * _ROOM_ENTRIES),
    "id_data": (np.uint8, 2 * _ROOM_ID_BYTES),
    "id_base": (np.int64, 2 * _ROOM_ENTRIES // GROUP),
    "key_data": (np.uint8, 2 * _ROOM_KEY_BYTES),
    "chunks": (_CHUNK, 2 * PUSH_RESERVE),
}

_FROZEN: Final = (
    "n_customers",
    "n_entries",
    "n_orders",
    "n_erased",
    "id_bytes",
    "key_bytes",
    "clock_us",
    "known_us",
    "wheel_key",
)


def new_seeds() -> NDArray[np.uint64]:
    """Draw the keys of the hash of ids: unknown to whoever makes up ids, and without influence on any result."""
    return np.random.default_rng().integers(1, 2**64 - 1, size=4, dtype=np.uint64)


class Shard:
    """The customers whose hash falls to `number` of `count` shards.

    Fields  state  memory of the kernels, a `kernels.layout.STATE`
            rules  compiled ruleset, a `kernels.layout.RULES`
            slabs  memory for the columns of its changes
            touches_ahead  whether memory is made resident ahead of its use
    """

    def __init__(
        self, rules: KernelRecord, seeds: NDArray[np.uint64], *, number: int = 0, count: int = 1
    ) -> None:
        self.rules = rules
        self.seeds = seeds
        self.slabs = Slabs()
        self.touches_ahead = False
        self.state = KernelRecord(
            STATE,
            shard=number,
            shards=count,
            n_customers=1,  # handle 0 is none
            n_entries=1,
            n_chunks=1,
            clock_us=NEVER_US,
            known_us=NEVER_US,
            kept_min_us=FOREVER_US,
        )
        self._arenas = {name: Arena(dtype, capacity) for name, (dtype, capacity) in _ARENAS.items()}
        self._tables = {name: Table() for name in ("index", "orders")}
        self._changes = np.empty(2 * BLOCK, dtype=CHANGE)
        self._signals = np.empty(0, dtype=SIGNAL)
        self._flaps = np.empty(0, dtype=np.int64)
        self._rows = np.empty(BLOCK, dtype=np.int64)
        self._handles = np.empty(BLOCK, dtype=np.int64)
        self._hashes = np.empty(BLOCK, dtype=np.uint64)
        self._look_from = next_look(0, 0)
        self._is_frozen = False
        self.state.point(
            **{name: arena.array for name, arena in self._arenas.items()},
            **{name: table.record.rows for name, table in self._tables.items()},
            buckets=np.zeros(layout.BUCKETS, dtype=np.int32),
            slots=np.zeros(layout.BUCKET_SLOTS, dtype=np.int32),
            slot_min_us=np.full(layout.BUCKET_SLOTS, FOREVER_US, dtype=np.int64),
            seeds=seeds,
            changes=self._changes,
            signals=self._signals,
            extras=np.empty(0, dtype=EXTRA),
            flaps=self._flaps,
        )
        self._ask(rules)

    @property
    def clock_us(self) -> int:
        """The shard's clock: NEVER_US until something was applied."""
        return self.state.row.clock_us

    @property
    def customers(self) -> int:
        """How many records of customers the shard holds, those of erased ones among them."""
        return self.state.row.n_customers - 1

    @property
    def erased(self) -> int:
        """How many of the records are no customer now: erased, or given up by a customer that was."""
        return self.state.row.n_erased

    def hidden(self, handles: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Return bool[n]: which records of handles are no customer now."""
        marks = self._arenas["customers"].array["marks"][handles]
        hidden: NDArray[np.bool_] = (marks >> layout.REASON_SHIFT == ChangeReason.ERASED) & (
            marks & layout.HAS_ADJUSTMENT == 0
        )
        return hidden

    def fold(self, batch: KernelRecord, outcome: NDArray[np.uint8]) -> None:
        """Apply this shard's rows of a BATCH; their outcomes go to `outcome` (u8[n]), changes to `take_changes`."""
        row, status = 0, layout.GROW
        while status != layout.DONE:
            row, status = fold(
                self.state.rows,
                self.rules.rows,
                batch.rows,
                row,
                outcome,
                self._rows,
                self._handles,
                self._hashes,
            )
            self._make_room(status)
        if self.state.row.given_up:
            purge(self.state.rows, np.zeros(self.state.row.n_customers, dtype=np.uint8))
        self._touch_ahead()

    def advance(self, now_us: int) -> None:
        """Let time pass up to `now_us`; the changes that brings go to `take_changes`."""
        status = layout.GROW
        while status != layout.DONE:
            status = advance(self.state.rows, self.rules.rows, now_us, self._rows)
            self._make_room(status)
        follow_horizon(self.state, self.rules)
        if self.forgets and self.state.row.n_entries >= self._look_from:
            self.forget(if_worth=True)

    @property
    def forgets(self) -> bool:
        """Whether its ruleset forgets orders."""
        return bool(self.rules.row.forget_days != NO_DAYS)

    @property
    def known_us(self) -> int:
        """What is dated before it is forgotten; NEVER_US: nothing is."""
        return self.state.row.known_us

    def forget(self, *, if_worth: bool = False) -> None:
        """Give back the memory of what is forgotten, which changes no result whenever it is done.

        if_worth  only where that is a third of it or more
        """
        entries = self.state.row.n_entries
        places, kept = placed(self.state)
        if not if_worth or is_worth(entries, kept):
            drop(self.state, self.rules, places)
            self._tables["orders"] = refilled(self.state, places)
            self.state.point(orders=self._tables["orders"].record.rows)
        self._look_from = next_look(self.state.row.n_entries, kept)

    def lasting(self) -> "Shard":
        """Return what a checkpoint is to hold of it: itself, or where orders are forgotten a copy without those."""
        if not self.forgets:
            return self
        other = self if self._is_frozen else self.frozen()
        drop(other.state, other.rules, placed(other.state)[0])
        return other

    def next_due_us(self, until_us: int) -> int:
        """Return the earliest instant up to `until_us` at which a customer is due; FOREVER_US: none."""
        if self.state.row.n_signals and until_us > self.clock_us:
            # What asking for other signals has brought (`Engine.ask_anew`) was due at the clock and waits to be told.
            return self.clock_us + 1
        due_us, status = next_due(self.state.rows, self.rules.rows, until_us, self._rows)
        while status != layout.DONE:
            self._make_room(status)
            due_us, status = next_due(self.state.rows, self.rules.rows, until_us, self._rows)
        return int(due_us)

    def resegment(self, rules: KernelRecord, now_us: int, tiers: NDArray[np.int8]) -> None:
        """Go on under other rules from `now_us` on; the changes that brings go to `take_changes`.

        now_us  not before the clock, which it becomes; `tiers`: see `kernels.resegment.resegment`
        """
        if self.forgets:
            self.forget()
        is_sorted = not (self.rules.row.day_can_fall or rules.row.day_can_fall)
        self.rules = rules
        self._ask(rules)
        self.state.row.clock_us = now_us
        first, end = 1, self.state.row.n_customers
        status = layout.GROW
        while status != layout.DONE:
            first, status = resegment(
                self.state.rows, rules.rows, now_us, tiers, is_sorted, np.int64(first), np.int64(end)
            )
            self._make_room(status)
        self._clear_timers()
        self._rearm()
        self._look_from = 0

    def take_changes(self) -> NDArray[Any]:
        """Return CHANGE[n], the changes since the last call; valid until the next `fold` or `advance`."""
        count = self.state.row.n_changes
        self.state.row.n_changes = 0
        return self._changes[:count]

    def take_signals(self) -> NDArray[Any]:
        """Return SIGNAL[n], the signals since the last call; valid until the next `fold` or `advance`."""
        count = self.state.row.n_signals
        self.state.row.n_signals = 0
        return self._signals[:count]

    def follow_flaps(self, within_us: int) -> None:
        """Count, from now on, the tier changes that the customer's next one undoes within so long."""
        self._flaps = np.zeros(layout.FLAP_TIERS**2, dtype=np.int64)
        self.state.point(flaps=self._flaps)
        self.state.row.flap_us = within_us

    def take_flaps(self) -> list[tuple[int, int, int]]:
        """Return (tier before, tier after, count) of the changes that were undone since the last call, by codes."""
        if self.state.row.n_flaps == 0:
            return []
        self.state.row.n_flaps = 0
        cells = np.flatnonzero(self._flaps)
        counts = self._flaps[cells].tolist()
        self._flaps[cells] = 0
        return [
            (cell // layout.FLAP_TIERS - 1, cell % layout.FLAP_TIERS - 1, count)
            for cell, count in zip(cells.tolist(), counts, strict=True)
        ]

    def make_extras(self) -> None:
        """Make room for what a ruleset asks for beyond R, F and M, zeroed; it stays, whatever the ruleset becomes."""
        if "extras" not in self._arenas:
            self._arenas["extras"] = Arena(EXTRA, self._arenas["customers"].array.shape[0])
            self.state.point(extras=self._arenas["extras"].array)

    @property
    def has_extras(self) -> bool:
        """Whether there is anything beyond R, F and M."""
        return "extras" in self._arenas

    def extra_records(self) -> NDArray[Any]:
        """Return EXTRA[c] by customers' handle; hold it no longer than until the next event."""
        return self._arenas["extras"].array

    def measure(self, as_of_us: int, handles: NDArray[np.uint32]) -> Measured:
        """Measure customers at `as_of_us`; see `kernels.snapshot.write_snapshot`."""
        measured = Measured(handles.size)
        self.measure_into(measured, as_of_us, handles)
        return measured

    def measure_into(self, measured: Measured, as_of_us: int, handles: NDArray[np.uint32]) -> None:
        """Measure customers as the next rows of those that were measured, perhaps in other shards."""
        first = measured.grow(handles.size)
        state, rules = self.state.aside(), self.rules.aside()
        # Looking ahead tells nobody anything.
        rules[0]["signals_max"] = state[0]["flaps_size"] = 0
        state[0]["changes_at"], state[0]["changes_size"] = measured.scratch_at, 1
        write_snapshot(
            state, rules, as_of_us, handles, first, *measured.scratch, measured.out, measured.valid
        )

    def load(
        self,
        clock_us: int,
        known_us: int,
        wheel_key: int,
        customers: tuple[int, int, Iterable[pa.RecordBatch]],
        entries: tuple[int, int, Iterable[pa.RecordBatch]],
    ) -> None:
        """Fill this empty shard from the columns of a checkpoint.

        customers, entries  rows, bytes of ids, and batches: an id column, then fields of the record by name
        """
        hashes = np.zeros(customers[0] + 1, dtype=np.uint64)
        scratch = np.empty(RESTORE_BLOCK, dtype=np.uint64)
        self.state.row.clock_us = clock_us
        self.state.row.known_us = known_us
        self.state.row.wheel_key = wheel_key
        self._make_room_for(customers[0], entries[0], customers[1], entries[1])
        for batch in customers[2]:
            self._fill("customers", self.state.row.n_customers, batch)
            if self.has_extras:
                self._fill("extras", self.state.row.n_customers, batch)
            load_customer_ids(self.state.rows, *offsets_and_data(batch.column(0)), hashes)
            self._touch_ahead()
        for batch in entries[2]:
            self._fill("entries", self.state.row.n_entries, batch)
            load_entry_ids(self.state.rows, *offsets_and_data(batch.column(0)), hashes, scratch)
            self._touch_ahead()
        self._look_from = next_look(self.state.row.n_entries, self.state.row.n_entries)

    def fault(self, tiers: int) -> str | None:
        """Return what is wrong with the records just loaded, None if they fit together: see `kernels.verify`.

        tiers  how many the ruleset has
        """
        if not verify_clock(self.state.rows):
            return "the clock stands where it cannot"
        if handle := verify_customers(self.state.rows, tiers):
            return f"customer {handle} contradicts itself"
        if handle := verify_entries(self.state.rows, self.rules.rows):
            return f"entry {handle} contradicts the others"
        return None

    def arm(self) -> None:
        """File every customer that was loaded under its deadline."""
        self._rearm()

    def frozen(self) -> "Shard":
        """Return a copy of what a checkpoint reads, which later events leave alone."""
        state = self.state.row
        used = {
            "customers": state.n_customers,
            "entries": state.n_entries,
            "id_data": state.id_bytes + SPARE_BYTES,
            "id_base": state.n_entries // GROUP + 1,
            "key_data": state.key_bytes + SPARE_BYTES,
        }
        dtypes = {name: dtype for name, (dtype, _) in _ARENAS.items()} | {"extras": EXTRA}
        if self.has_extras:
            used["extras"] = used["customers"]
        arenas = {name: Arena(dtypes[name], size) for name, size in used.items()}
        for name, size in used.items():
            arenas[name].array.view(np.uint8)[:] = self._arenas[name].array[:size].view(np.uint8)
        other = copy(self)
        # A record of its own: who points to an arena keeps it from growing.
        other.state = KernelRecord(STATE, **{name: int(state[name]) for name in _FROZEN})
        other.state.point(**{name: arena.array for name, arena in arenas.items()})
        other._arenas = arenas  # noqa: SLF001 - another one of this class
        other._is_frozen = True  # noqa: SLF001
        return other

    def customer_records(self) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return CUSTOMER[c] by handle and the bytes of long ids; hold them no longer than until the next event."""
        return self._arenas["customers"].array, self._arenas["key_data"].array

    def entry_records(self) -> NDArray[Any]:
        """Return ENTRY[e] by handle; hold it no longer than until the next event."""
        return self._arenas["entries"].array[: self.state.row.n_entries]

    def customer_ids(
        self,
        handles: NDArray[np.uint32],
        offsets: NDArray[np.int32] | None = None,
        data: NDArray[np.uint8] | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Return offsets i32[n + 1] and bytes of the ids of customers (u32[n]), as Arrow has them.

        offsets, data  where to write them, SPARE_BYTES more than there are; default: new arrays
        """
        customers, key_data = self.customer_records()
        if offsets is None:
            offsets = np.empty(handles.size + 1, dtype=np.int32)
        size = size_customer_ids(customers, handles, offsets)
        if data is None:
            data = np.empty(size + SPARE_BYTES, dtype=np.uint8)
        gather_customer_ids(customers, key_data, handles, offsets, data)
        return offsets, data

    def entry_ids(self, entries: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Return offsets i32[n + 1] and bytes of the ids of entries (i64[n], 0: none), as Arrow has them."""
        offsets = np.empty(entries.size + 1, dtype=np.int32)
        source = np.empty(entries.size, dtype=np.int64)
        size = size_entry_ids(self.state.rows, entries, offsets, source)
        data = np.empty(size + SPARE_BYTES, dtype=np.uint8)
        gather_entry_ids(self.state.rows, source, offsets, data)
        return offsets, data

    def memory(self) -> dict[str, int]:
        """Return the bytes in use, by what they hold."""
        state = self.state.row
        entries = state.n_entries
        asked = {"extras": state.n_customers * EXTRA.itemsize} if self.has_extras else {}
        return asked | {
            "customers": state.n_customers * CUSTOMER.itemsize,
            "customer_index": self._tables["index"].pairs.nbytes,
            "timers": (state.n_chunks - state.n_free_chunks) * _CHUNK.itemsize,
            "orders": entries * ENTRY.itemsize + (entries // GROUP + 1) * 8,
            "order_index": self._tables["orders"].pairs.nbytes,
            "ids": state.id_bytes + state.key_bytes,
        }

    def _ask(self, rules: KernelRecord) -> None:
        """Have the memory that a ruleset asks for."""
        if rules.row.signals_max == 0:
            return
        self.make_extras()
        least = max(2 * BLOCK, 2 * rules.row.signals_max)
        if self._signals.size < least:
            count = self.state.row.n_signals
            self._signals = np.concatenate([self._signals[:count], np.empty(least - count, dtype=SIGNAL)])
            self.state.point(signals=self._signals)

    def _fill(self, name: str, first: int, batch: pa.RecordBatch) -> None:
        """Write the fields of a record that are among a batch's columns to the records from `first` on."""
        part = self._arenas[name].array[first : first + batch.num_rows]
        for field in set(part.dtype.names) & set(batch.schema.names):
            part[field] = batch[field].to_numpy()

    def _clear_timers(self) -> None:
        """Forget who is due when."""
        state = self.state.row
        state.n_chunks = 1
        state.free_chunk = state.n_free_chunks = state.kept_chunk = state.n_today = 0
        state.kept_min_us = FOREVER_US
        self.state.point(
            buckets=np.zeros(layout.BUCKETS, dtype=np.int32),
            slots=np.zeros(layout.BUCKET_SLOTS, dtype=np.int32),
            slot_min_us=np.full(layout.BUCKET_SLOTS, FOREVER_US, dtype=np.int64),
        )

    def _rearm(self) -> None:
        """File every customer under its deadline."""
        first, end = 1, self.state.row.n_customers
        while (first := rearm(self.state.rows, first, end)) < end:
            self._make_room(layout.GROW)

    def _make_room(self, status: int) -> None:
        if status == layout.OUTPUT_FULL:
            state = self.state.row
            if state.n_changes >= self._changes.size:
                self._changes = np.concatenate([self._changes, np.empty_like(self._changes)])
                self.state.point(changes=self._changes)
            if state.n_signals + self.rules.row.signals_max > self._signals.size:
                self._signals = np.concatenate([self._signals, np.empty_like(self._signals)])
                self.state.point(signals=self._signals)
        elif status == layout.GROW:
            self._make_room_for(BLOCK, _ROOM_ENTRIES, _ROOM_KEY_BYTES, _ROOM_ID_BYTES)

    def _make_room_for(self, customers: int, entries: int, key_bytes: int, id_bytes: int) -> None:
        """Make room for so much more of everything.

        Errors  StateError  handles of 32 bits number no more customers, or orders and notes
        """
        state = self.state.row
        for what, count in (
            ("customers", state.n_customers + customers),
            ("orders and notes", state.n_entries + entries),
        ):
            if count > HANDLES_MAX:
                raise StateError(
                    f"a shard holds {HANDLES_MAX:,} {what} at the most",
                    fix="spread the customers over more threads, or a topic over more partitions, and begin anew",
                )
        self._reserve("customers", state.n_customers + customers)
        if self.has_extras:
            # The kernels look at the room for customers only.
            self._reserve("extras", self._arenas["customers"].array.shape[0])
        self._reserve("entries", state.n_entries + entries)
        self._reserve("id_data", state.id_bytes + id_bytes)
        # The kernels look at the room for entries only, so every entry there is room for has a group.
        self._reserve("id_base", self._arenas["entries"].array.shape[0] // GROUP + 1)
        self._reserve("key_data", state.key_bytes + key_bytes)
        self._reserve("chunks", state.n_chunks - state.n_free_chunks + 2 * PUSH_RESERVE)
        self._tables["index"].make_room(customers)
        self._tables["orders"].make_room(entries)

    def _touch_ahead(self) -> None:
        if not self.touches_ahead:
            return
        state = self.state.row
        self._arenas["entries"].touch_ahead(state.n_entries)
        self._arenas["customers"].touch_ahead(state.n_customers)
        if self.has_extras:
            self._arenas["extras"].touch_ahead(state.n_customers)
        self._arenas["id_data"].touch_ahead(state.id_bytes)
        for table in self._tables.values():
            table.touch_ahead()

    def _reserve(self, name: str, least: int) -> None:
        arena = self._arenas[name]
        if arena.array.shape[0] < least:
            self.state.release(name)  # an arena grows in place only while nobody looks at it
            # The kernels ask for room before they use what is not there, so no more may be there than has a number.
            arena.grow(least, HANDLES_MAX if name in ("customers", "entries") else None)
            self.state.point(**{name: arena.array})
