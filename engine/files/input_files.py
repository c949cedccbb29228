"""Input files: which they are, what format they have, and their bytes unpacked."""

import codecs
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from rfmstream.engine.files.encodings import decoder_of, encoded
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import Format, InputFormat

BLOCK_BYTES: Final = 4 << 20
_HEAD_BYTES: Final = 4096
_SUFFIXES: Final[dict[str, Format]] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
_PACKED_SUFFIXES: Final = (".gz", ".zst", ".zstd")
_UTF16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class InputFile:
    """One file to read.

    Fields  size         bytes on disk, the unit of progress
            format       told by the suffix, else by the content; the map's word counts more than both
            compression  "gzip", "zstd" or None, told by the content
            delimiter    of delimited text: a character or "whitespace"
            form         what the map says of it, if anything
    """

    path: Path
    size: int
    format: Format
    compression: str | None
    delimiter: str
    encoding: str
    header: tuple[str, ...]
    form: InputFormat

    @property
    def name(self) -> str:
        """Return the name it goes by in rejected rows and errors."""
        return str(self.path)


def find_files(inputs: Sequence[Path], form: InputFormat) -> tuple[InputFile, ...]:
    """Return the files to read, in order; a directory stands for all files below it, sorted by path.

    Names that start with a dot or an underscore inside a directory are left out: partial and marker files do.

    Errors  InputError  a path is not there, a directory holds no file, a format cannot be told
    """
    found: list[InputFile] = []
    for given in inputs:
        path = Path(given)
        if os.path.isdir(path):  # noqa: PTH112 - a name too long for the system is none
            below = sorted(
                inner for inner in path.rglob("*") if inner.is_file() and not _is_hidden(inner, path)
            )
            if not below:
                raise InputError("the directory holds no file to read", source=path)
            found += [_inspect(inner, form) for inner in below]
        elif os.path.exists(path):  # noqa: PTH110
            found.append(_inspect(path, form))
        else:
            raise InputError("there is no such file or directory", source=path)
    if not found:
        raise InputError("no input was named", fix="name at least one file or directory")
    return tuple(found)


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.relative_to(root).parts)


def _inspect(path: Path, form: InputFormat) -> InputFile:
    with reading(path):
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_HEAD_BYTES)
        compression = (
            "gzip" if start[:2] == b"\x1f\x8b" else "zstd" if start[:4] == b"\x28\xb5\x2f\xfd" else None
        )
        suffixes = [suffix.lower() for suffix in path.suffixes]
        if suffixes and suffixes[-1] in _PACKED_SUFFIXES:
            if compression is None and size:
                raise InputError(
                    f"is named {suffixes[-1]} but is not compressed so", source=path, fix="rename it"
                )
            suffixes.pop()
        suffix = suffixes[-1] if suffixes else ""
        format_ = form.format or _SUFFIXES.get(suffix)
        if format_ is None:
            format_ = _told_by_content(_head(path, compression), path)
    delimiter = form.delimiter or ("\t" if suffix == ".tsv" else ",")
    return InputFile(path, size, format_, compression, delimiter, form.encoding, form.columns, form)


def _head(path: Path, compression: str | None) -> bytes:
    with pa.OSFile(str(path)) as raw:
        if compression is None:
            return bytes(raw.read(_HEAD_BYTES))
        with pa.CompressedInputStream(raw, compression) as stream:
            return bytes(stream.read(_HEAD_BYTES))


def _told_by_content(head: bytes, path: Path) -> Format:
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff":
        return "arrow"
    text = head.lstrip(codecs.BOM_UTF8 + b" \t\r\n")
    if text[:1] in (b"{", b"["):
        return "jsonl"
    first = text.partition(b"\n")[0]
    if b"," in first and not any(byte < 32 and byte not in b"\t\r" for byte in first):
        return "csv"
    raise InputError(
        "its format cannot be told from its name or content",
        source=path,
        fix=f"rename it ({', '.join(_SUFFIXES)}, then .gz or .zst), or set [input] format in a map",
    )


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn what Arrow and the operating system say of a damaged or unreadable file into an InputError."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeError) as error:
        # Both kinds overlap: Arrow raises plain OSError for truncated streams. Names may be no UTF-8.
        words = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read: {words}", source=path) from error


@contextmanager
def naming(source: Path | str) -> Iterator[None]:
    """Name the file in an InputError that does not."""
    try:
        yield
    except InputError as error:
        if error.source is None:
            raise InputError(error.problem, source=source, fix=error.fix) from error
        raise


def read_blocks(file: InputFile, tick: Callable[[int], None]) -> Iterator[bytes]:
    """Yield a text file's bytes, unpacked, as UTF-8 without a byte order mark, in blocks.

    `tick` gets the bytes of the file consumed so far, compressed ones where it is compressed.
    """
    with pa.OSFile(file.name) as raw:
        stream = raw if file.compression is None else pa.CompressedInputStream(raw, file.compression)
        decoder: codecs.IncrementalDecoder | None = None
        at_start = True
        while block := stream.read(BLOCK_BYTES):
            if at_start:
                at_start = False
                decoder = _decoder(block, file)
                if decoder is None:
                    block = block.removeprefix(codecs.BOM_UTF8)
            tick(raw.tell())
            yield block if decoder is None else _decoded(decoder, block, file, final=False)
        if decoder is not None:
            yield _decoded(decoder, b"", file, final=True)


def _decoder(block: bytes, file: InputFile) -> codecs.IncrementalDecoder | None:
    """Return what turns the bytes into text, None if they are UTF-8 already."""
    if block[:2] in _UTF16_MARKS:
        return decoder_of("utf-16")
    return decoder_of(file.encoding)


def _decoded(decoder: codecs.IncrementalDecoder, block: bytes, file: InputFile, *, final: bool) -> bytes:
    try:
        return encoded(decoder.decode(block, final))
    except UnicodeError as error:
        raise InputError(f"is not {file.encoding} text: {error}", source=file.path) from error


@contextmanager
def unpacked(file: InputFile) -> Iterator[Path]:
    """Give a path to the file's plain bytes: the file itself, or a temporary copy of a compressed one.

    Parquet and Arrow files are read from their end, which a compressed stream cannot do.
    """
    if file.compression is None:
        yield file.path
        return
    with tempfile.TemporaryDirectory(prefix="rfmstream-") as directory:
        plain = Path(directory) / "unpacked"
        with (
            pa.OSFile(file.name) as raw,
            pa.CompressedInputStream(raw, file.compression) as stream,
            plain.open("wb") as out,
        ):
            while block := stream.read(BLOCK_BYTES):
                out.write(block)
        yield plain
