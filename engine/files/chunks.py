"""What a reader hands on: source columns, the ordinals of their rows, and the damaged rows between them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows of one file.

    Fields  source        the file's name
            names         all columns of the file
            batch         the wanted ones of them
            rows          i64[n] ordinals of the batch's rows
            damaged_rows  ordinals of rows that could not be split into columns, ascending
            damaged_raw   their text
            dates_are_iso  its dates are ISO 8601, whatever the map says of text, for they were dates
            sheets_unread  other sheets of its workbook that are shown, said once
            orders        rows between them that were found to be good orders already, of CANONICAL_SCHEMA
    """

    source: str
    names: tuple[str, ...]
    batch: pa.RecordBatch
    rows: np.ndarray[Any, Any]
    damaged_rows: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(0, np.int64))
    damaged_raw: tuple[str, ...] = ()
    orders: pa.RecordBatch | None = None
    dates_are_iso: bool = False
    sheets_unread: tuple[str, ...] = ()

    @property
    def row_count(self) -> int:
        """Rows of the file that are told of here."""
        return len(self.rows) + len(self.damaged_rows) + (0 if self.orders is None else self.orders.num_rows)
