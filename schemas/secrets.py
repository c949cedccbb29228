"""Credentials inside texts that are shown: masked wherever an error, a log line or a table may quote them.

The user's name goes with the password: a token is often written as one.
"""

import re
from typing import Final

MASK: Final = "***"

_IN_URL: Final = re.compile(
    r"""(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*:/{1,3})"""  # a path that was one has lost a stroke
    r"""(?: [^\s/@:?\#'"<>]* : (?!\d{1,5}(?:[/?\#\s,'"]|$)) [^\s'"<>]* @ """  # a secret may hold what it should escape
    r"""  | [^\s/@?\#'"<>]+ @ )""",
    re.VERBOSE,
)
_BEFORE_HOST: Final = re.compile(r"""(?<![\w@/])[^\s:/@'"=,;]+:[^\s@/'",]+@(?=[\w\[])""")
_IN_QUERY: Final = re.compile(
    r"""([?&;](?:[\w.-]*[_.-])?(?:secret|token|password|passwd|pwd|signature|sig|key|credential|credentials)"""
    r"""(?:[_.-][\w.-]*)?=)[^&;\s\#'"<>]+""",
    re.IGNORECASE,
)
_SETTING: Final = re.compile(
    r"""(\b(?:sasl[._])?(?:password|secret|token|ssl\.key)\s*=\s*)(?:"[^"]*"|'[^']*'|[^\s;,&'"]+)""",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """Return a text with credentials left out: those before a host, in the query of a URL, after `password=`."""
    if "@" in text:
        text = _IN_URL.sub(rf"\g<scheme>{MASK}@", text)
        text = _BEFORE_HOST.sub(f"{MASK}@", text)
    return _SETTING.sub(rf"\1{MASK}", _IN_QUERY.sub(rf"\1{MASK}", text)) if "=" in text else text
