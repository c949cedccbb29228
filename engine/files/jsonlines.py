"""JSON lines, or documents that hold records: numbers as their digits, a damaged line as a row of its own."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Final

import numpy as np

from rfmstream.engine.events.json_rows import DECODER, parse_object, text_rows
from rfmstream.engine.events.json_scan import PAD, OrderScanner
from rfmstream.engine.files.chunks import Chunk
from rfmstream.engine.files.input_files import InputFile, read_blocks
from rfmstream.engine.files.pages import Pages
from rfmstream.kernels.json_split import LINES, split_records
from rfmstream.schemas.errors import InputError

_ROWS_MAX: Final = 1 << 16
_LINE_BYTES_MAX: Final = 16 << 20
_ARRAY_BYTES_MAX: Final = 256 << 20


def read_json_lines(
    file: InputFile,
    wanted: Sequence[str],
    *,
    first_row: int,
    tick: Callable[[int], None],
    scanner: OrderScanner | None = None,
) -> Iterator[Chunk]:
    """Yield the wanted values of each object as text columns; a dotted path reaches into nested objects.

    With a scanner the lines that it accepts come as orders, and only the others as columns.

    An array, an object over several lines and the list of records in an object are read, too.

    Damaged rows  no JSON, no object, nested too deep, or an object or list where a wanted value should be
    Errors  InputError  a JSON document above 256 MiB or damaged, a line above 16 MiB, no list where the map says
    """
    collector = _Collector(file, wanted, first_row)
    for part in _parts(file, wanted, tick):
        if scanner is not None and isinstance(part, bytes):
            yield from collector.scanned(part, scanner)
            continue
        lines: list[bytes | dict[str, Any]]
        lines = [line for line in part.split(b"\n") if line.strip()] if isinstance(part, bytes) else part
        for start in range(0, len(lines), _ROWS_MAX):
            yield collector.chunk(lines[start : start + _ROWS_MAX])


def _parts(
    file: InputFile, wanted: Sequence[str], tick: Callable[[int], None]
) -> Iterator[bytes | list[bytes | dict[str, Any]]]:
    """Yield blocks of whole lines, or the parsed records of documents."""
    blocks = read_blocks(file, tick)
    pending = _first_line(blocks)
    pages = Pages(file.form.records, wanted, file.name)
    kind = pages.kind(pending)
    if kind == "documents":
        yield [
            item if isinstance(item, dict) else json.dumps(item).encode()
            for document in _documents(file, pending, blocks)
            for item in pages.records(document)
        ]
        return
    for block in chain((b"",), blocks):
        pending += block
        whole, newline, rest = pending.rpartition(b"\n")
        pending = rest
        if newline:
            yield pages.of_lines(whole) if kind == "pages" else whole
        elif len(pending) > _LINE_BYTES_MAX:
            raise InputError("a line is longer than 16 MiB", source=file.name, fix="write one object a line")
    if pending.strip():
        yield pages.of_lines(pending) if kind == "pages" else pending


def _first_line(blocks: Iterator[bytes]) -> bytes:
    """Return the first blocks, with a whole line that is not blank where there is one."""
    pending = b""
    for block in blocks:
        pending += block
        if b"\n" in pending.lstrip() or len(pending) > _LINE_BYTES_MAX:
            break
    return pending


def _documents(file: InputFile, start: bytes, blocks: Iterator[bytes]) -> list[Any]:
    """Return all documents of a file, one after another."""
    parts, size = [start], len(start)
    for block in blocks:
        parts.append(block)
        size += len(block)
        if size > _ARRAY_BYTES_MAX:
            raise InputError(
                "a JSON document above 256 MiB cannot be read in pieces",
                source=file.name,
                fix="write one object a line",
            )
    found, at = [], 0
    try:
        text = b"".join(parts).decode()
        while (at := _behind_blanks(text, at)) < len(text):
            document, at = DECODER.raw_decode(text, at)
            found.append(document)
    except (ValueError, RecursionError) as error:
        if b"\n" not in b"".join(parts).strip() and size > _LINE_BYTES_MAX:
            raise InputError(
                "a line is longer than 16 MiB", source=file.name, fix="write one object a line"
            ) from error
        raise InputError(
            f"is no JSON array or object: {error}", source=file.name, fix="write one object a line"
        ) from error
    return found


def _behind_blanks(text: str, at: int) -> int:
    """Return where the next document begins; some programs write a comma behind each."""
    while at < len(text) and (text[at].isspace() or (text[at] == "," and at > 0)):
        at += 1
    return at


class _Collector:
    """Turns lines into chunks; keeps the ordinal of the next row."""

    def __init__(self, file: InputFile, wanted: Sequence[str], first_row: int) -> None:
        self._file = file
        self._wanted = tuple(wanted)
        self._next_row = first_row

    def chunk(self, lines: list[bytes | dict[str, Any]]) -> Chunk:
        """Parse some lines."""
        ordinals = np.arange(self._next_row, self._next_row + len(lines), dtype=np.int64)
        self._next_row += len(lines)
        return self._parsed(lines, ordinals)

    def scanned(self, block: bytes, scanner: OrderScanner) -> Iterator[Chunk]:
        """Scan a block of whole lines, and parse those that are not plain orders."""
        data = np.frombuffer(block + PAD, np.uint8)
        edges = np.empty((2, 1 + block.count(b"\n")), np.int64)
        whole = np.zeros(1, np.int64), np.array([len(block)]), np.array([LINES], np.uint8)
        count = int(split_records(data, *whole, *edges, np.empty(2, np.int64)))
        for first in range(0, count, _ROWS_MAX):
            starts, ends = edges[:, first : min(first + _ROWS_MAX, count)]
            orders, accepted = scanner.scan(data, starts, ends, first_row=self._next_row)
            rest = np.flatnonzero(~accepted)
            lines: list[bytes | dict[str, Any]] = [block[starts[at] : ends[at]] for at in rest.tolist()]
            yield replace(self._parsed(lines, self._next_row + rest), orders=orders)
            self._next_row += len(starts)

    def _parsed(self, lines: list[bytes | dict[str, Any]], ordinals: np.ndarray[Any, Any]) -> Chunk:
        batch, good = text_rows(
            [line if isinstance(line, dict) else parse_object(line) for line in lines], self._wanted
        )
        if len(good) == len(lines):
            return Chunk(self._file.name, self._wanted, batch, ordinals)
        damaged = sorted(set(range(len(lines))) - set(good))
        raw = tuple(_raw(lines[at]) for at in damaged)
        return Chunk(self._file.name, self._wanted, batch, ordinals[good], ordinals[damaged], raw)


def _raw(line: bytes | dict[str, Any]) -> str:
    return json.dumps(line) if isinstance(line, dict) else line.decode(errors="replace").rstrip("\r")
