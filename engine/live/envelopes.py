"""What stands around the orders in a record: CloudEvents, Connect's and Debezium's envelopes, batches, lists of an API.

    bytes --document--> JSON --pieces--> the objects that a map reads

Nothing here knows what an order is. What cannot be read is a piece without an object, with a word on what it is.
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from rfmstream.engine.events.json_rows import DECODER, is_deep
from rfmstream.engine.files.pages import Pages
from rfmstream.engine.live.payload import is_event, unpacked
from rfmstream.schemas.errors import InputError

_CONNECT_KEYS: Final = frozenset(("schema", "payload"))
_CHANGE_KEYS: Final = frozenset(("op", "after"))
_ROWS_KEPT: Final = ("c", "r", "u")
"""Debezium's operations that leave a row: created, read, updated. Others delete, truncate, or are messages."""
_DEPTH_MAX: Final = 8
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Piece(NamedTuple):
    """An object that a map reads; without one the row is malformed, and `detail` says what stands there."""

    record: dict[str, Any] | None
    detail: str | None = None


def document(value: bytes) -> Any:  # noqa: ANN401 - JSON
    """Return the JSON of a value: one text, or the objects of JSON lines as a list.

    Errors  ValueError  it is neither, or nests too deep
    """
    if is_deep(value):
        raise ValueError("is JSON that nests too deep")
    try:
        return DECODER.decode(value.decode())
    except (ValueError, RecursionError):
        lines = [line for line in value.split(b"\n") if line.strip()]
    if len(lines) < 2:
        raise ValueError("is no JSON")
    try:
        return [DECODER.decode(line.decode()) for line in lines]
    except (ValueError, RecursionError):
        raise ValueError("is no JSON") from None


class Envelopes:
    """Takes documents apart.

    In      pages  knows where the records lie in the objects of an API
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    def pieces(self, given: Any, depth: int = 0) -> Iterator[Piece]:  # noqa: ANN401 - JSON
        """Yield the objects of a document; none where it says that a row is gone.

        A deleted row is no order that was cancelled: tables are cleaned up, too.
        """
        if depth > _DEPTH_MAX:
            yield Piece(None, "envelopes in envelopes")
        elif isinstance(given, list):
            for item in given:
                yield from self.pieces(item, depth + 1)
        elif not isinstance(given, dict):
            yield Piece(None, "is JSON, but no object")
        elif is_event(given):
            yield from self._event(given, depth)
        elif given.keys() == _CONNECT_KEYS:
            payload = given["payload"]
            if payload is not None:
                schema = given["schema"]
                yield from self.pieces(
                    typed(payload, schema) if isinstance(schema, dict) else payload, depth + 1
                )
        elif given.keys() >= _CHANGE_KEYS and isinstance(given["op"], str) and len(given["op"]) == 1:
            if given["op"] in _ROWS_KEPT:
                yield from self.pieces(given["after"], depth + 1)
        else:
            yield from self._records(given)

    def _event(self, given: dict[str, Any], depth: int) -> Iterator[Piece]:
        """Yield the objects in the data of a CloudEvent in structured mode."""
        data = given.get("data")
        if data is None and isinstance(given.get("data_base64"), str):
            packed = unpacked(given)
            try:
                data = None if packed is None else document(packed)
            except ValueError as error:
                yield Piece(None, f"data_base64 of a CloudEvent {error}")
                return
            if packed is None:
                yield Piece(None, "data_base64 of a CloudEvent is no base64")
                return
        if data is None:
            yield Piece(None, "a CloudEvent without data")
        else:
            yield from self.pieces(data, depth + 1)

    def _records(self, given: dict[str, Any]) -> Iterator[Piece]:
        try:
            for item in self._pages.records(given):
                yield Piece(item) if isinstance(item, dict) else Piece(None, "a list of what is no object")
        except InputError as error:
            yield Piece(None, error.problem)


def typed(value: Any, schema: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """Return a value of Connect's JSON as its schema means it: decimals as digits, instants and dates as ISO 8601.

    What the schema says of no other kind stays as it is; what contradicts it becomes null, so that it is missed.
    """
    if value is None:
        return None
    kind = schema.get("type")
    if kind == "struct" and isinstance(value, dict):
        fields = {field["field"]: field for field in schema.get("fields") or () if "field" in field}
        return {key: typed(inner, fields.get(key) or {}) for key, inner in value.items()}
    if kind == "array" and isinstance(value, list):
        return [typed(inner, schema.get("items") or {}) for inner in value]
    read = _LOGICAL.get(str(schema.get("name")))
    try:
        return value if read is None else read(value, schema)
    except (AttributeError, TypeError, ValueError, OverflowError, binascii.Error):
        return None


def _decimal(value: str, schema: Mapping[str, Any]) -> str:
    scale = int((schema.get("parameters") or {}).get("scale", 0))
    unscaled = int.from_bytes(base64.b64decode(value, validate=True), "big", signed=True)
    return format(Decimal(unscaled).scaleb(-scale), "f")


def _instant_in(unit_ns: int) -> Callable[[Any, Any], str]:
    """Return what reads instants that count a unit."""

    def read(value: Any, _: Any) -> str:  # noqa: ANN401 - JSON
        return (_EPOCH + timedelta(microseconds=int(value) * unit_ns // 1000)).isoformat()

    return read


def _date(value: Any, _: Any) -> str:  # noqa: ANN401 - JSON
    return (date(1970, 1, 1) + timedelta(days=int(value))).isoformat()


_LOGICAL: Final[dict[str, Callable[[Any, Any], str]]] = {
    "org.apache.kafka.connect.data.Decimal": _decimal,
    "org.apache.kafka.connect.data.Timestamp": _instant_in(1_000_000),
    "org.apache.kafka.connect.data.Date": _date,
    "io.debezium.time.Timestamp": _instant_in(1_000_000),
    "io.debezium.time.MicroTimestamp": _instant_in(1000),
    "io.debezium.time.NanoTimestamp": _instant_in(1),
    "io.debezium.time.Date": _date,
}
"""Connect's and Debezium's names for what JSON has no kind of."""
