"""A schema registry with Confluent's API: what the number in front of a record's bytes stands for.

A schema never changes under its number, so each is asked for once. A registry that does not answer is no fault of
the record: the worker stops and is to be started again, as where a broker does not answer.

Source  docs.confluent.io, Schema Registry API Reference: /schemas/ids/{id}, /subjects/{subject}/versions/{version}
"""

import base64
import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from rfmstream.engine.live.schema_readers import avro_reader, protobuf_reader
from rfmstream.schemas.errors import ConfigError, TransportError

FRAME_BYTES: Final = 5
"""A zero and the schema's number, big-endian, stand before the bytes themselves."""

_TIMEOUT_S: Final = 10.0
_TRIES: Final = 5
_BACKOFF_S: Final = 0.2
_ANSWER_BYTES_MAX: Final = 16 << 20
_NOT_FOUND: Final = 404

Reader = Callable[[bytes], Any]
"""The bytes behind a frame to what JSON could hold.

Errors  ValueError  they are not what the schema says
"""


class UnknownSchemaError(Exception):
    """The registry has no such schema, or one that cannot be read; the text says which."""


class _Schema(NamedTuple):
    kind: str
    text: str
    references: list[Mapping[str, Any]]


class Registry:
    """A registry's schemas, by their numbers; any thread may ask.

    In      url   http:// or https://, with a path where it has one
            auth  user:password, or None
    Errors  ConfigError  no such URL
    """

    def __init__(self, url: str, auth: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ConfigError(
                "is no address of a registry",
                key="schema_registry",
                fix="write http://host:port or https://host, and what it takes to log in as schema_registry_auth",
            )
        self._is_tls = parts.scheme == "https"
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if auth is not None:
            self._headers["Authorization"] = "Basic " + base64.b64encode(auth.encode()).decode()
        self._name = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        self._readers: dict[int, Reader | UnknownSchemaError] = {}
        self._lock = threading.Lock()

    def reader(self, number: int) -> Reader:
        """Return what reads the bytes behind a frame.

        Errors  UnknownSchemaError  there is none of that number, or of a kind that is not known
                TransportError      the registry does not answer
        """
        found = self._readers.get(number)
        if found is None:
            with self._lock:
                found = self._readers.get(number)
                if found is None:
                    found = self._readers[number] = self._made(number)
        if isinstance(found, UnknownSchemaError):
            raise found
        return found

    def _made(self, number: int) -> "Reader | UnknownSchemaError":
        schema = self._schema(f"/schemas/ids/{number}")
        if schema is None:
            return UnknownSchemaError(f"the registry has no schema {number}")
        try:
            if schema.kind == "AVRO":
                return avro_reader(schema.text, self._referenced(schema, "AVRO"))
            if schema.kind == "PROTOBUF":
                # As a descriptor, which no compiler is needed for.
                serialized = self._schema(f"/schemas/ids/{number}?format=serialized") or schema
                return protobuf_reader(serialized.text, self._referenced(schema, "PROTOBUF"))
        except ValueError as error:
            return UnknownSchemaError(f"schema {number} of the registry cannot be read: {error}")
        if schema.kind == "JSON":
            return json_reader
        return UnknownSchemaError(f"schema {number} of the registry is {schema.kind}")

    def _referenced(self, schema: _Schema, kind: str) -> dict[str, str]:
        """Return the texts of all schemas that one refers to, the innermost first, by the names they go by."""
        found: dict[str, str] = {}
        query = "?format=serialized" if kind == "PROTOBUF" else ""
        for reference in schema.references:
            place = (
                f"/subjects/{quote(str(reference['subject']), safe='')}/versions/{int(reference['version'])}"
            )
            inner = self._schema(place)
            if inner is None:
                raise ValueError(f"its reference {reference['name']!r} is not there")
            found |= self._referenced(inner, kind)
            found[str(reference["name"])] = (
                (self._schema(place + query) or inner).text if query else inner.text
            )
        return found

    def _schema(self, place: str) -> _Schema | None:
        answer = self._asked(place)
        if answer is None:
            return None
        try:
            return _Schema(
                str(answer.get("schemaType") or "AVRO").upper(),
                str(answer["schema"]),
                list(answer.get("references") or ()),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise TransportError(
                "is no schema registry: it answers something else",
                endpoint=self._name,
                fix="check schema_registry",
            ) from error

    def _asked(self, place: str) -> Any:  # noqa: ANN401 - JSON
        """Return what the registry answers, None: there is no such thing."""
        words = ""
        for tried in range(_TRIES):
            if tried:
                time.sleep(_BACKOFF_S * 2**tried)
            try:
                status, body = self._get(place)
            except (OSError, http.client.HTTPException) as error:
                words = str(error) or type(error).__name__
                continue
            if status == _NOT_FOUND:
                return None
            if status in (401, 403):
                words = f"it refuses us ({status}): check schema_registry_auth"
                break
            if status == 200:
                try:
                    return json.loads(body)
                except ValueError:
                    words = "it answers no JSON"
                    break
            words = f"it answers {status}"
        raise TransportError(
            f"the schema registry does not answer: {words}",
            endpoint=self._name,
            fix="start again once it does",
        )

    def _get(self, place: str) -> tuple[int, bytes]:
        connection = (
            http.client.HTTPSConnection(
                self._host, self._port, timeout=_TIMEOUT_S, context=ssl.create_default_context()
            )
            if self._is_tls
            else http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        )
        try:
            connection.request("GET", self._path + place, headers=self._headers)
            answer = connection.getresponse()
            body = answer.read(_ANSWER_BYTES_MAX + 1)
        finally:
            connection.close()
        if len(body) > _ANSWER_BYTES_MAX:
            raise OSError("it answers more than 16 MiB")
        return answer.status, body


def json_reader(data: bytes) -> Any:  # noqa: ANN401 - JSON
    """Read what a schema of JSON stands before.

    Errors  ValueError  no JSON
    """
    from rfmstream.engine.live.envelopes import document  # noqa: PLC0415

    return document(data)
