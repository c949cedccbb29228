"""Times as people and spreadsheets write them: by a format of strptime, in some language, or as a serial day.

Source  docs/input-maps.md, Times; month and day names: CLDR, through babel
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Final

from rfmstream.kernels.parse import ABSENT, BAD, DAY_US, INSTANT_MAX_US, INSTANT_MIN_US, NAIVE, OK
from rfmstream.schemas.errors import ConfigError

Moment = tuple[int, int]
"""µs since 1970, UTC or local, and the status: OK, NAIVE, ABSENT or BAD."""

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - local time by intent
_US: Final = timedelta(microseconds=1)
_WIDTHS: Final = {"Y": "4", "G": "4", "j": "3", "f": "1,6", "u": "1"} | dict.fromkeys("mdHIMSyUV", "2")
_EPOCH_DIGITS_MIN: Final = 9
_YEAR_OF_DIGITS_MIN: Final = 1900
_MONTHS: Final = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_MONTHS_WIDE: Final = [
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
]
_DAYS: Final = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
_DAYS_WIDE: Final = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_NOON: Final[dict[str, str]] = {
    **dict.fromkeys(("上午", "午前", "오전"), "AM"),
    **dict.fromkeys(("下午", "午後", "오후"), "PM"),
}
_IDEOGRAPHS: Final = "\u2e80"
_DOTTED: Final = re.compile(r"\b([ap])\.?\s?m(?:\.|\b)", re.IGNORECASE)
_SERIAL: Final = re.compile(r"\d{1,7}(?:\.\d{1,20})?")
_SERIAL_LEAP: Final = 60
"""Day 60 of a spreadsheet is 29 February 1900, a day that never was."""
_SERIAL_1970: Final = {"excel": 25_569, "excel_1904": 24_107}
_SERIAL_MAX: Final = 2_958_465


@lru_cache(maxsize=64)
def moment_reader(time_format: str, languages: tuple[str, ...] = ()) -> Callable[[str], Moment]:
    """Return what reads one text by "excel", "excel_1904" or a format of Python's strptime.

    Errors  ConfigError  a language that CLDR does not have, or two whose words for months or days contradict
    """
    if time_format in _SERIAL_1970:
        return lambda text: _serial(text, time_format)
    translate = _translator(time_format, languages)
    widths = _widths(time_format)

    def read(text: str) -> Moment:
        text = text.strip()
        if not text:
            return 0, ABSENT
        if widths is not None and not widths.fullmatch(text):
            return 0, BAD
        try:
            moment = datetime.strptime(translate(text), time_format)  # noqa: DTZ007 - the zone comes later
        except ValueError:
            return 0, BAD
        if text.isdigit() and len(text) >= _EPOCH_DIGITS_MIN and moment.year < _YEAR_OF_DIGITS_MIN:
            return 0, BAD  # seconds since 1970, or parts of them, and no date
        return _checked(moment)

    return read


def _checked(moment: datetime) -> Moment:
    offset = moment.utcoffset()
    us = (moment.replace(tzinfo=None) - _EPOCH) // _US
    if offset is None:
        return us, NAIVE
    us -= offset // _US
    return (us, OK) if INSTANT_MIN_US <= us <= INSTANT_MAX_US else (0, BAD)


def _widths(time_format: str) -> re.Pattern[str] | None:
    """Return a pattern of whole digits where directives adjoin: strptime takes one digit for a month there.

    Without it 1614928930, which is seconds since 1970, is the year 1614 by %Y%m%d%H%M%S.
    """
    if not re.search(f"%[{''.join(_WIDTHS)}]%[{''.join(_WIDTHS)}]", time_format):
        return None
    runs = re.split(f"((?:%[{''.join(_WIDTHS)}])+)", time_format)
    pattern = []
    for at, part in enumerate(runs):
        names = part[1::2]
        if at % 2 == 0:
            others = re.split(r"(%.|\s+)", part, flags=re.DOTALL)
            pattern += [".*" if place % 2 else re.escape(other) for place, other in enumerate(others)]
        else:
            pattern += [rf"\d{{{_WIDTHS[name]}}}" if len(names) > 1 else r"\d+" for name in names]
    return re.compile("".join(pattern), re.DOTALL)


def _serial(text: str, system: str) -> Moment:
    """Read a spreadsheet's serial day as local time, as exactly as its digits say it.

    They are binary fractions of a day cut to some decimals: the roundest time that they can mean is meant.
    """
    text = text.strip()
    if not text:
        return 0, ABSENT
    if not _SERIAL.fullmatch(text):
        return 0, BAD
    try:
        serial = Decimal(text)
    except InvalidOperation:
        return 0, BAD
    day = int(serial)
    if day > _SERIAL_MAX or (system == "excel" and day in (0, _SERIAL_LEAP)):
        return 0, BAD
    us = (serial - day) * DAY_US
    # Half of the last decimal, and what a double of this size cannot tell apart.
    doubt = max(Decimal(DAY_US).scaleb(int(serial.as_tuple().exponent)) / 2, Decimal(1))
    for unit in (1_000_000, 1_000, 1):
        rounded = round(us / unit) * unit
        if abs(rounded - us) <= doubt:
            break
    day += system == "excel" and day < _SERIAL_LEAP
    return (day - _SERIAL_1970[system]) * DAY_US + rounded, NAIVE


def _translator(time_format: str, languages: tuple[str, ...]) -> Callable[[str], str]:
    """Return what turns the words of a time into those strptime knows."""
    noon = "%p" in time_format
    kinds = [kind for kind in re.findall(r"%([aAbBp%])", time_format) if kind in "aAbB"]
    if not languages or not (kinds or noon):
        return _noon if noon else lambda text: text
    tables = [_table(kind, languages) for kind in kinds]
    periods = _periods(languages) if noon else {}
    words = sorted({word for table in tables for word in table}, key=len, reverse=True)
    pattern = re.compile("|".join(map(_whole_word, words)) or "(?!)")
    swallow = [f"%{kind}." not in time_format for kind in kinds]

    def translate(text: str) -> str:
        folded = unicodedata.normalize("NFC", text).casefold()
        for word, period in periods.items():
            folded = folded.replace(word, period)
        parts, end = [], 0
        for at, found in enumerate(pattern.finditer(folded)):
            if at == len(tables):
                break
            parts += [folded[end : found.start()], tables[at].get(found[0], found[0])]
            end = found.end() + (swallow[at] and folded[found.end() : found.end() + 1] == ".")
        translated = "".join(parts) + folded[end:]
        return _noon(translated) if noon else translated

    return translate


def _whole_word(word: str) -> str:
    """Return a pattern of a word that is no part of another; scripts without blanks between words have no such."""
    return re.escape(word) if word[0] >= _IDEOGRAPHS else rf"(?<![^\W\d_]){re.escape(word)}(?![^\W\d_])"


def _noon(text: str) -> str:
    for word, period in _NOON.items():
        text = text.replace(word, period)
    return _DOTTED.sub(lambda found: f"{found[1]}m", text)


def _table(kind: str, languages: Sequence[str]) -> Mapping[str, str]:
    """Return the words of some languages for the months or days, each with the word that strptime knows.

    Errors  ConfigError
    """
    english = {"a": _DAYS, "A": _DAYS_WIDE, "b": _MONTHS, "B": _MONTHS_WIDE}[kind]
    table: dict[str, str] = {}
    for language in languages:
        for at, name in _names(language, days=kind in "aA"):
            word = unicodedata.normalize("NFC", name).casefold().rstrip(".")
            if any(map(str.isdigit, word)) or not word:
                continue
            if table.setdefault(word, english[at]) != english[at]:
                raise ConfigError(
                    f"{word!r} is {table[word]} and {english[at]} in the languages {', '.join(languages)}",
                    key="occurred_at.language",
                    fix="name fewer of them",
                )
    # English is read beside them: else its `Mar` behind a `Fri` would be the French Tuesday.
    for names in (_DAYS, _DAYS_WIDE) if kind in "aA" else (_MONTHS, _MONTHS_WIDE):
        for at, word in enumerate(names):
            table.setdefault(word.casefold(), english[at])
    return table


def _names(language: str, *, days: bool) -> list[tuple[int, str]]:
    locale = _locale(language)
    names = locale.days if days else locale.months
    return [
        (at if days else at - 1, name)
        for context in ("format", "stand-alone")
        for width in ("wide", "abbreviated")
        for at, name in names[context][width].items()
    ]


def _periods(languages: Sequence[str]) -> dict[str, str]:
    found = {}
    for language in languages:
        for widths in _locale(language).day_periods.values():
            for names in widths.values():
                for period in ("am", "pm"):
                    word = str(names.get(period, "")).casefold()
                    if len(word) > 1 and word not in ("am", "pm"):
                        found[word] = period
    return found


@lru_cache(maxsize=16)
def _locale(language: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - babel's own
    from babel import Locale, UnknownLocaleError  # noqa: PLC0415 - only maps that name a language wait for it

    try:
        return Locale.parse(language.replace("-", "_"))
    except (UnknownLocaleError, ValueError) as error:
        raise ConfigError(
            f"CLDR has no language {language!r}", key="occurred_at.language", fix='use a code such as "de"'
        ) from error
