"""Expressions and conditions of an input map, evaluated over a batch of source columns."""

import re
from dataclasses import replace
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.events.json_paths import reach_into_list
from rfmstream.engine.events.text import nulls, plain, repeat, shown_text, text_buffers, to_text
from rfmstream.engine.files.numbers import Number
from rfmstream.kernels.parse import BAD, OK, check_text
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import EACH, Condition, Expression

_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")


class SourceRows:
    """A batch of source columns as expressions see it: null and empty text are the same, both mean absent.

    Fields  batch   the wanted columns the input has
            rows    i64[n] ordinals
            source  file name for errors
            names   all columns of the input, for errors
            rows_before  of earlier runs, which `row_number` goes on from
            absent  whole cells that mean absent; one that is a number stays one where a number is asked for
            dates_are_iso  dates are ISO 8601, whatever the map says of text
    """

    def __init__(  # noqa: PLR0913 - what a chunk says of its rows
        self,
        batch: pa.RecordBatch,
        rows: np.ndarray[Any, Any],
        source: str | None,
        names: tuple[str, ...],
        *,
        rows_before: int = 0,
        absent: tuple[str, ...] = (),
        dates_are_iso: bool = False,
    ) -> None:
        self.batch = batch
        self.rows = rows
        self.source = source
        self.names = names
        self.rows_before = rows_before
        self.absent = absent
        self.dates_are_iso = dates_are_iso
        self.count = len(rows)
        self._columns: dict[str, pa.Array] = {}
        self.lists_are_absent = False
        """Whether what lies in lists counts as absent, because these rows are no elements of them."""
        self._chosen: np.ndarray[Any, Any] | None = None
        """bool[rows of the batch], those that these are; None: all."""

    def take(self, mask: np.ndarray[Any, Any]) -> "SourceRows":
        """Return the rows where the mask is true."""
        taken = SourceRows(
            *(self.batch, self.rows[mask], self.source, self.names),
            rows_before=self.rows_before,
            absent=self.absent,
            dates_are_iso=self.dates_are_iso,
        )
        taken._chosen = mask
        if self._chosen is not None:
            taken._chosen = self._chosen.copy()
            taken._chosen[self._chosen] = mask
        return taken

    def column(self, name: str, *, optional: bool = False) -> pa.Array | None:
        """Return a column, plain; None where it is not there and optional.

        Errors  InputError  the input has no such column
        """
        if EACH in name and self.lists_are_absent:
            return nulls(self.count)
        if name not in self._columns:
            found = find_column(self.batch, name)
            if found is None:
                if optional:
                    return None
                raise InputError(
                    f"no column {name!r}, which the input map reads; "
                    f"the columns are {', '.join(self.names) or 'none'}",
                    source=self.source,
                    fix="choose another map, or change its column names",
                )
            # As they come, columns can be of types that Arrow picks no rows out of. Nested ones are no values anyway.
            is_whole = self._chosen is None or (pa.types.is_nested(found.type) and EACH not in name)
            self._columns[name] = found if is_whole else found.filter(pa.array(self._chosen))
        return self._columns[name]

    def value(self, expression: Expression, *, as_number: bool = False) -> pa.Array:
        """Return an expression as it comes: a column where it only names one, else text."""
        if expression.is_numeric:
            text = self.number(expression).text()
            return text if expression.decimal == "." else pc.replace_substring(text, ".", expression.decimal)
        match expression.kind:
            case "column":
                found = self.column(expression.text, optional=expression.optional)
                array = nulls(self.count) if found is None else self._present(found, as_number=as_number)
            case "constant":
                array = repeat(expression.text, self.count)
            case "row_number":
                array = pa.array(self.rows + self.rows_before).cast(pa.string())
            case "concat":
                terms = [self.text(term) for term in expression.terms]
                array = pc.binary_join_element_wise(*terms, expression.separator)
            case _:
                array = self._first_of(expression, as_number=as_number)
        return _text_steps(array, expression)

    def text(self, expression: Expression, *, as_number: bool = False) -> pa.Array:
        """Return an expression as text, empty made null."""
        value = self.value(expression, as_number=as_number)
        return _without_empty(to_text(value, expression.text or expression.kind))

    def number(self, expression: Expression) -> Number:
        """Return an expression as exact numbers."""
        if expression.kind in ("sum", "difference", "product"):
            # The first term's arrays are the accumulator: they belong to this evaluation alone.
            number, *others = (self.number(term) for term in expression.terms)
            without = number.status != OK
            status = number.status[without]
            for other in others:
                if expression.kind == "product":
                    number.multiply(other)
                else:
                    number.add(other, 1 if expression.kind == "sum" else -1)
            if expression.kind == "difference":
                number.mantissa[without], number.status[without] = 0, status
        else:
            as_it_stands = replace(expression, round_to=None, absolute=False, negate=False)
            array = pointed(self.value(as_it_stands, as_number=True), expression.decimal)
            number = Number.of(array, expression.text or expression.kind)
        if expression.round_to is not None:
            number = number.rounded(expression.round_to)
        return number.signed(absolute=expression.absolute, negate=expression.negate)

    def holds(self, condition: Condition) -> np.ndarray[Any, Any]:
        """Return bool[n]: where the condition holds. A test of an absent value fails, except is_null."""
        if condition.join == "test":
            return self._test(condition)
        parts = [self.holds(part) for part in condition.parts]
        if condition.join == "any":
            some: np.ndarray[Any, Any] = np.logical_or.reduce(parts)
            return some
        every: np.ndarray[Any, Any] = np.logical_and.reduce(parts)
        return ~every if condition.join == "not" else every

    def told(self, expression: Expression) -> pa.Array:
        """Return an expression as text for comparison, whatever its type; empty made null."""
        return _without_empty(shown_text(self.value(expression)))

    def shown(self) -> pa.Array:
        """Return each row as the text of a JSON object: the columns that the map reads, as they came."""
        columns = []
        for place, name in enumerate(self.batch.schema.names):
            array = plain(self.batch.column(place))
            if self._chosen is not None:
                array = array.take(pa.array(np.flatnonzero(self._chosen)))
            columns.append((name, shown_text(array).to_pylist()))
        return pa.array(
            [
                orjson.dumps({name: values[at] for name, values in columns}).decode()
                for at in range(self.count)
            ],
            pa.string(),
        )

    def _present(self, array: pa.Array, *, as_number: bool) -> pa.Array:
        """Return a column without the cells that the map says mean absent."""
        words = [word for word in self.absent if not (as_number and _NUMBER.fullmatch(word))]
        kind = array.type
        if not words:
            return array
        if pa.types.is_integer(kind) and not as_number:
            array = array.cast(pa.string())
        elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return array
        listed = pc.is_in(array, value_set=pa.array(words, array.type))
        return pc.if_else(listed, pa.scalar(None, array.type), array) if pc.any(listed).as_py() else array

    def _first_of(self, expression: Expression, *, as_number: bool) -> pa.Array:
        terms = [term for term in expression.terms if self._is_there(term)]
        if not terms:
            if expression.optional:
                return nulls(self.count)
            terms = list(expression.terms)  # evaluating the first raises the error that names it
        return pc.coalesce(*(self.text(term, as_number=as_number) for term in terms))

    def _is_there(self, term: Expression) -> bool:
        return all(self.column(name, optional=True) is not None for name in term.columns())

    def _test(self, condition: Condition) -> np.ndarray[Any, Any]:
        assert condition.value is not None, "the model gives every test a value"
        if condition.test in ("less_than", "greater_than"):
            sign = self.number(condition.value).compared(condition.operands[0])
            beyond: np.ndarray[Any, Any] = sign == (-1 if condition.test == "less_than" else 1)
            return beyond
        text = self.text(condition.value)
        match condition.test:
            case "is_null":
                mask = text.is_null() if condition.operands else text.is_valid()
            case "starts_with" | "contains":
                start = "^" if condition.test == "starts_with" else ""
                pieces = "|".join(map(re.escape, condition.operands))
                mask = pc.match_substring_regex(text, f"{start}(?:{pieces})")
            case _:
                mask = pc.is_in(text, value_set=pa.array(condition.operands, pa.string()))
        found: np.ndarray[Any, Any] = pc.fill_null(mask, fill_value=False).to_numpy(zero_copy_only=False)
        return found


def pointed(array: pa.Array, decimal: str) -> pa.Array:
    """Return text whose decimal sign is `decimal` with a point instead; a point that was there makes it no number."""
    if decimal == "." or not pa.types.is_string(array.type):
        return array
    return pc.replace_substring(pc.replace_substring(array, ".", "\u00b7"), decimal, ".")


def find_column(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    """Return a column by its name, or by a dotted path into struct columns."""
    at = batch.schema.get_all_field_indices(name)
    if len(at) > 1:
        raise InputError(f"there are {len(at)} columns {name}", fix="keep one of them")
    if at:
        return plain(batch.column(at[0]))
    head, *segments = name.split(EACH)
    head, *path = head.split(".")
    at = batch.schema.get_all_field_indices(head)
    if not (path or segments) or len(at) != 1:
        return None
    array = _member(plain(batch.column(at[0])), path, name, 1)
    return _each(array, segments) if array is not None and segments else array


def _member(array: pa.Array, path: list[str], name: str, depth: int) -> pa.Array | None:
    """Return what a path leads to in struct columns, None if it is not there.

    Errors  InputError  it leads into a list without saying so
    """
    for at, step in enumerate(path):
        if pa.types.is_null(array.type):
            return array  # a column of nulls alone, of which nobody knew more when it was written
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            raise reach_into_list(name, depth + at)
        if not pa.types.is_struct(array.type) or array.type.get_field_index(step) < 0:
            return None
        array = plain(pc.struct_field(array, step))
    return array


def _each(lists: pa.Array, segments: list[str]) -> pa.Array | None:
    """Return lists of what the rest of a path leads to in each element."""
    if pa.types.is_null(lists.type):
        lists = pa.nulls(len(lists), pa.list_(pa.null()))
    if pa.types.is_large_list(lists.type):
        lists = lists.cast(pa.list_(lists.type.value_type))
    if not pa.types.is_list(lists.type):
        return None
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    path = [step for step in segments[0].split(".") if step]
    inner = _member(plain(lists.flatten()), path, segments[0], 0)
    if inner is not None and len(segments) > 1:
        inner = _each(inner, segments[1:])
    if inner is None:
        return None
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), inner)


def _without_empty(text: pa.Array) -> pa.Array:
    empty = pc.equal(pc.binary_length(text), 0)
    return pc.if_else(empty, pa.scalar(None, pa.string()), text) if pc.any(empty).as_py() else text


def _text_steps(array: pa.Array, expression: Expression) -> pa.Array:
    """Apply the steps of an expression to a column; without steps the column keeps its type."""
    changes = (
        expression.strip_prefix,
        expression.strip_suffix,
        expression.remove,
        expression.thousands,
        expression.case,
        expression.prefix,
        expression.suffix,
    )
    if not any(changes):
        return array
    text = _without_empty(to_text(array, expression.text or expression.kind))
    status = np.empty(len(text), np.uint8)
    check_text(*text_buffers(text), text.nbytes, status)
    if not (status == BAD).any():
        return _stepped(text, expression)
    # Arrow's functions read on behind a cell that ends amidst a character. It stays as it is: malformed.
    good = pa.array(status != BAD)
    return pc.if_else(good, _stepped(pc.if_else(good, text, None), expression), text)


def _stepped(text: pa.Array, expression: Expression) -> pa.Array:
    if expression.strip_prefix:
        text = pc.replace_substring_regex(text, f"^{re.escape(expression.strip_prefix)}", "")
    if expression.strip_suffix:
        text = pc.replace_substring_regex(text, f"{re.escape(expression.strip_suffix)}$", "")
    for piece in expression.remove:
        text = pc.replace_substring(text, piece, "")
    if expression.thousands:
        mark, point = re.escape(expression.thousands), re.escape(expression.decimal)
        grouped = pc.match_substring_regex(text, rf"^\D*\d{{1,3}}(?:{mark}\d{{3}})+(?:{point}\d*)?\D*$")
        text = pc.if_else(grouped, pc.replace_substring(text, expression.thousands, ""), text)
    if expression.case:
        text = pc.utf8_lower(text) if expression.case == "lower" else pc.utf8_upper(text)
    if expression.prefix or expression.suffix:
        text = pc.binary_join_element_wise(repeat(expression.prefix, len(text)), text, expression.suffix, "")
    return text
