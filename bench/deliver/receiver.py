"""The least that an HTTP receiver can do, in a process of its own: it counts requests, rows and when they came.

    python -m bench.deliver.receiver PORT_FILE

A request's rows are counted by how often `"messageId"` or `"specversion"` stands in it. GET /count answers with JSON.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_WORDS = (b'"type":"track"', b'"specversion"', b'"event_key"')

counts = {"requests": 0, "rows": 0}
latencies_ms: list[float] = []


class Receiver(asyncio.Protocol):
    """One connection, whose requests have a content-length."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._data = bytearray()

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._data[:end]).lower()
            if head.startswith(b"get"):
                del self._data[: end + 4]
                self._tell()
                continue
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self._data) < end + 4 + size:
                return
            self._take(bytes(self._data[end + 4 : end + 4 + size]))
            del self._data[: end + 4 + size]
            self._transport.write(_ANSWER)

    def _take(self, body: bytes) -> None:
        counts["requests"] += 1
        counts["rows"] += sum(body.count(word) for word in _WORDS)
        # Events of the latency bench say when they were appended.
        sent = body.partition(b'"appended_ms":')[2][:18].partition(b",")[0].rstrip(b"}")
        if sent:
            latencies_ms.append(time.time() * 1000 - float(sent))

    def _tell(self) -> None:
        body = orjson.dumps({**counts, "latencies_ms": latencies_ms})
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


async def main(tell: Callable[[str], object]) -> None:
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0, backlog=1000)
    tell(str(server.sockets[0].getsockname()[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).write_text))
