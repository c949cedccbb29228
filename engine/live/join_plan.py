"""What views that join a running state are given: where they begin, and what they have told already.

Source: docs/views.md, In the worker
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
import xxhash

from rfmstream.engine.live.context import PartitionContext
from rfmstream.engine.live.joining import Begun, Own
from rfmstream.engine.live.model import Tick
from rfmstream.engine.live.recovery import Plan
from rfmstream.engine.live.view_history import Part, Reading, ViewHistory
from rfmstream.schemas.errors import StateError
from rfmstream.schemas.plan import View

_FIX_HISTORY: Final = "give exactly those files as view_history until the log says that there is a checkpoint"
_log = logging.getLogger(__name__)


def views_to_join(
    context: PartitionContext, plan: Plan, ticks: Sequence[Tick], clock_us: int
) -> dict[str, Own]:
    """Return what each view is given that joins.

    In      plan      names the views
            ticks     all that were committed, oldest first
            clock_us  the instant that the others have come to
    Errors  StateError  a view had begun, or joined, from something else
            InputError  a file of history cannot be read
    """
    history = context.options.history
    views = [view for view in context.plan.views if view.name in plan.joins]
    facts = {"partition": str(context.source), "views": ", ".join(plan.joins)}
    parts: dict[str, Part] = {}
    digest = None
    if history is not None:
        digest = history.digest()
        partitioner = _partitioner(context)
        parts = _parts(history, views, partitioner, context.source.partition)
        _log.info(
            "views begin with files of history, then with the topic's first record",
            extra=facts
            | {"files": history.named, "xxh3_128": digest, "offset": plan.begin, "until": plan.offset},
        )
    else:
        _log.info(
            "views begin with the topic's first record",
            extra=facts | {"offset": plan.begin, "until": plan.offset},
        )
    noted = _noted(ticks)
    found = {}
    for view in views:
        by = _by(context, view, plan.begin, None if digest is None else (digest, clock_us))
        _check_joined(context, view, plan.joined.get(view.name), digest)
        begun = None if plan.law_at_us is not None else _begun(context, view, noted.get(view.name), by)
        found[view.name] = Own(by, begun, parts.get(view.name))
    return found


def _parts(history: ViewHistory, views: Sequence[View], partitioner: str, partition: int) -> dict[str, Part]:
    """Return each view's orders; those that are read alike are read once."""
    alike: dict[tuple[str, str], list[View]] = {}
    for view in views:
        alike.setdefault((view.ruleset.currency, view.ruleset.time_zone), []).append(view)
    return {
        view.name: history.part(
            Reading(
                *reading,
                tuple(sorted({name for one in group for name in one.attributes})),
                partitioner,
            ),
            partition,
        )
        for reading, group in alike.items()
        for view in group
    }


def _partitioner(context: PartitionContext) -> str:
    """Return what tells whose partition a customer's orders of before belong to.

    Errors  StateError  the topic's keys follow no partitioner that we know
    """
    placement = context.stats.placement
    found = "murmur2" if placement is None else placement.partitioner
    if found is None:
        raise StateError(
            f"partition {context.source}: its keys are there neither by murmur2 nor by CRC-32, so the orders of files "
            "of history cannot be divided among the partitions",
            fix="leave view_history out: the view then begins with the topic's first record",
        )
    return found


def _by(context: PartitionContext, view: View, begin: int, history: tuple[str, int] | None) -> dict[str, str]:
    """Return what determines all that a view tells while it joins."""
    law = context.law
    told = [view.ruleset.identity, view.ruleset.fingerprint, view.selects, law.clock, law.tolerance_us, begin]
    by = {"by": xxhash.xxh3_64_hexdigest(orjson.dumps([told, history], option=orjson.OPT_SORT_KEYS))}
    return by if history is None else by | {"history": history[0]}


def _noted(ticks: Sequence[Tick]) -> dict[str, Mapping[str, Any]]:
    """Return how far views have told, by name, that had not joined."""
    noted: dict[str, Mapping[str, Any]] = {}
    for tick in ticks:
        if tick.ruleset is not None:
            noted = {}
        elif tick.joining is not None:
            noted |= tick.joining
    return noted


def _begun(
    context: PartitionContext, view: View, noted: Mapping[str, Any] | None, by: Mapping[str, str]
) -> Begun | None:
    if noted is None:
        return None
    if noted["by"] == by["by"]:
        return Begun(noted["rows"], noted["offset"])
    problem = (
        f"partition {context.source}: view {view.name} had begun to tell its history, by another ruleset, other files "
        "of history or from another first record"
    )
    if not context.options.accept_gap:
        raise StateError(
            problem,
            fix="go on with those of before, give the view another name, or tell its history anew with --accept-gap",
        )
    _log.warning("gap accepted", extra={"partition": str(context.source), "reason": problem})
    return None


def _check_joined(
    context: PartitionContext, view: View, joined: Mapping[str, Any] | None, digest: str | None
) -> None:
    """Refuse to repeat how a view joined, of which there is no checkpoint yet, from other files than then."""
    before = None if joined is None else joined.get("history")
    if joined is None or before == digest:
        return
    if before is None:
        raise StateError(
            f"partition {context.source}: view {view.name} joined without files of history, and there is no checkpoint "
            "of it yet",
            fix="leave view_history out",
        )
    raise StateError(
        f"partition {context.source}: view {view.name} joined with files of history (xxh3_128 {before}), and there is "
        "no checkpoint of it yet",
        fix=_FIX_HISTORY,
    )
