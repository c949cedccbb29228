"""Plain JSON orders to a canonical batch by the scanner, with word which rows must take the ordinary path."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from rfmstream.engine.events.attributes import with_attributes
from rfmstream.kernels.json_orders import scan_orders
from rfmstream.kernels.json_text import PAD_BYTES
from rfmstream.schemas.currencies import currency_exponent
from rfmstream.schemas.orders import CANONICAL_SCHEMA

PAD: Final = bytes(PAD_BYTES)
_UTC: Final = ("UTC", "Etc/UTC", "Z")
_SPARE_BYTES: Final = 8


class OrderScanner:
    """Scans the orders of one currency and one zone; keeps nothing between calls.

    attributes  columns that views look at: the orders have them, too

    Errors  ConfigError  an unknown currency
    """

    def __init__(self, *, currency: str, time_zone: str = "UTC", attributes: Sequence[str] = ()) -> None:
        self._attributes = tuple(attributes)
        self._exponent = currency_exponent(currency)
        self._currency = np.frombuffer(currency.encode(), np.uint8)
        self._is_utc = time_zone in _UTC

    def scan(
        self,
        data: np.ndarray[Any, Any],
        starts: np.ndarray[Any, Any],
        ends: np.ndarray[Any, Any],
        *,
        first_row: int = 0,
    ) -> tuple[pa.RecordBatch, np.ndarray[Any, Any]]:
        """Read the rows that are plain, good orders; the others say nothing until they are parsed.

        In   data u8[]  with PAD_BYTES after the last row, below 2 GiB;  starts, ends i64[n]  one JSON text a row
        Out  the orders of CANONICAL_SCHEMA, `row` being `first_row` + the place in `starts`
             bool[n], true for those rows
        """
        n = len(starts)
        size = int((ends - starts).sum()) + _SPARE_BYTES
        accepted = np.empty(n, np.bool_)
        rows, us, minor = np.empty((3, n), np.int64)
        types, event_valid = np.empty(n, np.uint8), np.zeros((n + 7) // 8, np.uint8)
        id_offsets = np.empty((3, n + 1), np.int32)
        texts = [np.empty(size, np.uint8) for _ in range(3)]
        count = int(
            scan_orders(
                *(data, starts, ends, self._exponent, self._currency, self._is_utc),
                *(np.empty((8, 3), np.int64), np.zeros((16, 6), np.uint64)),
                *(accepted, rows, types, us, minor, id_offsets, *texts, event_valid),
            )
        )
        customer_id, order_id, event_id = (
            pa.StringArray.from_buffers(
                count, pa.py_buffer(offsets[: count + 1]), pa.py_buffer(text[: offsets[count]]), valid
            )
            for offsets, text, valid in zip(
                id_offsets, texts, (None, None, pa.py_buffer(event_valid)), strict=True
            )
        )
        instants = pa.Array.from_buffers(
            CANONICAL_SCHEMA.field("occurred_at").type, count, [None, pa.py_buffer(us)]
        )
        batch = pa.RecordBatch.from_arrays(
            [
                *(customer_id, order_id, pa.array(types[:count]), instants),
                *(pa.array(minor[:count]), event_id, pa.array(rows[:count] + first_row)),
            ],
            schema=CANONICAL_SCHEMA,
        )
        if self._attributes:
            batch, accepted = self._attributed(batch, accepted, data, starts, ends)
        return batch, accepted

    def _attributed(
        self,
        batch: pa.RecordBatch,
        accepted: np.ndarray[Any, Any],
        data: np.ndarray[Any, Any],
        starts: np.ndarray[Any, Any],
        ends: np.ndarray[Any, Any],
    ) -> tuple[pa.RecordBatch, np.ndarray[Any, Any]]:
        """Add the attributes to the orders; rows where one is no text take the ordinary path, which keeps digits."""
        text, at = memoryview(data.data), np.flatnonzero(accepted)
        found = zip(starts[at].tolist(), ends[at].tolist(), strict=True)
        records = [_object(text[start:end]) for start, end in found]
        plain = np.array([record is not None for record in records], np.bool_)
        columns = {}
        for name in self._attributes:
            # A dotted path may lead into an object.
            missing: object = 0 if "." in name else None
            values = [record.get(name, missing) if record is not None else None for record in records]
            plain &= np.fromiter(
                (value is None or isinstance(value, str) for value in values), np.bool_, len(values)
            )
            columns[name] = pa.array(
                [value or None if isinstance(value, str) else None for value in values], pa.string()
            )
        batch = with_attributes(batch, columns)
        if plain.all():
            return batch, accepted
        accepted = accepted.copy()
        accepted[at[~plain]] = False
        return batch.filter(pa.array(plain)), accepted


def _object(text: memoryview) -> dict[str, Any] | None:
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError:  # the ordinary path tells what is wrong
        return None
    return record if isinstance(record, dict) else None
