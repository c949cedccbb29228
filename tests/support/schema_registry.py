"""A schema registry over HTTP, written from the public API: what it holds, what it was asked, what it answers wrong."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class FakeRegistry:
    """A registry.

    Fields  schemas    answers by number
            subjects   by subject and version
            serialized  what Protobuf schemas are asked for as descriptors, by their text
            auth       user:password that it wants
            failures   status codes to answer first
            asked      the paths of all requests
    """

    schemas: dict[int, dict] = field(default_factory=dict)
    subjects: dict[tuple[str, int], dict] = field(default_factory=dict)
    serialized: dict[str, str] = field(default_factory=dict)
    auth: str | None = None
    failures: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, authorization: str | None) -> tuple[int, object]:
        self.asked.append(path)
        if self.failures:
            return self.failures.pop(0), {"error_code": 50001}
        wanted = None if self.auth is None else "Basic " + base64.b64encode(self.auth.encode()).decode()
        if authorization != wanted:
            return 401, {"error_code": 401}
        parts = urlsplit(path)
        match parts.path.split("/")[1:]:
            case ["schemas", "ids", number]:
                found = self.schemas.get(int(number))
            case ["subjects", subject, "versions", version]:
                found = self.subjects.get((unquote(subject), int(version)))
            case _:
                found = None
        if found is None:
            return 404, {"error_code": 40403}
        if parse_qs(parts.query).get("format") == ["serialized"]:
            found = {**found, "schema": self.serialized[found["schema"]]}
        return 200, found


@contextmanager
def served(registry: FakeRegistry) -> Iterator[FakeRegistry]:
    """Serve a registry on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = registry.answer(self.path, self.headers.get("Authorization"))
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
