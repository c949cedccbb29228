"""Receives a broker's answer into one buffer of its size, without copying it.

aiokafka (0.14, aiokafka/conn.py) reads from asyncio's StreamReader, whose buffer grows by an eighth at a time. An
answer of megabytes is copied some nine times before it is complete, and the event loop does nothing else meanwhile.
But an answer begins with its length. So this protocol receives a long answer into a buffer of that length.

`install` makes all connections of aiokafka read in this way; engine.live.kafka.seams decides whether to.
"""

import asyncio
import io
import struct
from collections import deque
from typing import Any, Final

from aiokafka import conn

_SIZE: Final = struct.Struct(">i")

_SHORT_BYTES: Final = 64 << 10
"""Shorter answers are received together, in one buffer with others."""


class _Protocol(conn.AIOKafkaProtocol, asyncio.BufferedProtocol):
    """Receives answers. Of the StreamReader that aiokafka gives it, it uses nothing but the end of the stream."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - not typed there
        super().__init__(*arguments, **options)
        self._short = memoryview(bytearray(_SHORT_BYTES))
        self._begun = b""
        self._long: io.BytesIO | None = None
        self._missing = self._short
        self._answers: deque[io.BytesIO] = deque()
        self._error: BaseException | None = None
        self._has_news = asyncio.Event()

    async def answer(self) -> bytes:
        """Return the next answer, without the length before it.

        Errors  EOFError, OSError  the connection has ended
        """
        while not self._answers:
            if self._error is not None:
                raise self._error
            self._has_news.clear()
            await self._has_news.wait()
        # Not copied, now that nobody writes to it any more.
        return self._answers.popleft().getvalue()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to put what comes next."""
        del sizehint
        return self._missing

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has been put there."""
        if self._long is None:
            self._take(self._begun + self._short[:nbytes])
        else:
            self._missing = self._missing[nbytes:]
            if not self._missing:
                self._answers.append(self._long)
                self._long, self._missing = None, self._short
        if self._answers:
            self._has_news.set()

    def _take(self, data: bytes) -> None:
        at = 0
        while len(data) - at >= _SIZE.size:
            (size,) = _SIZE.unpack_from(data, at)
            if size < 0:
                self._ended(ConnectionError("what answers is no broker"))
                self._transport.abort()
                return
            begin, end = at + _SIZE.size, at + _SIZE.size + size
            if end > len(data):
                if size > _SHORT_BYTES:
                    self._long = io.BytesIO(bytes(size))
                    place = self._long.getbuffer()
                    there = len(data) - begin
                    place[:there] = data[begin:]
                    self._missing = place[there:]
                    at = len(data)
                break
            self._answers.append(io.BytesIO(data[begin:end]))
            at = end
        self._begun = data[at:]

    def eof_received(self) -> bool | None:
        """Tell who waits for an answer."""
        self._ended(None)
        over: bool | None = super().eof_received()
        return over

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits for an answer."""
        self._ended(exc)
        super().connection_lost(exc)

    def _ended(self, error: Exception | None) -> None:
        if self._error is None:
            self._error = error or asyncio.IncompleteReadError(self._begun, None)
        self._has_news.set()


class _Connection(conn.AIOKafkaConnection):
    _protocol: _Protocol

    @staticmethod
    async def _read(self_ref: Any) -> None:  # noqa: ANN401 - a weak reference: who lets go of a connection closes it
        this = self_ref()
        if this is None:
            return
        protocol = this._protocol  # noqa: SLF001 - of this class
        del this
        while True:
            answer = await protocol.answer()
            this = self_ref()
            if this is None:
                return
            this._handle_frame(answer)  # noqa: SLF001
            del this


def install() -> None:
    """Make all connections that aiokafka opens from now on use this protocol."""
    conn.AIOKafkaProtocol = _Protocol
    conn.AIOKafkaConnection = _Connection


def receives_alike() -> bool:
    """Tell whether answers come out whole and in order, wherever the stream is cut into pieces; needs an event loop."""
    answers = [b"", b"short", bytes(range(256)) * 300]
    data = b"".join(_SIZE.pack(len(each)) + each for each in answers)
    for piece in (1 << 16, 70_000, 7):
        loop = asyncio.get_running_loop()
        protocol = _Protocol(loop.create_future(), asyncio.StreamReader(loop=loop), loop=loop)
        at = 0
        while at < len(data):
            place = protocol.get_buffer(-1)
            count = min(len(place), piece, len(data) - at)
            place[:count] = data[at : at + count]
            protocol.buffer_updated(count)
            at += count
        if [each.getvalue() for each in protocol._answers] != answers:  # noqa: SLF001 - of this class
            return False
    return True
