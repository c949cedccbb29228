"""Zones as they stand behind a time or in a column of their own: GMT+8, an IANA name, or a word a map explains."""

import re
from collections.abc import Mapping
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_UTC: Final = ("UTC", "GMT", "UT", "Z")
_OFFSET: Final = re.compile(r"(?:GMT|UTC)?([+-])(\d{1,2})(?::?(\d{2}))?", re.IGNORECASE)
_REMARK: Final = re.compile(r"\s*\([^()]*\)$")
_BRACKETED: Final = re.compile(r"\s*\[([^\[\]]+)\]$")
_BEHIND: Final = re.compile(
    # A digit or a point before it: `p.m.` and month names are no zones.
    r"(?<=[\d.mM])\s*((?:GMT|UTC)(?:[+-]\d{1,2}(?::?\d{2})?)?|[A-Za-z_]+(?:/[A-Za-z0-9_+-]+)+)$"
)


class ZoneWords:
    """Knows what the zone words of one map mean: a word of its table, an offset, UTC, or an IANA zone with a slash."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self._table = table
        words = "|".join(re.escape(word) for word in sorted(table, key=len, reverse=True))
        self._behind = re.compile(rf"(?:(?<=[\d.mM])|\s)\s*\(?({words or '(?!)'})\)?$")

    def zone(self, word: str) -> str | None:
        """Return the zone a word stands for, an IANA name or an offset `+HH:MM`; None: it stands for none."""
        word = word.strip()
        if word in self._table:
            return self.zone_of_table(word)
        if word.upper() in _UTC:
            return "UTC"
        if told := _OFFSET.fullmatch(word):
            return f"{told[1]}{int(told[2]):02}:{told[3] or '00'}"
        return word if "/" in word and _is_zone(word) else None

    def zone_of_table(self, word: str) -> str:
        """Return what the table says of a word of its own."""
        told = _OFFSET.fullmatch(self._table[word])
        return f"{told[1]}{int(told[2]):02}:{told[3] or '00'}" if told else self._table[word]

    def parted(self, text: str) -> tuple[str, str | None]:
        """Return a time without the zone behind it, and that zone; None: there is none."""
        text = text.strip()
        if told := self._behind.search(text):
            return text[: told.start()].strip(), self.zone(told[1])
        if told := _BRACKETED.search(text):
            return text[: told.start()].strip(), self.zone(told[1])
        # JavaScript writes `GMT+0800 (China Standard Time)`.
        text = _REMARK.sub("", text)
        if told := _BEHIND.search(text):
            return text[: told.start()].strip(), self.zone(told[1])
        return text, None


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
