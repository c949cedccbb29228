"""Values of an input map, such as `{ column = "Total", negate = true }`, and its conditions, which test values."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, cast, get_args

from rfmstream.schemas.map_keys import Keys
from rfmstream.schemas.mapping import ARITHMETIC, Condition, Expression, Kind, Test
from rfmstream.schemas.toml_table import TomlTable

_KINDS: Final[tuple[str, ...]] = get_args(Kind)
_TESTS: Final[tuple[str, ...]] = get_args(Test)
_PIECE_MAX: Final = 256
"""Characters of an affix: it becomes part of a regular expression, whose size RE2 bounds."""
_TEXT_STEPS: Final = ("strip_prefix", "strip_suffix", "remove", "thousands", "case", "prefix", "suffix")
_NUMBER_STEPS: Final = ("round_to", "absolute", "negate")
_NUMBER_TYPES: Final = (int, str)
_DECIMAL: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_DIGITS_MAX: Final = 18


class Values:
    """Reads values and conditions.

    In      decimal  what stands before the decimals of numbers read from text, where a value does not say
    """

    def __init__(self, keys: Keys, decimal: str) -> None:
        self._keys, self._decimal = keys, decimal

    def expression(self, given: object, key: str, others: Sequence[str] = ()) -> Expression:
        """Return a value; `others` are keys that may stand beside it and are read elsewhere."""
        table = self._keys.table_or_column(given, key)
        kinds = [kind for kind in _KINDS if kind in table]
        if len(kinds) != 1:
            problem = f"has {' and '.join(kinds)}" if kinds else "says no value"
            raise self._keys.error(key, problem, f"give exactly one of {', '.join(_KINDS)}")
        kind = cast("Kind", kinds[0])
        steps = (*_NUMBER_STEPS, *_TEXT_STEPS, "optional", "decimal")
        self._keys.known(table, key, (kind, *steps, *others, *(("separator",) if kind == "concat" else ())))
        text = ""
        terms: tuple[Expression, ...] = ()
        if kind in ("column", "constant"):
            number = table[kind] if kind == "constant" else None
            is_number = isinstance(number, int) and not isinstance(number, bool)
            text = str(number) if is_number else self._keys.get(table, kind, key, str)
        elif kind == "row_number":
            if table[kind] is not True:
                raise self._keys.error(f"{key}.row_number", "must be true")
        else:
            listed = self._keys.get(table, kind, key, list)
            terms = tuple(self.expression(term, f"{key}.{kind}[{at}]") for at, term in enumerate(listed, 1))
            if not terms:
                raise self._keys.error(f"{key}.{kind}", "is empty", "name at least one column")
        if kind in ARITHMETIC and (wrong := [step for step in _TEXT_STEPS if step in table]):
            raise self._keys.error(
                f"{key}.{wrong[0]}", f"is for text, not for a {kind}", "put it on the terms"
            )
        case = self._keys.get(table, "case", key, str, "")
        if case:
            self._keys.choice(case, f"{key}.case", ("lower", "upper"))
        thousands = self._piece(table, "thousands", key)
        decimal = "." if kind == "constant" else self._keys.decimal_sign(table, key, self._decimal)
        if thousands == decimal:
            other = "," if decimal == "." else "."
            raise self._keys.error(
                f"{key}.thousands",
                f"is {thousands!r}, and so is the decimal sign: 1{thousands}234{decimal}50 would be 123450",
                f'give decimal = "{other}" beside it or in [input], or another sign here',
            )
        return Expression(
            kind=kind,
            text=text,
            terms=terms,
            strip_prefix=self._piece(table, "strip_prefix", key),
            strip_suffix=self._piece(table, "strip_suffix", key),
            remove=self._removed(table, key),
            thousands=thousands,
            case=cast("Literal['lower', 'upper'] | None", case or None),
            prefix=self._keys.get(table, "prefix", key, str, ""),
            suffix=self._keys.get(table, "suffix", key, str, ""),
            round_to=self._decimals(table, key),
            absolute=self._keys.get(table, "absolute", key, bool, default=False),
            negate=self._keys.get(table, "negate", key, bool, default=False),
            optional=self._keys.get(table, "optional", key, bool, default=False),
            separator=self._keys.get(table, "separator", key, str, " "),
            decimal=decimal,
        )

    def conditions(self, rule: object, key: str, others: Sequence[str]) -> Condition:
        """Parse a `when`: one condition, or a list of which all must hold."""
        table = self._keys.table(rule, key)
        self._keys.known(table, key, ("when", *others))
        given = table.get("when")
        parts = given if isinstance(given, list) else [given]
        if not parts or given is None:
            raise self._keys.error(
                f"{key}.when", "says no condition", 'such as { column = "status", equals = "paid" }'
            )
        return Condition(
            "all", tuple(self._condition(part, f"{key}.when[{at}]") for at, part in enumerate(parts, 1))
        )

    def _piece(self, table: Mapping[str, Any], step: str, key: str) -> str:
        piece: str = self._keys.get(table, step, key, str, "")
        if len(piece) > _PIECE_MAX:
            raise self._keys.error(f"{key}.{step}", f"has more than {_PIECE_MAX} characters")
        return piece

    def _removed(self, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
        given = table.get("remove", [])
        pieces = [given] if isinstance(given, str) else self._keys.texts(given, f"{key}.remove")
        if "" in pieces:
            raise self._keys.error(f"{key}.remove", "is empty text", "name what is to go")
        return tuple(pieces)

    def _decimals(self, table: Mapping[str, Any], key: str) -> int | None:
        if "round_to" not in table:
            return None
        return TomlTable(table, self._keys.path, key).integer("round_to", 0, 12)

    def _condition(self, given: object, key: str) -> Condition:
        table = self._keys.table(given, key)
        for join in ("all", "any", "not"):
            if join in table:
                self._keys.known(table, key, (join,))
                listed = table[join] if isinstance(table[join], list) else [table[join]]
                if not listed:
                    raise self._keys.error(f"{key}.{join}", "is empty", "give at least one condition")
                return Condition(
                    join,
                    tuple(self._condition(part, f"{key}.{join}[{at}]") for at, part in enumerate(listed, 1)),
                )
        tests = [test for test in _TESTS if test in table]
        if len(tests) != 1:
            problem = f"has {' and '.join(tests)}" if tests else "says no test"
            raise self._keys.error(key, problem, f"give exactly one of {', '.join(_TESTS)}, or all, any, not")
        test = cast("Test", tests[0])
        value = self.expression({name: table[name] for name in table if name != test}, key)
        return Condition(
            "test", value=value, test=test, operands=self._operands(table[test], test, f"{key}.{test}")
        )

    def _operands(self, given: object, test: Test, key: str) -> tuple[str, ...]:
        if test == "is_null":
            if not isinstance(given, bool):
                raise self._keys.error(key, "must be true or false")
            return ("true",) if given else ()
        if test in ("less_than", "greater_than"):
            if isinstance(given, bool) or not isinstance(given, _NUMBER_TYPES):
                raise self._keys.error(
                    key, "must be an integer, or a decimal in quotes so that its digits stay exact"
                )
            bound = str(given)
            if not _DECIMAL.fullmatch(bound) or sum(map(str.isdigit, bound)) > _DIGITS_MAX:
                problem = f"{bound!r} is no decimal of at most {_DIGITS_MAX} digits"
                raise self._keys.error(key, problem, 'write digits and a point: "99.90"')
            return (bound,)
        operands = given if isinstance(given, list) else [given]
        if isinstance(given, list) != (test == "one_of") and test not in ("starts_with", "contains"):
            raise self._keys.error(
                key, "must be a list" if test == "one_of" else "must be one value, not a list"
            )
        return tuple(self._keys.texts(operands, key))
