"""JSON objects to the text columns the ordinary path judges: numbers as their digits, as they came."""

import json
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import numpy as np
import pyarrow as pa

from rfmstream.engine.events.json_paths import NO_LIST, along
from rfmstream.kernels.json_text import nesting
from rfmstream.schemas.mapping import EACH

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

    A path with `[*]` gives lists of texts. Left out are records that are None, or hold an object or a list where a
    wanted value should be, or something else where a list should be;
    of a list that others of the paths go through only whether it holds anything is asked.

    Errors  InputError  a path reaches into a list without `[*]`
    """
    good = [at for at, record in enumerate(records) if record is not None]
    objects = [record for record in records if record is not None]
    columns = [along(objects, name) for name in wanted]
    lists = {name.partition(EACH)[0] for name in wanted if EACH in name}
    for at, name in enumerate(wanted):
        if EACH in name:
            columns[at] = [_leaves(value) for value in columns[at]]
        elif name in lists:
            columns[at] = [_presence(value) for value in columns[at]]
    nested = {
        at
        for name, values in zip(wanted, columns, strict=True)
        for at, value in enumerate(values)
        if (value is _NESTED if EACH in name else isinstance(value, dict | list))
    }
    if nested:
        columns = [[v for at, v in enumerate(values) if at not in nested] for values in columns]
        good = [place for at, place in enumerate(good) if at not in nested]
    arrays = [
        pa.array(values, _list_type(name.count(EACH))) if EACH in name else _text_array(values)
        for name, values in zip(wanted, columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, names=list(wanted)), good


_NESTED: Final = object()


def _list_type(depth: int) -> pa.DataType:
    kind = pa.string()
    for _ in range(depth):
        kind = pa.list_(kind)
    return kind


def _presence(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a text that tells a list which holds something from one that does not."""
    return (f"{len(value)}" if value else None) if isinstance(value, list) else value


def _leaves(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return lists with texts and nulls at their ends, or _NESTED where there is something else."""
    if value is NO_LIST:
        return _NESTED
    found = []
    for item in value:
        leaf = _leaves(item) if isinstance(item, list) else item
        if isinstance(leaf, bool):
            leaf = str(leaf).lower()
        if (
            leaf is NO_LIST
            or leaf is _NESTED
            or isinstance(leaf, dict)
            or (isinstance(leaf, str) and not _is_utf8(leaf))
        ):
            return _NESTED
        found.append(leaf)
    return found


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
