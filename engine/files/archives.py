"""What a file is by its content: a workbook, a ZIP archive and its members, or something else."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from rfmstream.schemas.errors import InputError

Kind = Literal["workbook", "archive"]

ZIP_HEADS: Final = (b"PK\x03\x04", b"PK\x05\x06")
OLE_HEAD: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_WORKBOOKS: Final = ("xl/workbook.xml", "xl/workbook.bin")
_NO_TABLES: Final = (
    ".pdf",
    ".png",
    ".jpg",
    ".jpeg",
    ".gif",
    ".svg",
    ".md",
    ".rtf",
    ".doc",
    ".docx",
    ".md5",
    ".sha256",
    "thumbs.db",
    "desktop.ini",
)
_NOTES: Final = ("readme", "license", "licence", "liesmich", "lisezmoi")
"""What stands beside the tables in archives, by the names of files."""
_OTHERS: Final = {"word/document.xml": "a Word document", "ppt/presentation.xml": "a PowerPoint presentation"}
_FOREIGN: Final = (
    (257, b"ustar\x00", "is a tar archive", "unpack it first"),
    (257, b"ustar  \x00", "is a tar archive", "unpack it first"),
    (4, b"1AY&SY", "is packed by bzip2", "unpack it first, or pack it by gzip or zstd"),
    (0, b"\xfd7zXZ\x00", "is packed by xz", "unpack it first, or pack it by gzip or zstd"),
    (0, b"\x04\x22\x4d\x18", "is packed by lz4", "unpack it first, or pack it by gzip or zstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it first"),
    (0, b"Rar!\x1a\x07", "is a RAR archive", "unpack it first"),
    (0, b"%PDF-", "is a PDF document", "export its table as CSV or as a workbook"),
    (0, b"{\\rtf", "is a text document", "export its table as CSV or as a workbook"),
    (0, b"SQLite format 3\x00", "is an SQLite database", "export its table as CSV"),
    (0, b"Obj\x01", "is an Avro file", "write it as Parquet or CSV"),
)
"""Files that people hand over and nobody here reads: at which byte they say it, how, and what to do."""

_SPREADSHEET: Final = b"application/vnd.oasis.opendocument.spreadsheet"


def kind_of(path: Path, head: bytes) -> Kind | None:
    """Return what a file is, None if it is neither a workbook nor an archive.

    In      head  its first bytes
    Errors  InputError  a damaged archive, or a document of another program
    """
    if head.startswith(OLE_HEAD):
        return "workbook"
    if not head.startswith(ZIP_HEADS):
        return None
    with opened(path) as archive:
        names = set(archive.namelist())
        if names & set(_WORKBOOKS):
            return "workbook"
        if "mimetype" in names and archive.read("mimetype").startswith(_SPREADSHEET):
            return "workbook"
        for name, words in _OTHERS.items():
            if name in names:
                raise InputError(f"is {words}", source=path, fix="save its table as CSV or as a workbook")
    return "archive"


def check_foreign(head: bytes, name: str) -> None:
    """Refuse a file of a kind that is not read here, whatever it is called.

    In      head  its first bytes, at least 512 where there are so many
    Errors  InputError  it is one
    """
    for at, mark, words, fix in _FOREIGN:
        if head.startswith(mark, at):
            raise InputError(words, source=name, fix=fix)


def members_of(path: Path) -> list[zipfile.ZipInfo]:
    """Return the files in an archive, sorted by name, without hidden ones, documents, pictures and notes.

    Errors  InputError  there is none, or one is locked by a password
    """
    with opened(path) as archive:
        found = [
            member for member in archive.infolist() if not (member.is_dir() or _is_beside(member.filename))
        ]
    if not found:
        raise InputError("is a ZIP archive that holds no file to read", source=path)
    for member in found:
        if member.flag_bits & 1:
            raise InputError(
                f"{member.filename} in it is locked by a password", source=path, fix="unpack it first"
            )
    return sorted(found, key=lambda member: member.filename)


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive.

    Errors  InputError  it is damaged, or compressed in a way that cannot be undone here
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, NotImplementedError, zlib.error) as error:
        raise InputError(f"is a ZIP archive that cannot be read: {error}", source=path) from error


def _is_beside(name: str) -> bool:
    """Return whether a file stands in an archive beside its tables: hidden, a document, a picture or a note."""
    parts = name.replace("\\", "/").split("/")  # some programs of Windows write its own sign
    last = parts[-1].lower()
    if any(part.startswith((".", "_")) for part in parts) or last.endswith(_NO_TABLES):
        return True
    stem, _, suffix = last.partition(".")
    return stem in _NOTES and suffix in ("", "txt", "html")
