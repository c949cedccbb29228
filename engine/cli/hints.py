"""What rejected rows say of the map or option that would read them: a line for each kind of fault."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_DECIMAL_COMMA: Final = re.compile(r"[^0-9]*[0-9]+([.' \u00a0\u202f\u2019][0-9]{3})*,[0-9]{1,2}[^0-9]*")
_THOUSANDS: Final = re.compile(r"[^0-9]*[0-9]{1,3}([,' \u00a0\u202f\u2019])[0-9]{3}.*")


def hints(rejected: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each kind of fault that the first rejected rows show and a map mends.

    In      rejected  rows of REJECTED_SCHEMA
    """
    for reason, look in (("bad_amount", _of_amount), ("bad_time", _of_time)):
        for row in rejected:
            if row["reason"] == reason and (found := look(row)):
                yield f"{reason}: {found}"
                break


def _of_amount(row: Mapping[str, Any]) -> str | None:
    text = row["amount"] or ""
    if _DECIMAL_COMMA.fullmatch(text):
        return f'{text!r} has a decimal comma: decimal = "," in the [input] section of a map reads it'
    if marked := _THOUSANDS.fullmatch(text):
        return f'{text!r} has thousands marks: thousands = "{marked[1]}" beside the amount in a map reads it'
    return None


def _of_time(row: Mapping[str, Any]) -> str | None:
    text = row["occurred_at"]
    if not text:
        return None
    return f"{text!r} fits no format that is asked for: a map names the format beside occurred_at, or a list of them"
