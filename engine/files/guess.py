"""Which shipped map fits a file, told by its columns."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rfmstream.engine.files.input_files import InputFile, find_files
from rfmstream.engine.files.mapping import list_maps, load_map
from rfmstream.engine.files.readers import read_chunks
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import Expression, InputFormat, InputMap

_CONTRACT: Final = (
    ("customer_id",),
    ("order_id",),
    ("occurred_at",),
    ("amount", "amount_minor"),
)

_TABLES: Final = {"csv", "xlsx", "html", "xml"}
"""What a map of delimited text reads as well: a workbook of the same columns."""


@dataclass(frozen=True)
class Fit:
    """How a map fits a file.

    Fields  name     of the map; None: no map, the columns of the contract
            needed   columns that it cannot do without; of columns that stand for each other one is enough
            missing  those the file does not have, alternatives joined by "or"
    """

    name: str | None
    needed: int
    missing: tuple[str, ...]

    @property
    def share(self) -> float:
        """The part of the needed columns that is there, 0..1."""
        return 1 - len(self.missing) / self.needed


def guess_map(path: Path) -> tuple[Fit, ...]:
    """Return how each shipped map fits a file, the best first; of equal ones the one that reads more columns.

    Errors  InputError  the file is missing, damaged or of unknown format
    """
    file = find_files([path], InputFormat())[0]
    problem: InputError | None = None
    there: set[str] = set()
    try:
        there = _names(file, [name for names in _CONTRACT for name in names])
    except InputError as error:
        # A map may know better how it is to be read, such as its encoding.
        problem = error
    fits = [_fit(None, _CONTRACT, there)]
    for name in list_maps():
        input_map = load_map(name)
        if input_map.input.format in (None, file.format) or {input_map.input.format, file.format} <= _TABLES:
            # In JSON what does not apply is left out, such as refunds: the first section's columns are the order's.
            events = input_map.events[: 1 if file.format == "jsonl" else None]
            needs = tuple(dict.fromkeys(_needs(replace(input_map, events=events))))
            fits.append(_fit(name, needs, _names_as(path, input_map)))
    if problem is not None and not any(fit.share for fit in fits):
        raise problem
    return tuple(sorted(fits, key=lambda fit: (-fit.share, -fit.needed)))


def _fit(name: str | None, needs: tuple[tuple[str, ...], ...], there: set[str]) -> Fit:
    missing = tuple(" or ".join(names) for names in needs if not there.intersection(names))
    return Fit(name, len(needs), missing)


def _names_as(path: Path, input_map: InputMap) -> set[str]:
    """Return the columns of a file as a map reads it; none where it cannot."""
    try:
        return _names(find_files([path], input_map.input)[0], list(input_map.columns()))
    except InputError:
        return set()


def _names(file: InputFile, wanted: list[str]) -> set[str]:
    """Return those of the wanted columns that the start of a file has; of JSON, those that say something."""
    found: set[str] = set()
    for chunk in read_chunks(file, wanted, first_row=0, tick=lambda _: None):
        batch = chunk.batch
        for name in wanted:
            if name in batch.schema.names:
                column = batch.column(batch.schema.get_field_index(name))
                if file.format != "jsonl" or column.null_count < len(column):
                    found.add(name)
            elif name.split(".")[0] in batch.schema.names:
                found.add(name)
        if batch.num_rows:
            break
    return found


def _needs(input_map: InputMap) -> Iterator[tuple[str, ...]]:
    """Yield what the events of a map cannot do without, each as the columns of which one must be there."""
    for event in input_map.events:
        for part in (
            *(event.customer_id, event.order_id, event.occurred_at, event.amount, event.currency),
            event.type,
        ):
            if isinstance(part, Expression):
                yield from _of(part)
        if event.when is not None:
            for name in event.when.columns():
                if not _is_optional(input_map, name):
                    yield (name,)


def _of(expression: Expression) -> Iterator[tuple[str, ...]]:
    if expression.optional or not any(expression.columns()):
        return
    if expression.kind == "first_of":
        yield tuple(dict.fromkeys(expression.columns()))
    elif expression.kind == "column":
        yield (expression.text,)
    else:
        for term in expression.terms:
            yield from _of(term)


def _is_optional(input_map: InputMap, name: str) -> bool:
    """Whether a condition's column may be missing: it is named as optional, or lies in a list that may be empty."""
    return "[*]" in name or name in _optional_columns(input_map)


def _optional_columns(input_map: InputMap) -> set[str]:
    found: set[str] = set()

    def visit(expression: Expression, *, optional: bool) -> None:
        optional = optional or expression.optional or expression.kind == "first_of"
        if expression.kind == "column" and optional:
            found.add(expression.text)
        for term in expression.terms:
            visit(term, optional=optional)

    for event in input_map.events:
        conditions = [] if event.when is None else [event.when]
        while conditions:
            condition = conditions.pop()
            conditions += condition.parts
            if condition.value is not None:
                visit(condition.value, optional=False)
    return found
