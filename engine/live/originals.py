"""Finds the bytes of a row again, for rows that are rejected only when they are applied."""

from collections.abc import Sequence

from rfmstream.engine.live.arrow_records import read_stream, row_texts
from rfmstream.engine.live.model import Headers, LogBatch
from rfmstream.engine.live.payload import form_of, is_arrow, rows_of
from rfmstream.schemas.plan import ATTRIBUTE


class Originals:
    """Finds the bytes of the rows of a batch; a record of many rows is taken apart once, when it is first asked for."""

    def __init__(self, batch: LogBatch) -> None:
        self._batch = batch
        self._attributes = [
            name.removeprefix(ATTRIBUTE) for name in batch.orders.schema.names if name.startswith(ATTRIBUTE)
        ]
        self._record = -1
        self._rows: list[bytes] = []

    def of(self, record: int, place: int) -> bytes | None:
        """Return the bytes of a row: its record's value where that is its only row, else its own JSON text.

        In      record, place  the record's ordinal, and the row's place in it; ask in ascending order
        """
        first, stop = self._batch.firsts[record : record + 2].tolist()
        if self._batch.texts is not None:
            return self._batch.texts[first + place] or self._batch.records.values[record]
        if record != self._record:
            value: bytes | None = self._batch.records.values[record]
            if stop - first == 1 or value is None:
                return value
            self._record = record
            self._rows = _texts(value, self._batch.records.headers[record], self._attributes)
        return self._rows[place]


def _texts(value: bytes, headers: Headers, attributes: Sequence[str]) -> list[bytes]:
    form = form_of(headers)
    if not is_arrow(value, form):
        rows = rows_of(value, form)
        assert rows is not None, "a record with rows can be read"
        return [row.text for row in rows]
    return row_texts(read_stream(value), attributes)
