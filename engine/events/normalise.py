"""Order events of any sensible Arrow types to a canonical batch and the rows that cannot be made canonical.

Source  docs/semantics.md section 1
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.events.amounts import Amount, ColumnAmount, Minor
from rfmstream.engine.events.attributes import attribute_columns, with_attributes
from rfmstream.engine.events.text import nulls, plain, shown_text, text_buffers, to_text
from rfmstream.engine.events.times import Instants, read_instants
from rfmstream.kernels.parse import (
    ABSENT,
    BAD,
    OK,
    UNKNOWN_WORD,
    check_text,
    ids_are_clean,
    is_ascii,
    lengths_within,
    mark_rounded,
    match_words,
)
from rfmstream.schemas.codes import ID_BYTES_MAX, REJECTIONS, OrderType, Outcome
from rfmstream.schemas.currencies import CURRENCY_EXPONENTS, currency_exponent
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.orders import CANONICAL_SCHEMA, ORDER_TYPES, REJECTED_SCHEMA

SHOWN: Final = ("customer_id", "order_id", "type", "occurred_at", "amount", "currency", "event_id")
"""The columns of a rejected row that show the row as it came."""

CONTRACT_COLUMNS: Final = (*SHOWN, "amount_minor")
_REQUIRED: Final = ("customer_id", "order_id", "occurred_at")
_CURRENCIES: Final = pa.array(list(CURRENCY_EXPONENTS), pa.string())
_INT32_MAX: Final = 2**31 - 1
_MINOR_EXPONENT_MAX: Final = max(CURRENCY_EXPONENTS.values())


@dataclass(frozen=True)
class Fields:
    """The fields of n order events, parsed but not yet judged.

    Fields  customer_id, order_id, event_id  string[n], bytes not yet checked; event_id may be None
            types        u8[n] OrderType codes, UNKNOWN_WORD for another word; None: all paid
            occurred_at  instants with status
            amount       minor units on demand, by exponent
            currency     string[n] or None
            shown        what a rejected row shows, by the names in SHOWN; a missing name shows null
            malformed    bool[n] or None: rows the reader knows to be damaged
            attributes   string[n] by name: what views look at
            are_parts    they are parts of orders, of which only the sum must not be less than zero
    """

    customer_id: pa.Array
    order_id: pa.Array
    types: np.ndarray[Any, Any] | None
    occurred_at: Instants
    amount: Amount
    currency: pa.Array | None
    event_id: pa.Array | None
    shown: Mapping[str, pa.Array]
    malformed: np.ndarray[Any, Any] | None = None
    attributes: Mapping[str, pa.Array] = field(default_factory=dict)
    are_parts: bool = False

    def take(self, at: np.ndarray[Any, Any], amount: Amount) -> "Fields":
        """Return the rows at these positions, with their amounts as given."""
        where = pa.array(at)
        status = self.occurred_at.status
        return Fields(
            self.customer_id.take(where),
            self.order_id.take(where),
            None if self.types is None else self.types[at],
            Instants(self.occurred_at.us[at], None if status is None else status[at]),
            amount,
            None if self.currency is None else self.currency.take(where),
            None if self.event_id is None else self.event_id.take(where),
            {name: array.take(where) for name, array in self.shown.items()},
            None if self.malformed is None else self.malformed[at],
            {name: array.take(where) for name, array in self.attributes.items()},
            self.are_parts,
        )


def normalise(  # noqa: PLR0913 - options by keyword
    table: pa.Table | pa.RecordBatch,
    *,
    currency: str,
    time_zone: str = "UTC",
    first_row: int = 0,
    source: str | None = None,
    rows: np.ndarray[Any, Any] | None = None,
    names: Sequence[str] | None = None,
    keeps_foreign: bool = False,
    attributes: Sequence[str] = (),
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Split a table with the contract's columns into a canonical batch and a batch of rejected rows.

    In      table      columns of `schemas.orders.ORDER_SCHEMA` in any types that say the same; others ignored
            currency   the ruleset's; its exponent gives the minor units
            time_zone  of times without one
            first_row  ordinal of the first row; `rows` i64[n] where the ordinals have gaps
            names      all columns of the source, where the table has only some of them
            keeps_foreign  see `canonicalise`
            attributes  columns that views look at: both batches have them, too, as `attribute.NAME`
    Out     (CANONICAL_SCHEMA, REJECTED_SCHEMA), both in order of row; clean columns pass without a copy
    Errors  InputError   a required column is missing or of a type that cannot be one
            ConfigError  an unknown currency or time zone
    """
    columns = contract_columns(table, source, names)
    types = columns.get("type")
    fields = Fields(
        customer_id=to_text(columns["customer_id"], "customer_id"),
        order_id=to_text(columns["order_id"], "order_id"),
        types=None if types is None else type_codes(to_text(types, "type")),
        occurred_at=read_instants(columns["occurred_at"], time_zone=time_zone),
        amount=ColumnAmount(columns.get("amount"), columns.get("amount_minor")),
        currency=_optional_text(columns, "currency"),
        event_id=_optional_text(columns, "event_id"),
        shown=columns,
        attributes=attribute_columns(
            table,
            attributes,
            source=source,
            names=names,
            may_be_missing=types is not None and _only_erases(table),
        )
        if attributes
        else {},
    )
    if rows is None:
        rows = np.arange(first_row, first_row + table.num_rows, dtype=np.int64)
    return canonicalise(fields, currency=currency, rows=rows, source=source, keeps_foreign=keeps_foreign)


def contract_columns(
    table: pa.Table | pa.RecordBatch, source: str | None, all_names: Sequence[str] | None = None
) -> dict[str, pa.Array]:
    """Return the contract's columns that are there, plain; refuse a table that lacks one it must have."""
    names = table.schema.names
    missing = [name for name in _REQUIRED if name not in names]
    if "amount" not in names and "amount_minor" not in names:
        missing.append("amount (or amount_minor)")
    if missing and names.count("type") == 1 and _only_erases(table):
        missing = [name for name in missing if name in ("customer_id", "occurred_at")]
    if missing:
        raise InputError(
            f"no column {', '.join(missing)}; the columns are {', '.join(all_names or names) or 'none'}",
            source=source,
            fix="rename them, or name an input map that says which column is which (and which character divides them)",
        )
    found = {}
    for name in CONTRACT_COLUMNS:
        at = table.schema.get_all_field_indices(name)
        if len(at) > 1:
            raise InputError(f"there are {len(at)} columns {name}", source=source, fix="keep one of them")
        if at:
            array = plain(table.column(at[0]))
            if not (pa.types.is_null(array.type) and name not in _REQUIRED):
                found[name] = array
    if "amount" not in found and "amount_minor" not in found:
        found["amount"] = nulls(table.num_rows)
    if "order_id" not in found:
        found["order_id"] = nulls(table.num_rows)
    return found


def _only_erases(table: pa.Table | pa.RecordBatch) -> bool:
    """Tell whether a table holds no event that needs an order and an amount; so where it holds no event at all."""
    codes = type_codes(to_text(plain(table.column("type")), "type"))
    return table.num_rows == 0 or (codes is not None and bool((codes == OrderType.ERASED).all()))


def _optional_text(columns: Mapping[str, pa.Array], name: str) -> pa.Array | None:
    return to_text(columns[name], name) if name in columns else None


_WORD_OFFSETS, _WORD_DATA, _ = text_buffers(pa.array(ORDER_TYPES, pa.string()))


def type_codes(text: pa.Array) -> np.ndarray[Any, Any] | None:
    """Return u8[n] OrderType codes, UNKNOWN_WORD for other words; null and empty are paid. None: all paid."""
    codes = np.empty(len(text), np.uint8)
    match_words(*text_buffers(text), _WORD_OFFSETS, _WORD_DATA, int(OrderType.PAID), codes)
    return codes if codes.any() else None


def canonicalise(
    fields: Fields,
    *,
    currency: str,
    rows: np.ndarray[Any, Any],
    source: str | None,
    keeps_foreign: bool = False,
) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Judge parsed fields: the canonical batch, and the rejected rows each with the first reason that holds.

    In      keeps_foreign  rows in other currencies are right, too, in minor units of theirs: the batch has a column
                           `currency`, null where it is the run's own
    Errors  ConfigError  an unknown currency
    """
    count = len(rows)
    event_id = nulls(count) if fields.event_id is None else fields.event_id
    event_fault = None if fields.event_id is None else _event_faults(event_id)
    if event_fault is not None:
        event_id = _without_empty(event_id, event_fault)
    foreign = None if fields.currency is None else _foreign(fields.currency, currency)
    abroad = None
    if keeps_foreign and foreign is not None and fields.currency is not None:
        known = pc.is_in(fields.currency, value_set=_CURRENCIES).to_numpy(zero_copy_only=False)
        abroad, foreign = foreign & known, foreign & ~known
    amount = _amounts(fields, currency, foreign, abroad)
    faults = _reasons(fields, amount, foreign, event_fault, count)
    types = np.zeros(count, np.uint8) if fields.types is None else fields.types
    minor = amount.minor
    needless = None if fields.types is None else _needs_no_amount(fields.types)
    if needless is not None and needless.any():
        minor = np.where(needless, 0, minor)
        # Who is erased need not name an order; the core wants text.
        fields = replace(fields, order_id=pc.fill_null(fields.order_id, ""))
    batch = _batch(fields, types, minor, event_id, rows)
    if keeps_foreign:
        codes = nulls(count)
        if abroad is not None:
            codes = pc.if_else(pa.array(abroad), fields.currency, codes)
        batch = batch.append_column("currency", codes)
    if fields.attributes:
        batch = with_attributes(batch, fields.attributes)
    if faults is None:
        return batch, NO_REJECTED if not fields.attributes else _no_rejected(fields.attributes)
    return batch.filter(pa.array(faults == 0)), _rejected(fields, faults, rows, source)


def _batch(
    fields: Fields,
    types: np.ndarray[Any, Any],
    minor: np.ndarray[Any, Any],
    event_id: pa.Array,
    rows: np.ndarray[Any, Any],
) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [
            fields.customer_id,
            fields.order_id,
            _fixed(pa.uint8(), types),
            _fixed(CANONICAL_SCHEMA.field("occurred_at").type, fields.occurred_at.us),
            _fixed(pa.int64(), minor),
            event_id,
            _fixed(pa.int64(), rows),
        ],
        schema=CANONICAL_SCHEMA,
    )


def _fixed(kind: pa.DataType, values: np.ndarray[Any, Any]) -> pa.Array:
    """Return a numpy column as an Arrow array over the same memory."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def id_faults(text: pa.Array) -> np.ndarray[Any, Any] | None:
    """Return u8[n] OK, ABSENT or BAD; None: all OK."""
    offsets, data, valid = text_buffers(text)
    if len(valid) == 0 and ids_are_clean(offsets, data):
        return None
    status = np.empty(len(text), np.uint8)
    check_text(offsets, data, valid, ID_BYTES_MAX, status)
    return status if status.any() else None


def rounded_ids(text: pa.Array) -> np.ndarray[Any, Any] | None:
    """Return bool[n], true for ids that a spreadsheet has rounded, such as 1.23E+15; None: there are none."""
    offsets, data, valid = text_buffers(text)
    rounded = np.empty(len(text), np.bool_)
    return rounded if mark_rounded(offsets, data, valid, rounded) else None


def _event_faults(text: pa.Array) -> np.ndarray[Any, Any] | None:
    """Return u8[n] OK, ABSENT or BAD of optional ids; None: nothing to change (nulls, or clean text)."""
    offsets, data, valid = text_buffers(text)
    if text.null_count == len(text) or (
        len(valid) == 0
        and lengths_within(offsets, 1, _INT32_MAX)
        and is_ascii(data, int(offsets[0]), int(offsets[-1]))
    ):
        return None
    status = np.empty(len(text), np.uint8)
    check_text(offsets, data, valid, _INT32_MAX, status)
    return status


def _without_empty(event_id: pa.Array, status: np.ndarray[Any, Any]) -> pa.Array:
    """Return the event ids with empty ones null: a CSV file has no other way to leave one out."""
    if int((status == ABSENT).sum()) == event_id.null_count:
        return event_id
    mask = pa.py_buffer(np.packbits(status != ABSENT, bitorder="little"))
    offsets, data, _ = text_buffers(event_id)
    return pa.Array.from_buffers(
        pa.string(), len(event_id), [mask, pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(data)]
    )


def _foreign(text: pa.Array, currency: str) -> np.ndarray[Any, Any] | None:
    """Return bool[n], true where a currency is named that is not `currency`; None: nowhere."""
    word_offsets, word_data, _ = text_buffers(pa.array([currency], pa.string()))
    codes = np.empty(len(text), np.uint8)
    all_own = match_words(*text_buffers(text), word_offsets, word_data, 0, codes)
    return None if all_own else codes == UNKNOWN_WORD


def _amounts(
    fields: Fields,
    currency: str,
    foreign: np.ndarray[Any, Any] | None,
    abroad: np.ndarray[Any, Any] | None = None,
) -> Minor:
    """Return minor units; an amount in another currency is measured by that currency's decimals.

    12.50 USD is a good amount in a JPY run: the row must be rejected for its currency, not for its digits.
    """
    exponent = currency_exponent(currency)
    amount = fields.amount.minor(exponent)
    if foreign is None or (amount.status is None and abroad is None):
        return amount
    status = np.zeros(len(foreign), np.uint8) if amount.status is None else amount.status
    measured = foreign & (status == BAD)
    doubtful = np.flatnonzero(measured if abroad is None else measured | abroad)
    if len(doubtful) == 0:
        return amount
    assert fields.currency is not None, "no row is foreign without a currency column"
    codes = shown_text(fields.currency.take(pa.array(doubtful))).to_pylist()
    exponents = np.array([CURRENCY_EXPONENTS.get(code, _MINOR_EXPONENT_MAX) for code in codes])
    minor, status = amount.minor.copy(), status.copy()
    for other_exponent in set(exponents.tolist()):
        at = doubtful[exponents == other_exponent]
        other = fields.amount.minor(other_exponent)
        minor[at] = other.minor[at]
        status[at] = OK if other.status is None else other.status[at]
    return Minor(minor, status)


def _reasons(
    fields: Fields,
    amount: Minor,
    foreign: np.ndarray[Any, Any] | None,
    event_fault: np.ndarray[Any, Any] | None,
    count: int,
) -> np.ndarray[Any, Any] | None:
    """Return u8[n] Outcome codes, 0 for a good row; None: all good."""
    # Written in the reverse order of precedence: the last one to hold stays.
    types, minor = fields.types, amount.minor
    may_be_negative = False if types is None else (types == OrderType.ADJUSTED) | _needs_no_amount(types)
    customer, order = id_faults(fields.customer_id), id_faults(fields.order_id)
    if order is not None and types is not None:
        order = np.where((types == OrderType.ERASED) & (order == ABSENT), OK, order)
    unknown = None if types is None else types == UNKNOWN_WORD
    negative = (
        (minor < 0) & ~np.asarray(may_be_negative)
        if count and minor.min() < 0 and not fields.are_parts
        else None
    )
    found = [
        *(
            (Outcome.ROUNDED_ID, rounded_ids(ids))
            for ids in (fields.customer_id, fields.order_id, fields.event_id)
            if ids is not None
        ),
        (Outcome.UNKNOWN_TYPE, unknown),
        (Outcome.CURRENCY_MISMATCH, foreign),
        (Outcome.NEGATIVE_AMOUNT, negative if unknown is None or negative is None else negative & ~unknown),
        (Outcome.BAD_AMOUNT, _bad_amount(types, amount.status)),
        (Outcome.BAD_TIME, None if fields.occurred_at.status is None else fields.occurred_at.status != OK),
        (Outcome.MISSING_ORDER_ID, None if order is None else order == ABSENT),
        (Outcome.MISSING_CUSTOMER_ID, None if customer is None else customer == ABSENT),
        *(
            (Outcome.MALFORMED, None if fault is None else fault == BAD)
            for fault in (customer, order, event_fault)
        ),
        (Outcome.MALFORMED, fields.malformed),
    ]
    reasons = None
    for outcome, where in found:
        if where is not None and where.any():
            reasons = np.zeros(count, np.uint8) if reasons is None else reasons
            reasons[where] = outcome
    return reasons


def _bad_amount(
    types: np.ndarray[Any, Any] | None, status: np.ndarray[Any, Any] | None
) -> np.ndarray[Any, Any] | None:
    if status is None:
        return None
    if types is None:
        bad: np.ndarray[Any, Any] = status != OK
        return bad
    needed: np.ndarray[Any, Any] = (status == BAD) | ((status == ABSENT) & ~_needs_no_amount(types))
    return needed


def _needs_no_amount(types: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return bool[n]: events of the types that say nothing by their amount."""
    needless: np.ndarray[Any, Any] = (types == OrderType.CANCELLED) | (types == OrderType.ERASED)
    return needless


NO_ORDERS: Final = pa.RecordBatch.from_arrays(
    [pa.array([], column.type) for column in CANONICAL_SCHEMA], schema=CANONICAL_SCHEMA
)
NO_REJECTED: Final = pa.RecordBatch.from_arrays(
    [pa.array([], field.type) for field in REJECTED_SCHEMA], schema=REJECTED_SCHEMA
)

_REASON_WORDS: Final = pa.array(
    [None] * int(REJECTIONS[0]) + [outcome.name.lower() for outcome in REJECTIONS], pa.string()
)


def _rejected(
    fields: Fields, faults: np.ndarray[Any, Any], rows: np.ndarray[Any, Any], source: str | None
) -> pa.RecordBatch:
    at = np.flatnonzero(faults)
    where = pa.array(at)
    shown = {name: shown_text(array.take(where)) for name, array in fields.shown.items()}
    if "amount_minor" in shown:
        minor = shown["amount_minor"]
        shown["amount"] = minor if "amount" not in shown else pc.coalesce(minor, shown["amount"])
    made = rejected_batch(rows[at], source, _REASON_WORDS.take(pa.array(faults[at])), shown)
    return with_attributes(made, {name: array.take(where) for name, array in fields.attributes.items()})


def _no_rejected(attributes: Iterable[str]) -> pa.RecordBatch:
    return with_attributes(NO_REJECTED, {name: nulls(0) for name in attributes})


def rejected_batch(
    rows: np.ndarray[Any, Any],
    source: str | None,
    reason: pa.Array,
    shown: Mapping[str, pa.Array],
    raw: pa.Array | None = None,
) -> pa.RecordBatch:
    """Build a batch of REJECTED_SCHEMA; the columns of SHOWN that are not given are null."""
    count = len(rows)
    blank = nulls(count)
    origin = blank if source is None else pa.repeat(pa.scalar(source, pa.string()), count)
    return pa.RecordBatch.from_arrays(
        [
            _fixed(pa.int64(), rows),
            origin,
            reason,
            *(shown.get(name, blank) for name in SHOWN),
            blank if raw is None else raw,
        ],
        schema=REJECTED_SCHEMA,
    )
