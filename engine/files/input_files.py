"""Input files: which they are, what format they have, and their bytes unpacked."""

import codecs
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final
from zipfile import ZipInfo

import pyarrow as pa

from rfmstream.engine.files.archives import OLE_HEAD, ZIP_HEADS, check_foreign, kind_of, members_of, opened
from rfmstream.engine.files.encodings import decoder_of, encoded, is_surely_utf8
from rfmstream.engine.files.memory import check_asked
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import Format, InputFormat

BLOCK_BYTES: Final = 4 << 20
HEAD_BYTES: Final = 4096
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
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".xlsb": "xlsx",
    ".xls": "xlsx",
    ".ods": "xlsx",
    ".html": "html",
    ".htm": "html",
}
_WORKBOOK_SUFFIXES: Final = tuple(suffix for suffix, form in _SUFFIXES.items() if form == "xlsx")
_DIVIDERS: Final = (b",", b";", b"\t", b"|")
_GZIP_HEAD: Final = b"\x1f\x8b"
_ZSTD_HEAD: Final = b"\x28\xb5\x2f\xfd"
_PACKED_HEADS: Final = (_GZIP_HEAD, _ZSTD_HEAD)
_PACKED_SUFFIXES: Final = (".gz", ".zst", ".zstd")
_HTML_HEADS: Final = (b"<!doctype html", b"<html", b"<table", b"<meta", b"<head", b"<body", b"<style")
_JSON_HEAD: Final = re.compile(rb"(\[\s*)?\{\s*[\"}]")
_XML_WORKBOOK: Final = b"urn:schemas-microsoft-com:office:spreadsheet"
_UTF32_MARKS: Final = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_UTF16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class InputFile:
    """One file to read.

    Fields  size         bytes on disk, the unit of progress
            format       told by the suffix, else by the content; the map's word counts more than both
            compression  "gzip", "zstd" or None, told by the content
            delimiter    of delimited text: a character or "whitespace"
            form         what the map says of it, if anything
            member       of the archive `path`, the file meant
    """

    path: Path
    size: int
    format: Format
    compression: str | None
    delimiter: str
    encoding: str
    header: tuple[str, ...]
    form: InputFormat
    member: str | None = None

    @property
    def name(self) -> str:
        """Return the name it goes by in rejected rows and errors."""
        return str(self.path) if self.member is None else f"{self.path}/{self.member}"


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
            found += [file for inner in below for file in _inspect(inner, form)]
        elif os.path.exists(path):  # noqa: PTH110
            found += _inspect(path, form)
        else:
            raise InputError("there is no such file or directory", source=path)
    if not found:
        raise InputError("no input was named", fix="name at least one file or directory")
    return tuple(found)


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith((".", "_", "~$")) for part in path.relative_to(root).parts)


def _inspect(path: Path, form: InputFormat) -> list[InputFile]:
    """Return the file, or those in it if it is an archive."""
    with reading(path):
        state = path.stat()
        if not S_ISREG(state.st_mode):
            raise InputError(
                "is a pipe or a device, which cannot be read twice",
                source=path,
                fix="write its content to a file",
            )
        with path.open("rb") as file:
            start = file.read(HEAD_BYTES)
        if kind_of(path, start) == "archive":
            return [_member(path, member, form) for member in members_of(path)]
        whole = InputFile(path, state.st_size, "csv", None, ",", form.encoding, form.columns, form)
        return [_told(whole, start)]


def _member(path: Path, member: ZipInfo, form: InputFormat) -> InputFile:
    size, name = member.file_size, member.filename
    whole = InputFile(path, size, "csv", None, ",", form.encoding, form.columns, form, name)
    with byte_stream(whole) as stream:
        start = bytes(stream.read(HEAD_BYTES))
    if start.startswith(ZIP_HEADS):
        with unpacked(whole) as copy:
            if kind_of(copy, start) == "archive":
                raise InputError("is an archive in an archive", source=whole.name, fix="unpack it first")
    return _told(whole, start)


def _told(file: InputFile, start: bytes) -> InputFile:
    """Return a file with the format and the packing that its name and its first bytes tell."""
    suffixes = [suffix.lower() for suffix in Path(file.member or file.path).suffixes]
    compression = "gzip" if start.startswith(_GZIP_HEAD) else "zstd" if start.startswith(_ZSTD_HEAD) else None
    if suffixes and suffixes[-1] in _PACKED_SUFFIXES:
        if compression is None and file.size:
            raise InputError(
                f"is named {suffixes[-1]} but is not compressed so", source=file.name, fix="rename it"
            )
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    packed = replace(file, compression=compression)
    head = start if compression is None else _unpacked_head(packed)
    check_foreign(head, file.name)
    delimiter = file.form.delimiter or ("\t" if suffix == ".tsv" else ",")
    return replace(packed, format=_format(file, suffix, head), delimiter=delimiter)


def _format(file: InputFile, suffix: str, head: bytes) -> Format:
    """Return what the map, the suffix and the content of a file come to: content counts where it is clear."""
    asked = file.form.format
    told = asked or _SUFFIXES.get(suffix)
    if head.startswith((*ZIP_HEADS, OLE_HEAD)):
        if asked not in (None, "csv", "xlsx"):
            raise InputError(
                f"is a workbook, and the map reads {asked}", source=file.name, fix="choose another map"
            )
        return "xlsx"
    if told == "xlsx" and suffix not in _WORKBOOK_SUFFIXES and asked == "xlsx":
        told = "csv" if suffix in (".csv", ".tsv", ".txt") else told
    elif told == "xlsx":
        # Shops write tables under a workbook's name, which a spreadsheet opens all the same.
        told = _told_by_content(head, file.name)
    elif asked is None and _is_parquet(head):
        told = "parquet"
    return _of_text(file, told, head) if told in ("csv", None) else told


def _of_text(file: InputFile, told: Format | None, head: bytes) -> Format:
    """Return the format of what goes by the name of a table of text, or by none."""
    if page := _page_or_xml(head):
        return page
    if _JSON_HEAD.match(_plain(head)):
        if file.form.format == "csv":
            raise InputError("is JSON, and the map reads csv", source=file.name, fix="choose another map")
        return "jsonl"
    return told or _told_by_content(head, file.name)


def _unpacked_head(packed: InputFile) -> bytes:
    """Return the first bytes of a packed file.

    Errors  InputError  it holds an archive, or is packed twice
    """
    with byte_stream(packed) as stream:
        head = bytes(stream.read(HEAD_BYTES))
    if head.startswith(_PACKED_HEADS):
        raise InputError("is packed twice", source=packed.name, fix="unpack it once")
    if head.startswith(ZIP_HEADS):
        with unpacked(packed) as copy:
            if kind_of(copy, head) == "archive":
                raise InputError("is a packed archive", source=packed.name, fix="unpack it once")
    return head


def _is_parquet(head: bytes) -> bool:
    return head[:4] == b"PAR1" and any(byte < 9 for byte in head[4:64])


def _page_or_xml(head: bytes) -> Format | None:
    """Return "html" for an HTML page or a piece of one, "xml" for an XML spreadsheet: both go by other names."""
    start = _plain(head)
    if start[:5] == b"<?xml" and _XML_WORKBOOK in head:
        return "xml"
    return "html" if start[:16].lower().startswith(_HTML_HEADS) else None


def _plain(head: bytes) -> bytes:
    """Return the first bytes of a text without what stands before its first letter; UTF-16 as ASCII."""
    if head[:2] in _UTF16_MARKS:
        head = head.decode("utf-16", "ignore").encode("ascii", "replace")
    return head.lstrip(codecs.BOM_UTF8 + b" \t\r\n")


def _told_by_content(head: bytes, name: str) -> Format:
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff":
        return "arrow"
    text = _plain(head)
    if page := _page_or_xml(head):
        return page
    if text[:1] in (b"{", b"["):
        return "jsonl"
    first = text.partition(b"\n")[0]
    if any(mark in first for mark in _DIVIDERS) and not any(
        byte < 32 and byte not in b"\t\r" for byte in first
    ):
        return "csv"
    raise InputError(
        "its format cannot be told from its name or content",
        source=name,
        fix=f"rename it ({', '.join(_SUFFIXES)}, then .gz or .zst), or set [input] format in a map",
    )


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn what Arrow and the operating system say of a damaged or unreadable file into an InputError."""
    try:
        yield
    except MemoryError as error:  # Arrow's own is one, too
        raise InputError(
            "asks for more memory than there is", source=path, fix="write it in smaller row groups or batches"
        ) from error
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


class ByteStream:
    """The plain bytes of a file, one after another."""

    def __init__(self, raw: Any, stream: Any) -> None:  # noqa: ANN401 - Arrow's, or zipfile's
        self._raw, self._stream = raw, stream

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`; none at the end."""
        block: bytes = self._stream.read(size)
        return block

    def consumed(self) -> int:
        """Return how many bytes of the file were read so far, compressed ones where it is compressed."""
        count: int = self._raw.tell()
        return count


@contextmanager
def byte_stream(file: InputFile) -> Iterator[ByteStream]:
    """Open a file, or a member of an archive, unpacked."""
    with ExitStack() as stack:
        if file.member is None:
            raw = stack.enter_context(pa.OSFile(str(file.path)))
        else:
            archive = stack.enter_context(opened(file.path))
            member = stack.enter_context(archive.open(file.member))
            raw = member if file.compression is None else pa.PythonFile(member, "r")
        stream = raw
        if file.compression is not None:
            stream = stack.enter_context(pa.CompressedInputStream(raw, file.compression))
        yield ByteStream(raw, stream)


def read_blocks(file: InputFile, tick: Callable[[int], None]) -> Iterator[bytes]:
    """Yield a text file's bytes, unpacked, as UTF-8 without a byte order mark, in blocks.

    `tick` gets the bytes of the file consumed so far, compressed ones where it is compressed.
    """
    with byte_stream(file) as stream:
        decoder: codecs.IncrementalDecoder | None = None
        at_start = True
        while block := stream.read(BLOCK_BYTES):
            if at_start:
                at_start = False
                decoder = _decoder(block, file)
                if decoder is None:
                    block = block.removeprefix(codecs.BOM_UTF8)
            tick(stream.consumed())
            yield block if decoder is None else _decoded(decoder, block, file, final=False)
        if decoder is not None:
            yield _decoded(decoder, b"", file, final=True)


def _decoder(block: bytes, file: InputFile) -> codecs.IncrementalDecoder | None:
    """Return what turns the bytes into text, None if they are UTF-8 already."""
    if block[:4] in _UTF32_MARKS:
        return decoder_of("utf-32")
    if block[:2] in _UTF16_MARKS:
        return decoder_of("utf-16")
    if file.encoding == "utf-8" and (told := _utf16_without_mark(block)):
        return decoder_of(told)
    return None if is_surely_utf8(block) else decoder_of(file.encoding)


def _utf16_without_mark(block: bytes) -> str | None:
    """Return which UTF-16 a text is that begins with ASCII, each letter beside a zero; else None: no text has zeros."""
    start = block[:64]
    if len(start) < 8:
        return None
    for name, zeros, letters in (
        ("utf-16-le", start[1::2], start[::2]),
        ("utf-16-be", start[::2], start[1::2]),
    ):
        if not any(zeros) and all(0 < byte < 128 for byte in letters):
            return name
    return None


def _decoded(decoder: codecs.IncrementalDecoder, block: bytes, file: InputFile, *, final: bool) -> bytes:
    try:
        return encoded(decoder.decode(block, final))
    except UnicodeError as error:
        raise InputError(f"is not {file.encoding} text: {error}", source=file.path) from error


@contextmanager
def unpacked(file: InputFile) -> Iterator[Path]:
    """Give a path to the file's plain bytes: the file itself, or a temporary copy of a packed one.

    Parquet and Arrow files are read from their end, which a compressed stream cannot do. A copy is bounded as memory
    is: a kilobyte can become any number of gigabytes, and temporary files are often in memory.

    Errors  InputError  it is damaged, or becomes more than it may
    """
    if file.compression is None and file.member is None:
        yield file.path
        return
    with tempfile.TemporaryDirectory(prefix="rfmstream-") as directory:
        plain = Path(directory) / "unpacked"
        size = 0
        with byte_stream(file) as stream, plain.open("wb") as out:
            while block := stream.read(BLOCK_BYTES):
                size += len(block)
                check_asked(size, " when it is unpacked", file.name)
                out.write(block)
        yield plain
