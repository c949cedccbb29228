"""JSON objects to the text columns the ordinary path judges: numbers as their digits, as they came."""

import json
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import numpy as np
import pyarrow as pa

from rfmstream.kernels.json_text import nesting

NESTING_MAX: Final = 100
"""How deep a line may nest. Python's own limit depends on who calls, and a replay must be equal."""

_OPENING: Final = (b"{", b"[")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Numbers stay the text they are: an id of 20 digits and an amount of 0.10 both survive.
DECODER: Final = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=_refuse_constant)


def parse_object(line: bytes) -> dict[str, Any] | None:
    """Return the object of a JSON text, None if there is none."""
    if is_deep(line):
        return None
    try:
        record = DECODER.decode(line.decode())
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def is_deep(text: bytes) -> bool:
    """Return whether a JSON text nests deeper than NESTING_MAX."""
    if sum(map(text.count, _OPENING)) <= NESTING_MAX:
        return False
    return bool(nesting(np.frombuffer(text, np.uint8)) > NESTING_MAX)


def text_rows(
    records: Sequence[dict[str, Any] | None], wanted: Sequence[str]
) -> tuple[pa.RecordBatch, list[int]]:
    """Return the wanted values of the records as text columns, and the places of the records that they are from.

    Left out are records that are None, or hold an object or a list where a wanted value should be.
    """
    good = [at for at, record in enumerate(records) if record is not None]
    objects = [record for record in records if record is not None]
    columns = [_values(objects, name) for name in wanted]
    nested = {at for values in columns for at, value in enumerate(values) if isinstance(value, dict | list)}
    if nested:
        columns = [[v for at, v in enumerate(values) if at not in nested] for values in columns]
        good = [place for at, place in enumerate(good) if at not in nested]
    return pa.RecordBatch.from_arrays([_text_array(values) for values in columns], names=list(wanted)), good


def _values(objects: list[dict[str, Any]], name: str) -> list[Any]:
    """Return a value of each object: under the whole name, else along the dotted path."""
    head, *path = name.split(".")
    values: list[Any] = [record.get(head) for record in objects]
    for step in path:
        values = [value.get(step) if isinstance(value, dict) else None for value in values]
    if path:
        values = [record.get(name, value) for record, value in zip(objects, values, strict=True)]
    return values


def _text_array(values: list[Any]) -> pa.Array:
    """Return texts and nulls as a column; true and false become those words."""
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowException, TypeError, UnicodeEncodeError):
        # A boolean, or a lone surrogate: that is no UTF-8, and its row is malformed once its bytes are looked
        # at.
        texts = [str(value).lower() if isinstance(value, bool) else value for value in values]
        raw = pa.array(
            [None if t is None else t.encode("utf-8", "surrogatepass") for t in texts], pa.binary()
        )
        return pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
