"""What views tell in a step that is being made."""

import pyarrow as pa

from rfmstream.engine.core.view import ViewEngine
from rfmstream.engine.live.model import Forgotten, Rejection, Told
from rfmstream.engine.live.state import State


class Telling:
    """What a view tells in a step so far."""

    def __init__(self, of: ViewEngine) -> None:
        self._of = of
        self.tables: list[pa.Table] = []
        self.signals: list[pa.Table] = []
        self.changes = 0
        self._forgotten: list[Forgotten] = []

    def forget(self, customers: list[tuple[str, str | None]]) -> None:
        """Take note of customers, and their populations, that were erased by what was added last."""
        self._forgotten += [Forgotten(self.changes, *customer) for customer in customers]

    def go_on(self, told: Told) -> None:
        """Add what the view told in a step of its own."""
        self._forgotten += [each._replace(before=self.changes + each.before) for each in told.forgotten]
        self.tables.append(told.changes)
        self.changes += told.changes.num_rows
        if told.signals is not None:
            self.signals.append(told.signals)

    def told(self) -> Told:
        """Return all of it."""
        changes = pa.concat_tables(self.tables) if self.tables else self._of.engine.no_changes
        signals = pa.concat_tables(self.signals) if self.signals else None
        return Told(self._of.view.name, changes, signals, self._forgotten)


class Made:
    """The contents of a step that is being made.

    Fields  count  changes and signals of all views
            is_touched  whether anything was added, if only nothing
    """

    def __init__(self, state: State) -> None:
        self.views = [Telling(of) for of in state.views]
        self.rejections: list[Rejection] = []
        self.count = 0
        self.is_touched = False

    @property
    def told(self) -> list[Told]:
        """What each view tells."""
        return [told.told() for told in self.views]

    def add(self, told: Telling, changes: pa.Table, signals: pa.Table) -> None:
        """Add tier changes and signals of a view."""
        told.tables.append(changes)
        told.changes += changes.num_rows
        if signals.num_rows:
            told.signals.append(signals)
        self.count += changes.num_rows + signals.num_rows
        self.is_touched = True


def after_another(of: ViewEngine, *told: Told) -> Told:
    """Return what a view tells one after the other, as one."""
    telling = Telling(of)
    for each in told:
        telling.go_on(each)
    return telling.told()
