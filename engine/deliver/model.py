"""What is delivered, and what comes back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

ANSWER_BYTES_MAX: Final = 8192
"""Bytes of an answer that are kept beside a rejected row."""


class Place(NamedTuple):
    """A partition."""

    topic: str
    partition: int


NOWHERE: Final = Place("", 0)


@dataclass(slots=True)
class Event:
    """A tier change or a signal: a CloudEvent. Nobody changes one (frozen would take three times as long to make).

    Fields  kind     change or signal
            id, source, type, subject, time  the attributes
            data     the change or signal
            raw      `data` as the JSON text that came
            place, offset, timestamp_ms  of its record
            key      of its record
    """

    kind: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    data: Mapping[str, Any]
    raw: bytes
    place: Place = NOWHERE
    offset: int = 0
    timestamp_ms: int = 0
    key: bytes | None = None

    @property
    def customer_id(self) -> str:
        """Whom it is about."""
        return str(self.data["customer_id"])


@dataclass(slots=True)
class Item:
    """An event on its way to one destination.

    Fields  lane      items of a lane leave one after another: the customer
            coalesce  of the items that wait in a lane and share this only the newest leaves; None: all leave
            parts     the event as this destination takes it, one text a row group
            bytes     their length together
    """

    event: Event
    lane: str
    parts: tuple[bytes, ...]
    bytes: int
    coalesce: tuple[object, ...] | None = None
    is_dropped: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a destination said; status 0 stands for no answer, with the reason in `error`."""

    status: int
    body: bytes = b""
    retry_after_s: float | None = None
    error: str = ""

    @property
    def reason(self) -> str:
        """Say in a word or two what came."""
        return self.error or f"HTTP {self.status}"


class RowError(NamedTuple):
    """A row that a destination refused in an answer that is otherwise a success."""

    row: int
    text: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination has it, without the rows in `errors`."""

    errors: Sequence[RowError] = ()


@dataclass(frozen=True, slots=True)
class TryAgain:
    """It may take the same later, not before `after_s` seconds where it says so."""

    reason: str
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """It does not take this, ever."""

    status: int
    text: bytes = b""


@dataclass(frozen=True, slots=True)
class Parked:
    """It wants nothing more of anybody."""

    reason: str


Verdict = Delivered | TryAgain | Refused | Parked

_RETRIED: Final = frozenset({408, 425, 429})


def verdict_of(answer: Answer) -> Verdict:
    """Say what an answer's status means for what was sent.

    A redirect is no success, and no fault of the row. Nor is 401: a key that was revoked would refuse every row, so it
    parks the destination instead of letting all rows be rejected.
    Source  Standard Webhooks 1.0.0, "Delivery": success is 2xx alone, 410 disables
    """
    status = answer.status
    if 200 <= status < 300:
        return Delivered()
    if status == 410:
        return Parked("it answered 410 Gone")
    if status == 401:
        return Parked("it answered 401: it does not know our credentials")
    if 400 <= status < 500 and status not in _RETRIED:
        return Refused(status, answer.body[:ANSWER_BYTES_MAX])
    return TryAgain(answer.reason, answer.retry_after_s)
