"""Spans of time as options write them: 30d, 12h."""

import re
from typing import Any, Final

import click

_UNITS_US: Final = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000}
_SPAN: Final = re.compile(r"([0-9]{1,9})([dhms])")
_SPAN_US_MAX: Final = 36_500 * _UNITS_US["d"]


class Span(click.ParamType):
    """A span of time in µs, written as a number and d, h, m or s: a day is 24 hours."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        """Read it."""
        if isinstance(value, int):
            return value
        match = _SPAN.fullmatch(value)
        span_us = int(match[1]) * _UNITS_US[match[2]] if match else 0
        if not 0 < span_us <= _SPAN_US_MAX:
            self.fail(f"{value!r} is no span of time; write it as in 30d, 12h or 45m.", param, ctx)
        return span_us


SPAN: Final = Span()


def span_text(span_us: int) -> str:
    """Write a span in the largest unit that holds it whole."""
    unit = next((unit for unit, us in _UNITS_US.items() if span_us % us == 0), None)
    return f"{span_us / 1e6:g}s" if unit is None else f"{span_us // _UNITS_US[unit]}{unit}"
