"""Typed placeholders: TOML values with {names} in them become functions from an event to JSON values.

A text that is one placeholder and nothing else keeps the type of what it names: "{frequency}" is a number,
"{next_tier}" a text or null, "{data}" the whole event. In a longer text a placeholder stands for its text. A question
mark, "{next_tier?}", leaves the key out where there is nothing; {{ and }} are braces. Filters follow after bars:
"{time|unix}", "{customer_id|lower|md5}", "{next_tier|or:none}".
"""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Final
from urllib.parse import quote

import orjson

from rfmstream.engine.deliver.forms import event_key, event_name, major_units
from rfmstream.engine.deliver.model import Event
from rfmstream.schemas.changes import CHANGE_COLUMNS, LABEL_COLUMNS
from rfmstream.schemas.errors import ConfigError

Compute = Callable[[Event], Any]

OMIT: Final = object()
"""What a key is worth that is to be left out."""

_PIECE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

_SIGNAL_COLUMNS: Final = (
    *("kind", "tier", "days", "count", "amount_minor", "at", "stay_orders", "stay_minor"),
    *("view", "population", "holdout", "bucket"),
)
"""What events may hold besides the columns of a tier change. Source  docs/semantics.md sections 9 to 11"""

DATA_NAMES: Final = (
    *(column.name for column in (*CHANGE_COLUMNS, *LABEL_COLUMNS)),
    *_SIGNAL_COLUMNS,
)


def _tier(event: Event) -> object:
    return event.data.get("to_tier" if event.kind == "change" else "tier")


def _monetary(event: Event) -> object:
    minor = event.data.get("monetary_minor")
    return None if minor is None else _Exact(major_units(int(minor), event.data.get("currency")))


class _Exact(str):
    """A number written with all its digits."""

    __slots__ = ()


EVENT_NAMES: Final[Mapping[str, tuple[str, Compute]]] = {
    "event_key": ("the event's id as receivers drop duplicates by, always the same", event_key),
    "event_name": ("RFM Tier Changed, RFM Tier Warning and the like", event_name),
    "event_kind": ("change or signal", lambda event: event.kind),
    "ce_id": ("the CloudEvents id", lambda event: event.id),
    "ce_source": ("the CloudEvents source", lambda event: event.source),
    "ce_type": ("the CloudEvents type", lambda event: event.type),
    "time": ("when it happened, ISO 8601", lambda event: event.time),
    "tier": ("the tier after it", _tier),
    "monetary": ("M in major units, with all digits", _monetary),
    "is_replay": ("whether it is history", lambda event: event.data.get("mode") == "replay"),
    "data": ("everything the event says, as an object", lambda event: orjson.Fragment(event.raw)),
}
"""Names of placeholders besides those of the event's data: what they stand for, and how it is found."""


def compile_value(
    value: object, settings: Mapping[str, str], *, key: str, file: str, extra: Collection[str] = ()
) -> Compute:
    """Compile a TOML value with placeholders.

    In      settings     names whose text is known already
            extra        names to be left as they stand, for the caller
    Errors  ConfigError  an unknown name or filter, or a lone brace
    """
    if isinstance(value, str):
        return _text(value, settings, key, file, extra)
    if isinstance(value, dict):
        inner = [
            (name, compile_value(one, settings, key=f"{key}.{name}", file=file, extra=extra))
            for name, one in value.items()
        ]

        def table(event: Event) -> object:
            return {name: found for name, one in inner if (found := one(event)) is not OMIT}

        return table
    if isinstance(value, list):
        items = [
            compile_value(one, settings, key=f"{key}[{number}]", file=file, extra=extra)
            for number, one in enumerate(value, 1)
        ]

        def listed(event: Event) -> object:
            return [found for one in items if (found := one(event)) is not OMIT]

        return listed
    return lambda _: value


def compile_text(
    text: str, settings: Mapping[str, str], *, key: str, file: str, is_url: bool = False
) -> Callable[[Event], str]:
    """Compile a text that stays one; in a URL what comes from the event is percent-encoded."""
    whole = _text(text, settings, key, file, (), is_url=is_url)

    def compute(event: Event) -> str:
        found = whole(event)
        return _as_text(found)

    return compute


def dumps(value: object) -> bytes:
    """Write a computed value as JSON."""
    return orjson.dumps(value, default=_exact, option=orjson.OPT_PASSTHROUGH_SUBCLASS)


def _exact(value: object) -> object:
    if isinstance(value, _Exact):
        return orjson.Fragment(str(value))
    raise TypeError


def _text(  # noqa: PLR0913
    text: str,
    settings: Mapping[str, str],
    key: str,
    file: str,
    extra: Collection[str],
    *,
    is_url: bool = False,
) -> Compute:
    pieces: list[str | Compute] = []
    at = 0
    for found in _PIECE.finditer(text):
        pieces.append(text[at : found.start()])
        at = found.end()
        if found[0] in ("{{", "}}"):
            pieces.append(found[0][0])
        elif found[1] is None:
            raise ConfigError(
                f"{text!r} has a lone brace", file=file, key=key, fix="write {{ or }} for a brace itself"
            )
        elif found[1] in settings:
            pieces.append(settings[found[1]])
        elif found[1] in extra:
            pieces.append(found[0])
        else:
            pieces.append(_placeholder(found[1], key, file, settings, extra))
    pieces.append(text[at:])
    merged = _merged(pieces)
    if not merged:
        return lambda _: ""
    if len(merged) == 1:
        [only] = merged
        return only if callable(only) else lambda _: only

    def joined(event: Event) -> object:
        return "".join(
            piece if isinstance(piece, str) else _in_text(piece(event), is_url=is_url) for piece in merged
        )

    return joined


def _merged(pieces: list[str | Compute]) -> list[str | Compute]:
    out: list[str | Compute] = []
    for piece in pieces:
        if isinstance(piece, str):
            if not piece:
                continue
            if out and isinstance(out[-1], str):
                out[-1] += piece
                continue
        out.append(piece)
    return out


def _placeholder(
    text: str, key: str, file: str, settings: Mapping[str, str], extra: Collection[str]
) -> Compute:
    name, *filters = text.split("|")
    is_optional = name.endswith("?")
    name = name.removesuffix("?")
    if name in EVENT_NAMES:
        compute = EVENT_NAMES[name][1]
    elif name in DATA_NAMES:
        compute = _of_data(name)
    else:
        known = [*EVENT_NAMES, *DATA_NAMES, *settings, *extra]
        near = get_close_matches(name, known, n=1)
        fix = (
            f"did you mean {{{near[0]}}}?" if near else "rfmstream destinations show --fields lists the names"
        )
        raise ConfigError(f"there is no {{{name}}}", file=file, key=key, fix=fix)
    for one in filters:
        compute = _filtered(compute, one, key, file)
    return _optional(compute) if is_optional else compute


def _of_data(name: str) -> Compute:
    return lambda event: event.data.get(name)


def _optional(compute: Compute) -> Compute:
    def found(event: Event) -> object:
        value = compute(event)
        return OMIT if value is None else value

    return found


def _filtered(compute: Compute, text: str, key: str, file: str) -> Compute:
    if text.startswith("or:"):
        other = text[3:]

        def either(event: Event) -> object:
            value = compute(event)
            return other if value is None else value

        return either
    function = _FILTERS.get(text)
    if function is None:
        raise ConfigError(
            f"there is no filter {text!r}",
            file=file,
            key=key,
            fix=f"use one of {', '.join(_FILTERS)}, or:TEXT",
        )

    def applied(event: Event) -> object:
        value = compute(event)
        return None if value is None else function(value)

    return applied


def _instant(value: object) -> datetime:
    return datetime.fromisoformat(str(value))


def _md5(value: object) -> str:
    return hashlib.md5(_as_text(value).encode(), usedforsecurity=False).hexdigest()


_FILTERS: Final[Mapping[str, Callable[[Any], object]]] = {
    "text": lambda value: _as_text(value),  # noqa: PLW0108 - defined below
    "lower": lambda value: _as_text(value).lower(),
    "upper": lambda value: _as_text(value).upper(),
    "md5": _md5,
    "unix": lambda value: int(_instant(value).timestamp()),
    "unix_ms": lambda value: round(_instant(value).timestamp() * 1000),
    "seconds": lambda value: _instant(value).strftime("%Y-%m-%dT%H:%M:%SZ"),
    "date": lambda value: _instant(value).date().isoformat(),
    "angles": lambda value: _as_text(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
    "json": lambda value: dumps(value).decode(),
}


def _in_text(value: object, *, is_url: bool) -> str:
    text = _as_text(value)
    return quote(text, safe="") if is_url else text


def _as_text(value: object) -> str:
    if value is None or value is OMIT:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | str):
        return str(value)
    return dumps(value).decode()
