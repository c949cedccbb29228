"""A spreadsheet's cell as the text it shows, and the texts of cells that stand for no value."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Final

_DIGITS: Final = 15
"""What a spreadsheet shows of a number, and what survives in one."""

ABSENT_WORDS: Final = ("NULL", "null", "\\N", "None", "NaN", "nan", "N/A", "#N/A")
"""Whole cells of text files that stand for no value.  Source  docs/semantics.md section 1"""


def text_of(cell: object) -> str:
    """Return a cell as text: dates as ISO 8601, numbers by their 15 digits."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float):
        return _number(cell)
    if isinstance(cell, datetime | date | time):
        return cell.isoformat()
    if isinstance(cell, timedelta):
        minutes, seconds = divmod(int(cell.total_seconds()), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    return str(cell)


def _number(value: float) -> str:
    """Return a number by the 15 digits a spreadsheet keeps; one of more digits has been rounded, and looks it."""
    if value.is_integer() and abs(value) < 10**_DIGITS:
        return str(int(value))
    text = f"{value:.{_DIGITS}g}"
    if "e" not in text:
        return text
    return text.upper() if abs(value) >= 10**_DIGITS else format(Decimal(text), "f")
