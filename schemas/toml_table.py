"""Reading a TOML file whose every mistake is named: the file, the key, and what to write instead.

A `TomlTable` is one table of the file and knows where it stands in it; each accessor returns a checked value
or raises ConfigError. Decimals are written as strings or integers: a TOML float is binary and loses digits.
"""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from rfmstream.schemas.errors import ConfigError

_DECIMAL: Final = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?")
_DEEPEST: Final = 100
_TOO_MUCH: Final = "is nested too deeply"
_NAMES: Final = {
    bool: "true or false",
    int: "an integer",
    float: "a float",
    str: "a string",
    list: "a list",
    dict: "a table",
}


_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Control characters but for tab, line feed and carriage return."""


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file into plain dicts.

    Errors  ConfigError  the file cannot be read, is not UTF-8 or is not TOML (nothing may be given twice)
    """
    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", file=path, fix="check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"is not UTF-8 text (byte {error.start})", file=path, fix="save it as UTF-8"
        ) from error
    except tomllib.TOMLDecodeError as error:
        fix = "correct it there; every key and table may be given once"
        raise ConfigError(f"is not valid TOML: {error}", file=path, fix=fix) from error
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{_TOO_MUCH}, or holds too long a number", file=path) from error
    _check_bounds(document, path, _DEEPEST)
    return document


def _check_bounds(value: object, path: Path, depth: int) -> None:
    """Refuse integers beyond what TOML promises to keep, and nesting that nobody could follow."""
    if isinstance(value, dict | list):
        if depth == 0:
            raise ConfigError(_TOO_MUCH, file=path, fix=f"nest at most {_DEEPEST} tables and lists")
        for inner in value.values() if isinstance(value, dict) else value:
            _check_bounds(inner, path, depth - 1)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConfigError("holds an integer beyond 64 bits", file=path, fix="write one of at most 18 digits")
    elif isinstance(value, str) and (found := _CONTROL.search(value)):
        # Titles and labels are printed: an escape sequence in them would command the reader's terminal.
        raise ConfigError(
            f"holds the control character U+{ord(found[0]):04X} in a text", file=path, fix="leave it out"
        )


class TomlTable:
    """One table of a TOML file: `values` under the key `path` of `file` ("" is the top)."""

    def __init__(self, values: Mapping[str, Any], file: str, path: str = "") -> None:
        self.values = values
        self.file = file
        self.path = path

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def key(self, name: str) -> str:
        """Return the full key of `name`, such as `tiers.vip.zh`."""
        return f"{self.path}.{name}" if self.path else name

    def error(self, name: str, problem: str, fix: str | None = None) -> ConfigError:
        """Build (not raise) the error of a key."""
        return ConfigError(problem, file=self.file, key=self.key(name), fix=fix)

    def allow(self, *names: str) -> None:
        """Refuse keys that are not in `names`, so that a typing error cannot pass as silence."""
        for name in self.values:
            if name not in names:
                near = get_close_matches(name, names, n=1)
                fix = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(names)}"
                raise self.error(name, "unknown key", fix)

    def text(self, name: str, default: str | None = None, *, may_be_blank: bool = False) -> str:
        """Return a string; a blank one only where that means something, such as a delimiter."""
        value = self._value(name, default, "a string")
        if not isinstance(value, str):
            raise self.error(name, f"must be a string, not {_name(value)}", "put it in quotes")
        if not value.strip() and value != default and not may_be_blank:
            raise self.error(name, "is empty", "write some text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a non-empty list of non-empty strings."""
        values = self._value(name, None, "a list of strings")
        if not isinstance(values, list) or not values:
            raise self.error(
                name, f"must be a list of strings, not {_name(values)}", f'write {name} = ["...", "..."]'
            )
        return tuple(item.text("") for item in self._items(name, values))

    def choice(self, name: str, choices: Collection[str], default: str | None = None) -> str:
        """Return a string that is one of `choices`."""
        value = self.text(name, default)
        if value not in choices:
            raise self.error(name, f"{value!r} is not one of {', '.join(choices)}")
        return value

    def flag(self, name: str) -> bool:
        """Return a boolean."""
        value = self._value(name, None, "true or false")
        if not isinstance(value, bool):
            raise self.error(name, f"must be true or false, not {_name(value)}")
        return value

    def items(self, name: str) -> list[Any]:
        """Return a list of anything; it may be empty."""
        value = self._value(name, None, "a list")
        if not isinstance(value, list):
            raise self.error(name, f"must be a list, not {_name(value)}", f"write {name or 'it'} = [...]")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """Return an integer from `low` to `high`, both included."""
        value = self._value(name, None, "an integer")
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(
                name, f"must be an integer, not {_name(value)}", f"write a number from {low} to {high}"
            )
        if not low <= value <= high:
            raise self.error(name, f"{value} is out of range", f"write a number from {low} to {high}")
        return value

    def integers(self, name: str, low: int, high: int) -> tuple[int, ...]:
        """Return a list of strictly ascending integers, each from `low` to `high`; it may be empty."""
        values = self._value(name, None, "a list of integers")
        if not isinstance(values, list):
            raise self.error(
                name, f"must be a list of integers, not {_name(values)}", f"write {name} = [30, 60]"
            )
        numbers = tuple(item.integer("", low, high) for item in self._items(name, values))
        self.require_ascending(name, numbers)
        return numbers

    def decimal(self, name: str) -> Fraction:
        """Return the exact value of a decimal, written as an integer or as a string of digits."""
        value = self._value(name, None, "a number")
        if isinstance(value, float):
            raise self.error(
                name, "is a float, whose digits are not exact", f'write it as a string: "{value!r}"'
            )
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise self.error(
                name, f"must be a number, not {_name(value)}", 'write an integer or a string: "99.90"'
            )
        if not _DECIMAL.fullmatch(str(value)):
            raise self.error(
                name, f"{value!r} is not a decimal number", 'write only digits and a point: "99.90"'
            )
        return Fraction(str(value))

    def decimals(self, name: str) -> tuple[Fraction, ...]:
        """Return a list of strictly ascending exact decimals; it may be empty."""
        values = self._value(name, None, "a list of numbers")
        if not isinstance(values, list):
            raise self.error(
                name, f"must be a list of numbers, not {_name(values)}", f'write {name} = ["99.90", 250]'
            )
        numbers = tuple(item.decimal("") for item in self._items(name, values))
        self.require_ascending(name, numbers)
        return numbers

    def table(self, name: str) -> "TomlTable":
        """Return a table below this one."""
        value = self._value(name, None, "a table")
        if not isinstance(value, dict):
            raise self.error(name, f"must be a table, not {_name(value)}", f"write [{self.key(name)}]")
        return TomlTable(value, self.file, self.key(name))

    def tables(self, name: str) -> tuple["TomlTable", ...]:
        """Return a list of tables below this one; their keys count from 1: `rules[1]` is the first."""
        values = self._value(name, None, "a list of tables")
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise self.error(
                name, f"must be a list of tables, not {_name(values)}", f"write [[{self.key(name)}]]"
            )
        return tuple(
            TomlTable(value, self.file, f"{self.key(name)}[{position}]")
            for position, value in enumerate(values, 1)
        )

    def require_ascending(self, name: str, numbers: Sequence[int | Fraction]) -> None:
        """Refuse `numbers` unless each is greater than the one before."""
        for before, after in pairwise(numbers):
            if after <= before:
                problem = f"{show_decimal(after)} follows {show_decimal(before)}"
                raise self.error(name, problem, "write the cuts in ascending order, each once")

    def _value(self, name: str, default: object, expected: str) -> object:
        value = self.values.get(name, default)
        if value is None:
            raise self.error(name, "is missing", f"add it: {expected}")
        return value

    def _items(self, name: str, values: list[object]) -> Iterator["TomlTable"]:
        # An item is read as the nameless key of a table of its own, so that errors say `cuts.frequency[2]`.
        return (
            _Item({"": value}, self.file, f"{self.key(name)}[{position}]")
            for position, value in enumerate(values, 1)
        )


class _Item(TomlTable):
    """One item of a list."""

    def key(self, name: str) -> str:  # noqa: ARG002
        return self.path


def show_decimal(number: int | Fraction) -> str:
    """Write an exact decimal with its digits, and no more of them than it has.

    `number` comes from decimal digits, so its denominator divides a power of ten.
    """
    fraction = Fraction(number)
    decimals = next(count for count in range(40) if (fraction * 10**count).denominator == 1)
    digits = f"{abs(fraction.numerator) * 10**decimals // fraction.denominator:0{decimals + 1}d}"
    sign = "-" if fraction < 0 else ""
    return sign + (f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits)


def _name(value: object) -> str:
    return _NAMES.get(type(value), "a date or time")
