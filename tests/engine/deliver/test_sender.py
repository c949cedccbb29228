"""The sender's own waiting."""

import asyncio

import pytest
from deliver_events import PLACE, item

from rfmstream.engine.deliver.client import HttpClient
from rfmstream.engine.deliver.config import Destination
from rfmstream.engine.deliver.model import Event
from rfmstream.engine.deliver.segment import SegmentForm
from rfmstream.engine.deliver.sender import Sender


class NoRejects:
    """Keeps nothing, as nothing is refused here."""

    async def reject(
        self, event: Event, *, destination: str, status: int, reason: str, answer: bytes
    ) -> None:
        raise AssertionError(event, destination, status, reason, answer)


@pytest.mark.parametrize("turns", range(6))
def test_a_stop_in_the_moment_of_news_is_no_news(turns: int) -> None:
    """asyncio.wait_for, up to Python 3.11, loses a cancellation that comes together with what it waits for."""

    async def stop() -> bool:
        client = HttpClient(timeout_s=1, allow_private=True)
        destination = Destination("test", "segment", SegmentForm("http://127.0.0.1:1", "key", {}))
        sender = Sender(destination, client, NoRejects())
        sender.lanes.begin(PLACE, 0)
        sender.lanes.note(PLACE, 0)
        sender.lanes.offer(item("a", offset=0))
        sending = asyncio.create_task(sender.run())
        # Nobody is there: it waits for the time of the next try.
        while sender.lanes.trouble is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        sender.wake.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        sending.cancel()
        done, _ = await asyncio.wait([sending], timeout=5)
        sending.cancel()
        await client.close()
        return sending in done

    assert asyncio.run(stop())
