"""The form of a record's value, and the rows of a value that the scanner kernel left open."""

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
        return [Row(value, record)]
    if value.lstrip()[:1] == b"[":
        return _items(value)
    rows = lines_of(value) if form is ValueForm.SNIFFED and b"\n" in value else None
    return rows if rows and any(row.record is not None for row in rows) else None


def lines_of(value: bytes) -> list[Row] | None:
    """Return the rows of JSON lines; None: there are none, or too many."""
    lines = [line for line in value.split(b"\n") if line.strip()]
    return [Row(line, parse_object(line)) for line in lines] if 0 < len(lines) <= ROWS_MAX else None


def _items(value: bytes) -> list[Row] | None:
    """Return the items of a JSON array, each with its own bytes; None: it is none, or holds too many."""
    parts = _parts(value, "[", "]")
    if parts is None or len(parts) > ROWS_MAX:
        return None
    return [Row(text.encode(), item if isinstance(item, dict) else None) for _, text, item in parts]


def _enclosed(value: bytes) -> list[Row] | None:
    """Return the rows in the `data` of a CloudEvent: an object or an array."""
    data = None
    for name, text, item in _parts(value, "{", "}") or ():
        if name == "data":
            data = text, item
    if data is None:
        return None
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
