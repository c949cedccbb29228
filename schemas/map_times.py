"""How an input map says that times are written: formats, words of zones, languages."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from rfmstream.schemas.map_keys import Keys
from rfmstream.schemas.mapping import TIME_FORMATS
from rfmstream.schemas.zones import zone_of

TIME_KEYS: Final = ("format", "time_zone", "zones", "language")
_OFFSET: Final = re.compile(r"[+-]([01][0-9]|2[0-3]):?([0-5][0-9])?")
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})*")
_DIRECTIVES: Final = frozenset("aAbBdfGHIjmMpSuVyYz%")
"""Those of Python's strptime that mean the same everywhere; %Z is none of them: EST is five zones."""


def time_formats(keys: Keys, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return the formats, of which the first that fits reads a time."""
    given = table.get("format", "iso")
    if isinstance(given, str):
        return (_time_format(keys, given, key),)
    forms = tuple(_time_format(keys, form, key) for form in keys.texts(given, f"{key}.format"))
    if not forms:
        raise keys.error(f"{key}.format", "is empty", "leave it out, or name at least one format")
    return forms


def _time_format(keys: Keys, form: str, key: str) -> str:
    if form in TIME_FORMATS:
        return form
    names = set(re.findall(r"%(.?)", form, re.DOTALL))
    if strange := sorted(names - _DIRECTIVES):
        known = " ".join(f"%{name}" for name in sorted(_DIRECTIVES))
        fix = f"use {known}"
        if strange[0] == "Z":
            fix = 'leave it out: zones = { EST = "-05:00" } says what a zone word behind the time means'
        raise keys.error(f"{key}.format", f"%{strange[0]} is no directive that is known", fix)
    has_day = "j" in names or ("d" in names and names & {"m", "b", "B"})
    if not ((names & {"Y", "y"} and has_day) or {"G", "V", "u"} <= names):
        raise keys.error(
            f"{key}.format",
            f"{form!r} names no day of a year",
            f"use a format such as %Y-%m-%d %H:%M, or one of {', '.join(TIME_FORMATS)}",
        )
    if twice := [name for name in sorted(names) if form.count(f"%{name}") > 1 and name != "%"]:
        raise keys.error(f"{key}.format", f"{form!r} has %{twice[0]} twice", "leave one of them out")
    try:
        datetime.strptime("", form)  # noqa: DTZ007 - whether it can be compiled at all
    except re.error as error:
        problem = f"{form!r} has two directives of one meaning: {error}"
        raise keys.error(f"{key}.format", problem, "leave one of them out") from error
    except ValueError as error:
        if "bad directive" in str(error) or "stray %" in str(error):
            raise keys.error(f"{key}.format", f"{form!r}: {error}") from error
    return form


def zones_of_words(keys: Keys, time: Mapping[str, Any], key: str) -> tuple[tuple[str, str], ...]:
    """Return what zone each word behind a time means."""
    given = keys.get(time, "zones", key, dict, {})
    for word in given:
        zone = keys.get(given, word, f"{key}.zones", str)
        if not _OFFSET.fullmatch(zone):
            zone_of(zone, file=keys.path, key=f"{key}.zones.{word}")
    return tuple(given.items())


def languages(keys: Keys, time: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return the languages of names of months and days."""
    given = time.get("language", [])
    names = [given] if isinstance(given, str) else keys.texts(given, f"{key}.language")
    for name in names:
        if not _LANGUAGE.fullmatch(name):
            raise keys.error(f"{key}.language", f"{name!r} is no language", 'use a code such as "de"')
    return tuple(names)
