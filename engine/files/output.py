"""Output files: a table arrives batch by batch, and the file appears whole or not at all.

A file is written under a temporary name in its own folder, forced to the disk and renamed when everything has gone
well; any failure, Ctrl-C included, removes it and leaves what was there before. The suffix chooses the format.
"""

import errno
import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from types import TracebackType
from typing import Any, Final, Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq

from rfmstream.engine.core.checkpoint.created import create
from rfmstream.engine.files.parquet_sink import ParquetSink
from rfmstream.engine.files.text_rows import (
    ROWS_AT_ONCE,
    csv_header,
    csv_lines,
    json_lines,
    safe_csv_lines,
)
from rfmstream.schemas.errors import ConfigError, TransportError

CSV_IS_SAFE: Final[ContextVar[bool]] = ContextVar("CSV_IS_SAFE", default=False)
"""Whether CSV files that are opened from now on guard the texts that a spreadsheet would run: `--csv-safe`."""


class _Sink(Protocol):
    def write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...

    def abandon(self) -> None:
        """Close without an end: the file is removed next."""


class OutputFile:
    """One file in the making. As a context manager it is discarded unless it was published.

    Fields  path  where it will be
            rows  written so far
    Errors  ConfigError     an unknown suffix; when it is opened: no such folder, not allowed to write there
            TransportError  later: the disk is full or failed
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = check_output(path)
        self.rows = 0
        self._target = target_of(self.path)
        self._part: Path | None = part_of(self._target)
        self._schema = schema
        self._sink: _Sink | None = None

    def open(self) -> None:
        """Make the file. Whoever calls it has seen to it that `discard` follows, even if this is interrupted."""
        assert self._part is not None, "opened after the end"
        try:
            if self._target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            create(self._part, like=self._target)
            self._sink = _SINKS[self.path.suffix.lower()](self._part, self._schema)
        except OSError as error:
            raise ConfigError(
                f"cannot be written: {_words(error)}", file=self.path, fix="name another file or folder"
            ) from error

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch."""
        sink = self._sink
        assert sink is not None, "rows before the beginning or after the end"
        if batch.num_rows:
            self._attempt(lambda: sink.write(batch))
            self.rows += batch.num_rows

    def finish(self) -> None:
        """Write the end of the file and force it to the disk, still under its temporary name."""
        sink, part = self._sink, self._part
        if sink is not None and part is not None:
            self._sink = None
            self._attempt(sink.close)
            self._attempt(lambda: _force(part))

    def publish(self) -> None:
        """Give the file its name, in place of what had it."""
        self.finish()
        part = self._part
        assert part is not None, "published twice"
        self._attempt(lambda: part.replace(self._target))
        self._part = None
        self._attempt(lambda: _force(self._target.parent))

    def discard(self) -> None:
        """Remove the file unless it was published."""
        part, self._part = self._part, None
        sink, self._sink = self._sink, None
        if part is None:
            return
        # It goes anyway, and the failure that led here is the one to tell.
        with suppress(OSError, pa.ArrowException):
            if sink is not None:
                sink.abandon()
        with suppress(OSError):  # a name too long for the system is one to remove, too
            part.unlink(missing_ok=True)

    def _attempt(self, step: Callable[[], Any]) -> None:
        try:
            step()
        except OSError as error:
            raise TransportError(
                f"writing broke off: {_words(error)}",
                endpoint=str(self.path),
                fix="make room and run it again; nothing was left half-written",
            ) from error


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table to a file.

    Errors  as of OutputFile
    """
    with OutputFile(path, table.schema) as out:
        for batch in table.to_batches():
            out.write(batch)
        out.publish()


def rows_in(path: Path) -> int:
    """Return how many rows an output file holds; 0: none, or no file. A line feed within a CSV text counts as one."""
    try:
        match path.suffix.lower():
            case ".parquet":
                return int(pq.read_metadata(path).num_rows)
            case ".arrow":
                with pa.OSFile(str(path)) as source:
                    return int(pa.ipc.open_file(source).count_rows())
            case suffix:
                with path.open("rb") as file:
                    lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
                return max(lines - (suffix == ".csv"), 0)
    except (OSError, pa.ArrowException):
        return 0


def check_output(path: Path) -> Path:
    """Return `path` if its suffix names a format.

    Errors  ConfigError  another suffix; lists those there are
    """
    path = Path(path)
    if path.suffix.lower() not in _SINKS:
        raise ConfigError(
            f"cannot write {path.suffix or 'a file without a suffix'}",
            file=path,
            fix=f"use one of {' '.join(_SINKS)}",
        )
    return path


def target_of(path: Path) -> Path:
    """Return the file that an output is to replace: a link stays a link, and the one behind it goes.

    Errors  ConfigError  that is a device or a pipe: they are not written to but replaced
    """
    target = Path(os.path.realpath(path))  # of links in a circle one of them, where Path.resolve raises
    with suppress(OSError):  # not there, or a name too long: told when it is opened
        mode = target.stat().st_mode
        if not (S_ISREG(mode) or S_ISDIR(mode)):
            raise ConfigError(
                "is a device or a pipe, which the file would replace", file=path, fix="name a file"
            )
    return target


def part_of(target: Path) -> Path:
    """Return the name a file has while it is made: beside it, and one that nobody can guess."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse outputs that would overwrite an input or each other, or be read as input by the next run.

    Errors  ConfigError  names the output at fault
    """
    inputs = [Path(os.path.realpath(path)) for path in inputs]
    seen: set[Path] = set()
    for path in outputs:
        target = target_of(check_output(path))
        if target in seen:
            raise ConfigError("is named for two outputs", file=path, fix="give each its own file")
        seen.add(target)
        for source in inputs:
            if _same(target, source):
                raise ConfigError("would overwrite an input", file=path, fix="name another file")
            if source.is_dir() and target.is_relative_to(source):
                raise ConfigError(
                    "lies in an input directory and would be read as orders next time",
                    file=path,
                    fix="write it to another folder",
                )


def _words(error: OSError) -> str:
    # Arrow puts a sentence of its own with the path in it where the system's few words stand.
    return os.strerror(error.errno) if error.errno else str(error)


def _same(target: Path, source: Path) -> bool:
    try:
        return target == source or target.samefile(source)
    except OSError:
        return False


def _force(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _ArrowSink:
    """An uncompressed IPC file: a reader maps it into memory instead of decoding it."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_file(str(path), schema)

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()

    def abandon(self) -> None:
        self.close()


class _TextSink:
    def __init__(self, path: Path, header: bytes, lines: Callable[[pa.RecordBatch], pa.Buffer]) -> None:
        self._lines = lines
        self._file = path.open("wb")
        self._file.write(header)

    def write(self, batch: pa.RecordBatch) -> None:
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            self._file.write(self._lines(batch.slice(start, ROWS_AT_ONCE)))

    def close(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        self.close()


def _csv_sink(path: Path, schema: pa.Schema) -> _TextSink:
    return _TextSink(path, csv_header(schema), safe_csv_lines if CSV_IS_SAFE.get() else csv_lines)


def _json_lines_sink(path: Path, _: pa.Schema) -> _TextSink:
    return _TextSink(path, b"", json_lines)


_SINKS: Final[dict[str, Callable[[Path, pa.Schema], _Sink]]] = {
    ".parquet": ParquetSink,
    ".arrow": _ArrowSink,
    ".csv": _csv_sink,
    ".jsonl": _json_lines_sink,
}
