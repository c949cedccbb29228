"""JSON as APIs give it: the list of records inside an object, named by the map or found where there is one."""

import json
from collections.abc import Sequence
from typing import Any, Final, Literal

from rfmstream.engine.events.json_rows import DECODER, parse_object
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.mapping import EACH

Kind = Literal["lines", "pages", "documents"]

_DEPTH_MAX: Final = 4
"""How many objects around a list are looked into."""


class Pages:
    """Knows where the records lie in the objects of one file.

    In      records  the path to their list, None: found out
            wanted   an object that has any of these is a record itself
    """

    def __init__(self, records: str | None, wanted: Sequence[str], source: str) -> None:
        self._path = records
        self._heads = {*wanted, *(name.split(".")[0].partition(EACH)[0] for name in wanted)}
        self._source = source

    def kind(self, start: bytes) -> Kind:
        """Return what a file is whose first line is in `start`: a record a line, a page a line, or documents.

        A first line that is no JSON is a damaged one, unless the object it begins goes on behind it.
        """
        text = start.lstrip()
        if text[:1] == b"[":
            return "documents"
        first = text.partition(b"\n")[0]
        record = parse_object(first)
        if record is not None:
            return "lines" if self.found(record) is None else "pages"
        return "documents" if text[:1] == b"{" and _goes_on(text, first) else "lines"

    def found(self, document: dict[str, Any]) -> list[Any] | None:
        """Return the records of an object, None if it is one itself.

        Errors  InputError  there is no list where the map says, or several may be the one
        """
        if self._path is not None:
            return self._named(document)
        level = [document]
        for _ in range(_DEPTH_MAX):
            whole = [inner for inner in level if self._heads & inner.keys()]
            if whole:
                return None if whole[0] is document else self._alike(whole)
            values = [value for inner in level for value in inner.values()]
            lists: list[list[Any]] = [value for value in values if _is_list_of_objects(value)]
            # Beside the records there may be lists of links, of warnings and the like.
            known = [items for items in lists if items and self._heads & items[0].keys()]
            if len(known) == 1 or len(lists) == 1:
                return self._opened((known or lists)[0])
            if len(known) > 1:
                names = [key for inner in level for key, value in inner.items() if value in known]
                raise InputError(
                    f"holds several lists of records: {', '.join(dict.fromkeys(names))}",
                    source=self._source,
                    fix="name the path to one of them as records in the [input] section of a map",
                )
            if lists:
                return None
            level = [value for value in values if isinstance(value, dict)]
        return None

    def _alike(self, objects: list[dict[str, Any]]) -> list[Any]:
        """Return the records among objects side by side: orders by their ids, or one order beside its shop.

        What has less than half of the wanted keys that another has is no record.
        """
        counts = [len(self._heads & inner.keys()) for inner in objects]
        return [inner for inner, count in zip(objects, counts, strict=True) if 2 * count >= max(counts)]

    def _opened(self, items: list[Any]) -> list[Any]:
        """Return the records of a list whose elements may each hold one, as the nodes of GraphQL do."""
        if any(self._heads & item.keys() for item in items):
            return items
        inner = [(item, self.found(item)) for item in items]
        return [record for item, found in inner for record in ([item] if found is None else found)]

    def records(self, document: Any) -> list[Any]:  # noqa: ANN401 - JSON
        """Return the records of an array or an object."""
        items = document if isinstance(document, list) else [document]
        found = []
        for item in items:
            inner = self.found(item) if isinstance(item, dict) else None
            found += [item] if inner is None else inner
        return found

    def of_lines(self, block: bytes) -> list[bytes | dict[str, Any]]:
        """Return the records of the pages in some lines; a line that is no JSON stands for itself."""
        found: list[bytes | dict[str, Any]] = []
        for line in block.split(b"\n"):
            page = parse_object(line)
            if page is not None:
                records = self.records(page)
                found += [item if isinstance(item, dict) else json.dumps(item).encode() for item in records]
            elif line.strip():
                found.append(line)
        return found

    def _named(self, document: dict[str, Any]) -> list[Any]:
        value: Any = document
        for step in (self._path or "").split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, dict):
            return [value]
        if isinstance(value, list):
            return value
        raise InputError(
            f"has no list of records at {self._path!r}; its keys are {', '.join(document) or 'none'}",
            source=self._source,
            fix="name the path to the list as records in the [input] section of the map",
        )


def _is_list_of_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _goes_on(text: bytes, first: bytes) -> bool:
    """Return whether the object that a text begins with ends behind its first line, or another follows it there."""
    try:
        whole = text.decode(errors="replace")
        _, end = DECODER.raw_decode(whole)
    except json.JSONDecodeError as error:
        is_cut = error.msg.startswith("Unterminated string") or error.pos >= len(error.doc.rstrip())
        return is_cut and text.rstrip() != first.rstrip()
    except (ValueError, RecursionError):
        return False
    behind = whole[end:].lstrip(" \t\r")
    return end > len(first.decode(errors="replace")) or behind[:1] in ("{", "[", ",")
