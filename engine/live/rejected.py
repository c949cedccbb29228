"""What the views of a partition reject: each row told once for a reason, with the views that reject it.

Source: docs/semantics.md 10.
"""

from collections.abc import Sequence
from typing import Any

from rfmstream.engine.core.view import ViewEngine
from rfmstream.engine.events.json_members import attribute_text
from rfmstream.engine.events.json_rows import parse_object
from rfmstream.engine.live.model import Headers, LogBatch, RawRecords, Rejection
from rfmstream.engine.live.spans import integers
from rfmstream.engine.live.state import State

_MALFORMED = "malformed"


class Rejected:
    """Gathers what the views of a state reject of some records."""

    def __init__(self, state: State) -> None:
        self._is_plain = state.is_plain
        self._order = {name: place for place, name in enumerate(state.names)}
        self._rows: dict[tuple[int, int, str], Rejection] = {}
        self._views: dict[tuple[int, int, str], list[str]] = {}

    def add(self, of: ViewEngine, row: Rejection) -> None:
        """Take a row that a view rejects."""
        key = row.offset, row.row, row.reason
        self._rows.setdefault(key, row)
        self._views.setdefault(key, []).append(of.view.name)

    def refuse(self, of: ViewEngine, rows: Sequence[Rejection], batch: LogBatch) -> list[str]:
        """Take those of the rows that could not be read which are a view's; return the reasons.

        What says nothing of the columns that a view looks at, as it cannot be read at all, may be anybody's; so may
        what an input map could not read.
        """
        reasons = []
        for row in rows:
            reason: str | None = row.reason
            if of.view.attributes and batch.texts is None:
                reason = _reason_in(of, row, batch.records)
            if reason is not None:
                self.add(of, row if reason == row.reason else row._replace(reason=reason))
                reasons.append(reason)
        return reasons

    def sorted(self) -> list[Rejection]:
        """Return the rejected rows in order of their places."""
        rows = sorted(self._rows.items(), key=lambda item: item[0])
        if self._is_plain:
            return [row for _, row in rows]
        return [
            row._replace(views=tuple(sorted(self._views[key], key=self._order.__getitem__)))
            for key, row in rows
        ]


def _reason_in(of: ViewEngine, row: Rejection, records: RawRecords) -> str | None:
    """Return why a view rejects a row that could not be read; None: the row is none of its own."""
    record = _object(row.original)
    if record is None:
        return row.reason
    at = int(integers(records.offsets).searchsorted(row.offset))
    headers = records.headers[at] if at < len(records.headers) else ()
    erases = record.get("type") == "erased"
    for name, values in of.view.where:
        text = _said(record, headers, name)
        if text not in values and not (text is None and erases):
            return None
    if of.view.per is not None and not erases and _said(record, headers, of.view.per) is None:
        return _MALFORMED
    return row.reason


def _object(original: bytes | None) -> dict[str, Any] | None:
    """Return the order a row's bytes stand for, that in a CloudEvent's `data` too."""
    record = parse_object(original or b"")
    if record is not None and "specversion" in record and isinstance(record.get("data"), dict):
        data: dict[str, Any] = record["data"]
        return data
    return record


def _said(record: dict[str, Any], headers: Headers, name: str) -> str | None:
    text = attribute_text(record.get(name))
    if text is not None:
        return text
    for prefix in ("", "ce_"):
        for header, value in headers:
            if header == prefix + name and value:
                return value.decode("utf-8", "replace")
    return None
