"""JSON lines, or one JSON array: numbers as the text of their digits, a damaged line as a row of its own."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn

import numpy as np
import pyarrow as pa

from engine.ingest.files import InputFile, read_blocks
from engine.ingest.records import Chunk
from schemas.errors import InputError

_ROWS_MAX: Final = 1 << 16
_LINE_BYTES_MAX: Final = 16 << 20
_ARRAY_BYTES_MAX: Final = 256 << 20


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Numbers stay the text they are: an id of 20 digits and an amount of 0.10 both survive.
_DECODER: Final = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=_refuse_constant)


def read_json_lines(
    file: InputFile, wanted: Sequence[str], *, first_row: int, tick: Callable[[int], None]
) -> Iterator[Chunk]:
    """Yield the wanted values of each object as text columns; a dotted path reaches into nested objects.

    Damaged rows  no JSON, no object, nested too deep, or an object or list where a wanted value should be
    Errors  InputError  a JSON array above 256 MiB or damaged, a line above 16 MiB
    """
    collector = _Collector(file, wanted, first_row)
    for lines in _lines(file, tick):
        for start in range(0, len(lines), _ROWS_MAX):
            yield collector.chunk(lines[start : start + _ROWS_MAX])


def _lines(file: InputFile, tick: Callable[[int], None]) -> Iterator[list[bytes | dict[str, Any]]]:
    """Yield lists of lines without the blank ones, or of the parsed items of one array."""
    pending, begun = b"", False
    blocks = read_blocks(file, tick)
    for block in blocks:
        pending += block
        if not begun:
            begun = bool(pending.strip())
            if pending.lstrip()[:1] == b"[":
                yield _array(file, pending, blocks)
                return
        whole, newline, rest = pending.rpartition(b"\n")
        pending = rest
        if newline:
            yield [line for line in whole.split(b"\n") if line.strip()]
        elif len(pending) > _LINE_BYTES_MAX:
            raise InputError("a line is longer than 16 MiB", source=file.path, fix="write one object a line")
    if pending.strip():
        yield [pending]


def _array(file: InputFile, start: bytes, blocks: Iterator[bytes]) -> list[bytes | dict[str, Any]]:
    parts, size = [start], len(start)
    for block in blocks:
        parts.append(block)
        size += len(block)
        if size > _ARRAY_BYTES_MAX:
            raise InputError(
                "a JSON array above 256 MiB cannot be read in pieces",
                source=file.path,
                fix="write one object a line",
            )
    try:
        items = _DECODER.decode(b"".join(parts).decode())
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"is no JSON array: {error}", source=file.path, fix="write one object a line"
        ) from error
    return [item if isinstance(item, dict) else json.dumps(item).encode() for item in items]


class _Collector:
    """Turns lines into chunks; keeps the ordinal of the next row."""

    def __init__(self, file: InputFile, wanted: Sequence[str], first_row: int) -> None:
        self._file = file
        self._wanted = tuple(wanted)
        self._next_row = first_row

    def chunk(self, lines: list[bytes | dict[str, Any]]) -> Chunk:
        """Parse some lines."""
        records = [line if isinstance(line, dict) else _parse(line) for line in lines]
        ordinals = np.arange(self._next_row, self._next_row + len(lines), dtype=np.int64)
        self._next_row += len(lines)
        good = [at for at, record in enumerate(records) if record is not None]
        objects = [record for record in records if record is not None]
        columns = [_values(objects, name) for name in self._wanted]
        nested = {
            at for values in columns for at, value in enumerate(values) if isinstance(value, dict | list)
        }
        if nested:
            columns = [[v for at, v in enumerate(values) if at not in nested] for values in columns]
            good = [position for at, position in enumerate(good) if at not in nested]
        arrays = [_text_array(values) for values in columns]
        batch = pa.RecordBatch.from_arrays(arrays, names=list(self._wanted))
        if len(good) == len(lines):
            return Chunk(self._file.name, self._wanted, batch, ordinals)
        damaged = sorted(set(range(len(lines))) - set(good))
        raw = tuple(_raw(lines[at]) for at in damaged)
        return Chunk(self._file.name, self._wanted, batch, ordinals[good], ordinals[damaged], raw)


def _values(objects: list[dict[str, Any]], name: str) -> list[Any]:
    """Return a value of each object: under the whole name, else along the dotted path."""
    head, *path = name.split(".")
    values: list[Any] = [record.get(head) for record in objects]
    for step in path:
        values = [value.get(step) if isinstance(value, dict) else None for value in values]
    if path:
        values = [record.get(name, value) for record, value in zip(objects, values, strict=True)]
    return values


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the object of a line, None if there is none."""
    try:
        record = _DECODER.decode(line.decode())
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


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


def _raw(line: bytes | dict[str, Any]) -> str:
    return json.dumps(line) if isinstance(line, dict) else line.decode(errors="replace").rstrip("\r")
