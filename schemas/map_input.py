"""The section [input] of an input map: where the rows are, and how they are written."""

import codecs
from collections.abc import Mapping
from typing import Any, Final, cast, get_args

from rfmstream.schemas.map_keys import Keys
from rfmstream.schemas.mapping import Format, InputFormat
from rfmstream.schemas.toml_table import TomlTable

_FORMATS: Final[tuple[str, ...]] = get_args(Format)
_INPUT_KEYS: Final = (
    *("format", "delimiter", "encoding", "columns"),
    *("headerless", "skip", "decimal", "fill_down", "sheet", "records", "absent"),
)
_LINES_SKIPPED_MAX: Final = 1000


def read_input(keys: Keys, table: Mapping[str, Any]) -> InputFormat:
    """Return what [input] says of where the rows are."""
    keys.known(table, "input", _INPUT_KEYS)
    delimiter = keys.get(table, "delimiter", "input", str, "")
    if (
        delimiter
        and delimiter != "whitespace"
        and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n')
    ):
        raise keys.error(
            "input.delimiter", f"{delimiter!r} is no delimiter", 'use one ASCII character or "whitespace"'
        )
    encoding = keys.get(table, "encoding", "input", str, "utf-8")
    _check_encoding(keys, encoding)
    form = keys.get(table, "format", "input", str, "")
    if form:
        keys.choice(form, "input.format", _FORMATS)
    return InputFormat(
        cast("Format | None", form or None),
        delimiter or None,
        encoding,
        tuple(keys.texts(table.get("columns", []), "input.columns")),
        headerless=_headerless(keys, table),
        skip=_skip(keys, table),
        decimal=keys.decimal_sign(table, "input", "."),
        fill_down=tuple(keys.texts(table.get("fill_down", []), "input.fill_down")),
        sheet=keys.get(table, "sheet", "input", str, "") or None,
        records=keys.get(table, "records", "input", str, "") or None,
        absent=_absent(keys, table),
    )


def _check_encoding(keys: Keys, encoding: str) -> None:
    try:
        # Codecs that are no text encodings (zlib, hex, rot13) refuse to decode, by the same error.
        b"text".decode(encoding, "ignore")
        codecs.getincrementaldecoder(encoding)
    except (LookupError, ValueError) as error:
        raise keys.error(
            "input.encoding", f"{encoding!r} is no encoding of text", 'use a name such as "latin-1"'
        ) from error


def _headerless(keys: Keys, table: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    given = keys.get(table, "headerless", "input", list, [])
    rows = tuple(tuple(keys.texts(names, f"input.headerless[{at}]")) for at, names in enumerate(given, 1))
    if len({len(names) for names in rows}) < len(rows):
        raise keys.error(
            "input.headerless", "has two lists of one length", "the count of cells must tell them apart"
        )
    return rows


def _absent(keys: Keys, table: Mapping[str, Any]) -> tuple[str, ...] | None:
    if "absent" not in table:
        return None
    words = keys.get(table, "absent", "input", list)
    # A number may stand for absent, too: 0 is what shops write for guests.
    numbers = [str(word) if isinstance(word, int) and not isinstance(word, bool) else word for word in words]
    return tuple(keys.texts(numbers, "input.absent"))


def _skip(keys: Keys, table: Mapping[str, Any]) -> int | None:
    if "skip" not in table:
        return None
    return TomlTable(table, keys.path, "input").integer("skip", 0, _LINES_SKIPPED_MAX)
