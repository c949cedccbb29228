"""A delivery map: a TOML file that says how events become requests of a tool's API. The mirror of an input map.

docs/deliver.md explains the file to its writers.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from rfmstream.engine.deliver.model import Event
from rfmstream.engine.deliver.rates import Rate, parse_rate
from rfmstream.engine.deliver.template import Compute, compile_text, compile_value, dumps
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.toml_table import TomlTable, read_toml

_SHIPPED: Final = Path(__file__).resolve().parent / "maps"
_METHODS: Final = ("POST", "PUT", "PATCH", "DELETE")
_KINDS: Final = ("change", "signal")


@dataclass(frozen=True)
class MapSetting:
    """Something that the map leaves to its user.

    Fields  default  None: it has to be given
    """

    name: str
    help: str
    default: str | None = None
    is_secret: bool = False


@dataclass(frozen=True)
class RowGroup:
    """A list in the body, and what an event adds to it; `takes` the events that add anything."""

    name: str
    takes: tuple[str, ...]
    row: Compute


@dataclass(frozen=True)
class RowErrors:
    """Where an answer names the rows that it refuses.

    Fields  list    the path of the list of errors
            index   path in an error to the row's position in its list; or
            match   path in an error to what `by` is for the row
            text    path in an error to words for people
            group   path in an error to the name of its row group
    """

    list: str
    index: str | None = None
    match: str | None = None
    by: Compute | None = None
    text: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Hint:
    """An answer of status 2xx that is no success: the value at `path` is `equals`, or holds anything."""

    path: str
    equals: object = None


@dataclass(frozen=True)
class DeliveryMap:
    """A map with its settings filled in.

    Fields  body   the request's body with a mark for each row group; None: the only row is the body
    """

    title: str
    source: str
    takes: tuple[str, ...]
    method: str
    url: Callable[[Event], str]
    origin: str
    headers: Mapping[str, Callable[[Event], str]] = field(repr=False)
    groups: tuple[RowGroup, ...] = ()
    body: Callable[[list[bytes]], bytes] | None = None
    rates: tuple[Rate, ...] = ()
    batch: int = 1
    batch_bytes: int = 1 << 20
    row_bytes: int = 1 << 20
    refuse: tuple[Hint, ...] = ()
    retry: tuple[Hint, ...] = ()
    row_errors: RowErrors | None = None


def list_delivery_maps() -> tuple[str, ...]:
    """Return the names of the shipped maps, sorted."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.toml")))


def map_path(name_or_path: str) -> Path:
    """Return the file of a shipped map, or the one that is named.

    Errors  ConfigError  there is neither
    """
    if name_or_path in list_delivery_maps():
        return _SHIPPED / f"{name_or_path}.toml"
    if not os.path.isfile(name_or_path):  # noqa: PTH113 - a name too long for the system is none either
        raise ConfigError(
            "there is no such delivery map",
            file=name_or_path,
            fix=f"give a TOML file, or one of {', '.join(list_delivery_maps())}",
        )
    return Path(name_or_path)


def map_settings(path: Path) -> tuple[str, tuple[MapSetting, ...]]:
    """Read the title and the settings of a map.

    Errors  ConfigError  it cannot be read, or they are wrong
    """
    top = TomlTable(read_toml(path), str(path))
    return top.text("title"), _settings(top)


def read_delivery_map(path: Path, given: Mapping[str, str]) -> DeliveryMap:
    """Read a map and fill its settings in.

    In      given        texts of settings
    Errors  ConfigError  the file is wrong, or a setting is missing or unknown; names file, key and fix
    """
    top = TomlTable(read_toml(path), str(path))
    top.allow("title", "source", "takes", "settings", "request", "rows", "body", "pace", "answer")
    settings = _filled(top, given)
    request = top.table("request")
    request.allow("method", "url", "headers")
    groups = _groups(top, settings)
    pace = top.table("pace") if "pace" in top else TomlTable({}, top.file, "pace")
    pace.allow("rate", "batch", "batch_bytes", "row_bytes")
    batch = pace.integer("batch", 1, 100_000) if "batch" in pace else 1
    body = _body(top, groups, settings)
    if body is None and (len(groups) > 1 or batch > 1):
        raise top.error("body", "is missing", "say where the rows of a batch stand")
    origin = compile_text(request.text("url"), settings, key="request.url", file=top.file, is_url=True)
    answer = top.table("answer") if "answer" in top else TomlTable({}, top.file, "answer")
    answer.allow("refuse", "retry", "rows")
    return DeliveryMap(
        title=top.text("title"),
        source=top.text("source"),
        takes=_takes(top),
        method=request.choice("method", _METHODS, "POST"),
        url=origin,
        origin=_origin(request, settings),
        headers=_headers(request, settings),
        groups=groups,
        body=body,
        rates=read_rates(pace, "rate"),
        batch=batch,
        batch_bytes=pace.integer("batch_bytes", 1, 1 << 30) if "batch_bytes" in pace else 1 << 20,
        row_bytes=pace.integer("row_bytes", 1, 1 << 30) if "row_bytes" in pace else 1 << 20,
        refuse=_hints(answer, "refuse"),
        retry=_hints(answer, "retry"),
        row_errors=_row_errors(answer, settings),
    )


def read_rates(table: TomlTable, name: str) -> tuple[Rate, ...]:
    """Read a list of rates.

    Errors  ConfigError  one of them is none
    """
    if name not in table:
        return ()
    rates = []
    for text in table.texts(name):
        rate = parse_rate(text)
        if rate is None:
            raise table.error(
                name, f"{text!r} is no rate", 'write requests a time, such as "350/1s" or "3500/1m"'
            )
        rates.append(rate)
    return tuple(rates)


def _settings(top: TomlTable) -> tuple[MapSetting, ...]:
    if "settings" not in top:
        return ()
    tables = top.table("settings")
    found = []
    for name in tables.values:
        one = tables.table(name)
        one.allow("help", "default", "secret")
        found.append(
            MapSetting(
                name,
                one.text("help"),
                one.text("default", "") if "default" in one else None,
                is_secret="secret" in one and one.flag("secret"),
            )
        )
    return tuple(found)


def _filled(top: TomlTable, given: Mapping[str, str]) -> dict[str, str]:
    known = _settings(top)
    names = [setting.name for setting in known]
    for name in given:
        if name not in names:
            raise ConfigError(
                "unknown setting",
                file=top.file,
                key=f"settings.{name}",
                fix=f"the settings of this map are {', '.join(names) or 'none'}",
            )
    filled = {}
    for setting in known:
        text = given.get(setting.name, setting.default)
        if text is None:
            raise ConfigError(
                "is missing", file=top.file, key=f"settings.{setting.name}", fix=f"give it: {setting.help}"
            )
        filled[setting.name] = text
    return filled


def _takes(table: TomlTable) -> tuple[str, ...]:
    if "takes" not in table:
        return _KINDS
    takes = table.texts("takes")
    for one in takes:
        if one not in _KINDS:
            raise table.error("takes", f"{one!r} is not one of {', '.join(_KINDS)}")
    return takes


def _headers(request: TomlTable, settings: Mapping[str, str]) -> dict[str, Callable[[Event], str]]:
    headers = {"content-type": compile_text("application/json", {}, key="", file=request.file)}
    if "headers" in request:
        table = request.table("headers")
        for name in table.values:
            text = table.text(name)
            headers[name.lower()] = compile_text(text, settings, key=table.key(name), file=table.file)
    return headers


def _origin(request: TomlTable, settings: Mapping[str, str]) -> str:
    """Return scheme and host, in which nothing may come from an event."""
    text = request.text("url")
    for name, value in settings.items():
        text = text.replace(f"{{{name}}}", value)
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.hostname or set("{}|") & set(parts.netloc):
        raise request.error(
            "url",
            f"{text!r} has no host that is known beforehand",
            "write https://host/path; placeholders follow",
        )
    return f"{parts.scheme}://{parts.netloc}"


def _groups(top: TomlTable, settings: Mapping[str, str]) -> tuple[RowGroup, ...]:
    groups = []
    for table in top.tables("rows"):
        table.allow("name", "takes", "row")
        if "row" not in table:
            raise table.error("row", "is missing", "say what an event adds")
        row = compile_value(table.values["row"], settings, key=table.key("row"), file=table.file)
        groups.append(RowGroup(table.text("name", "rows"), _takes(table), row))
    if not groups:
        raise top.error("rows", "is empty", "write [[rows]] with a row")
    return tuple(groups)


def _body(
    top: TomlTable, groups: tuple[RowGroup, ...], settings: Mapping[str, str]
) -> Callable[[list[bytes]], bytes] | None:
    if "body" not in top:
        return None
    names = [group.name for group in groups]
    nobody = Event("change", "", "", "", "", "", {}, b"null")
    wrapper = compile_value(top.values["body"], settings, key="body", file=top.file, extra=names)(nobody)
    text = dumps(wrapper)
    marks = {name: dumps(f"{{{name}}}") for name in names}
    for name, mark in marks.items():
        if text.count(mark) != 1:
            raise top.error(
                "body", f"does not hold {{{name}}} once", f'write "{{{name}}}" where the rows stand'
            )
    places = sorted((text.index(mark), names.index(name), len(mark)) for name, mark in marks.items())

    def fill(rows: list[bytes]) -> bytes:
        out, at = [], 0
        for place, number, length in places:
            out += [text[at:place], b"[", rows[number], b"]"]
            at = place + length
        return b"".join([*out, text[at:]])

    return fill


def _hints(answer: TomlTable, name: str) -> tuple[Hint, ...]:
    if name not in answer:
        return ()
    hints = []
    for table in answer.tables(name):
        table.allow("path", "equals")
        hints.append(Hint(table.text("path"), table.values.get("equals")))
    return tuple(hints)


def _row_errors(answer: TomlTable, settings: Mapping[str, str]) -> RowErrors | None:
    if "rows" not in answer:
        return None
    table = answer.table("rows")
    table.allow("list", "index", "match", "by", "text", "group")
    optional: dict[str, Any] = {
        name: table.text(name) for name in ("index", "match", "text", "group") if name in table
    }
    if ("index" in optional) == ("match" in optional):
        raise table.error("index", "or match must be there, and not both", "say how an error names its row")
    if "match" in optional:
        optional["by"] = compile_text(table.text("by"), settings, key=table.key("by"), file=table.file)
    return RowErrors(table.text("list"), **optional)
