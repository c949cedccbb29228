"""Requests by a delivery map."""

from collections.abc import Mapping, Sequence

import orjson

from rfmstream.engine.deliver.delivery_map import DeliveryMap, Hint, RowErrors
from rfmstream.engine.deliver.forms import UnfitError
from rfmstream.engine.deliver.model import (
    ANSWER_BYTES_MAX,
    Answer,
    Delivered,
    Event,
    Item,
    Refused,
    Request,
    RowError,
    TryAgain,
    Verdict,
    verdict_of,
)
from rfmstream.engine.deliver.template import dumps


class HttpForm:
    """Speaks to a tool as its map says."""

    def __init__(self, by: DeliveryMap, headers: Mapping[str, str]) -> None:
        self._map = by
        self._more = dict(headers)

    @property
    def url(self) -> str:
        """Scheme and host."""
        return self._map.origin

    def parts(self, event: Event) -> tuple[bytes, ...]:
        """Return the event's row of each group; nothing where the group does not take it.

        Errors  UnfitError  a row is longer than the tool takes, or no group takes the event
        """
        rows = tuple(
            dumps(group.row(event)) if event.kind in group.takes else b"" for group in self._map.groups
        )
        longest = max(map(len, rows))
        if not longest:
            raise UnfitError(f"the map has no row for a {event.kind}")
        if longest > self._map.row_bytes:
            raise UnfitError(f"a row of {longest} bytes is larger than the {self._map.row_bytes} that fit")
        return rows

    def request(self, items: Sequence[Item], _: float) -> Request:
        """Put rows into a body."""
        by, first = self._map, items[0].event
        if by.body is None:
            body = items[0].parts[0]
        else:
            body = by.body(
                [
                    b",".join([item.parts[number] for item in items if item.parts[number]])
                    for number in range(len(by.groups))
                ]
            )
        headers = {name: compute(first) for name, compute in by.headers.items()} | self._more
        return Request(by.method, by.url(first), headers, body)

    def verdict(self, items: Sequence[Item], answer: Answer) -> Verdict:
        """Judge by the status, and where that is a success by what the map says of the answer."""
        by = self._map
        verdict = verdict_of(answer)
        if not isinstance(verdict, Delivered) or not (by.retry or by.refuse or by.row_errors):
            return verdict
        try:
            said = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            return verdict
        if any(_holds(said, hint) for hint in by.retry):
            return TryAgain("the answer asks to try again", answer.retry_after_s)
        if any(_holds(said, hint) for hint in by.refuse):
            return Refused(answer.status, answer.body[:ANSWER_BYTES_MAX])
        if by.row_errors is not None:
            return Delivered(self._row_errors(items, said, by.row_errors))
        return verdict

    def _row_errors(self, items: Sequence[Item], said: object, where: RowErrors) -> list[RowError]:
        errors = at_path(said, where.list)
        found = []
        for error in errors if isinstance(errors, list) else ():
            row = self._by_index(items, error, where) if where.index else _by_match(items, error, where)
            if row is not None:
                text = at_path(error, where.text) if where.text else error
                found.append(RowError(row, text if isinstance(text, str) else dumps(text).decode()))
        return found

    def _by_index(self, items: Sequence[Item], error: object, where: RowErrors) -> int | None:
        index = at_path(error, where.index or "")
        if isinstance(index, bool) or not isinstance(index, int):
            return None
        names = [group.name for group in self._map.groups]
        name = at_path(error, where.group) if where.group else names[0]
        if name not in names:
            return None
        # Of a list that not every event adds to, the index counts those that do.
        added = [row for row, item in enumerate(items) if item.parts[names.index(str(name))]]
        return added[index] if 0 <= index < len(added) else None


def _by_match(items: Sequence[Item], error: object, where: RowErrors) -> int | None:
    value = at_path(error, where.match or "")
    by = where.by
    if value is None or by is None:
        return None
    return next((row for row, item in enumerate(items) if by(item.event) == str(value)), None)


def _holds(said: object, hint: Hint) -> bool:
    value = at_path(said, hint.path)
    return bool(value) if hint.equals is None else value == hint.equals


def at_path(value: object, path: str) -> object:
    """Return what a path such as `errors.0.message` leads to; None: nowhere."""
    for step in path.split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value
