"""What the store of checkpoints takes and gives: checkpoints as written, read and listed, and a partition's note."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.state import State


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint that was written.

    Fields  name    of its folder
            offset  records before it are in it
            bytes   its size
            oldest  the offset of the oldest one that is still there
    """

    name: str
    offset: int
    bytes: int
    oldest: int = 0


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint that was read.

    Fields  held    the state as of the offset, or the one engine there is
            offset  records before it are in it
            law     the text of the law it was made by, see `engine.live.law`
            name    of its folder
            mark    ticks before it are in it, see `engine.live.model.PartitionLog.mark`
            topic_id    of the topic that the offset is of; None: not known
            placements  what its keys said of their producers, see engine.live.placement
            erasures    which customers that were erased older checkpoints may hold, see engine.live.erasures
            came_to_us  the instant that time was let pass to; None: that of the state
    Holds   where a ruleset was asked for that is not the checkpoint's, the engine has the asked one's rules under the
            checkpoint's identity and tiers: it must not move before it is resegmented
    """

    held: Engine | State
    offset: int
    law: str
    name: str
    mark: int = 0
    topic_id: str | None = None
    placements: Sequence[int] = ()
    erasures: Sequence[Sequence[int]] = ()
    came_to_us: int | None = None

    @property
    def clock_us(self) -> int:
        """The newest instant that was come to."""
        return self.state.clock_us if self.came_to_us is None else self.came_to_us

    @property
    def state(self) -> State:
        """The state as of the offset: of the asked views those that were there."""
        return State.of(self.held)

    @property
    def engine(self) -> Engine:
        """The first view's engine."""
        return self.state.engine


@dataclass(frozen=True)
class Note:
    """What is noted of a partition beside its checkpoints.

    Fields  is_running  a worker has it; if none has, the one that had it was not stopped in order
            poison      offsets of records that ended a worker, and are left out
    """

    is_running: bool = False
    poison: tuple[int, ...] = ()


class StoredCheckpoint(NamedTuple):
    """A checkpoint as its position tells of it; whether its data is whole is known once it is read.

    Fields  name       of its folder
            app_id     whose it is
            offset     records before it are in it
            clock_us   of the state, µs
            law        the text of the law it was made by, see `engine.live.law`
            mark       ticks before it are in it
            bytes      its size
            written_us when it was written, µs; None: the place does not tell
    """

    name: str
    app_id: str
    offset: int
    clock_us: int
    law: str
    mark: int
    bytes: int
    written_us: int | None
