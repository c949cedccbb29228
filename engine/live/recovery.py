"""Decides, from a partition's log and its newest checkpoint, where the partition continues after a start.

    C  offset of the checkpoint        the state begins there
    K  committed offset                records from C to K, and the ticks among them, are applied again in silence

A history can be repeated only under the law under which it was made, and only from records that still exist. Where that
is impossible, the worker refuses before it writes anything.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.events.instants import FIRST_US
from rfmstream.engine.live.law import Difference, Law
from rfmstream.engine.live.model import Bounds, Source, Tick
from rfmstream.engine.live.state import State
from rfmstream.engine.live.stored import LoadedCheckpoint
from rfmstream.schemas.errors import StateError
from rfmstream.schemas.plan import Plan as Views
from rfmstream.schemas.plan import plan_of
from rfmstream.schemas.ruleset import Ruleset

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """A partition's progress, as its log tells it.

    Fields  committed  K; None: nothing yet
            bounds     the offsets it holds
            ticks      those that are committed, oldest first; where a checkpoint is there, perhaps only those behind it
            is_foreign something other than a worker committed K
            topic_id   of the input topic as it is now; None: not told
    """

    committed: int | None
    bounds: Bounds
    ticks: list[Tick]
    is_foreign: bool = False
    topic_id: str | None = None


@dataclass(frozen=True)
class Plan:
    """How a partition continues.

    Fields  held      the state to begin with, or its only engine
            offset    its position
            until     what comes before is applied in silence
            ticks     those to apply in silence, too, oldest first
            law_at_us the instant at which the law had already changed, at `offset`; None: it had not
            begins    nothing is committed yet: the law is to be written down
            changes   the law changes now
            caps      which record times count as another instant, see `Tick.until`
            renews    the topic is another one than before: the state goes on, and its place is to be written down
            joins     the views that the state lacks: they begin with files of history, if there are some, and then with
                      the topic's first record, at offset `begin`
            joined    of those that had joined already: how, see `Tick.joining`
    """

    held: Engine | State
    offset: int
    until: int
    ticks: list[Tick] = field(default_factory=list)
    law_at_us: int | None = None
    begins: bool = False
    changes: bool = False
    caps: list[Tick] = field(default_factory=list)
    renews: bool = False
    joins: tuple[str, ...] = ()
    begin: int = 0
    joined: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """The state to begin with."""
        return State.of(self.held)


def first_tick(position: int, law: Law, topic_id: str | None = None, current: str | None = None) -> Tick:
    """Return the tick that begins a partition's history and names its law; it passes no time.

    In      topic_id, current  see `Tick`
    """
    return Tick(position, FIRST_US, str(law), topic_id=topic_id, current=current)


def plan_recovery(  # noqa: PLR0913 - what there is to weigh
    source: Source,
    progress: Progress,
    loaded: LoadedCheckpoint | None,
    ruleset: Ruleset | Views,
    law: Law,
    *,
    resegment: bool | Collection[str],
    accept_gap: bool,
) -> Plan:
    """Decide how a partition continues.

    In      ruleset    to go on with, or a plan of views
            loaded     the newest whole checkpoint at an offset up to K
            resegment  let another ruleset take over; the names of views: in these
            accept_gap do without records, ticks or an offset that are gone
    Errors  StateError  it cannot, or not without one of these
    """
    caps = [tick for tick in progress.ticks if tick.until is not None]
    others = [tick for tick in progress.ticks if tick.until is None]
    progress = replace(progress, ticks=others)
    views = plan_of([ruleset]) if isinstance(ruleset, Ruleset) else ruleset
    weigh = _Weigher(source, progress, views, law, resegment=resegment, accept_gap=accept_gap)
    plan = _weighed(weigh, progress, loaded)
    return replace(plan, caps=[cap for cap in caps if (cap.until or 0) > plan.offset and not plan.renews])


def _weighed(weigh: "_Weigher", progress: Progress, loaded: LoadedCheckpoint | None) -> Plan:
    was = weigh.topic_before(loaded)
    if was is not None and progress.topic_id not in (None, was):
        return weigh.made_anew(loaded, was)
    if progress.committed is None:
        return weigh.without_offset(loaded)
    if progress.is_foreign:
        return weigh.foreign(loaded, progress.committed)
    return weigh.from_start(progress.committed) if loaded is None else weigh.go_on(loaded, progress.committed)


class _Weigher:
    def __init__(  # noqa: PLR0913 - what there is to weigh
        self,
        source: Source,
        progress: Progress,
        views: Views,
        law: Law,
        *,
        resegment: bool | Collection[str],
        accept_gap: bool,
    ) -> None:
        self._source = source
        self._progress = progress
        self._views = views
        self._law = law
        self._resegment = resegment
        self._accept_gap = accept_gap
        self._laws = [tick for tick in progress.ticks if tick.ruleset is not None]

    def without_offset(self, loaded: LoadedCheckpoint | None) -> Plan:
        """Nothing is committed: the very first start, or something was lost."""
        begin = self._progress.bounds.begin
        if not self._laws and loaded is None:
            if begin > 0:
                _log.warning(
                    "older records are gone", extra={"partition": str(self._source), "offset": begin}
                )
            return Plan(State.begin(self._views), begin, begin, begins=True)
        if not self._laws:
            self._missing(
                "there are checkpoints of it, but nothing was ever committed: they belong to another cluster or topic",
                "name another place for the checkpoints",
            )
            return Plan(State.begin(self._views), begin, begin, begins=True)
        self._missing(
            "its committed offset is gone, as brokers forget it after a while without a worker",
            "after a clean stop go on from the checkpoint",
        )
        if loaded is not None:
            return self.go_on(loaded, loaded.offset)
        return self.from_start(self._progress.ticks[-1].position)

    def topic_before(self, loaded: LoadedCheckpoint | None) -> str | None:
        """Return the id of the topic that the state was made from; None: nobody wrote it down."""
        noted = [tick.topic_id for tick in self._progress.ticks if tick.topic_id is not None]
        if noted:
            return noted[-1]
        return None if loaded is None else loaded.topic_id

    def made_anew(self, loaded: LoadedCheckpoint | None, was: str) -> Plan:
        """Refuse a topic that was deleted and created again: offsets of before mean nothing in it."""
        problem = (
            f"topic {self._source.topic} is not the one its state was made from: it was deleted and created anew "
            f"(its id was {was}, now it is {self._progress.topic_id})"
        )
        anew = "begin anew with another app_id, other output topics and another place for the checkpoints"
        if loaded is None or self._source.is_merged:
            raise self._error(problem, anew)
        if not self._is_same(loaded.law, loaded):
            raise self._error(problem, f"{anew}, or go on by the ruleset and clock of before")
        if not self._accept_gap:
            raise self._error(
                problem,
                f"{anew}, or keep the customers as they were and read the new topic from its first record with "
                "--accept-gap",
            )
        _log.warning("gap accepted", extra={"partition": str(self._source), "reason": problem})
        begin = self._progress.bounds.begin
        return Plan(loaded.held, begin, begin, renews=True)

    def foreign(self, loaded: LoadedCheckpoint | None, offset: int) -> Plan:
        """Something other than a worker set the offset: what was told before it nobody knows any more."""
        problem = f"the committed offset {offset} was set by something other than a worker of this app"
        if loaded is None and not self._laws and self._source.is_merged:
            raise self._error(
                f"{problem}, and there is no state of before",
                "delete the offsets of the group (kafka-consumer-groups --delete-offsets): the topics are then read "
                "from their first records",
            )
        if loaded is None and not self._laws:
            self._missing(
                f"{problem}, and there is no state of before",
                "to begin with the topic's first record, delete the offsets of the group "
                "(kafka-consumer-groups --delete-offsets); to leave out what comes before it",
            )
            begin, end = self._progress.bounds
            offset = min(max(offset, begin), end)
            return Plan(State.begin(self._views), offset, offset, begins=True)
        place = "" if loaded is None else f", at offset {loaded.offset}"
        self._missing(
            f"{problem}: going on from it would repeat tier changes, or leave out orders' changes",
            "a group's offsets are the worker's to set; "
            f"if it was stopped in good order before, go on from where its state is{place}",
        )
        if loaded is not None:
            return self.go_on(loaded, loaded.offset)
        return self.from_start(self._progress.ticks[-1].position)

    def from_start(self, until: int) -> Plan:
        """There is no checkpoint: everything is applied again."""
        begin, until = self._within(until)
        first = begin
        if not self._laws:
            self._missing("the clock topic has lost its ticks", "restore a checkpoint")
        else:
            first = self._laws[0].position
            if not self._is_repeatable([tick.ruleset for tick in self._laws]):
                laws = ", then ".join(map(self._named, self._laws))
                raise self._error(
                    f"there is no checkpoint, and its history was made by {laws}",
                    "restore a checkpoint, or begin anew with another app id"
                    + (", or go on by that" if len(self._laws) == 1 else ""),
                )
        began = {
            name for tick in self._laws for name, how in (tick.joining or {}).items() if "history" in how
        }
        if began & set(self._views.names):
            self._missing(
                f"there is no checkpoint, and view {min(began & set(self._views.names))} had begun with files of "
                "history, which are not in the topic",
                "restore a checkpoint",
            )
        if begin > first:
            self._missing(
                f"there is no checkpoint, and records from offset {first} to {begin} are gone",
                "restore a checkpoint",
            )
        offset = min(max(first, begin), until)
        return Plan(State.begin(self._views), offset, until, self._ticks_after(FIRST_US))

    def go_on(self, loaded: LoadedCheckpoint, until: int) -> Plan:
        """Go on from a checkpoint."""
        begin, until = self._within(until)
        if begin > loaded.offset:
            self._missing(
                f"the checkpoint is at offset {loaded.offset}, and records up to {begin} are gone",
                "restore a newer checkpoint",
            )
        offset = min(max(loaded.offset, begin), until)
        ticks = self._ticks_after(max(loaded.clock_us, FIRST_US))
        changed = [tick for tick in ticks if tick.ruleset is not None]
        if self._is_same(loaded.law, loaded):
            if not all(self._is_same(tick.ruleset) for tick in changed):
                raise self._error(
                    f"its history went on under {self._named(changed[-1])} after the checkpoint",
                    "go on by that",
                )
            self._tell_of_signals(loaded, offset, until)
            return Plan(loaded.held, offset, until, ticks)
        if changed:
            [first, *others] = changed
            is_ours = self._is_same(first.ruleset) and not others
            if not is_ours or first is not ticks[0] or first.position != offset:
                raise self._error(
                    f"its history went on under {self._named(changed[-1])} after the checkpoint",
                    "restore a newer checkpoint",
                )
            plan = Plan(loaded.held, offset, until, ticks[1:], law_at_us=first.clock_us)
            return self._joined(replace(plan, joined=first.joining or {}), loaded, begin)
        self._check_change(loaded, is_clean=offset == until and not ticks)
        return self._joined(Plan(loaded.held, offset, until, changes=True), loaded, begin)

    def _joined(self, plan: Plan, loaded: LoadedCheckpoint, begin: int) -> Plan:
        """Return a plan in which the views that the checkpoint lacks begin with the topic's first record."""
        joins = tuple(name for name in self._views.names if name not in loaded.state.names)
        if len(self._views.views) == len(loaded.state.views) == 1:
            return plan  # one ruleset takes over from another
        return replace(plan, joins=joins, begin=begin)

    def _is_same(self, text: str | None, loaded: LoadedCheckpoint | None = None) -> bool:
        """Tell whether a history made by a law can be repeated by ours: other signals change no tier.

        In      loaded  the checkpoint the law stands in
        """
        law = None if text is None else Law.parse(text)
        if law is None or (law.clock, law.tolerance_us) != (self._law.clock, self._law.tolerance_us):
            return False
        return self._difference(law, loaded).is_none

    def _is_repeatable(self, texts: Sequence[str | None]) -> bool:
        """Tell whether all of a history can be repeated by our views: the last law is ours, and none had one otherwise.

        A view that came later is repeated from the beginning, as it was then.
        """
        if not self._is_same(texts[-1]):
            return False
        laws = [law for text in texts if text is not None and (law := Law.parse(text)) is not None]
        same_clock = all(
            (law.clock, law.tolerance_us) == (self._law.clock, self._law.tolerance_us) for law in laws
        )
        differences = [law.difference(self._views) for law in laws]
        return same_clock and not any(found.changed or found.moved for found in differences)

    def _difference(self, law: Law, loaded: LoadedCheckpoint | None) -> Difference:
        """Return which views are other ones; a checkpoint is read with our ruleset where it decides alike."""
        found = law.difference(self._views)
        if loaded is None or not found.changed:
            return found
        before = law.views
        rulesets = {view.name: view.ruleset for view in self._views.views}
        same = {
            of.view.name
            for of in loaded.state.views
            if of.engine.ruleset is rulesets.get(of.view.name)
            and of.view.name in before
            and before[of.view.name].identity == of.engine.ruleset.identity
        }
        return found._replace(changed=tuple(name for name in found.changed if name not in same))

    def _tell_of_signals(self, loaded: LoadedCheckpoint, offset: int, until: int) -> None:
        """Say what nobody is told where other signals are asked for after a stop that was none."""
        law = Law.parse(loaded.law)
        before = {} if law is None else law.views
        asked = [
            view.name
            for view in self._views.views
            if view.name in before and before[view.name].fingerprint != view.ruleset.fingerprint
        ]
        if offset < until and asked:
            _log.warning(
                "the ruleset asks for other signals than before, and the last stop was not clean: what they give "
                "between these offsets, and what was due before, is not told",
                extra={"partition": str(self._source), "offset": offset, "committed": until},
            )

    def _check_change(self, loaded: LoadedCheckpoint, *, is_clean: bool) -> None:
        before = Law.parse(loaded.law)
        named = loaded.law if before is None else before.named
        found = Difference(changed=(loaded.law,)) if before is None else self._difference(before, loaded)
        if found.moved:
            raise self._error(
                f"view {found.moved[0]} was made from other events, or parts its customers otherwise",
                "give the view another name, under which it begins anew",
            )
        # Where the law before cannot be read there is no name of ours among what has changed.
        changed = {name for name in found.changed if name in self._views.names} or set(self._views.names)
        may = self._views.names if self._resegment is True else self._resegment or ()
        if found.changed and not changed <= set(may):
            raise self._error(
                f"the checkpoint belongs to {named}, not to {self._law.named.removeprefix('ruleset ')}",
                "use the ruleset, time zone and currency it was made with, or resegment",
            )
        if not is_clean:
            raise self._error(
                "the ruleset, clock or tolerance can change only after a clean stop, and the last one was none"
                if len(self._views.views) == 1
                else "views, clock or tolerance can change only after a clean stop, and the last one was none",
                f"start once more with {named} and the settings before, and stop that",
            )
        if found.dropped:
            _log.warning(
                "views are dropped", extra={"partition": str(self._source), "views": ", ".join(found.dropped)}
            )

    def _within(self, until: int) -> tuple[int, int]:
        """Return the first offset, and how far to apply in silence."""
        begin, end = self._progress.bounds
        if until > end:
            self._missing(
                f"offset {until} is committed, but the topic ends at {end}: it was made anew",
                "begin anew with another app id and another place for the checkpoints",
            )
            return begin, begin
        if begin > until:
            self._missing(
                f"offset {until} is committed, and records up to {begin} are gone", "restore the records"
            )
        return begin, max(begin, until)

    def _ticks_after(self, clock_us: int) -> list[Tick]:
        return [tick for tick in self._progress.ticks if tick.clock_us > clock_us]

    def _missing(self, problem: str, fix: str) -> None:
        if not self._accept_gap:
            raise self._error(problem, f"{fix}, or accept the gap with --accept-gap")
        _log.warning("gap accepted", extra={"partition": str(self._source), "reason": problem})

    def _error(self, problem: str, fix: str) -> StateError:
        return StateError(f"partition {self._source}: {problem}", fix=fix)

    @staticmethod
    def _named(tick: Tick) -> str:
        law = Law.parse(tick.ruleset or "")
        if law is None:
            return f"{tick.ruleset}"
        clock = law.clock.replace("+", ", input map ")
        return f"{law.named}, clock {clock}, time tolerance {law.tolerance_us / 1e6:g} s"
