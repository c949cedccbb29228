"""Put a report together from files, and compare it with an earlier one."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rfmstream.engine.events.instants import to_text
from rfmstream.engine.insight.report.ahead import ahead
from rfmstream.engine.insight.report.calendar import cohorts, months
from rfmstream.engine.insight.report.customers import bands, distributions, grid, ladder, pareto, tiles
from rfmstream.engine.insight.report.listed import listed
from rfmstream.engine.insight.report.local_time import DAY_US
from rfmstream.engine.insight.report.model import Ladder, Report, Since, TierSince, TierTile
from rfmstream.engine.insight.report.movement import daily, flaps, flows, follow, sizes, transitions
from rfmstream.engine.insight.report.sources import (
    Changes,
    Snapshot,
    read_changes,
    read_snapshot,
    ruleset_of_snapshot,
)
from rfmstream.engine.insight.report.sums import total
from rfmstream.schemas.errors import ConfigError, InputError
from rfmstream.schemas.mapping import InputMap
from rfmstream.schemas.ruleset import Ruleset

if TYPE_CHECKING:
    from rfmstream.engine.insight.report.orders import Orders

FORMAT: Final = 1
SINCE_DAYS: Final = 90
"""How far back the tiers at two instants are compared, unless told."""


@dataclass(frozen=True)
class Question:
    """What a report is asked for.

    Fields  as_of_us    the snapshot's instant; None: as its rows tell it
            since_us, until_us  the two instants that are compared; None: SINCE_DAYS ago, and the snapshot's
            view        where the files hold several
            previous    an earlier report, as JSON
            customers   list so many customers of each tier by their ids; 0: none
    """

    changes: Sequence[Path]
    snapshot: Path
    orders: Sequence[Path] = ()
    input_map: InputMap | None = None
    ruleset: Ruleset | None = None
    as_of_us: int | None = None
    since_us: int | None = None
    until_us: int | None = None
    view: str | None = None
    previous: Path | None = None
    customers: int = 0


def build(question: Question) -> Report:
    """Read the files and count.

    Errors  InputError   a file is not what it should be, or the files do not belong together
            ConfigError  instants that contradict the files, a ruleset or view that has to be named
    """
    snapshot = read_snapshot(
        question.snapshot,
        question.ruleset,
        as_of_us=question.as_of_us,
        view=question.view,
        has_ids=question.customers > 0,
    )
    rules = snapshot.ruleset
    since_us, until_us = _span(question, snapshot.as_of_us)
    before = None if question.previous is None else _read_previous(question.previous, rules)
    changes = read_changes(question.changes, rules, view=question.view)
    if changes.span_us is not None and changes.span_us[1] > snapshot.as_of_us:
        raise InputError(
            f"holds no change after {to_text(snapshot.as_of_us)}, but the changes go on",
            source=question.snapshot,
            fix="name the snapshot of the same run, or give its instant by --as-of",
        )
    orders = _orders(question, snapshot)
    made = assemble(snapshot, changes, (since_us, until_us), orders=orders, before=before)
    return replace(made, listed=listed(snapshot, question.customers)) if question.customers > 0 else made


def assemble(
    snapshot: Snapshot,
    changes: Changes,
    span_us: tuple[int, int],
    *,
    orders: "Orders | None" = None,
    before: Mapping[str, Any] | None = None,
) -> Report:
    """Count.

    In      span_us  the two instants that are compared
            before   an earlier report, as JSON
    Errors  InputError  the changes do not lead to the snapshot
    """
    rules = snapshot.ruleset
    since_us, until_us = span_us
    with ThreadPoolExecutor(1, thread_name_prefix="report") as pool:
        # A second core does about half: it follows each customer's changes, and sorts customers by spend.
        following = pool.submit(follow, changes, snapshot, since_us, until_us)
        sorting = pool.submit(pareto, snapshot)
        by_day = daily(changes, snapshot)
        made = tiles(snapshot)
        ladders = _ladders(snapshot, orders)
        revenue = total(snapshot.lifetime_monetary_minor)
        return Report(
            format=FORMAT,
            ruleset=rules.identity,
            ruleset_title=rules.title,
            fingerprint=rules.fingerprint,
            time_zone=rules.time_zone,
            currency=rules.currency,
            currency_exponent=rules.currency_exponent,
            as_of=to_text(snapshot.as_of_us),
            customers=len(snapshot.tier),
            customers_with_tier=int((snapshot.tier != snapshot.no_tier).sum()),
            orders=total(snapshot.lifetime_orders),
            revenue_minor=revenue,
            recency_cuts_days=rules.recency_cuts_days,
            frequency_cuts=rules.frequency_cuts,
            monetary_cuts_minor=rules.monetary_cuts_minor,
            tiers=made,
            grid=grid(snapshot),
            distributions=distributions(snapshot),
            months=months(snapshot, orders),
            bands=bands(snapshot),
            pareto=sorting.result(),
            ladders=ladders,
            transitions=transitions(following.result(), snapshot, since_us, until_us),
            flows=flows(by_day, snapshot),
            sizes=sizes(by_day, snapshot),
            ahead=ahead(snapshot),
            flaps=flaps(following.result(), snapshot),
            cohorts=cohorts(snapshot, orders),
            since=None if before is None else _since(before, made, len(snapshot.tier), revenue, ladders[0]),
        )


def zone_of_snapshot(path: Path, ruleset: Ruleset | None) -> str:
    """Return the time zone of a snapshot's days.

    Errors  as of `read_snapshot`
    """
    return (ruleset or ruleset_of_snapshot(path)).time_zone


def as_dict(report: Report) -> dict[str, Any]:
    """Return a report as what `--json` prints."""
    return asdict(report)


def _span(question: Question, as_of_us: int) -> tuple[int, int]:
    until_us = as_of_us if question.until_us is None else question.until_us
    since_us = until_us - SINCE_DAYS * DAY_US if question.since_us is None else question.since_us
    if until_us > as_of_us:
        raise ConfigError(f"lies after the snapshot's instant, {to_text(as_of_us)}", key="--until")
    if since_us > until_us:
        raise ConfigError("lies after --until", key="--since", fix="name the earlier instant first")
    return since_us, until_us


def _orders(question: Question, snapshot: Snapshot) -> "Orders | None":
    if not question.orders:
        return None
    from rfmstream.engine.insight.report.orders import read_orders  # noqa: PLC0415 - all readers of orders

    # What the snapshot's rows tell of its instant may lie before a refund of the same day.
    orders = read_orders(
        question.orders, snapshot.ruleset, input_map=question.input_map, until_us=question.as_of_us
    )
    counted = total(snapshot.lifetime_orders)
    if len(orders.day) != counted:
        raise InputError(
            f"{len(orders.day):,} orders that are not void, but the snapshot counts {counted:,}",
            source=question.orders[0],
            fix="name the orders of that replay with its --map, --as-of and --currency, or leave --orders out",
        )
    return orders


def _ladders(snapshot: Snapshot, orders: "Orders | None") -> tuple[Ladder, ...]:
    made = [ladder(snapshot.lifetime_orders, "orders")]
    if orders is not None:
        made.append(ladder(orders.purchase_days(), "purchase days"))
    return tuple(made)


def _read_previous(path: Path, rules: Ruleset) -> Mapping[str, Any]:
    try:
        before = json.loads(path.read_bytes())
        known = before["format"], before["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "cannot be read as a report", source=path, fix="name a .json of rfmstream report"
        ) from error
    if known != (FORMAT, rules.fingerprint):
        raise InputError(
            "is a report by another ruleset or of another version",
            source=path,
            fix="tiers of two rulesets do not compare: leave --previous out, once",
        )
    document: Mapping[str, Any] = before
    return document


def _since(
    before: Mapping[str, Any], made: Sequence[TierTile], customers: int, revenue: int, orders: Ladder
) -> Since:
    then = {tier["id"]: tier for tier in before["tiers"]}
    nothing = {"customers": 0, "revenue_minor": 0}
    now = {tier.id for tier in made}
    rows = [
        TierSince(
            tier.id,
            then.get(tier.id, nothing)["customers"],
            tier.customers,
            then.get(tier.id, nothing)["revenue_minor"],
            tier.revenue_minor,
        )
        for tier in made
    ]
    rows += [
        TierSince(id_, tier["customers"], 0, tier["revenue_minor"], 0)
        for id_, tier in then.items()
        if id_ not in now
    ]
    return Since(
        as_of_before=before["as_of"],
        customers_before=before["customers"],
        customers=customers,
        revenue_minor_before=before["revenue_minor"],
        revenue_minor=revenue,
        repeat_share_before=before["ladders"][0]["repeat_share"],
        repeat_share=orders.repeat_share,
        tiers=tuple(rows),
    )
