"""Time zones by name: the one check for rulesets, input maps and options.

Source  the IANA time zone database
"""

from difflib import get_close_matches
from os import PathLike
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from rfmstream.schemas.errors import ConfigError

_OF_THE_MACHINE: Final = frozenset({"localtime", "posixrules", "Factory"})
"""Files beside the zones whose meaning is whatever the machine was set up with."""
_OTHER_DATABASES: Final = ("posix/", "right/")


def zone_of(name: str, *, file: str | PathLike[str] | None = None, key: str = "time_zone") -> ZoneInfo:
    """Return the IANA zone `name`.

    Errors  ConfigError  there is no such zone, or its meaning depends on the machine
    """
    zone = None
    if name not in _OF_THE_MACHINE and not name.startswith(_OTHER_DATABASES):
        try:
            zone = ZoneInfo(name)
        except (OSError, ValueError, ZoneInfoNotFoundError):
            zone = None
    if zone is None:
        near = get_close_matches(name, available_timezones() - _OF_THE_MACHINE, n=1)
        fix = f"did you mean {near[0]}?" if near else "use an IANA name such as UTC or Asia/Shanghai"
        raise ConfigError(f"{name!r} is not an IANA time zone", file=file, key=key, fix=fix)
    return zone
