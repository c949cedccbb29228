"""How the text of a setting becomes its value, whatever wrote it: the same parser for each source."""

import re
from difflib import get_close_matches
from typing import Final
from urllib.parse import urlsplit

from rfmstream.engine.live.setting import BadValueError, Parse
from rfmstream.engine.service.client_config import SERVER_FIX, TOPIC_NAME, host_and_port, is_server
from rfmstream.schemas.errors import ConfigError

OFF: Final = "off"

_NUMBER: Final = re.compile(r"[0-9]{1,12}")
_UNITS_US: Final = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000}
_SPAN: Final = re.compile(r"([0-9]{1,9})([dhms])")
_SPAN_US_MAX: Final = 36_500 * _UNITS_US["d"]
_WORDS_OF_FLAGS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def some_text(text: str) -> str:
    """Take any text that is not blank."""
    if not text.strip():
        raise BadValueError("is empty", "write some text, or leave the setting out")
    if text != text.encode(errors="replace").decode():
        raise BadValueError("is not UTF-8 text", "write it in UTF-8")
    return text


def matching(pattern: re.Pattern[str], what: str, fix: str) -> Parse:
    """Return the parser of texts that match a pattern; `what` they are, and the fix."""

    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise BadValueError(f"{text!r} is not {what}", fix)
        return text

    return parse


def topic(text: str) -> str:
    """Take the name of a topic."""
    if not TOPIC_NAME.fullmatch(text) or text in (".", ".."):
        raise BadValueError(
            f"{text!r} is no topic's name", "use 1 to 249 ASCII letters, digits, dots, underscores and dashes"
        )
    return text


def listed(parse: Parse, what: str) -> Parse:
    """Return the parser of several values with commas between, each once; `what` one is."""

    def parse_list(text: str) -> tuple[str, ...]:
        items = tuple(parse(item.strip()) for item in text.split(",") if item.strip())
        if not items:
            raise BadValueError("is empty", f"name at least one {what}")
        if len(set(items)) < len(items):
            raise BadValueError(f"{text!r} names something twice", f"name each {what} once")
        return items

    return parse_list


def whole(low: int, high: int) -> Parse:
    """Return the parser of whole numbers from low to high."""

    def parse(text: str) -> int:
        if not _NUMBER.fullmatch(text):
            raise BadValueError(f"{text!r} is not a whole number", f"write a number from {low} to {high}")
        if not low <= int(text) <= high:
            raise BadValueError(f"{text} is out of range", f"write a number from {low} to {high}")
        return int(text)

    return parse


def span(text: str) -> int:
    """Return a span of time in µs."""
    found = _SPAN.fullmatch(text)
    span_us = int(found[1]) * _UNITS_US[found[2]] if found else 0
    if not 0 < span_us <= _SPAN_US_MAX:
        raise BadValueError(f"{text!r} is no span of time", "write it as in 7d, 12h, 45m or 30s")
    return span_us


def choice(*words: str) -> Parse:
    """Return the parser of one of some words."""

    def parse(text: str) -> str:
        if text not in words:
            near = get_close_matches(text, words, n=1, cutoff=0.5)
            fix = f"did you mean {near[0]}?" if near else None
            raise BadValueError(f"{text!r} is not one of {', '.join(words)}", fix)
        return text

    return parse


def switch(text: str) -> bool:
    """Take true or false."""
    value = _WORDS_OF_FLAGS.get(text.lower())
    if value is None:
        raise BadValueError(f"{text!r} is neither true nor false", "write true or false")
    return value


def server(text: str) -> str:
    """Take the host:port of a server."""
    if not is_server(text):
        raise BadValueError(f"{text!r} is not host:port", SERVER_FIX)
    return text


def listen(text: str) -> tuple[str, int] | None:
    """Return the host and port to listen on, port 0 for any free one; None for `off`."""
    if text == OFF:
        return None
    found = host_and_port(text)
    if found is None:
        raise BadValueError(f"{text!r} is not host:port", "write for example 127.0.0.1:8765, or off")
    return found


def address(text: str) -> tuple[str, int]:
    """Return the host and port to listen on, port 0 for any free one."""
    found = None if text == OFF else listen(text)
    if found is None:
        raise BadValueError(f"{text!r} is not host:port", "write for example 127.0.0.1:8766, or leave it out")
    return found


def option_address(text: str, key: str) -> tuple[str, int]:
    """Return the host and port of an option of a command.

    Raises  ConfigError where it is none
    """
    try:
        return address(text)
    except BadValueError as error:
        problem, fix = error.args
        raise ConfigError(problem, key=key, fix=fix) from None


def url(text: str) -> str:
    """Take an http or https URL."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise BadValueError(f"{text!r} is no URL", "write for example https://worker-1.example:8766")
    return text.rstrip("/")
