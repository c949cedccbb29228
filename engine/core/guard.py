"""One at a time, and nothing half done: what keeps an engine from being used by two at once or after a broken step.

An interrupt is an exception between any two instructions of Python, and nobody can catch all of them. So nothing here
depends on one that is caught: the lock is let go by C code, and a change that has begun counts as broken off from its
beginning until its result is on the way to the caller, where nothing can come between any more.
"""

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast
from weakref import WeakSet

from rfmstream.engine.core.processors import call_after_fork
from rfmstream.schemas.errors import StateError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Method = Callable[Concatenate[Any, _P], _R]

_BROKEN_OFF: Final = "a step was broken off, so the engine holds a state that nobody knows"
_UNDER_WAY: Final = "a step is under way in this thread, so the engine holds half of it"
_FORKED: Final = "this process was forked while another thread used the engine, and holds half of its state"
_FIX: Final = "restore it from its checkpoint, or begin anew"


class _Call:
    """A call of a method that changes the state; `has_begun` from the first change on."""

    __slots__ = ("has_begun",)

    def __init__(self) -> None:
        self.has_begun = False


class Guard:
    """Lets one thread at a time at a state, and nobody once a change of it was broken off.

    A change that an interrupt or an error breaks off leaves rows applied whose outcome nobody was told.

    Fields  lock    held by whoever reads or changes the state
            broken  why nobody can use the state any more; None: it is whole
            call    the one that changes the state now
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self.broken: str | None = None
        self.call: _Call | None = None
        _guards.add(self)

    def check(self) -> None:
        """Refuse a state that is not whole.

        Errors  StateError  a change was broken off, or is under way in this thread, as a signal's handler finds it
        """
        if self.broken is not None:
            raise StateError(self.broken, fix=_FIX)
        if self.call is not None:
            raise StateError(_UNDER_WAY, fix="wait for its end")

    def begin(self) -> None:
        """Say, in a method that `changes`, that from here on the state changes."""
        assert self.call is not None, "of a method that changes the state"
        self.call.has_begun = True

    def forked(self) -> None:
        """Take note, in a process that was just forked, that other threads are not in it."""
        if self.lock.acquire(blocking=False):
            self.lock.release()
        else:
            self.lock = RLock()
            self.broken = _FORKED


_guards: WeakSet[Guard] = WeakSet()


def reads(method: _Method[_P, _R]) -> _Method[_P, _R]:
    """Let a method of an object with a `_guard` read the state while nobody changes it."""

    @wraps(method)
    def reading(self: Any, *args: _P.args, **kwargs: _P.kwargs) -> _R:  # noqa: ANN401 - of whatever class
        guard: Guard = self._guard
        with guard.lock:
            guard.check()
            return method(self, *args, **kwargs)

    return cast("_Method[_P, _R]", reading)


def changes(method: _Method[_P, _R]) -> _Method[_P, _R]:
    """Let a method of an object with a `_guard` change the state, from its call of `Guard.begin` on."""

    @wraps(method)
    def changing(self: Any, *args: _P.args, **kwargs: _P.kwargs) -> _R:  # noqa: ANN401 - of whatever class
        guard: Guard = self._guard
        call = _Call()
        try:
            with guard.lock:
                guard.check()
                guard.call = call
                result = method(self, *args, **kwargs)
                guard.call = None
        except BaseException:
            # No call of anything here, as an interrupt might come with it.
            if call.has_begun:
                guard.broken = _BROKEN_OFF
            if guard.call is call:
                guard.call = None
            raise
        # An interrupt after the lock was let go leads into the except above: the caller will not get the result.
        return result

    return cast("_Method[_P, _R]", changing)


def _after_fork() -> None:
    for guard in list(_guards):
        guard.forked()


call_after_fork(_after_fork)
