"""Sends what the lanes let go, and tells them what came of it."""

import asyncio
import logging
import time
from collections import Counter
from contextlib import suppress
from typing import Final, Protocol

from rfmstream.engine.deliver.client import HttpClient
from rfmstream.engine.deliver.config import Destination
from rfmstream.engine.deliver.forms import UnfitError
from rfmstream.engine.deliver.lanes import Batch, Lanes
from rfmstream.engine.deliver.model import Event, Item, Parked, Verdict
from rfmstream.schemas.errors import TransportError

_log = logging.getLogger(__name__)

STOP_S: Final = 8.0
"""How long requests may go on after a stop: with a last commit a process is gone within 10 s."""

_SAY_AGAIN_S: Final = 30.0
_FAILURES_TOLD: Final = 3
"""Failures on end from which on they are told of: single ones are counted."""


class Rejects(Protocol):
    """Keeps rows that were refused; `kafka.producer.Producer`."""

    async def reject(
        self, event: Event, *, destination: str, status: int, reason: str, answer: bytes
    ) -> None:
        """Keep one.

        Errors  TransportError  it may succeed later
        """
        ...


class Sender:
    """The requests of one destination.

    Fields  lanes    what waits, travels and has arrived
            counts   sent, retried and the like are counted by the lanes; filtered events here, by what kept them
    """

    def __init__(
        self, destination: Destination, client: HttpClient, rejects: Rejects, *, seed: int = 0
    ) -> None:
        self.destination = destination
        self.lanes = Lanes(destination.pace, seed=seed)
        self.filtered: Counter[str] = Counter()
        self.wake = asyncio.Event()
        self.has_arrived = asyncio.Event()
        self.parked_ms = 0
        self._client = client
        self._rejects = rejects
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._said_at_s = -_SAY_AGAIN_S
        self._is_told = False

    async def offer(self, event: Event) -> None:
        """Let an event, whose record the lanes have noted, be sent; or finish it at once where it is not to be."""
        item = await self.item(event)
        if item is not None:
            self.lanes.offer(item)

    async def item(self, event: Event) -> Item | None:
        """Make an event ready to be sent; None: it is not to be, and is finished."""
        refusal = self.destination.filter.refusal(event)
        if refusal is not None:
            self.filtered[refusal] += 1
            self.lanes.done(event.place, event.offset)
            return None
        try:
            parts = self.destination.form.parts(event)
        except (UnfitError, ValueError, TypeError, KeyError) as error:
            await self.reject_unsent(event, str(error))
            return None
        coalesce = None
        if self.destination.pace.coalesce:
            coalesce = (event.kind, *(event.data.get(name) for name in ("view", "population", "kind")))
        return Item(event, event.customer_id, parts, sum(map(len, parts)), coalesce)

    async def reject_unsent(self, event: Event, reason: str) -> None:
        """Keep an event that cannot be sent at all."""
        self.lanes.counts["rejected"] += 1
        await self._reject(event, 0, reason, b"")
        self.lanes.done(event.place, event.offset)

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            self.wake.clear()
            self.require_sound()
            now_s = time.monotonic()
            for batch in self.lanes.take(now_s):
                task = asyncio.create_task(self._send(batch))
                self._tasks.add(task)
                task.add_done_callback(self._ended)
            due_s = self.lanes.due_s(now_s)
            wait_s = None if due_s is None else max(due_s - now_s, 0.0005)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self.wake.wait()

    async def drain(self, seconds: float = STOP_S) -> None:
        """Wait for the requests under way, for so long at most; what has no answer then is sent again another time."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def require_sound(self) -> None:
        """Raise what a request failed by, which only a defect of ours can be."""
        if self._failure is not None:
            raise self._failure

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
            self.wake.set()

    async def _send(self, batch: Batch) -> None:
        form, lanes = self.destination.form, self.lanes
        try:
            answer = await self._client.send(form.request(batch.items, time.time()))
        except BaseException:
            lanes.broke_off(batch, time.monotonic())
            raise
        verdict = form.verdict(batch.items, answer)
        rejections = lanes.answer(batch, verdict, time.monotonic())
        self._tell(verdict)
        self.has_arrived.set()
        self.wake.set()
        for rejection in rejections:
            await self._reject(
                rejection.item.event, rejection.status, f"HTTP {rejection.status}", rejection.text
            )
            lanes.finish(rejection.item)
            self.has_arrived.set()
            self.wake.set()

    async def _reject(self, event: Event, status: int, reason: str, answer: bytes) -> None:
        _log.warning(
            "a row was rejected",
            extra={
                "destination": self.destination.name,
                "status": status,
                "reason": reason,
                "topic": event.place.topic,
                "partition": event.place.partition,
                "offset": event.offset,
            },
        )
        while True:
            try:
                await self._rejects.reject(
                    event, destination=self.destination.name, status=status, reason=reason, answer=answer
                )
            except TransportError as error:
                _log.warning("a rejected row cannot be kept yet", extra={"error": str(error)})
                await asyncio.sleep(1)
            else:
                return

    def _tell(self, verdict: Verdict) -> None:
        lanes, name = self.lanes, self.destination.name
        if isinstance(verdict, Parked):
            self.parked_ms = time.time_ns() // 1_000_000
            _log.error(
                "destination is parked: %s; rfmstream deliver release lets it go on",
                verdict.reason,
                extra={"destination": name},
            )
        elif lanes.failures >= _FAILURES_TOLD and time.monotonic() - self._said_at_s >= _SAY_AGAIN_S:
            self._said_at_s = time.monotonic()
            self._is_told = True
            _log.warning(
                "destination is not taking events; they are tried again",
                extra={"destination": name, "reason": lanes.trouble, "is_down": lanes.is_down()},
            )
        elif self._is_told and lanes.failures == 0:
            self._is_told = False
            _log.info("destination takes events again", extra={"destination": name})
