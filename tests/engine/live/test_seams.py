"""What reaches into other packages is installed where it was read at, and else left alone."""

import asyncio
import logging
import subprocess
import sys

import pytest
from aiokafka import conn

from rfmstream.engine.live.kafka import answers, seams


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    # What monkeypatch has set it sets back.
    monkeypatch.setattr(conn, "AIOKafkaProtocol", answers._Protocol.__bases__[0])
    monkeypatch.setattr(conn, "AIOKafkaConnection", answers._Connection.__bases__[0])


async def install() -> None:
    seams.install_answers()


def test_installed_versions_are_known() -> None:
    assert [seam.name for seam in seams.SEAMS if not seam.is_known(seams.versions()[seam.package])] == []


def test_answers_are_installed_where_they_are_known() -> None:
    asyncio.run(install())
    assert conn.AIOKafkaProtocol is answers._Protocol
    assert conn.AIOKafkaConnection is answers._Connection


@pytest.mark.parametrize("trouble", ["version", "test", "error"])
def test_the_ordinary_path_is_taken_and_said(
    trouble: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = conn.AIOKafkaProtocol
    if trouble == "version":
        monkeypatch.setattr(seams.aiokafka, "__version__", "0.15.0")
    elif trouble == "test":
        monkeypatch.setattr(answers._Protocol, "_take", lambda *_: None)
    else:
        monkeypatch.delattr(answers._Protocol, "get_buffer")
    with caplog.at_level(logging.WARNING):
        asyncio.run(install())
    assert conn.AIOKafkaProtocol is before
    assert "taking the ordinary path" in caplog.text


def test_importing_replaces_nothing() -> None:
    # The modules are loaded by now.
    assert conn.AIOKafkaProtocol is not answers._Protocol
    program = (
        "from aiokafka.consumer import fetcher\n"
        "before = fetcher.MemoryRecords, fetcher.PartitionRecords\n"
        "from rfmstream.engine.live.kafka import fetches, seams, transport, worker\n"
        "assert (fetcher.MemoryRecords, fetcher.PartitionRecords) == before\n"
        "assert not fetches.is_installed()\n"
        "seams.install_fetches()\n"
        "assert fetches.is_installed()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
