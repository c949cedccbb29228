"""The keys of an input map's file: each is read as a kind, and every error names the file and the key."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.toml_table import TomlTable

DECIMAL_SIGNS: Final = (".", ",")
_NEVER_BLANK: Final = ("name", "column", "constant", "encoding")

_T = TypeVar("_T")


class Keys:
    """Reads values of the tables of one file.

    In      path  of the file, for errors
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def get(
        self,
        table: Mapping[str, Any],
        name: str,
        key: str,
        kind: type[_T],
        default: _T | None = None,
    ) -> _T:
        """Return a value of a kind; without a default it has to be there."""
        if name not in table and default is not None:
            return default
        place = TomlTable(table, self.path, key)
        value: object
        if kind is str:
            value = place.text(name, may_be_blank=name not in _NEVER_BLANK)
        elif kind is bool:
            value = place.flag(name)
        elif kind is list:
            value = place.items(name)
        else:
            value = place.table(name).values
        return cast("_T", value)

    def texts(self, given: object, key: str) -> list[str]:
        """Return a list of strings."""
        if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
            raise self.error(key, "must be a string, or a list of strings", "put it in quotes")
        return given

    def table(self, given: object, key: str) -> Mapping[str, Any]:
        """Return a table."""
        if not isinstance(given, dict):
            raise self.error(key, "must be a table", 'such as { column = "Total" }')
        return given

    def table_or_column(self, given: object, key: str) -> Mapping[str, Any]:
        """Return a table; a string alone names a column."""
        return {"column": given} if isinstance(given, str) else self.table(given, key)

    def decimal_sign(self, table: Mapping[str, Any], key: str, default: str) -> str:
        """Return what stands before the decimals of numbers read from text."""
        sign: str = self.get(table, "decimal", key, str, default)
        self.choice(sign, f"{key}.decimal", DECIMAL_SIGNS)
        return sign

    def known(self, table: Mapping[str, Any], key: str, names: Sequence[str]) -> None:
        """Refuse a key that is none of these."""
        TomlTable(table, self.path, key).allow(*names)

    def choice(self, value: str, key: str, choices: Sequence[str]) -> None:
        """Refuse a value that is none of these."""
        if value not in choices:
            raise self.error(key, f"{value!r} is not one of {', '.join(choices)}")

    def error(self, key: str, problem: str, fix: str | None = None) -> ConfigError:
        """Return an error of a key."""
        return ConfigError(problem, file=self.path, key=key, fix=fix)
