"""Answers of brokers as aiokafka's connections receive them, from a socket that cuts them anywhere."""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence

import pytest
from aiokafka import conn
from aiokafka.errors import KafkaConnectionError
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import some

from rfmstream.engine.live.kafka.answers import _SHORT_BYTES, _Protocol, install

LENGTHS = st.one_of(
    st.integers(0, 40), st.sampled_from([_SHORT_BYTES - 4, _SHORT_BYTES, _SHORT_BYTES + 1, 300_000])
)


def sent(answers: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack(">i", len(each)) + each for each in answers)


def received(data: bytes, cuts: Sequence[int], test: Callable[[_Protocol], Awaitable[None]]) -> None:
    """Hand bytes over in pieces, as a transport does, and then the end."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = _Protocol(loop.create_future(), reader, loop=loop)
        testing = asyncio.create_task(test(protocol))
        for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            at = begin
            while at < end:
                place = protocol.get_buffer(-1)
                count = min(len(place), end - at)
                place[:count] = data[at : at + count]
                protocol.buffer_updated(count)
                at += count
            await asyncio.sleep(0)
        protocol.eof_received()
        await testing

    asyncio.run(run())


@given(st.lists(LENGTHS, max_size=6), st.data())
@settings(max_examples=some(150), deadline=None)
def test_answers_are_whole_and_in_order_wherever_they_are_cut(
    lengths: list[int], data: st.DataObject
) -> None:
    answers = [bytes([number + 1]) * length for number, length in enumerate(lengths)]
    whole = sent(answers)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))

    async def test(protocol: _Protocol) -> None:
        assert [await protocol.answer() for _ in answers] == answers
        with pytest.raises(EOFError):
            await protocol.answer()

    received(whole, cuts, test)


@pytest.mark.parametrize("length", [10, 3 * _SHORT_BYTES])
def test_an_answer_that_is_cut_off_is_none(length: int) -> None:
    async def test(protocol: _Protocol) -> None:
        assert await protocol.answer() == b"whole"
        with pytest.raises(EOFError):
            await protocol.answer()

    received(sent([b"whole", bytes(length)])[:-1], [], test)


@pytest.mark.parametrize(
    "said", [b"\xff\xff\xff\xff", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["negative", "http"]
)
def test_what_is_no_broker_ends_the_connection(said: bytes) -> None:
    async def run() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(said)
            writer.write_eof()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(KafkaConnectionError):
                await conn.create_conn("127.0.0.1", port)

    asyncio.run(run())


def test_every_connection_of_the_client_is_read_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIOKafkaProtocol", "AIOKafkaConnection"):
        monkeypatch.setattr(conn, name, getattr(conn, name))
    install()
    assert conn.AIOKafkaProtocol is _Protocol
