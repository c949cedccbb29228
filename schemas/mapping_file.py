"""The input map's file: TOML in, a validated InputMap out.

docs/input-maps.md explains the file to its writers; this module turns it into the dataclasses of `schemas.mapping`:
`map_input` reads [input], `map_events` and `map_times` read [[event]], `map_values` what values and conditions are.

Source  docs/semantics.md section 1
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfmstream.schemas.map_events import Events
from rfmstream.schemas.map_input import read_input
from rfmstream.schemas.map_keys import Keys
from rfmstream.schemas.map_values import Values
from rfmstream.schemas.mapping import EACH, Exclusion, Expression, InputMap
from rfmstream.schemas.toml_table import read_toml


def read_map(path: Path) -> InputMap:
    """Read and validate an input map.

    Errors  ConfigError  unreadable, not TOML, or a key missing, unknown or wrong; names file, key and fix
    """
    document, keys = read_toml(path), Keys(str(path))
    keys.known(document, "", ("name", "title", "source", "input", "exclude", "event", "lines", "attributes"))
    events = keys.get(document, "event", "", list, [])
    if not events:
        raise keys.error(
            "event",
            "there is no [[event]] section",
            "add one that says which columns make an order event",
        )
    if "lines" not in document:
        for at, section in enumerate(events, 1):
            if isinstance(section, dict) and "amount_once" in section:
                raise keys.error(
                    f"event[{at}].amount_once", "is for order lines", "add a section [lines], or use sum"
                )
    form = read_input(keys, keys.get(document, "input", "", dict, {}))
    values = Values(keys, form.decimal)
    read = Events(keys, values)
    lines = keys.get(document, "lines", "", dict, {})
    return InputMap(
        name=keys.get(document, "name", "", str),
        title=keys.get(document, "title", "", str, ""),
        source=keys.get(document, "source", "", str, ""),
        input=form,
        exclude=tuple(
            _exclusion(keys, values, rule, f"exclude[{at}]")
            for at, rule in enumerate(keys.get(document, "exclude", "", list, []), 1)
        ),
        events=tuple(read.event(section, f"event[{at}]") for at, section in enumerate(events, 1)),
        sum_lines=_sums(keys, lines, default="lines" in document),
        line_id=_line_id(keys, values, lines),
        path=keys.path,
        attributes=_attributes(keys, values, keys.get(document, "attributes", "", dict, {})),
        lines_by=_lines_by(keys, lines),
    )


def _exclusion(keys: Keys, values: Values, rule: object, key: str) -> Exclusion:
    when = values.conditions(rule, key, ("why",))
    why: str = keys.get(keys.table(rule, key), "why", key, str, key)
    return Exclusion(why, when)


def _sums(keys: Keys, lines: Mapping[str, Any], *, default: bool) -> bool:
    keys.known(lines, "lines", ("sum", "id", "by"))
    return keys.get(lines, "sum", "lines", bool, default=default)


def _line_id(keys: Keys, values: Values, lines: Mapping[str, Any]) -> tuple[Expression, ...]:
    given = lines.get("id", [])
    parts = [given] if isinstance(given, str) else keys.get(lines, "id", "lines", list, [])
    if "id" in lines and not parts:
        raise keys.error("lines.id", "is empty", "name the columns that tell the lines of an order apart")
    return tuple(values.expression(part, f"lines.id[{at}]") for at, part in enumerate(parts, 1))


def _lines_by(keys: Keys, lines: Mapping[str, Any]) -> tuple[str, ...]:
    if "by" not in lines:
        return ()
    names = tuple(keys.texts(lines["by"], "lines.by"))
    if not names:
        raise keys.error("lines.by", "is empty", "leave it out, or name the columns that part an order")
    return tuple(dict.fromkeys(names))


def _attributes(keys: Keys, values: Values, table: Mapping[str, Any]) -> tuple[tuple[str, Expression], ...]:
    """Return what each attribute of a row is."""
    found = tuple((name, values.expression(given, f"attributes.{name}")) for name, given in table.items())
    for name, expression in found:
        if any(EACH in column for column in expression.columns()):
            raise keys.error(
                f"attributes.{name}",
                "goes through a list, which has several values a row",
                "name a column of the row",
            )
    return found
