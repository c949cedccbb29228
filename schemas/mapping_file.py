"""The input map's file: TOML in, a validated InputMap out.

docs/input-maps.md explains the file to its writers; this module turns it into the dataclasses of `schemas.mapping`.

Source  docs/semantics.md section 1
"""

import codecs
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast, get_args

from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.mapping import (
    ARITHMETIC,
    EACH,
    TIME_FORMATS,
    Condition,
    Event,
    Exclusion,
    Expression,
    Format,
    InputFormat,
    InputMap,
    Kind,
    Rounding,
    Test,
)
from rfmstream.schemas.orders import ORDER_TYPES
from rfmstream.schemas.toml_table import TomlTable, read_toml
from rfmstream.schemas.zones import zone_of

_KINDS: Final[tuple[str, ...]] = get_args(Kind)
_TESTS: Final[tuple[str, ...]] = get_args(Test)
_ROUNDINGS: Final[tuple[str, ...]] = get_args(Rounding)
_FORMATS: Final[tuple[str, ...]] = get_args(Format)
_PIECE_MAX: Final = 256
"""Characters of an affix: it becomes part of a regular expression, whose size RE2 bounds."""
_TIME_KEYS: Final = ("format", "time_zone", "zones", "language")
_TEXT_STEPS: Final = ("strip_prefix", "strip_suffix", "remove", "thousands", "case", "prefix", "suffix")
_NUMBER_STEPS: Final = ("round_to", "absolute", "negate")
_NEVER_BLANK: Final = ("name", "column", "constant", "encoding")
_FIELDS: Final = ("customer_id", "order_id", "occurred_at", "amount", "amount_minor", "currency", "event_id")
_INPUT_KEYS: Final = (
    *("format", "delimiter", "encoding", "columns"),
    *("headerless", "skip", "decimal", "fill_down", "sheet", "records", "absent"),
)
_DECIMAL_SIGNS: Final = (".", ",")
_LINES_SKIPPED_MAX: Final = 1000
_OFFSET: Final = re.compile(r"[+-]([01][0-9]|2[0-3]):?([0-5][0-9])?")
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})*")
_NUMBER_TYPES: Final = (int, str)
_DECIMAL: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_DIGITS_MAX: Final = 18
_DIRECTIVES: Final = frozenset("aAbBdfGHIjmMpSuVyYz%")
"""Those of Python's strptime that mean the same everywhere; %Z is none of them: EST is five zones."""

_T = TypeVar("_T")


def read_map(path: Path) -> InputMap:
    """Read and validate an input map.

    Errors  ConfigError  unreadable, not TOML, or a key missing, unknown or wrong; names file, key and fix
    """
    return _Parser(str(path)).parse(read_toml(path))


class _Parser:
    """Turns the document of one file into an InputMap; every error names the file and the key."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._decimal = "."

    def parse(self, document: Mapping[str, Any]) -> InputMap:
        self._known(
            document, "", ("name", "title", "source", "input", "exclude", "event", "lines", "attributes")
        )
        events = self._get(document, "event", "", list, [])
        if not events:
            raise self._error(
                "event",
                "there is no [[event]] section",
                "add one that says which columns make an order event",
            )
        if "lines" not in document:
            for at, section in enumerate(events, 1):
                if isinstance(section, dict) and "amount_once" in section:
                    raise self._error(
                        f"event[{at}].amount_once", "is for order lines", "add a section [lines], or use sum"
                    )
        form = self._input(self._get(document, "input", "", dict, {}))
        self._decimal = form.decimal
        return InputMap(
            name=self._get(document, "name", "", str),
            title=self._get(document, "title", "", str, ""),
            source=self._get(document, "source", "", str, ""),
            input=form,
            exclude=tuple(
                self._exclusion(rule, f"exclude[{at}]")
                for at, rule in enumerate(self._get(document, "exclude", "", list, []), 1)
            ),
            events=tuple(self._event(section, f"event[{at}]") for at, section in enumerate(events, 1)),
            sum_lines=self._lines(document),
            line_id=self._line_id(self._get(document, "lines", "", dict, {})),
            path=self._path,
            attributes=self._attributes(self._get(document, "attributes", "", dict, {})),
            lines_by=self._lines_by(self._get(document, "lines", "", dict, {})),
        )

    def _attributes(self, table: Mapping[str, Any]) -> tuple[tuple[str, Expression], ...]:
        """Return what each attribute of a row is."""
        found = tuple((name, self._expression(given, f"attributes.{name}")) for name, given in table.items())
        for name, expression in found:
            if any(EACH in column for column in expression.columns()):
                raise self._error(
                    f"attributes.{name}",
                    "goes through a list, which has several values a row",
                    "name a column of the row",
                )
        return found

    def _lines_by(self, lines: Mapping[str, Any]) -> tuple[str, ...]:
        if "by" not in lines:
            return ()
        names = tuple(self._texts(lines["by"], "lines.by"))
        if not names:
            raise self._error("lines.by", "is empty", "leave it out, or name the columns that part an order")
        return tuple(dict.fromkeys(names))

    def _exclusion(self, rule: object, key: str) -> Exclusion:
        when = self._conditions(rule, key, ("why",))
        why: str = self._get(self._table(rule, key), "why", key, str, key)
        return Exclusion(why, when)

    def _lines(self, document: Mapping[str, Any]) -> bool:
        lines = self._get(document, "lines", "", dict, {})
        self._known(lines, "lines", ("sum", "id", "by"))
        return self._get(lines, "sum", "lines", bool, default="lines" in document)

    def _line_id(self, lines: Mapping[str, Any]) -> tuple[Expression, ...]:
        given = lines.get("id", [])
        parts = [given] if isinstance(given, str) else self._get(lines, "id", "lines", list, [])
        if "id" in lines and not parts:
            raise self._error(
                "lines.id", "is empty", "name the columns that tell the lines of an order apart"
            )
        return tuple(self._expression(part, f"lines.id[{at}]") for at, part in enumerate(parts, 1))

    def _input(self, table: Mapping[str, Any]) -> InputFormat:
        self._known(table, "input", _INPUT_KEYS)
        delimiter = self._get(table, "delimiter", "input", str, "")
        if (
            delimiter
            and delimiter != "whitespace"
            and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n')
        ):
            raise self._error(
                "input.delimiter", f"{delimiter!r} is no delimiter", 'use one ASCII character or "whitespace"'
            )
        encoding = self._get(table, "encoding", "input", str, "utf-8")
        self._check_encoding(encoding)
        form = self._get(table, "format", "input", str, "")
        if form:
            self._choice(form, "input.format", _FORMATS)
        return InputFormat(
            cast("Format | None", form or None),
            delimiter or None,
            encoding,
            tuple(self._texts(table.get("columns", []), "input.columns")),
            headerless=self._headerless(table),
            skip=self._skip(table),
            decimal=self._decimal_sign(table, "input", "."),
            fill_down=tuple(self._texts(table.get("fill_down", []), "input.fill_down")),
            sheet=self._get(table, "sheet", "input", str, "") or None,
            records=self._get(table, "records", "input", str, "") or None,
            absent=self._absent(table),
        )

    def _check_encoding(self, encoding: str) -> None:
        try:
            # Codecs that are no text encodings (zlib, hex, rot13) refuse to decode, by the same error.
            b"text".decode(encoding, "ignore")
            codecs.getincrementaldecoder(encoding)
        except (LookupError, ValueError) as error:
            raise self._error(
                "input.encoding", f"{encoding!r} is no encoding of text", 'use a name such as "latin-1"'
            ) from error

    def _headerless(self, table: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
        given = self._get(table, "headerless", "input", list, [])
        rows = tuple(
            tuple(self._texts(names, f"input.headerless[{at}]")) for at, names in enumerate(given, 1)
        )
        if len({len(names) for names in rows}) < len(rows):
            raise self._error(
                "input.headerless", "has two lists of one length", "the count of cells must tell them apart"
            )
        return rows

    def _absent(self, table: Mapping[str, Any]) -> tuple[str, ...] | None:
        if "absent" not in table:
            return None
        words = self._get(table, "absent", "input", list)
        # A number may stand for absent, too: 0 is what shops write for guests.
        numbers = [
            str(word) if isinstance(word, int) and not isinstance(word, bool) else word for word in words
        ]
        return tuple(self._texts(numbers, "input.absent"))

    def _skip(self, table: Mapping[str, Any]) -> int | None:
        if "skip" not in table:
            return None
        return TomlTable(table, self._path, "input").integer("skip", 0, _LINES_SKIPPED_MAX)

    def _decimal_sign(self, table: Mapping[str, Any], key: str, default: str) -> str:
        sign: str = self._get(table, "decimal", key, str, default)
        self._choice(sign, f"{key}.decimal", _DECIMAL_SIGNS)
        return sign

    def _event(self, section: object, key: str) -> Event:
        table = self._table(section, key)
        self._known(table, key, ("when", "type", *_FIELDS, "amount_once"))
        kind = table.get("type", "paid")
        for name in ("customer_id", "order_id", "occurred_at"):
            if name not in table and (name, kind) != ("order_id", "erased"):
                raise self._error(f"{key}.{name}", "is missing", "name the column it comes from")
        if isinstance(kind, str):
            self._choice(kind, f"{key}.type", ORDER_TYPES)
        time = self._table_or_column(table["occurred_at"], f"{key}.occurred_at")
        zone, zone_of_row = self._zone(time, f"{key}.occurred_at")
        amount, in_minor, rounding = self._amount(table, key, needed=kind not in ("cancelled", "erased"))
        event = Event(
            when=self._conditions({"when": table["when"]}, key, ()) if "when" in table else None,
            type=kind if isinstance(kind, str) else self._expression(kind, f"{key}.type"),
            customer_id=self._expression(table["customer_id"], f"{key}.customer_id"),
            order_id=self._expression(table["order_id"], f"{key}.order_id")
            if "order_id" in table
            else Expression("constant"),
            occurred_at=self._expression(time, f"{key}.occurred_at", _TIME_KEYS),
            time_formats=self._time_formats(time, f"{key}.occurred_at"),
            time_zone=zone or None,
            amount=amount,
            in_minor=in_minor,
            rounding=rounding,
            currency=self._expression(table["currency"], f"{key}.currency") if "currency" in table else None,
            event_id=self._expression(table["event_id"], f"{key}.event_id") if "event_id" in table else None,
            zone_of_row=zone_of_row,
            zones=self._zones(time, f"{key}.occurred_at"),
            languages=self._languages(time, f"{key}.occurred_at"),
            amount_once=self._expression(table["amount_once"], f"{key}.amount_once")
            if "amount_once" in table
            else None,
        )
        self._check_each(event, key)
        return event

    def _check_each(self, event: Event, key: str) -> None:
        """Refuse an event that goes through two lists which do not lie inside each other."""
        each = event.each
        for name in event.columns():
            *lists, _ = name.split(EACH)
            through = EACH.join([*lists, ""])
            if not each.startswith(through):
                raise self._error(
                    key,
                    f"goes through {each} and through {through}",
                    "write an [[event]] section for each of the lists",
                )

    def _zone(self, time: Mapping[str, Any], key: str) -> tuple[str, Expression | None]:
        """Return the zone of all times, or what says the zone of each."""
        if isinstance(time.get("time_zone"), dict):
            return "", self._expression(time["time_zone"], f"{key}.time_zone")
        zone = self._get(time, "time_zone", key, str, "")
        if "time_zone" in time:
            zone_of(zone, file=self._path, key=f"{key}.time_zone")
        return zone, None

    def _zones(self, time: Mapping[str, Any], key: str) -> tuple[tuple[str, str], ...]:
        given = self._get(time, "zones", key, dict, {})
        for word in given:
            zone = self._get(given, word, f"{key}.zones", str)
            if not _OFFSET.fullmatch(zone):
                zone_of(zone, file=self._path, key=f"{key}.zones.{word}")
        return tuple(given.items())

    def _languages(self, time: Mapping[str, Any], key: str) -> tuple[str, ...]:
        given = time.get("language", [])
        names = [given] if isinstance(given, str) else self._texts(given, f"{key}.language")
        for name in names:
            if not _LANGUAGE.fullmatch(name):
                raise self._error(f"{key}.language", f"{name!r} is no language", 'use a code such as "de"')
        return tuple(names)

    def _time_formats(self, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
        given = table.get("format", "iso")
        if isinstance(given, str):
            return (self._time_format(given, key),)
        forms = tuple(self._time_format(form, key) for form in self._texts(given, f"{key}.format"))
        if not forms:
            raise self._error(f"{key}.format", "is empty", "leave it out, or name at least one format")
        return forms

    def _time_format(self, form: str, key: str) -> str:
        if form in TIME_FORMATS:
            return form
        names = set(re.findall(r"%(.?)", form, re.DOTALL))
        if strange := sorted(names - _DIRECTIVES):
            known = " ".join(f"%{name}" for name in sorted(_DIRECTIVES))
            fix = f"use {known}"
            if strange[0] == "Z":
                fix = 'leave it out: zones = { EST = "-05:00" } says what a zone word behind the time means'
            raise self._error(f"{key}.format", f"%{strange[0]} is no directive that is known", fix)
        has_day = "j" in names or ("d" in names and names & {"m", "b", "B"})
        if not ((names & {"Y", "y"} and has_day) or {"G", "V", "u"} <= names):
            raise self._error(
                f"{key}.format",
                f"{form!r} names no day of a year",
                f"use a format such as %Y-%m-%d %H:%M, or one of {', '.join(TIME_FORMATS)}",
            )
        if twice := [name for name in sorted(names) if form.count(f"%{name}") > 1 and name != "%"]:
            raise self._error(f"{key}.format", f"{form!r} has %{twice[0]} twice", "leave one of them out")
        try:
            datetime.strptime("", form)  # noqa: DTZ007 - whether it can be compiled at all
        except re.error as error:
            problem = f"{form!r} has two directives of one meaning: {error}"
            raise self._error(f"{key}.format", problem, "leave one of them out") from error
        except ValueError as error:
            if "bad directive" in str(error) or "stray %" in str(error):
                raise self._error(f"{key}.format", f"{form!r}: {error}") from error
        return form

    def _amount(
        self, table: Mapping[str, Any], key: str, *, needed: bool
    ) -> tuple[Expression | None, bool, Rounding]:
        given = [name for name in ("amount", "amount_minor") if name in table]
        if len(given) != 1:
            if not given and not needed:
                return None, False, "refuse"
            problem = "amount and amount_minor are both there" if given else "is missing"
            raise self._error(
                f"{key}.amount", problem, "give amount (major units) or amount_minor (minor units)"
            )
        name = given[0]
        inner = self._table_or_column(table[name], f"{key}.{name}")
        rounding = self._get(inner, "rounding", f"{key}.{name}", str, "refuse")
        self._choice(rounding, f"{key}.{name}.rounding", _ROUNDINGS)
        expression = self._expression(inner, f"{key}.{name}", ("rounding",))
        if name == "amount_minor" and set(_DECIMAL_SIGNS) <= set(expression.remove):
            raise self._error(
                f"{key}.amount_minor.remove",
                "takes the decimal sign away: 12,5 would count as 1.25, and 7 as 0.07",
                'give amount with decimal = "," and thousands = "."',
            )
        return expression, name == "amount_minor", cast("Rounding", rounding)

    def _expression(self, given: object, key: str, others: Sequence[str] = ()) -> Expression:
        table = self._table_or_column(given, key)
        kinds = [kind for kind in _KINDS if kind in table]
        if len(kinds) != 1:
            problem = f"has {' and '.join(kinds)}" if kinds else "says no value"
            raise self._error(key, problem, f"give exactly one of {', '.join(_KINDS)}")
        kind = cast("Kind", kinds[0])
        steps = (*_NUMBER_STEPS, *_TEXT_STEPS, "optional", "decimal")
        self._known(table, key, (kind, *steps, *others, *(("separator",) if kind == "concat" else ())))
        text = ""
        terms: tuple[Expression, ...] = ()
        if kind in ("column", "constant"):
            number = table[kind] if kind == "constant" else None
            is_number = isinstance(number, int) and not isinstance(number, bool)
            text = str(number) if is_number else self._get(table, kind, key, str)
        elif kind == "row_number":
            if table[kind] is not True:
                raise self._error(f"{key}.row_number", "must be true")
        else:
            listed = self._get(table, kind, key, list)
            terms = tuple(self._expression(term, f"{key}.{kind}[{at}]") for at, term in enumerate(listed, 1))
            if not terms:
                raise self._error(f"{key}.{kind}", "is empty", "name at least one column")
        if kind in ARITHMETIC and (wrong := [step for step in _TEXT_STEPS if step in table]):
            raise self._error(f"{key}.{wrong[0]}", f"is for text, not for a {kind}", "put it on the terms")
        case = self._get(table, "case", key, str, "")
        if case:
            self._choice(case, f"{key}.case", ("lower", "upper"))
        return Expression(
            kind=kind,
            text=text,
            terms=terms,
            strip_prefix=self._piece(table, "strip_prefix", key),
            strip_suffix=self._piece(table, "strip_suffix", key),
            remove=self._removed(table, key),
            thousands=self._piece(table, "thousands", key),
            case=cast("Literal['lower', 'upper'] | None", case or None),
            prefix=self._get(table, "prefix", key, str, ""),
            suffix=self._get(table, "suffix", key, str, ""),
            round_to=self._decimals(table, key),
            absolute=self._get(table, "absolute", key, bool, default=False),
            negate=self._get(table, "negate", key, bool, default=False),
            optional=self._get(table, "optional", key, bool, default=False),
            separator=self._get(table, "separator", key, str, " "),
            decimal="." if kind == "constant" else self._decimal_sign(table, key, self._decimal),
        )

    def _piece(self, table: Mapping[str, Any], step: str, key: str) -> str:
        piece: str = self._get(table, step, key, str, "")
        if len(piece) > _PIECE_MAX:
            raise self._error(f"{key}.{step}", f"has more than {_PIECE_MAX} characters")
        return piece

    def _removed(self, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
        given = table.get("remove", [])
        pieces = [given] if isinstance(given, str) else self._texts(given, f"{key}.remove")
        if "" in pieces:
            raise self._error(f"{key}.remove", "is empty text", "name what is to go")
        return tuple(pieces)

    def _decimals(self, table: Mapping[str, Any], key: str) -> int | None:
        if "round_to" not in table:
            return None
        return TomlTable(table, self._path, key).integer("round_to", 0, 12)

    def _conditions(self, rule: object, key: str, others: Sequence[str]) -> Condition:
        """Parse a `when`: one condition, or a list of which all must hold."""
        table = self._table(rule, key)
        self._known(table, key, ("when", *others))
        given = table.get("when")
        parts = given if isinstance(given, list) else [given]
        if not parts or given is None:
            raise self._error(
                f"{key}.when", "says no condition", 'such as { column = "status", equals = "paid" }'
            )
        return Condition(
            "all", tuple(self._condition(part, f"{key}.when[{at}]") for at, part in enumerate(parts, 1))
        )

    def _condition(self, given: object, key: str) -> Condition:
        table = self._table(given, key)
        for join in ("all", "any", "not"):
            if join in table:
                self._known(table, key, (join,))
                listed = table[join] if isinstance(table[join], list) else [table[join]]
                if not listed:
                    raise self._error(f"{key}.{join}", "is empty", "give at least one condition")
                return Condition(
                    join,
                    tuple(self._condition(part, f"{key}.{join}[{at}]") for at, part in enumerate(listed, 1)),
                )
        tests = [test for test in _TESTS if test in table]
        if len(tests) != 1:
            problem = f"has {' and '.join(tests)}" if tests else "says no test"
            raise self._error(key, problem, f"give exactly one of {', '.join(_TESTS)}, or all, any, not")
        test = cast("Test", tests[0])
        value = self._expression({name: table[name] for name in table if name != test}, key)
        return Condition(
            "test", value=value, test=test, operands=self._operands(table[test], test, f"{key}.{test}")
        )

    def _operands(self, given: object, test: Test, key: str) -> tuple[str, ...]:
        if test == "is_null":
            if not isinstance(given, bool):
                raise self._error(key, "must be true or false")
            return ("true",) if given else ()
        if test in ("less_than", "greater_than"):
            if isinstance(given, bool) or not isinstance(given, _NUMBER_TYPES):
                raise self._error(
                    key, "must be an integer, or a decimal in quotes so that its digits stay exact"
                )
            bound = str(given)
            if not _DECIMAL.fullmatch(bound) or sum(map(str.isdigit, bound)) > _DIGITS_MAX:
                problem = f"{bound!r} is no decimal of at most {_DIGITS_MAX} digits"
                raise self._error(key, problem, 'write digits and a point: "99.90"')
            return (bound,)
        operands = given if isinstance(given, list) else [given]
        if isinstance(given, list) != (test == "one_of") and test not in ("starts_with", "contains"):
            raise self._error(key, "must be a list" if test == "one_of" else "must be one value, not a list")
        return tuple(self._texts(operands, key))

    def _texts(self, given: object, key: str) -> list[str]:
        if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
            raise self._error(key, "must be a string, or a list of strings", "put it in quotes")
        return given

    def _table(self, given: object, key: str) -> Mapping[str, Any]:
        if not isinstance(given, dict):
            raise self._error(key, "must be a table", 'such as { column = "Total" }')
        return given

    def _table_or_column(self, given: object, key: str) -> Mapping[str, Any]:
        return {"column": given} if isinstance(given, str) else self._table(given, key)

    def _get(
        self,
        table: Mapping[str, Any],
        name: str,
        key: str,
        kind: type[_T],
        default: _T | None = None,
    ) -> _T:
        if name not in table and default is not None:
            return default
        place = TomlTable(table, self._path, key)
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

    def _known(self, table: Mapping[str, Any], key: str, names: Sequence[str]) -> None:
        TomlTable(table, self._path, key).allow(*names)

    def _choice(self, value: str, key: str, choices: Sequence[str]) -> None:
        if value not in choices:
            raise self._error(key, f"{value!r} is not one of {', '.join(choices)}")

    def _error(self, key: str, problem: str, fix: str | None = None) -> ConfigError:
        return ConfigError(problem, file=self._path, key=key, fix=fix)
