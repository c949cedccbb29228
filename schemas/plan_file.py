"""The plan's file: TOML in, a validated Plan out.

docs/views.md explains the file to its writers.

Source  docs/semantics.md section 10
"""

from os import PathLike
from pathlib import Path
from typing import Any, Final

from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.plan import VIEW_NAME, Plan, View, Where
from rfmstream.schemas.ruleset import Ruleset, list_rulesets, load_ruleset
from rfmstream.schemas.ruleset_file import read_ruleset_file, shipped_path
from rfmstream.schemas.ruleset_model import RulesetFile
from rfmstream.schemas.toml_table import TomlTable, read_toml

_KEYS: Final = ("name", "ruleset", "where", "per", "shadow")


def load_plan(
    path: str | PathLike[str], *, time_zone: str | None = None, currency: str | None = None
) -> Plan:
    """Read and validate a plan of views.

    In      time_zone, currency  take the place of those of every view's ruleset
    Errors  ConfigError  unreadable, not TOML, a key missing, unknown or wrong, two views of one name, or a ruleset
                         that is none; names file, key and fix
    """
    path = Path(path)
    top = TomlTable(read_toml(path), str(path))
    top.allow("view")
    if "view" not in top:
        raise top.error("view", "is missing", "add a [[view]] section with a ruleset")
    views = []
    for table in top.tables("view"):
        table.allow(*_KEYS)
        ruleset = _ruleset(table, path.parent, time_zone, currency)
        name = table.text("name", ruleset.name)
        if not VIEW_NAME.fullmatch(name):
            raise table.error("name", f"{name!r} is not a name", "use letters, digits, - _ and .")
        views.append(
            View(
                name=name,
                ruleset=ruleset,
                where=_where(table),
                per=table.text("per") if "per" in table else None,
                shadow=table.flag("shadow") if "shadow" in table else False,
            )
        )
    return Plan(tuple(views), str(path))


def read_plan_rules(path: str | PathLike[str]) -> list[RulesetFile]:
    """Return the rulesets of a plan's views, in its order, as their files give them.

    Errors  ConfigError  as of `load_plan`
    """
    path = Path(path)
    top = TomlTable(read_toml(path), str(path))
    files = [_ruleset_file(table, path.parent) for table in top.tables("view")]
    return [read_ruleset_file(shipped_path(str(file)) or Path(file)) for file in files]


def _ruleset(table: TomlTable, folder: Path, time_zone: str | None, currency: str | None) -> Ruleset:
    return load_ruleset(_ruleset_file(table, folder), time_zone=time_zone, currency=currency)


def _ruleset_file(table: TomlTable, folder: Path) -> str | Path:
    """Return the ruleset a view names: a built-in one's name, or a file by its path from the plan's folder."""
    name = table.text("ruleset")
    if name in list_rulesets():
        return name
    path = folder / name
    try:
        is_file = path.is_file()
    except OSError:  # a name too long for the system
        is_file = False
    if not is_file:
        raise table.error(
            "ruleset",
            f"there is no built-in ruleset and no file {name!r}",
            f"use one of {', '.join(list_rulesets())}, or a path from the plan's folder",
        )
    return path


def _where(table: TomlTable) -> Where:
    if "where" not in table:
        return ()
    given = table.table("where")
    if not given.values:
        raise table.error("where", "is empty", 'write where = { store = ["hk", "tw"] }, or leave it out')
    if any(not name.strip() for name in given.values):
        raise table.error("where", "names a column without a name", 'write where = { store = ["hk", "tw"] }')
    return tuple((name, _values(given, name, value)) for name, value in given.values.items())


def _values(table: TomlTable, name: str, given: Any) -> tuple[str, ...]:  # noqa: ANN401 - what TOML holds
    """Return the values that a column may have, as text: numbers and flags by the text that they have in orders."""
    values = given if isinstance(given, list) else [given]
    if not values:
        raise table.error(name, "is an empty list, so no event would count", f'write {name} = ["..."]')
    texts = []
    for value in values:
        if isinstance(value, bool):
            texts.append(str(value).lower())
        elif isinstance(value, int | str):
            texts.append(str(value))
        else:
            raise _no_text(table, name)
        if texts[-1] == "":
            raise table.error(name, "has an empty value, which is none", "leave it out")
    return tuple(dict.fromkeys(texts))


def _no_text(table: TomlTable, name: str) -> ConfigError:
    return table.error(name, "has a value that is no text", "put it in quotes, as it stands in the orders")
