"""Secrets of a configuration: it only names the environment variable or the file that holds one."""

import os
from collections.abc import Mapping
from pathlib import Path

from rfmstream.schemas.toml_table import TomlTable


class Secret:
    """A text that shows itself in no repr and no log."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "Secret(...)"

    def reveal(self) -> str:
        """Return the text."""
        return self._text


def read_secret(
    table: TomlTable, name: str, environment: Mapping[str, str] | None = None, *, is_lenient: bool = False
) -> Secret:
    """Read the secret that a key points to: `{ env = "NAME" }` or `{ file = "path" }`.

    In      is_lenient   a secret that is not there stands as a few words: the file is checked on another machine
    Errors  ConfigError  it is written out, is not there, or is empty
    """
    if isinstance(table.values.get(name), str):
        raise table.error(
            name, "is a secret", f'write {name} = {{ env = "NAME" }} or {name} = {{ file = "path" }}'
        )
    where = table.table(name)
    where.allow("env", "file")
    if len(where.values) != 1:
        raise table.error(name, "must name one place", 'write { env = "NAME" } or { file = "path" }')
    if is_lenient:
        return Secret("whsec_" + "c2VjcmV0" * 4)
    text = _of_environment(where, environment) if "env" in where else _of_file(where)
    if not text.strip():
        raise table.error(name, "the secret is empty", "put it there")
    if not (text.isprintable() and text.isascii()):
        raise table.error(name, "the secret holds what no header may", "check what is there")
    return Secret(text)


def _of_environment(where: TomlTable, environment: Mapping[str, str] | None) -> str:
    variable = where.text("env")
    text = (os.environ if environment is None else environment).get(variable)
    if text is None:
        raise where.error("env", f"{variable} is not set", "set it in the environment")
    return text


def _of_file(where: TomlTable) -> str:
    path = where.text("file")
    try:
        # Editors end a file with a line break, which belongs to no secret.
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise where.error("file", f"{path} cannot be read ({words})", "check the path") from None
