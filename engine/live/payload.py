"""The form of a record's value, and the rows of a value that the scanner kernel left open."""

import base64
import binascii
import re
from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

from rfmstream.engine.events.json_rows import DECODER, is_deep, parse_object
from rfmstream.engine.live.model import Headers
from rfmstream.kernels.json_split import EITHER, LINES, NEITHER, WHOLE

ROWS_MAX: Final = 1 << 20
"""How many rows one record may hold: no honest one of 16 MiB holds more, and each refused row becomes an object."""

_BLANKS: Final = re.compile(r"[ \t\n\r]*")
_LINE_SUBTYPES: Final = ("ndjson", "jsonl", "jsonlines", "json-lines", "json-l", "ldjson", "nljson")
_ARROW_MARK: Final = b"\xff\xff\xff\xff"
_FRAME_BYTES: Final = 5
_KNOWN_STARTS: Final = (
    (b"Obj\x01", "a whole Avro file"),
    (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "packed by gzip"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd"),
    (b"<", "XML or HTML"),
)
_EVENT_KEYS: Final = frozenset(("specversion", "id", "source", "type"))


class ValueForm(IntEnum):
    """The form of a record's value."""

    JSON = WHOLE
    LINES = LINES
    SNIFFED = EITHER
    ARROW = NEITHER
    ENVELOPE = NEITHER + 1
    """A CloudEvent in structured mode: the order is its `data`."""
    REFUSED = NEITHER + 2
    """A tombstone, an empty value, or one that is too long."""


class Row(NamedTuple):
    """A row as text, and the object it is; None: it is none, so the row is malformed."""

    text: bytes
    record: dict[str, Any] | None


def form_of(headers: Headers) -> ValueForm:
    """Return the form that the content-type header names; SNIFFED where it names none that is known."""
    for name, value in headers:
        if name == "content-type" or name.lower() == "content-type":
            return _form_of_type(value)
    return ValueForm.SNIFFED


@lru_cache(64)
def _form_of_type(content_type: bytes | None) -> ValueForm:
    """Return the form of a media type; its parameters and its case mean nothing here."""
    words = (content_type or b"").partition(b";")[0].decode("latin-1").strip().lower()
    kind, _, subtype = words.partition("/")
    if words == "application/json":
        return ValueForm.JSON
    if words == "application/vnd.apache.arrow.stream":
        return ValueForm.ARROW
    if words == "application/cloudevents+json":
        return ValueForm.ENVELOPE
    if kind in ("application", "text") and subtype.removeprefix("x-") in _LINE_SUBTYPES:
        return ValueForm.LINES
    return ValueForm.SNIFFED


def is_event(record: dict[str, Any]) -> bool:
    """Return whether an object is a CloudEvent in structured mode, whatever the headers say."""
    return record.keys() >= _EVENT_KEYS and not record.keys().isdisjoint(("data", "data_base64"))


def unpacked(record: dict[str, Any]) -> bytes | None:
    """Return what `data_base64` of a CloudEvent holds, None: no base64."""
    text = record.get("data_base64")
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        return None


def frame_of(value: bytes) -> int | None:
    """Return the number of the schema that a schema registry's frame names, None: it is not framed."""
    framed = value[:1] == b"\0" and len(value) > _FRAME_BYTES
    return int.from_bytes(value[1:_FRAME_BYTES], "big") if framed else None


def told(value: bytes) -> str | None:
    """Return what a value is that is no JSON, where its first bytes tell."""
    number = frame_of(value)
    if number is not None:
        return f"is framed with schema {number} of a registry, and no JSON"
    return next(
        (f"is {words}, and no JSON" for start, words in _KNOWN_STARTS if value.startswith(start)), None
    )


def _order_in(record: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return an object, or the order that is in it if it is a CloudEvent."""
    if record is None or "customer_id" in record or not is_event(record):
        return record
    data = record.get("data")
    if data is None and (packed := unpacked(record)) is not None:
        data = parse_object(packed)
    return data if isinstance(data, dict) else None


def row_of(text: bytes) -> Row:
    """Return a row of JSON: an object, or a CloudEvent that holds one."""
    return Row(text, _order_in(parse_object(text)))


def is_arrow(value: bytes, form: ValueForm) -> bool:
    """Return whether a value is, or looks like, an Arrow stream."""
    return form is ValueForm.ARROW or (form is ValueForm.SNIFFED and value.startswith(_ARROW_MARK))


def rows_of(value: bytes, form: ValueForm) -> list[Row] | None:
    """Return the rows of a value that is JSON in some form; None: the record cannot be read.

    A value without a content type is one JSON text if it is that, else JSON lines if any line is an object.
    """
    if form is ValueForm.LINES:
        return lines_of(value)
    if form is ValueForm.ENVELOPE:
        return _enclosed(value)
    record = parse_object(value)
    if record is not None:
        is_of_several = is_event(record) and "customer_id" not in record and "data" in record
        rows = _enclosed(value) if is_of_several else None
        return [Row(value, _order_in(record))] if rows is None else rows
    if value.lstrip()[:1] == b"[":
        return _items(value)
    rows = lines_of(value) if form is ValueForm.SNIFFED and b"\n" in value else None
    return rows if rows and any(row.record is not None for row in rows) else None


def lines_of(value: bytes) -> list[Row] | None:
    """Return the rows of JSON lines; None: there are none, or too many."""
    lines = [line for line in value.split(b"\n") if line.strip()]
    return [row_of(line) for line in lines] if 0 < len(lines) <= ROWS_MAX else None


def _items(value: bytes) -> list[Row] | None:
    """Return the items of a JSON array, each with its own bytes; None: it is none, or holds too many."""
    parts = _parts(value, "[", "]")
    if parts is None or len(parts) > ROWS_MAX:
        return None
    return [
        Row(text.encode(), _order_in(item) if isinstance(item, dict) else None) for _, text, item in parts
    ]


def _enclosed(value: bytes) -> list[Row] | None:
    """Return the rows in the `data` of a CloudEvent: an object or an array."""
    data = None
    record: dict[str, Any] = {}
    for name, text, item in _parts(value, "{", "}") or ():
        record[name or ""] = item
        if name == "data":
            data = text, item
    if data is None:
        packed = unpacked(record)
        rows = None if packed is None else rows_of(packed, ValueForm.SNIFFED)
        return [Row(value, rows[0].record)] if rows and len(rows) == 1 else rows
    text, item = data
    return (
        _items(text.encode())
        if isinstance(item, list)
        else [Row(value, item)]
        if isinstance(item, dict)
        else None
    )


def _parts(value: bytes, opening: str, closing: str) -> list[tuple[str | None, str, Any]] | None:
    """Return (key, text, value) of each part of a JSON array or object; None: it is none."""
    if is_deep(value):
        return None
    try:
        return list(_walk(value.decode(), opening, closing))
    except (ValueError, RecursionError):
        return None


def _walk(text: str, opening: str, closing: str) -> Iterator[tuple[str | None, str, Any]]:
    at = _after_blanks(text, 0)
    if text[at : at + 1] != opening:
        raise ValueError(f"no {opening}")
    at = _after_blanks(text, at + 1)
    more = text[at : at + 1] != closing
    while more:
        key = None
        if opening == "{":
            key, at = DECODER.raw_decode(text, at)
            at = _after_blanks(text, at)
            if text[at : at + 1] != ":" or not isinstance(key, str):
                raise ValueError("no key")
            at = _after_blanks(text, at + 1)
        value, end = DECODER.raw_decode(text, at)
        yield key, text[at:end], value
        at = _after_blanks(text, end)
        more = text[at : at + 1] == ","
        if more:
            at = _after_blanks(text, at + 1)
    if text[at : at + 1] != closing or _after_blanks(text, at + 1) != len(text):
        raise ValueError(f"no {closing} at the end")


def _after_blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    assert found is not None, "the pattern matches nothing, too"
    return found.end()
