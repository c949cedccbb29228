"""Paths into JSON objects: `a.b` reaches into objects, `a[*].b` into each element of a list."""

from collections.abc import Sequence
from typing import Any

from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import EACH


def along(objects: Sequence[dict[str, Any]], name: str) -> list[Any]:
    """Return a value of each object: under the whole name, else along the path; with `[*]` lists of values.

    Errors  InputError  the path reaches into a list without saying so
    """
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
    """Return the value at the end of the segments, a list of them for each but the last."""
    steps = segments[0].split(".") if segments[0] else []
    for step in steps:
        value = value.get(step) if isinstance(value, dict) else None
    if len(segments) == 1:
        return value
    return [_each(item, segments[1:]) for item in value] if isinstance(value, list) else []
