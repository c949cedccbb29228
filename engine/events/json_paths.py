"""Paths into JSON objects: `a.b` reaches into objects, `a[*].b` into each element of a list."""

import re
from collections.abc import Sequence
from typing import Any, Final

from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import EACH

NO_LIST: Final = object()
"""What a path leads to that says `[*]` where there is something else than a list."""

_ONE_ELEMENT: Final = re.compile(r"\[[0-9]+\]")


def along(objects: Sequence[dict[str, Any]], name: str) -> list[Any]:
    """Return a value of each object: under the whole name, else along the path; with `[*]` lists of values.

    Errors  InputError  the path reaches into a list without saying so, or names one element of it
    """
    if (index := _ONE_ELEMENT.search(name)) and not any(name in record for record in objects):
        there = along(objects, name[: index.start()])
        if any(isinstance(value, list) for value in there):
            fix = _ONE_ELEMENT.sub(EACH, name)
            raise InputError(
                f"the path {name!r} names one element of a list", fix=f"write {fix!r}: one event an element"
            )
    if EACH in name:
        segments = [part.removeprefix(".") for part in name.split(EACH)]
        return [_each(record, segments) for record in objects]
    head, *path = name.split(".")
    values: list[Any] = [record.get(head) for record in objects]
    for at, step in enumerate(path):
        if any(type(value) is list and value for value in values):
            whole = [record for record, value in zip(objects, values, strict=True) if type(value) is list]
            if not all(name in record for record in whole):
                raise reach_into_list(name, at + 1)
        values = [value.get(step) if isinstance(value, dict) else None for value in values]
    if path:
        values = [record.get(name, value) for record, value in zip(objects, values, strict=True)]
    return values


def reach_into_list(name: str, depth: int) -> InputError:
    """Build (not raise) the error of a path whose first `depth` steps lead to a list."""
    steps = name.split(".")
    there, rest = ".".join(steps[:depth]), steps[depth:]
    if rest and rest[0].isdigit():
        rest = rest[1:]
    path = there + EACH + "".join(EACH if step.isdigit() else f".{step}" for step in rest)
    return InputError(
        f"the path {name!r} reaches into a list, {there!r}", fix=f"write {path!r}: one event an element"
    )


def _each(value: Any, segments: list[str]) -> Any:  # noqa: ANN401 - JSON
    """Return the value at the end of the segments, a list of them for each but the last; NO_LIST where there is none.

    An absent list has no elements, and so has what programs write for an empty one: "", false and {}.
    """
    steps = segments[0].split(".") if segments[0] else []
    for step in steps:
        value = value.get(step) if isinstance(value, dict) else None
    if len(segments) == 1:
        return value
    if not isinstance(value, list):
        return NO_LIST if value else []
    has_steps = segments[1:] != [""]
    if has_steps and any(item is not None and not isinstance(item, dict | list) for item in value):
        return NO_LIST
    return [_each(item, segments[1:]) for item in value]
