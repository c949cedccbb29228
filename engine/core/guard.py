"""One at a time, and nothing half done: what keeps an engine from being used by two at once or after a broken step."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from rfmstream.schemas.errors import StateError


class Guard:
    """Lets one thread at a time at a state, and nobody once a change of it was broken off.

    A change that an interrupt or an error breaks off leaves rows applied whose outcome nobody was told.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._is_whole = True

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the state as it is.

        Errors  StateError  a change was broken off
        """
        with self._lock:
            if not self._is_whole:
                raise StateError(
                    "a step was broken off, so the engine holds a state that nobody knows",
                    fix="restore it from its checkpoint, or begin anew",
                )
            yield

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the state and change it; if that is broken off, nobody can use the state any more.

        Errors  StateError  an earlier change was broken off, or is under way in this thread
        """
        with self.reading():
            self._is_whole = False
            yield
            # Not where an exception passes: it is what breaks the change off.
            self._is_whole = True
